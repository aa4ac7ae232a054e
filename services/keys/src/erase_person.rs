//! `keys erase-person`: destroys what tells who somebody was. Records keep their places and the person's id; what
//! was sealed under the person's key opens for nobody.

use std::io::{self, Write as _};

use anyhow::Context as _;
use domain::AccountId;
use time::OffsetDateTime;

use crate::{
    caller::Caller,
    config::{Config, ErasePerson},
    fields,
    signing::Signing,
    store::{Store, StoreError},
};

const ACTOR: &str = "erase-person";

/// What was erased.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Erased {
    /// Stays in records.
    pub account_id: String,
    /// Where the person was a member.
    pub workspaces: Vec<String>,
    /// Those of them in which nobody is left.
    pub deserted: Vec<String>,
}

/// Runs the command and prints what was erased.
///
/// # Errors
/// No such account; Postgres; the key-encryption key, since the erasure is recorded.
pub async fn command(config: &Config, asked: &ErasePerson) -> anyhow::Result<()> {
    let store = config.store()?;
    store.check_version().await?;
    Signing::open(&store, &config.kek()?).await?;
    let email = fields::email("e-mail", &asked.email).map_err(|error| anyhow::anyhow!("--email: {error}"))?;
    let (account_id, _) = store.account(&email).await?.context("--email: no account has this address")?;
    let erased = erase(&store, account_id, fields::to_micros(OffsetDateTime::now_utc())).await?;
    store.close().await;
    Ok(writeln!(io::stdout(), "{}", serde_json::to_string(&erased)?)?)
}

/// Erases a person, with an entry in each of their workspaces.
///
/// # Errors
/// Postgres.
pub async fn erase(store: &Store, account_id: AccountId, now: OffsetDateTime) -> Result<Erased, StoreError> {
    let caller = Caller { actor: ACTOR.to_owned(), address: None };
    let mut tx = store.begin().await?;
    let memberships = tx.hold_memberships(account_id).await?;
    tx.erase_account(account_id, now).await?;
    for (workspace_id, _) in &memberships {
        tx.audit(*workspace_id, "erase_person", &format!("accounts/{account_id}"), &caller, now).await?;
    }
    tx.commit().await?;
    let deserted = memberships.iter().filter(|(_, alone)| *alone);
    Ok(Erased {
        account_id: account_id.to_string(),
        deserted: deserted.map(|(id, _)| id.to_string()).collect(),
        workspaces: memberships.iter().map(|(id, _)| id.to_string()).collect(),
    })
}
