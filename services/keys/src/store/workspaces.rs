//! Workspaces, who is in them, and their data keys.

use domain::{AccountId, WorkspaceId};
use sqlx::Row as _;
use time::OffsetDateTime;

use super::{Store, StoreError, Tx};
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
}

impl Workspace {
    fn of(row: &sqlx::postgres::PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            workspace_id: WorkspaceId::from_uuid(row.try_get("workspace_id")?),
            display_name: row.try_get("display_name")?,
            create_time: row.try_get("create_time")?,
        })
    }
}

impl Store {
    /// One workspace.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn workspace(&self, workspace_id: WorkspaceId) -> Result<Option<Workspace>, StoreError> {
        let row = sqlx::query("select * from workspaces where workspace_id = $1")
            .bind(workspace_id.as_uuid())
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.as_ref().map(Workspace::of).transpose()?)
    }

    /// Whether an account is in a workspace.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn is_member(
        &self,
        account_id: AccountId,
        workspace_id: WorkspaceId,
    ) -> Result<bool, StoreError> {
        let sql = "select exists (select from memberships where account_id = $1 and workspace_id = $2)";
        Ok(sqlx::query_scalar(sql)
            .bind(account_id.as_uuid())
            .bind(workspace_id.as_uuid())
            .fetch_one(&self.pool)
            .await?)
    }

    /// The workspace that an account was in first; `None` if it is in none.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn first_workspace(&self, account_id: AccountId) -> Result<Option<WorkspaceId>, StoreError> {
        let sql = "select workspace_id from memberships where account_id = $1
                   order by create_time, workspace_id limit 1";
        let id = sqlx::query_scalar(sql).bind(account_id.as_uuid()).fetch_optional(&self.pool).await?;
        Ok(id.map(WorkspaceId::from_uuid))
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
        Ok(rows.iter().map(Workspace::of).collect::<Result<_, _>>()?)
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
                   where workspace_id = $1";
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

    /// Makes an account an administrator of a workspace.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn add_administrator(
        &mut self,
        account_id: AccountId,
        workspace_id: WorkspaceId,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let sql = "insert into memberships (account_id, workspace_id, role, create_time)
                   values ($1, $2, 'admin', $3)";
        sqlx::query(sql)
            .bind(account_id.as_uuid())
            .bind(workspace_id.as_uuid())
            .bind(now)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
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
