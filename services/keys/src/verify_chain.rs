//! `keys verify-chain` and `keys export-heads`: goes along every workspace's chain and names what is not as it was
//! recorded. Holds a page of entries at a time, and changes nothing.

use std::{
    collections::HashMap,
    fs,
    io::{self, Write as _},
    path::Path,
};

use anyhow::{Context as _, ensure};
use domain::WorkspaceId;

use crate::{
    config::{Config, VerifyChain},
    ledger::{Checker, Finding, Head, SignedHead},
    store::{Store, StoreError},
};

const PAGE: usize = 1_000;
/// Entries between two words on how far it is.
const PROGRESS_EVERY: u64 = 50_000;

/// Heads that were kept elsewhere, by their chain.
pub type Exported = HashMap<WorkspaceId, Vec<Head>>;

/// Runs `verify-chain`; an error if anything is wrong.
///
/// # Errors
/// Postgres; a file of heads that can not be read; any finding.
pub async fn run(config: &Config, asked: &VerifyChain) -> anyhow::Result<()> {
    let store = Store::patient(&config.database_url, config.identity.identity()?.as_ref())?;
    store.check_version().await?;
    let exported = asked.heads.as_deref().map(read_heads).transpose()?.unwrap_or_default();
    let mut found = 0_usize;
    let (chains, entries) = verify(&store, exported, &mut |finding| {
        found += 1;
        // A closed pipe does not end the count.
        let _ = writeln!(io::stdout(), "{finding}");
    })
    .await?;
    store.close().await;
    writeln!(io::stdout(), "{entries} entries of {chains} workspaces checked, {found} findings")?;
    ensure!(found == 0, "the chain is not whole");
    Ok(())
}

/// Checks every chain and tells what is wrong; says how many chains and entries there are.
///
/// # Errors
/// Postgres.
pub async fn verify(
    store: &Store,
    mut exported: Exported,
    tell: &mut (dyn FnMut(Finding) + Send),
) -> Result<(u64, u64), StoreError> {
    let (mut after, mut chains, mut entries) = (None, 0, 0);
    while let Some(workspace_id) = store.workspace_after(after).await? {
        let heads = exported.remove(&workspace_id).unwrap_or_default();
        verify_one(store, workspace_id, &heads, &mut entries, tell).await?;
        chains += 1;
        after = Some(workspace_id);
    }
    // Of workspaces that are not there any more.
    for (workspace_id, heads) in exported {
        Checker::new(workspace_id, &heads).finish().into_iter().for_each(&mut *tell);
    }
    Ok((chains, entries))
}

async fn verify_one(
    store: &Store,
    workspace_id: WorkspaceId,
    exported: &[Head],
    entries: &mut u64,
    tell: &mut (dyn FnMut(Finding) + Send),
) -> Result<(), StoreError> {
    let mut checker = Checker::new(workspace_id, exported);
    loop {
        let page = store.entries(workspace_id, checker.sequence(), PAGE).await?;
        for stored in &page {
            checker.entry(stored);
            *entries += 1;
            if entries.is_multiple_of(PROGRESS_EVERY) {
                // Nobody may be there to read it.
                let _ = writeln!(io::stderr(), "{entries} entries so far");
            }
        }
        checker.findings().into_iter().for_each(&mut *tell);
        if !page.is_empty() {
            continue;
        }
        // Read after the entries, so that what was appended meanwhile is not taken for foreign.
        let end = store.chain_end(workspace_id).await?;
        let appended = end.as_ref().is_some_and(|end| end.signed.head.sequence > checker.sequence());
        if appended && !store.entries(workspace_id, checker.sequence(), 1).await?.is_empty() {
            continue;
        }
        let public_key = end.as_ref().and_then(|end| end.public_key.as_deref());
        checker.head(end.as_ref().map(|end| &end.signed), public_key);
        checker.finish().into_iter().for_each(&mut *tell);
        return Ok(());
    }
}

/// Runs `export-heads`.
///
/// # Errors
/// Postgres; a chain without a head, or one whose key is not there.
pub async fn export_heads(config: &Config) -> anyhow::Result<()> {
    let store = config.store()?;
    store.check_version().await?;
    let mut after = None;
    while let Some(workspace_id) = store.workspace_after(after).await? {
        let end = store.chain_end(workspace_id).await?;
        let end = end.with_context(|| format!("{workspace_id} has no head; run `keys verify-chain`"))?;
        let public_key =
            end.public_key.with_context(|| format!("the signing key {} is gone", end.signed.kid))?;
        writeln!(io::stdout(), "{}", end.signed.to_line(&public_key))?;
        after = Some(workspace_id);
    }
    store.close().await;
    Ok(())
}

/// Heads from files that `export-heads` wrote, in any order.
///
/// # Errors
/// If there is no such file, or a line of it is none.
pub fn read_heads(path: &Path) -> anyhow::Result<Exported> {
    let shown = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("--heads: {shown} can not be read"))?;
    let mut exported = Exported::new();
    for (place, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let signed =
            SignedHead::from_line(line).with_context(|| format!("--heads: line {} of {shown}", place + 1))?;
        exported.entry(signed.head.workspace_id).or_default().push(signed.head);
    }
    Ok(exported)
}
