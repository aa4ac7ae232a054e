//! Who is in which workspace, in which role.

use access::Role;
use domain::{AccountId, WorkspaceId};
use sqlx::{Row as _, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, StoreError, Tx};

/// A person in a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The person.
    pub account_id: AccountId,
    /// The account's e-mail address.
    pub email: String,
    /// What the person may do.
    pub role: Role,
    /// When the person came in.
    pub create_time: OffsetDateTime,
}

impl Member {
    fn of(row: &PgRow) -> Result<Self, StoreError> {
        Ok(Self {
            account_id: AccountId::from_uuid(row.try_get("account_id")?),
            email: row.try_get("email")?,
            role: role(row.try_get("role")?)?,
            create_time: row.try_get("create_time")?,
        })
    }
}

/// A role as it is kept.
pub(super) fn role(text: &str) -> Result<Role, StoreError> {
    text.parse().map_err(|()| StoreError::Damaged("role"))
}

macro_rules! members {
    ($which:literal) => {
        concat!(
            "select m.account_id, a.email, m.role, m.create_time
             from memberships m join accounts a using (account_id) ",
            $which
        )
    };
}

const ONE: &str = members!("where m.workspace_id = $1 and m.account_id = $2");

impl Store {
    /// What an account may do in a workspace; `None` if it is not in it.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn role_in(
        &self,
        account_id: AccountId,
        workspace_id: WorkspaceId,
    ) -> Result<Option<Role>, StoreError> {
        let text: Option<String> =
            sqlx::query_scalar("select role from memberships where account_id = $1 and workspace_id = $2")
                .bind(account_id.as_uuid())
                .bind(workspace_id.as_uuid())
                .fetch_optional(&self.pool)
                .await?;
        text.as_deref().map(role).transpose()
    }

    /// The workspace that an account was in first, and what it may do there; `None` if it is in none.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn first_workspace(
        &self,
        account_id: AccountId,
    ) -> Result<Option<(WorkspaceId, Role)>, StoreError> {
        let sql = "select workspace_id, role from memberships where account_id = $1
                   order by create_time, workspace_id limit 1";
        let row: Option<(Uuid, String)> =
            sqlx::query_as(sql).bind(account_id.as_uuid()).fetch_optional(&self.pool).await?;
        row.map(|(id, text)| Ok((WorkspaceId::from_uuid(id), role(&text)?))).transpose()
    }

    /// One member.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn member(
        &self,
        workspace_id: WorkspaceId,
        account_id: AccountId,
    ) -> Result<Option<Member>, StoreError> {
        let row = sqlx::query(ONE)
            .bind(workspace_id.as_uuid())
            .bind(account_id.as_uuid())
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(Member::of).transpose()
    }

    /// At most `limit` members of a workspace, the longest in it first, those after `after` (time and id).
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn members_of(
        &self,
        workspace_id: WorkspaceId,
        after: Option<(OffsetDateTime, AccountId)>,
        limit: usize,
    ) -> Result<Vec<Member>, StoreError> {
        let (time, id) = after.map_or((None, None), |(time, id)| (Some(time), Some(id.as_uuid())));
        let sql = members!(
            "where m.workspace_id = $1
               and ($2::timestamptz is null or (m.create_time, m.account_id) > ($2, $3))
             order by m.create_time, m.account_id limit $4"
        );
        let rows = sqlx::query(sql)
            .bind(workspace_id.as_uuid())
            .bind(time)
            .bind(id)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(Member::of).collect()
    }
}

impl Tx {
    /// One member.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn member(
        &mut self,
        workspace_id: WorkspaceId,
        account_id: AccountId,
    ) -> Result<Option<Member>, StoreError> {
        let row = sqlx::query(ONE)
            .bind(workspace_id.as_uuid())
            .bind(account_id.as_uuid())
            .fetch_optional(&mut *self.inner)
            .await?;
        row.as_ref().map(Member::of).transpose()
    }

    /// How many owners a workspace has.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn owners(&mut self, workspace_id: WorkspaceId) -> Result<i64, StoreError> {
        let sql = "select count(*) from memberships where workspace_id = $1 and role = 'owner'";
        Ok(sqlx::query_scalar(sql).bind(workspace_id.as_uuid()).fetch_one(&mut *self.inner).await?)
    }

    /// Lets an account into a workspace; false if it is in it already.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn add_member(
        &mut self,
        workspace_id: WorkspaceId,
        account_id: AccountId,
        role: Role,
        now: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        let sql =
            "insert into memberships (account_id, workspace_id, role, create_time) values ($1, $2, $3, $4)
                   on conflict do nothing";
        let added = sqlx::query(sql)
            .bind(account_id.as_uuid())
            .bind(workspace_id.as_uuid())
            .bind(role.as_str())
            .bind(now)
            .execute(&mut *self.inner)
            .await?;
        Ok(added.rows_affected() == 1)
    }

    /// Gives a member another role.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn set_role(
        &mut self,
        workspace_id: WorkspaceId,
        account_id: AccountId,
        role: Role,
    ) -> Result<(), StoreError> {
        sqlx::query("update memberships set role = $3 where workspace_id = $1 and account_id = $2")
            .bind(workspace_id.as_uuid())
            .bind(account_id.as_uuid())
            .bind(role.as_str())
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Removes a member, with the open invitations that the member made.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn remove_member(
        &mut self,
        workspace_id: WorkspaceId,
        account_id: AccountId,
    ) -> Result<(), StoreError> {
        sqlx::query("delete from memberships where workspace_id = $1 and account_id = $2")
            .bind(workspace_id.as_uuid())
            .bind(account_id.as_uuid())
            .execute(&mut *self.inner)
            .await?;
        sqlx::query("delete from invitations where workspace_id = $1 and inviter = $2")
            .bind(workspace_id.as_uuid())
            .bind(account_id.to_string())
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }
}
