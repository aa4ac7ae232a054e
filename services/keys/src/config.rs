//! Settings and commands. Read once; secrets among them do not print.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use nats_cluster::Servers;
use secrecy::{ExposeSecret as _, SecretString};

use crate::{
    leaks::Reporters,
    oidc,
    seal::{Kek, Keyring},
    store::Store,
};

/// Start of the names of all settings in the environment.
pub const PREFIX: &str = "KEYMETER_KEYS_";

/// For how many days an edge's token is good, unless something else is asked for.
pub const EDGE_TOKEN_DAYS: u16 = 365;

/// Owns workspaces, accounts, sessions and keys, and feeds keys to every edge.
#[derive(Debug, Parser)]
#[command(name = "keys", version)]
pub struct Config {
    /// Where gRPC is served
    #[arg(long, env = "KEYMETER_KEYS_GRPC_ADDR", default_value = "127.0.0.1:50051")]
    pub grpc_addr: SocketAddr,
    /// Where /healthz, /readyz and /metrics are served
    #[arg(long, env = "KEYMETER_KEYS_HEALTH_ADDR", default_value = "127.0.0.1:9101")]
    pub health_addr: SocketAddr,
    /// Postgres, postgres://user@host/database, as a role that does not own the tables
    // Empty if it is not given, which is refused where it is used: `check-secret` needs none.
    #[arg(
        long,
        env = "KEYMETER_KEYS_DATABASE_URL",
        hide_env_values = true,
        default_value = "",
        hide_default_value = true
    )]
    pub database_url: SecretString,
    /// The same Postgres as the role that owns the tables, for `migrate`; the database URL if not given
    #[arg(long, env = "KEYMETER_KEYS_OWNER_DATABASE_URL", hide_env_values = true)]
    pub owner_database_url: Option<SecretString>,
    /// NATS: a server, or several of one cluster with commas between them
    #[arg(
        long,
        env = "KEYMETER_KEYS_NATS_URL",
        hide_env_values = true,
        default_value = "nats://127.0.0.1:4222",
        value_parser = Servers::parse
    )]
    pub nats_url: Servers,
    /// Who this process is to its callers, Postgres and NATS
    #[command(flatten)]
    pub identity: tls::Settings,
    /// How many servers of NATS hold each of keys' streams and buckets: 1, 3 or 5; those that are there are changed with
    /// the next start
    #[arg(long, env = "KEYMETER_KEYS_NATS_REPLICAS", default_value = "1", value_parser = nats_cluster::replicas)]
    pub nats_replicas: usize,
    /// File with the key-encryption keys, one a line, the current one first: 64 hexadecimal characters
    /// (`openssl rand -hex 32`), or an id, a colon and these; keep it apart from backups of Postgres
    #[arg(long, env = "KEYMETER_KEYS_KEK_FILE", conflicts_with = "kek")]
    pub kek_file: Option<PathBuf>,
    /// What the file would hold; better in the environment, since others can read arguments
    #[arg(long, env = "KEYMETER_KEYS_KEK", hide_env_values = true)]
    pub kek: Option<SecretString>,
    /// Where reports of leaked secrets are taken over HTTP, POST /leak-reports; nowhere if it is not given
    #[arg(long, env = "KEYMETER_KEYS_LEAK_REPORTS_ADDR", requires = "leak_reports_keys_file")]
    pub leak_reports_addr: Option<SocketAddr>,
    /// File with the public keys of those who may report, JSON as GitHub publishes them
    #[arg(long, env = "KEYMETER_KEYS_LEAK_REPORTS_KEYS_FILE", requires = "leak_reports_addr")]
    pub leak_reports_keys_file: Option<PathBuf>,
    /// OpenID Connect provider that people may sign in at beside their passwords: its issuer, as it writes it
    #[arg(
        long,
        env = "KEYMETER_KEYS_OIDC_ISSUER",
        requires_all = ["oidc_client_id", "oidc_client_secret_file"]
    )]
    pub oidc_issuer: Option<String>,
    /// Our client id there; the client's redirect URI is the UI's public URL and /sign-in/oidc/callback
    #[arg(long, env = "KEYMETER_KEYS_OIDC_CLIENT_ID", requires = "oidc_issuer")]
    pub oidc_client_id: Option<String>,
    /// File with our client secret there; line breaks at its end do not count
    #[arg(long, env = "KEYMETER_KEYS_OIDC_CLIENT_SECRET_FILE", requires = "oidc_issuer")]
    pub oidc_client_secret_file: Option<PathBuf>,
    /// The provider's name on the button that leads to it
    #[arg(long, env = "KEYMETER_KEYS_OIDC_NAME", default_value = "OpenID Connect")]
    pub oidc_name: String,
    /// What to do; serve if nothing is given
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Clone, Default, Subcommand)]
pub enum Command {
    /// Serve until SIGTERM
    #[default]
    Serve,
    /// Bring the tables of Postgres up to date, with the role that the service runs as, and end
    Migrate(Migrate),
    /// Print the public keys that edges check the key feed with (their --feed-keys-file), and end
    FeedKeys,
    /// Print a token that edges follow the key feed with over gRPC (their --keys-token-file), and end
    EdgeToken(EdgeToken),
    /// Tell of each line of standard input whether it is a secret, as JSON, and end; 1 if any is none
    CheckSecret,
    /// Make a first account, workspace and service token where they are missing, print them as JSON, and end
    Bootstrap(Bootstrap),
    /// Check every entry of every workspace's chain, print what is wrong, and end; 1 if anything is
    VerifyChain(VerifyChain),
    /// Print the signed end of every workspace's chain, a line of JSON each, to be kept elsewhere
    ExportHeads,
    /// Make the keys anew from their events, print how they differ from what is there, and end; 1 if they do
    Rebuild,
    /// Wrap all that is wrapped under older key-encryption keys under the current one; the service may run
    Rewrap,
    /// Make a new signing key, because the key-encryption key is lost or to be safe; then restart the service
    ResetSigningKey,
    /// Erase a person: their account, sessions, memberships and what records tell of them
    ErasePerson(ErasePerson),
}

/// Settings of `migrate`.
#[derive(Debug, Clone, Args)]
pub struct Migrate {
    /// The role that the service runs as, made if it is missing; the database URL's, if that is not the owner's
    #[arg(long, env = "KEYMETER_KEYS_SERVICE_ROLE")]
    pub service_role: Option<String>,
    /// File with that role's password; line breaks at its end do not count
    #[arg(long, env = "KEYMETER_KEYS_SERVICE_PASSWORD_FILE")]
    pub service_password_file: Option<PathBuf>,
}

/// Settings of `edge-token`.
#[derive(Debug, Clone, Args)]
pub struct EdgeToken {
    /// For how many days it is good
    #[arg(long, default_value_t = EDGE_TOKEN_DAYS, value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub days: u16,
}

/// Settings of `verify-chain`.
#[derive(Debug, Clone, Args)]
pub struct VerifyChain {
    /// What `export-heads` printed, once or more often: no chain may have lost what it says
    #[arg(long)]
    pub heads: Option<PathBuf>,
}

/// Settings of `erase-person`.
#[derive(Debug, Clone, Args)]
pub struct ErasePerson {
    /// E-mail address of the account
    #[arg(long)]
    pub email: String,
}

/// Settings of `bootstrap`.
#[derive(Debug, Clone, Args)]
pub struct Bootstrap {
    /// E-mail address of the administrator; an account that is there keeps its password
    #[arg(long, env = "KEYMETER_KEYS_EMAIL")]
    pub email: String,
    /// File with the administrator's password; line breaks at its end do not count
    #[arg(long, env = "KEYMETER_KEYS_PASSWORD_FILE")]
    pub password_file: PathBuf,
    /// Name of the administrator's workspace
    #[arg(long, env = "KEYMETER_KEYS_WORKSPACE_NAME")]
    pub workspace_name: String,
    /// File for the workspace's service token; made with mode 600 if it is not there
    #[arg(long, env = "KEYMETER_KEYS_SERVICE_TOKEN_FILE")]
    pub service_token_file: PathBuf,
    /// File for what `feed-keys` prints; written anew
    #[arg(long, env = "KEYMETER_KEYS_FEED_KEYS_FILE")]
    pub feed_keys_file: Option<PathBuf>,
    /// File for what `edge-token` prints, good for a year; written anew with mode 600
    #[arg(long, env = "KEYMETER_KEYS_EDGE_TOKEN_FILE")]
    pub edge_token_file: Option<PathBuf>,
}

impl Config {
    /// Postgres as the service's role.
    ///
    /// # Errors
    /// If the URL is none, or the identity cannot be used.
    pub fn store(&self) -> anyhow::Result<Store> {
        Store::new(&self.database_url, self.identity.identity()?.as_ref())
    }

    /// Where leaks are reported, and by whom; `None` if nowhere.
    ///
    /// # Errors
    /// If the file does not hold public keys.
    pub fn leak_reports(&self) -> anyhow::Result<Option<(SocketAddr, Reporters)>> {
        let Some((address, file)) = self.leak_reports_addr.zip(self.leak_reports_keys_file.as_deref()) else {
            return Ok(None);
        };
        Ok(Some((address, Reporters::read(file)?)))
    }

    /// The OpenID Connect provider; `None` if there is none.
    ///
    /// # Errors
    /// If a setting is wrong, or the file holds no secret.
    pub fn provider(&self) -> anyhow::Result<Option<oidc::Settings>> {
        let (Some(issuer), Some(client_id), Some(file)) =
            (&self.oidc_issuer, &self.oidc_client_id, &self.oidc_client_secret_file)
        else {
            return Ok(None);
        };
        oidc::Settings::read(issuer, client_id, file, &self.oidc_name).map(Some)
    }

    /// The key-encryption keys.
    ///
    /// # Errors
    /// If none are given, or they are none.
    pub fn kek(&self) -> anyhow::Result<Kek> {
        if let Some(kek) = &self.kek {
            return Ok(Kek::new(Keyring::parse(kek.expose_secret(), "KEYMETER_KEYS_KEK")?));
        }
        let path = self.kek_file.as_deref().context(
            "no key-encryption key: name its file with --kek-file or KEYMETER_KEYS_KEK_FILE, or give it in \
             KEYMETER_KEYS_KEK; make one with `openssl rand -hex 32`",
        )?;
        Kek::read(path)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn serve_is_the_default_and_secrets_do_not_print() {
        Config::command().debug_assert();
        let url = "postgres://ada:hunter2@localhost/keys";
        let config = Config::try_parse_from(["keys", "--database-url", url]).unwrap();
        assert!(matches!(config.command.clone().unwrap_or_default(), Command::Serve));
        assert!(!format!("{config:?}").contains("hunter2"));
        assert!(config.kek().unwrap_err().to_string().contains("KEYMETER_KEYS_KEK_FILE"));

        let with = |kek: &str| Config::try_parse_from(["keys", "--database-url", url, "--kek", kek]).unwrap();
        let hex = "5a".repeat(32);
        assert_eq!(with(&format!("one:{hex}")).kek().unwrap().current(), "one");
        assert!(!format!("{:?}", with(&hex)).contains(&hex));
        let said = with("5a5a").kek().unwrap_err().to_string();
        assert!(said.contains("KEYMETER_KEYS_KEK must hold") && !said.contains("5a5a"), "{said}");
        let both = ["keys", "--database-url", url, "--kek", &hex, "--kek-file", "/kek"];
        assert!(Config::try_parse_from(both).is_err());
    }

    #[test]
    fn a_provider_is_given_whole_or_not_at_all() {
        let parts =
            ["--oidc-issuer=https://id.example.com", "--oidc-client-id=k", "--oidc-client-secret-file=/none"];
        let parse = |given: &[&str]| Config::try_parse_from(["keys"].iter().chain(given));
        assert!(parse(&[]).unwrap().provider().unwrap().is_none());
        for at in 0..3 {
            assert!(parse(&[parts[at]]).is_err(), "{} alone", parts[at]);
            assert!(parse(&[parts[at], parts[(at + 1) % 3]]).is_err());
        }
        let said = parse(&parts).unwrap().provider().unwrap_err().to_string();
        assert!(said.contains("--oidc-client-secret-file"), "{said}");
    }
}
