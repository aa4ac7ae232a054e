//! `keys migrate`: brings the tables up to date as their owner, gives old rows their place in the chain, and makes
//! the role that the service runs as. Changes nothing when run again.

use std::{
    fs,
    io::{self, Write as _},
    mem,
    time::Duration,
};

use anyhow::Context as _;
use secrecy::SecretString;
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use crate::{
    config::{Config, Migrate},
    ledger,
    signing::Signing,
    store::{self, Store, StoreError},
};

/// How long to wait for a Postgres that is just starting.
const POSTGRES_TIMEOUT: Duration = Duration::from_secs(60);
const POSTGRES_PAUSE: Duration = Duration::from_millis(200);

/// For how long tables that others use are asked for.
const TABLES_TIMEOUT: Duration = Duration::from_secs(300);
/// Between two attempts, in which others come to them.
const TABLES_PAUSE: Duration = Duration::from_secs(1);

/// Does all of it. A table that somebody reads for long is asked for again and again, a second at a time: who only reads
/// or writes rows never waits longer for it.
///
/// # Errors
/// If Postgres stays away or refuses, or old rows need a key-encryption key that is not given.
pub async fn run(config: &Config, asked: &Migrate) -> anyhow::Result<()> {
    let deadline = Instant::now() + TABLES_TIMEOUT;
    let mut is_said = false;
    loop {
        match attempt(config, asked).await {
            Err(error) if is_locked(&error) && Instant::now() < deadline => {
                if !mem::replace(&mut is_said, true) {
                    // Nobody may be there to read it.
                    let _ = writeln!(io::stderr(), "a table is in use: trying again for {TABLES_TIMEOUT:?}");
                }
                sleep(TABLES_PAUSE).await;
            }
            done => return done,
        }
    }
}

fn is_locked(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(StoreError::is_locked)
}

/// Connections of its own, so that none is left with a lock.
async fn attempt(config: &Config, asked: &Migrate) -> anyhow::Result<()> {
    let owner_url = config.owner_database_url.as_ref().unwrap_or(&config.database_url);
    let (owner, service) = (store::role_of(owner_url)?, store::role_of(&config.database_url)?);
    let store = Store::changing(owner_url, config.identity.identity()?.as_ref())?;
    answering(&store).await?;
    if store.migrate_to_ledger().await? && store.has_unchained().await? {
        let kek = config.kek().context("rows from before there was a chain must be signed and sealed")?;
        Signing::open(&store, &kek).await?;
        ledger::backfill(&store).await?;
    }
    store.migrate().await?;
    let other = (service != owner).then_some(&service);
    if let Some(role) = asked.service_role.as_ref().or(other) {
        store.grant(role, asked.service_password()?.as_ref()).await?;
    }
    store.close().await;
    Ok(())
}

/// Waits for a Postgres that is just starting.
///
/// # Errors
/// If it does not come, or refuses.
pub async fn answering(store: &Store) -> anyhow::Result<()> {
    let deadline = Instant::now() + POSTGRES_TIMEOUT;
    loop {
        match store.ping().await {
            Err(error) if error.is_passing() && Instant::now() < deadline => sleep(POSTGRES_PAUSE).await,
            other => return Ok(other?),
        }
    }
}

impl Migrate {
    fn service_password(&self) -> anyhow::Result<Option<SecretString>> {
        let Some(path) = &self.service_password_file else { return Ok(None) };
        let text = fs::read_to_string(path)
            .map(Zeroizing::new)
            .with_context(|| format!("--service-password-file: {} can not be read", path.display()))?;
        Ok(Some(text.trim_end_matches(['\r', '\n']).into()))
    }
}
