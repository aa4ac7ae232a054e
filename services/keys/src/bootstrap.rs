//! `keys bootstrap`: a first account, workspace and service token. Makes what is missing and changes nothing
//! that is there, so it can be run at every start.

use std::{fs, io, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path};

use anyhow::{Context as _, ensure};
use domain::{AccountId, ServiceTokenId, WorkspaceId};
use secrecy::{ExposeSecret as _, SecretString};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::{
    caller::Caller,
    config::{Bootstrap, Config, EDGE_TOKEN_DAYS},
    error::Error,
    fields, migrate, password,
    seal::{Kek, KekError},
    signing::Signing,
    store::{Store, StoreError, Tx, service_tokens::ServiceToken},
    token, workspaces,
};

const ACTOR: &str = "bootstrap";

/// What was made or found.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Done {
    /// `ws_…`
    pub workspace_id: String,
    /// In lower case.
    pub email: String,
}

/// Runs the command: makes what is missing and prints what is there.
///
/// # Errors
/// As [`run`].
pub async fn command(config: &Config, asked: &Bootstrap) -> anyhow::Result<()> {
    let store = config.store()?;
    let done = run(&store, &config.kek()?, asked).await?;
    store.close().await;
    Ok(writeln!(io::stdout(), "{}", serde_json::to_string(&done)?)?)
}

/// Makes what is missing.
///
/// # Errors
/// A bad argument, named with its remedy; tables that are not up to date; another key-encryption key than before;
/// Postgres.
pub async fn run(store: &Store, kek: &Kek, asked: &Bootstrap) -> anyhow::Result<Done> {
    let named = |flag: &'static str| move |error: Error| anyhow::anyhow!("{flag}: {error}");
    let email = fields::email("e-mail", &asked.email).map_err(named("--email"))?;
    let display_name =
        fields::display_name("name", &asked.workspace_name).map_err(named("--workspace-name"))?;
    let password = read_password(&asked.password_file)?;
    migrate::answering(store).await?;
    store.check_version().await?;
    let signing = Signing::open(store, kek).await?;

    let now = fields::to_micros(OffsetDateTime::now_utc());
    let caller = Caller { actor: ACTOR.to_owned(), address: None };
    let mut tx = store.begin().await?;
    tx.lock(ACTOR).await?;
    let account_id = match tx.account_id(&email).await? {
        Some(account_id) => account_id,
        None => add_account(&mut tx, &email, password, now).await?,
    };
    let workspace_id = match tx.workspace_named(account_id, &display_name).await? {
        Some(workspace_id) => workspace_id,
        None => workspaces::make(&mut tx, kek, display_name, account_id, &caller, now).await?.workspace_id,
    };
    let service_token = read_or_make_token(&asked.service_token_file)?;
    add_service_token(&mut tx, &service_token, workspace_id, now)
        .await
        .with_context(|| format!("the service token in {}", asked.service_token_file.display()))?;
    tx.commit().await?;
    write_for_edges(&signing, asked)?;
    Ok(Done { workspace_id: workspace_id.to_string(), email })
}

/// What an edge needs of us, where it is asked for. Anew at each run, since keys and tokens pass.
fn write_for_edges(signing: &Signing, asked: &Bootstrap) -> anyhow::Result<()> {
    for (flag, path, text) in [
        ("--feed-keys-file", &asked.feed_keys_file, signing.feed_keys()),
        ("--edge-token-file", &asked.edge_token_file, signing.edge_token(EDGE_TOKEN_DAYS)),
    ] {
        if let Some(path) = path {
            write_private(path, &text)
                .with_context(|| format!("{flag}: {} can not be written", path.display()))?;
        }
    }
    Ok(())
}

/// Whether another try may help.
pub(crate) fn is_away(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| match (cause.downcast_ref(), cause.downcast_ref()) {
        (Some(error), _) => StoreError::is_passing(error),
        (_, Some(KekError::Away(_))) => true,
        _ => false,
    })
}

async fn add_account(
    tx: &mut Tx,
    email: &str,
    password: SecretString,
    now: OffsetDateTime,
) -> anyhow::Result<AccountId> {
    let account_id = AccountId::generate();
    let hash = tokio::task::spawn_blocking(move || password::hash(&password)).await?;
    tx.add_account(account_id, email, Some(&hash), now).await?;
    Ok(account_id)
}

/// Registers the token of the file; a file may outlive the database that its token was made for.
async fn add_service_token(
    tx: &mut Tx,
    service_token: &SecretString,
    workspace_id: WorkspaceId,
    now: OffsetDateTime,
) -> anyhow::Result<()> {
    let token_hash = token::hash(service_token.expose_secret());
    if let Some(known) = tx.service_token(&token_hash).await? {
        ensure!(known.workspace_id == workspace_id, "is of another workspace; name another file");
        ensure!(known.is_live(now), "has expired or was revoked; remove the file for a new one");
        return Ok(());
    }
    let new = ServiceToken {
        service_token_id: ServiceTokenId::generate(),
        workspace_id,
        display_name: ACTOR.to_owned(),
        scopes: vec![],
        start: token::start(service_token),
        create_time: now,
        expire_time: None,
        revoke_time: None,
        last_used_day: None,
    };
    tx.add_service_token(&new, &token_hash).await?;
    Ok(())
}

fn read_password(path: &Path) -> anyhow::Result<SecretString> {
    let shown = path.display();
    let text = fs::read_to_string(path)
        .map(Zeroizing::new)
        .with_context(|| format!("--password-file: {shown} can not be read"))?;
    let password = SecretString::from(text.trim_end_matches(['\r', '\n']));
    password::check_new("the password", &password).with_context(|| format!("--password-file: {shown}"))?;
    Ok(password)
}

fn read_or_make_token(path: &Path) -> anyhow::Result<SecretString> {
    let shown = path.display();
    match fs::read_to_string(path).map(Zeroizing::new) {
        Ok(text) => {
            let found = text.trim_end();
            let good = token::is_well_formed(token::SERVICE, found);
            ensure!(
                good,
                "--service-token-file: {shown} holds something else than a service token; remove it"
            );
            Ok(found.into())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let made = token::generate(token::SERVICE);
            write_private(path, made.expose_secret())
                .with_context(|| format!("--service-token-file: {shown} can not be written"))?;
            Ok(made)
        }
        Err(error) => Err(error).with_context(|| format!("--service-token-file: {shown} can not be read")),
    }
}

/// All of it or nothing, readable by the owner only.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(&beside)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.and_then(|()| fs::rename(&beside, path)).inspect_err(|_| {
        let _ = fs::remove_file(&beside);
    })
}
