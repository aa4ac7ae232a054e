//! Workspaces, who is in them, and their data keys.

use domain::{AccountId, AddressStorage, WorkspaceId};
use sqlx::Row as _;
use time::OffsetDateTime;

use super::{Store, StoreError, Tx, keys::OUTBOX_CHANNEL, outbox::address_storage};
use crate::seal::Wrapped;

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    /// Its id, for good.
    pub workspace_id: WorkspaceId,
    /// What people call it.
    pub display_name: String,
    /// When it was made.
    pub create_time: OffsetDateTime,
    /// What its owners chose.
    pub settings: Settings,
    /// Since when edges refuse its keys.
    pub suspend_time: Option<OffsetDateTime>,
}

/// What the owners of a workspace may choose, beside its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How many days the audit trail is kept.
    pub audit_retention_days: i32,
    /// Whether a key is disabled when a leak of it is reported.
    pub disable_exposed_keys: bool,
    /// Whether sealed copies of secrets are kept.
    pub keep_copies: bool,
    /// What edges keep of callers' addresses.
    pub address_storage: AddressStorage,
    /// How many days single calls are kept.
    pub request_retention_days: i32,
}

impl Default for Settings {
    /// As the tables have it.
    fn default() -> Self {
        Self {
            audit_retention_days: 400,
            disable_exposed_keys: false,
            keep_copies: true,
            address_storage: AddressStorage::Whole,
            request_retention_days: 90,
        }
    }
}

impl Workspace {
    fn of(row: &sqlx::postgres::PgRow) -> Result<Self, StoreError> {
        Ok(Self {
            workspace_id: WorkspaceId::from_uuid(row.try_get("workspace_id")?),
            display_name: row.try_get("display_name")?,
            create_time: row.try_get("create_time")?,
            settings: Settings {
                audit_retention_days: row.try_get("audit_retention_days")?,
                disable_exposed_keys: row.try_get("disable_exposed_keys")?,
                keep_copies: row.try_get("keep_copies")?,
                address_storage: address_storage(row)?,
                request_retention_days: row.try_get("request_retention_days")?,
            },
            suspend_time: row.try_get("suspend_time")?,
        })
    }
}

impl Store {
    /// One workspace, unless it was deleted.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn workspace(&self, workspace_id: WorkspaceId) -> Result<Option<Workspace>, StoreError> {
        let row = sqlx::query("select * from workspaces where workspace_id = $1 and delete_time is null")
            .bind(workspace_id.as_uuid())
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(Workspace::of).transpose()
    }

    /// At most `limit` workspaces of an account by display name, those after `after` (display name and id).
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn workspaces_of(
        &self,
        account_id: AccountId,
        after: Option<(String, WorkspaceId)>,
        limit: usize,
    ) -> Result<Vec<Workspace>, StoreError> {
        let (name, id) = after.map_or((None, None), |(name, id)| (Some(name), Some(id.as_uuid())));
        let sql = r#"
            select w.* from workspaces w join memberships m using (workspace_id)
            where m.account_id = $1
              and ($2::text is null or (w.display_name collate "C", w.workspace_id) > ($2, $3))
            order by w.display_name collate "C", w.workspace_id limit $4"#;
        let rows = sqlx::query(sql)
            .bind(account_id.as_uuid())
            .bind(name)
            .bind(id)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(Workspace::of).collect()
    }

    /// A workspace's data key as it is kept; `None` if there is no such workspace, nothing inside if it keeps no
    /// copies.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn wrapped_data_key(
        &self,
        workspace_id: WorkspaceId,
    ) -> Result<Option<Option<Wrapped>>, StoreError> {
        let sql =
            "select kek_id, wrapped_key from workspaces left join workspace_data_keys using (workspace_id)
                   where workspace_id = $1 and delete_time is null";
        let row: Option<(Option<String>, Option<Vec<u8>>)> =
            sqlx::query_as(sql).bind(workspace_id.as_uuid()).fetch_optional(&self.pool).await?;
        Ok(row.map(|(kek_id, bytes)| Some(Wrapped { kek_id: kek_id?, bytes: bytes? })))
    }

    /// The workspace after another one, in the order of ids.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn workspace_after(
        &self,
        after: Option<WorkspaceId>,
    ) -> Result<Option<WorkspaceId>, StoreError> {
        let sql = "select workspace_id from workspaces where workspace_id > $1 order by workspace_id limit 1";
        let after = after.map_or(uuid::Uuid::nil(), |id| id.as_uuid());
        let id = sqlx::query_scalar(sql).bind(after).fetch_optional(&self.pool).await?;
        Ok(id.map(WorkspaceId::from_uuid))
    }
}

impl Tx {
    /// Adds a workspace with its wrapped data key.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn add_workspace(
        &mut self,
        workspace: &Workspace,
        data_key: &Wrapped,
    ) -> Result<(), StoreError> {
        sqlx::query("insert into workspaces (workspace_id, display_name, create_time) values ($1, $2, $3)")
            .bind(workspace.workspace_id.as_uuid())
            .bind(&workspace.display_name)
            .bind(workspace.create_time)
            .execute(&mut *self.inner)
            .await?;
        let sql = "insert into workspace_data_keys (workspace_id, kek_id, wrapped_key, create_time)
                   values ($1, $2, $3, $4)";
        sqlx::query(sql)
            .bind(workspace.workspace_id.as_uuid())
            .bind(&data_key.kek_id)
            .bind(&data_key.bytes)
            .bind(workspace.create_time)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// A workspace that is not deleted, held against changes of it and of its members until the end of the
    /// transaction; keys go on.
    ///
    /// # Errors
    /// If Postgres does not answer, or somebody else holds it too long.
    pub async fn hold_workspace(
        &mut self,
        workspace_id: WorkspaceId,
    ) -> Result<Option<Workspace>, StoreError> {
        let sql =
            "select * from workspaces where workspace_id = $1 and delete_time is null for no key update";
        let row = sqlx::query(sql).bind(workspace_id.as_uuid()).fetch_optional(&mut *self.inner).await?;
        row.as_ref().map(Workspace::of).transpose()
    }

    /// Writes the name, settings and suspension of a workspace.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn write_workspace(&mut self, workspace: &Workspace) -> Result<(), StoreError> {
        let sql = "update workspaces
                   set display_name = $2, audit_retention_days = $3, disable_exposed_keys = $4,
                       keep_copies = $5, suspend_time = $6, address_storage = $7
                   where workspace_id = $1";
        sqlx::query(sql)
            .bind(workspace.workspace_id.as_uuid())
            .bind(&workspace.display_name)
            .bind(workspace.settings.audit_retention_days)
            .bind(workspace.settings.disable_exposed_keys)
            .bind(workspace.settings.keep_copies)
            .bind(workspace.suspend_time)
            .bind(workspace.settings.address_storage.as_str())
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Puts all secrets of a workspace's living keys into the outbox, and wakes the relay at the commit.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn feed_workspace(&mut self, workspace_id: WorkspaceId) -> Result<(), StoreError> {
        // A million keys take longer than a statement may otherwise.
        sqlx::query("set local statement_timeout = '300s'").execute(&mut *self.inner).await?;
        let sql = "insert into key_outbox (secret_id)
                   select s.secret_id from secrets s join keys k using (key_id)
                   where k.workspace_id = $1 and k.delete_time is null";
        sqlx::query(sql).bind(workspace_id.as_uuid()).execute(&mut *self.inner).await?;
        sqlx::query("select pg_notify($1, '')").bind(OUTBOX_CHANNEL).execute(&mut *self.inner).await?;
        Ok(())
    }

    /// The same with the tombstones that are still in the feed: their calls are on record too.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn feed_workspace_whole(&mut self, workspace_id: WorkspaceId) -> Result<(), StoreError> {
        let sql = "insert into key_outbox (secret_id)
                   select s.secret_id from secrets s join keys k using (key_id)
                     join secret_feed_versions f using (secret_id)
                   where k.workspace_id = $1 and k.delete_time is not null";
        sqlx::query(sql).bind(workspace_id.as_uuid()).execute(&mut *self.inner).await?;
        self.feed_workspace(workspace_id).await
    }

    /// An account's oldest workspace of that name.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn workspace_named(
        &mut self,
        account_id: AccountId,
        display_name: &str,
    ) -> Result<Option<WorkspaceId>, StoreError> {
        let sql = "select workspace_id from workspaces join memberships using (workspace_id)
                   where account_id = $1 and display_name = $2
                   order by workspaces.create_time, workspace_id limit 1";
        let id = sqlx::query_scalar(sql)
            .bind(account_id.as_uuid())
            .bind(display_name)
            .fetch_optional(&mut *self.inner)
            .await?;
        Ok(id.map(WorkspaceId::from_uuid))
    }
}
