//! The tables: brought up to date by their owner, looked at by the service.

use domain::WorkspaceId;
use sqlx::{
    Error as E, Row as _,
    migrate::{MigrateError, Migrator},
};
use uuid::Uuid;

use super::{Store, StoreError, Tx};
use crate::ledger::{Entry, Fact, Head, Ledger, Origin};

static MIGRATOR: Migrator = sqlx::migrate!();
/// The step after which rows have a place in the chain that may still be empty.
const LEDGER_VERSION: i64 = 10;
/// The step that refuses rows without a place.
const CHAINED_VERSION: i64 = 11;

/// A row from before there was a chain.
pub struct Unchained {
    /// Tells it from others of its table, in the order in which they were made.
    pub id: i64,
    /// What it says, its address in the clear.
    pub entry: Entry,
}

/// Which table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// `key_events`
    KeyEvents,
    /// `audit_entries`
    AuditEntries,
}

impl Store {
    /// The first half of bringing the tables up to date; says whether rows may wait for their place in the chain.
    ///
    /// # Errors
    /// If Postgres is away or refuses.
    pub async fn migrate_to_ledger(&self) -> Result<bool, StoreError> {
        // With a newer program's steps in the database, all of ours are there too.
        if self.has_version(CHAINED_VERSION).await? {
            return Ok(false);
        }
        MIGRATOR.run_to(LEDGER_VERSION, &self.pool).await.map_err(refused)?;
        Ok(true)
    }

    /// Whether there is a row without a place in its chain.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn has_unchained(&self) -> Result<bool, StoreError> {
        let sql = "select exists (select from key_events where sequence is null)
                       or exists (select from audit_entries where sequence is null)";
        Ok(sqlx::query_scalar(sql).fetch_one(&self.pool).await?)
    }

    /// The second half. Several at once wait for each other.
    ///
    /// # Errors
    /// If Postgres is away or refuses, or its tables are of a newer version than this program.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        MIGRATOR.run(&self.pool).await.map_err(refused)
    }

    /// Whether the tables have all that this program needs; a newer program's are fine.
    ///
    /// # Errors
    /// [`StoreError::NotMigrated`] if they have not; if Postgres is away.
    pub async fn check_version(&self) -> Result<(), StoreError> {
        for migration in MIGRATOR.iter() {
            if !self.has_version(migration.version).await? {
                return Err(StoreError::NotMigrated);
            }
        }
        Ok(())
    }

    /// Whether the role that this is connected as could change its own tables and what is recorded in them.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn owns_its_tables(&self) -> Result<bool, StoreError> {
        let sql = "select pg_has_role(current_user, relowner, 'usage')
                   from pg_class where oid = 'key_events'::regclass";
        Ok(sqlx::query_scalar(sql).fetch_one(&self.pool).await?)
    }

    async fn has_version(&self, version: i64) -> Result<bool, StoreError> {
        let sql = "select exists (select from _sqlx_migrations where version = $1 and success)";
        match sqlx::query_scalar(sql).bind(version).fetch_one(&self.pool).await {
            Ok(there) => Ok(there),
            // No such table, or none that we may read: `keys migrate` has not been here.
            Err(E::Database(error)) if matches!(error.code().as_deref(), Some("42P01" | "42501")) => {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Tx {
    /// The next rows of a workspace and table that have no place in the chain yet, after an id, held.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn unchained(
        &mut self,
        table: Table,
        workspace_id: WorkspaceId,
        after: i64,
        limit: i64,
    ) -> Result<Vec<Unchained>, StoreError> {
        let sql = match table {
            Table::KeyEvents => {
                "select event_id as id, key_id, version, type as action, payload, actor, from_address,
                        event_time as time
                 from key_events where workspace_id = $1 and event_id > $2 and sequence is null
                 order by event_id limit $3"
            }
            Table::AuditEntries => {
                "select audit_entry_id as id, action, resource, actor, from_address, entry_time as time
                 from audit_entries where workspace_id = $1 and audit_entry_id > $2 and sequence is null
                 order by audit_entry_id limit $3"
            }
        };
        let rows = sqlx::query(sql)
            .bind(workspace_id.as_uuid())
            .bind(after)
            .bind(limit)
            .fetch_all(&mut *self.inner)
            .await?;
        let read = |row: &sqlx::postgres::PgRow| {
            let kind = row.try_get("action")?;
            let fact = match table {
                Table::KeyEvents => Fact::Key {
                    key_id: domain::KeyId::from_uuid(row.try_get::<Uuid, _>("key_id")?),
                    version: row.try_get("version")?,
                    kind,
                    payload: row.try_get("payload")?,
                    before: None,
                },
                Table::AuditEntries => Fact::Audit {
                    action: kind,
                    resource: row.try_get("resource")?,
                    before: None,
                    after: None,
                },
            };
            let origin = Origin { from_address: row.try_get("from_address")?, personal: None };
            let (actor, time) = (row.try_get("actor")?, row.try_get("time")?);
            Ok(Unchained { id: row.try_get("id")?, entry: Entry { workspace_id, fact, actor, origin, time } })
        };
        Ok(rows.iter().map(read).collect::<Result<_, sqlx::Error>>()?)
    }

    /// Gives a row its place after `head`, with its address sealed where it is a person's; says what the head is
    /// then.
    ///
    /// # Errors
    /// If Postgres does not answer, or the row can not be hashed.
    pub async fn chain(
        &mut self,
        ledger: &Ledger,
        table: Table,
        head: Head,
        mut row: Unchained,
    ) -> Result<Head, StoreError> {
        let sequence = head.sequence + 1;
        if let Ok(account_id) = row.entry.actor.parse()
            && let Some(address) = row.entry.origin.from_address.take()
        {
            let key = self.person_key(ledger, account_id).await?;
            let address = address.parse().map_err(|_| StoreError::Damaged("address"))?;
            row.entry.origin.personal = key.map(|key| key.seal((head.workspace_id, sequence), address));
        }
        let content = row.entry.content_hash().map_err(|_| StoreError::Damaged("entry"))?;
        let entry_hash = head.entry_hash.next(sequence, &content);
        let sql = match table {
            Table::KeyEvents => {
                "update key_events set sequence = $2, content_hash = $3, entry_hash = $4, from_address = $5,
                        person_key_id = $6, personal = $7 where event_id = $1"
            }
            Table::AuditEntries => {
                "update audit_entries set sequence = $2, content_hash = $3, entry_hash = $4, from_address = $5,
                        person_key_id = $6, personal = $7 where audit_entry_id = $1"
            }
        };
        let personal = row.entry.origin.personal.as_ref();
        sqlx::query(sql)
            .bind(row.id)
            .bind(sequence)
            .bind(&content.as_bytes()[..])
            .bind(&entry_hash.as_bytes()[..])
            .bind(&row.entry.origin.from_address)
            .bind(personal.map(|sealed| sealed.person_key_id))
            .bind(personal.map(|sealed| &sealed.bytes))
            .execute(&mut *self.inner)
            .await?;
        Ok(Head { sequence, entry_hash, ..head })
    }
}

fn refused(error: MigrateError) -> StoreError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
        other => StoreError::Refused(E::Migrate(Box::new(other))),
    }
}
