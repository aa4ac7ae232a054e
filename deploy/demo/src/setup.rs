//! Makes the demonstration's keys over gRPC, those that are not there yet. Run again, it changes nothing.

use std::path::PathBuf;

use anyhow::Context as _;
use http::Uri;
use proto::keys::{
    CreateKeyRequest, ExchangeTokenRequest, Key, keys_service_client::KeysServiceClient,
    sessions_service_client::SessionsServiceClient,
};
use tonic::{Request, metadata::MetadataValue, transport::Channel};

use crate::{
    callers::{CALLERS, Caller, YOURS},
    keyring::{self, HeldKey},
};

/// Settings of the making of keys.
#[derive(Debug, clap::Args)]
pub struct Config {
    /// Where the keys service is.
    #[arg(long, env = "KEYMETER_DEMO_KEYS_URL", default_value = "http://127.0.0.1:50051")]
    keys_url: Uri,
    /// File with a service token of the workspace.
    #[arg(long, env = "KEYMETER_DEMO_SERVICE_TOKEN_FILE")]
    service_token_file: PathBuf,
    /// File that the keys and their secrets are kept in.
    #[arg(long, env = "KEYMETER_DEMO_KEYS_FILE")]
    keys_file: PathBuf,
    /// Make the first key only, not those of the demonstration's callers.
    #[arg(long)]
    first_only: bool,
    #[command(flatten)]
    identity: tls::Settings,
}

/// Makes the missing keys and prints the id and the secret of the first one, in a line.
///
/// # Errors
/// If the keys service is away or refuses.
#[expect(clippy::print_stdout, reason = "its output is for a script")]
pub async fn run(config: Config) -> anyhow::Result<()> {
    let mut held = keyring::read(&config.keys_file)?;
    let callers = if config.first_only { &[] } else { CALLERS };
    let wanted = || std::iter::once(&YOURS).chain(callers);
    let is_held =
        |held: &[HeldKey], caller: &Caller| held.iter().any(|key| key.display_name == caller.display_name);
    if wanted().any(|caller| !is_held(&held, caller)) {
        let mut maker = Maker::connect(&config).await?;
        for caller in wanted() {
            if !is_held(&held, caller) {
                held.push(maker.make(caller).await?);
                keyring::write(&config.keys_file, &held)?;
            }
        }
    }
    let first = held.iter().find(|key| key.display_name == YOURS.display_name).context("it was just made")?;
    println!("{} {}", first.key_id, first.secret);
    Ok(())
}

/// A connection with an access token.
struct Maker {
    keys: KeysServiceClient<Channel>,
    authorization: MetadataValue<tonic::metadata::Ascii>,
    workspace: String,
}

impl Maker {
    async fn connect(config: &Config) -> anyhow::Result<Self> {
        let identity = config.identity.identity()?;
        let channel =
            tls::channel("KEYMETER_DEMO_KEYS_URL", &config.keys_url, identity.as_ref(), |endpoint| endpoint)?;
        let service_token = std::fs::read_to_string(&config.service_token_file)
            .with_context(|| format!("cannot read {}", config.service_token_file.display()))?;
        let request = ExchangeTokenRequest { service_token: service_token.trim().to_owned() };
        let answer = SessionsServiceClient::new(channel.clone()).exchange_token(request).await;
        let answer = answer.with_context(|| format!("no keys service at {}", config.keys_url))?.into_inner();
        let token = answer.access_token.context("an exchange answers with a token")?.token;
        Ok(Self {
            keys: KeysServiceClient::new(channel),
            authorization: format!("Bearer {token}").parse()?,
            workspace: answer.workspace,
        })
    }

    async fn make(&mut self, caller: &Caller) -> anyhow::Result<HeldKey> {
        let key = Key {
            display_name: caller.display_name.to_owned(),
            description: caller.description.to_owned(),
            environment: caller.environment.into(),
            ..Key::default()
        };
        let mut request = Request::new(CreateKeyRequest {
            parent: self.workspace.clone(),
            key: Some(key),
            // If this stops before the secret is kept, the next run gets the same key.
            idempotency_key: format!("demo: {}", caller.display_name),
        });
        request.metadata_mut().insert("authorization", self.authorization.clone());
        let answer = self.keys.create_key(request).await?.into_inner();
        let name = answer.key.context("a new key is told")?.name;
        let (_, key_id) = proto::resource::parse_key_name(&name)?;
        Ok(HeldKey {
            display_name: caller.display_name.to_owned(),
            key_id: key_id.to_string(),
            secret: answer.secret,
        })
    }
}
