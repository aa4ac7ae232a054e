//! Everything that is said to Postgres; this folder alone names its driver. Reads are methods of [`Store`],
//! writes are methods of [`Tx`], which holds until it is committed.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{
    Error as E, PgPool, Postgres, Transaction,
    postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
};

use tls::Identity;

use crate::{ledger::Ledger, seal::KekError};

pub mod accounts;
pub mod activity;
pub mod announced;
pub mod audit;
pub mod copies;
pub mod erasures;
pub mod exports;
pub mod feed;
pub mod idempotency;
pub mod identities;
pub mod invitations;
pub mod keys;
pub mod leaks;
pub mod ledger;
pub mod listing;
pub mod members;
pub mod migrations;
pub mod outbox;
pub mod owners;
pub mod person_keys;
pub mod prune;
pub mod rebuild;
pub mod retentions;
pub mod rewrap;
pub mod roles;
pub mod secrets;
pub mod service_tokens;
pub mod sessions;
pub mod sign_in_attempts;
pub mod signing_keys;
pub mod trail;
pub mod watch;
pub mod workspaces;

const CONNECTIONS_MAX: u32 = 16;
/// Longest wait for a connection: after it a caller hears that Postgres is away.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest time for one statement, as Postgres reads it.
const STATEMENT_TIMEOUT: &str = "10s";
/// Longest wait for another transaction's row.
const LOCK_TIMEOUT: &str = "5s";
/// Longest wait for a table that others use: whoever comes after waits behind this.
const TABLE_LOCK_TIMEOUT: &str = "1s";

/// Postgres, reached when it is first needed. Clones share the connections.
#[derive(Clone)]
pub struct Store {
    pool: PgPool,
    /// Set once the signing key was opened; without it nothing can be recorded.
    ledger: Arc<OnceLock<Ledger>>,
}

/// A transaction; undone unless it is committed.
pub struct Tx {
    inner: Transaction<'static, Postgres>,
    ledger: Arc<OnceLock<Ledger>>,
    /// What is recorded at the commit.
    pending: Vec<ledger::Pending>,
}

/// Why Postgres gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It can not be reached, is stopping, or has no room: worth another try.
    #[error("Postgres is away")]
    Away(#[source] E),
    /// It refused.
    #[error("Postgres refused a statement")]
    Refused(#[source] E),
    /// A row does not hold what we write.
    #[error("Postgres holds a damaged {0}")]
    Damaged(&'static str),
    /// The tables are older than this program.
    #[error("the tables are older than this program: run `keys migrate`")]
    NotMigrated,
    /// Something was to be recorded before the signing key was opened.
    #[error("nothing can be recorded before the signing key is open")]
    LedgerClosed,
    /// A key of a person could not be had.
    #[error(transparent)]
    Kek(#[from] KekError),
}

impl StoreError {
    /// Whether another try may help.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::Away(_) | Self::Kek(KekError::Away(_)))
    }

    /// Whether another transaction has what was asked for, and did not give it in time.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        matches!(self, Self::Away(E::Database(error)) if error.code().is_some_and(|code| code == "55P03"))
    }
}

impl From<E> for StoreError {
    fn from(error: E) -> Self {
        // Connection lost (08), out of room (53), cancelled or stopping (57), deadlock or conflict (40), lock
        // not had in time (55).
        let passing = |code: &str| ["08", "40", "53", "55", "57"].iter().any(|class| code.starts_with(class));
        match &error {
            E::Io(_) | E::Tls(_) | E::Protocol(_) | E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed => {
                Self::Away(error)
            }
            E::Database(database) if database.code().is_some_and(|code| passing(&code)) => Self::Away(error),
            _ => Self::Refused(error),
        }
    }
}

impl Store {
    /// The Postgres at a `postgres://` URL. Connects to nothing yet.
    ///
    /// # Errors
    /// If the URL is none.
    pub fn new(database_url: &SecretString, identity: Option<&Identity>) -> anyhow::Result<Self> {
        Self::connecting(database_url, identity, STATEMENT_TIMEOUT, LOCK_TIMEOUT)
    }

    /// As [`Self::new`], for a command that may take long over one statement.
    ///
    /// # Errors
    /// If the URL is none.
    pub fn patient(database_url: &SecretString, identity: Option<&Identity>) -> anyhow::Result<Self> {
        Self::connecting(database_url, identity, "0", LOCK_TIMEOUT)
    }

    /// As [`Self::patient`], for who changes tables that others use: it gives up a table that it does not get within a
    /// second.
    ///
    /// # Errors
    /// If the URL is none.
    pub fn changing(database_url: &SecretString, identity: Option<&Identity>) -> anyhow::Result<Self> {
        Self::connecting(database_url, identity, "0", TABLE_LOCK_TIMEOUT)
    }

    fn connecting(
        database_url: &SecretString,
        identity: Option<&Identity>,
        statement_timeout: &str,
        lock_timeout: &str,
    ) -> anyhow::Result<Self> {
        let options = secured(options(database_url)?, database_url, identity)
            .application_name("keymeter-keys")
            .options([("statement_timeout", statement_timeout), ("lock_timeout", lock_timeout)]);
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_lazy_with(options);
        Ok(Self { pool, ledger: Arc::default() })
    }

    /// Whether Postgres answers.
    ///
    /// # Errors
    /// If it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("select 1").execute(&self.pool).await?;
        Ok(())
    }

    /// Starts a transaction.
    ///
    /// # Errors
    /// If Postgres is away.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        let ledger = Arc::clone(&self.ledger);
        Ok(Tx { inner: self.pool.begin().await?, ledger, pending: vec![] })
    }

    pub(crate) fn ledger(&self) -> Result<&Ledger, StoreError> {
        self.ledger.get().ok_or(StoreError::LedgerClosed)
    }

    /// Gives what entries are signed and sealed with; the first one stays.
    pub fn open_ledger(&self, ledger: Ledger) {
        self.ledger.get_or_init(|| ledger);
    }

    /// Closes all connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// The role that a URL connects as.
///
/// # Errors
/// If the URL is none.
pub fn role_of(database_url: &SecretString) -> anyhow::Result<String> {
    Ok(options(database_url)?.get_username().to_owned())
}

fn options(database_url: &SecretString) -> anyhow::Result<PgConnectOptions> {
    let url = database_url.expose_secret();
    // The driver takes any scheme, and its own message may hold the password.
    let is_postgres = url.starts_with("postgres://") || url.starts_with("postgresql://");
    let options: Option<PgConnectOptions> = is_postgres.then(|| url.parse().ok()).flatten();
    options.context(
        "the database URL (--database-url, KEYMETER_KEYS_DATABASE_URL, --owner-database-url) must be of the form \
         postgres://user@host/database",
    )
}

/// Shows the identity, and takes only a server that it believes; unless the URL says itself how much TLS there is.
fn secured(
    options: PgConnectOptions,
    database_url: &SecretString,
    identity: Option<&Identity>,
) -> PgConnectOptions {
    match identity {
        Some(identity) if !database_url.expose_secret().contains("sslmode=") => options
            .ssl_mode(PgSslMode::VerifyFull)
            .ssl_root_cert(&identity.ca)
            .ssl_client_cert(&identity.files.cert)
            .ssl_client_key(&identity.files.key),
        _ => options,
    }
}

impl Tx {
    /// Records what is to be recorded, and makes what was written last.
    ///
    /// # Errors
    /// If Postgres could not; what was written may or may not last if it went away meanwhile.
    pub async fn commit(mut self) -> Result<(), StoreError> {
        self.append().await?;
        Ok(self.inner.commit().await?)
    }

    /// Waits until no other transaction holds the lock of this name, and holds it until the end.
    ///
    /// # Errors
    /// If it is not had in time.
    pub async fn lock(&mut self, name: &str) -> Result<(), StoreError> {
        sqlx::query("select pg_advisory_xact_lock(hashtextextended($1, 0))")
            .bind(name)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }
}
