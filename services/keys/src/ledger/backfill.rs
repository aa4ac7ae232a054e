//! Gives rows from before there was a chain their places: a workspace's key events first, then its audit entries,
//! each in the order in which they were made. Can be stopped and started again.

use std::io::{self, Write as _};

use domain::WorkspaceId;

use super::Ledger;
use crate::store::{
    Store, StoreError,
    migrations::{Table, Unchained},
};

/// Rows in one transaction.
const ROWS_MAX: i64 = 500;

/// Chains every row that is not; as the owner of the tables.
///
/// # Errors
/// If Postgres is away or refuses.
pub async fn backfill(store: &Store) -> Result<(), StoreError> {
    let ledger = store.ledger()?;
    let (mut after, mut rows) = (None, 0);
    while let Some(workspace_id) = store.workspace_after(after).await? {
        for table in [Table::KeyEvents, Table::AuditEntries] {
            rows += backfill_table(store, ledger, workspace_id, table).await?;
        }
        after = Some(workspace_id);
    }
    if rows > 0 {
        // Nobody may be there to read it.
        let _ = writeln!(io::stderr(), "{rows} rows have got their places in the chain");
    }
    Ok(())
}

async fn backfill_table(
    store: &Store,
    ledger: &Ledger,
    workspace_id: WorkspaceId,
    table: Table,
) -> Result<usize, StoreError> {
    let (mut after, mut done) = (0, 0);
    loop {
        let mut tx = store.begin().await?;
        let rows = tx.unchained(table, workspace_id, after, ROWS_MAX).await?;
        let Some(Unchained { id, .. }) = rows.last() else { return Ok(done) };
        after = *id;
        done += rows.len();
        let mut head = tx.hold_head(workspace_id).await?;
        for row in rows {
            head = tx.chain(ledger, table, head, row).await?;
        }
        tx.move_head(&ledger.sign(head)).await?;
        tx.commit().await?;
    }
}
