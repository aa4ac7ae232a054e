//! Open invitations; one that was accepted or withdrawn is gone, the audit trail knows of it.

use access::Role;
use domain::{InvitationId, WorkspaceId};
use sqlx::{Row as _, postgres::PgRow};
use time::OffsetDateTime;

use super::{Store, StoreError, Tx, members::role};

/// A person who was asked to come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// Its id.
    pub invitation_id: InvitationId,
    /// The workspace.
    pub workspace_id: WorkspaceId,
    /// Who may accept it, in lower case.
    pub email: String,
    /// What the person may do then.
    pub role: Role,
    /// When it was made.
    pub create_time: OffsetDateTime,
    /// When it ends.
    pub expire_time: OffsetDateTime,
}

impl Invitation {
    fn of(row: &PgRow) -> Result<Self, StoreError> {
        Ok(Self {
            invitation_id: InvitationId::from_uuid(row.try_get("invitation_id")?),
            workspace_id: WorkspaceId::from_uuid(row.try_get("workspace_id")?),
            email: row.try_get("email")?,
            role: role(row.try_get("role")?)?,
            create_time: row.try_get("create_time")?,
            expire_time: row.try_get("expire_time")?,
        })
    }
}

impl Store {
    /// The open invitation with this token's hash.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn invitation(
        &self,
        token_hash: &[u8],
        now: OffsetDateTime,
    ) -> Result<Option<Invitation>, StoreError> {
        let row = sqlx::query("select * from invitations where token_hash = $1 and expire_time > $2")
            .bind(token_hash)
            .bind(now)
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(Invitation::of).transpose()
    }

    /// At most `limit` open invitations of a workspace, newest first, those after `after` (time and id).
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn invitations_of(
        &self,
        workspace_id: WorkspaceId,
        after: Option<(OffsetDateTime, InvitationId)>,
        limit: usize,
        now: OffsetDateTime,
    ) -> Result<Vec<Invitation>, StoreError> {
        let (time, id) = after.map_or((None, None), |(time, id)| (Some(time), Some(id.as_uuid())));
        let sql = "select * from invitations
                   where workspace_id = $1 and expire_time > $5
                     and ($2::timestamptz is null or (create_time, invitation_id) < ($2, $3))
                   order by create_time desc, invitation_id desc limit $4";
        let rows = sqlx::query(sql)
            .bind(workspace_id.as_uuid())
            .bind(time)
            .bind(id)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .bind(now)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(Invitation::of).collect()
    }

    /// Forgets invitations that ended before `until`.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn sweep_invitations(&self, until: OffsetDateTime) -> Result<(), StoreError> {
        sqlx::query("delete from invitations where expire_time <= $1")
            .bind(until)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

impl Tx {
    /// Whether an e-mail address belongs to a member of a workspace.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn is_member_email(
        &mut self,
        workspace_id: WorkspaceId,
        email: &str,
    ) -> Result<bool, StoreError> {
        let sql = "select exists (select from memberships join accounts using (account_id)
                                  where workspace_id = $1 and email = $2)";
        Ok(sqlx::query_scalar(sql)
            .bind(workspace_id.as_uuid())
            .bind(email)
            .fetch_one(&mut *self.inner)
            .await?)
    }

    /// Adds an invitation in the place of one that has ended; false if there is an open one for the address.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn add_invitation(
        &mut self,
        invitation: &Invitation,
        token_hash: &[u8],
        inviter: &str,
    ) -> Result<bool, StoreError> {
        let sql = "insert into invitations
                     (invitation_id, workspace_id, token_hash, email, role, inviter, create_time, expire_time)
                   values ($1, $2, $3, $4, $5, $6, $7, $8)
                   on conflict (workspace_id, email) do update
                   set invitation_id = excluded.invitation_id, token_hash = excluded.token_hash,
                       role = excluded.role, inviter = excluded.inviter,
                       create_time = excluded.create_time, expire_time = excluded.expire_time
                   where invitations.expire_time <= excluded.create_time";
        let added = sqlx::query(sql)
            .bind(invitation.invitation_id.as_uuid())
            .bind(invitation.workspace_id.as_uuid())
            .bind(token_hash)
            .bind(&invitation.email)
            .bind(invitation.role.as_str())
            .bind(inviter)
            .bind(invitation.create_time)
            .bind(invitation.expire_time)
            .execute(&mut *self.inner)
            .await?;
        Ok(added.rows_affected() == 1)
    }

    /// Takes an open invitation out by its token's hash; true for one of two at once.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn take_invitation(
        &mut self,
        token_hash: &[u8],
        now: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        let sql = "delete from invitations where token_hash = $1 and expire_time > $2";
        let taken = sqlx::query(sql).bind(token_hash).bind(now).execute(&mut *self.inner).await?;
        Ok(taken.rows_affected() == 1)
    }

    /// Removes an open invitation of a workspace.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn remove_invitation(
        &mut self,
        workspace_id: WorkspaceId,
        invitation_id: InvitationId,
        now: OffsetDateTime,
    ) -> Result<Option<Invitation>, StoreError> {
        let sql = "delete from invitations
                   where workspace_id = $1 and invitation_id = $2 and expire_time > $3 returning *";
        let row = sqlx::query(sql)
            .bind(workspace_id.as_uuid())
            .bind(invitation_id.as_uuid())
            .bind(now)
            .fetch_optional(&mut *self.inner)
            .await?;
        row.as_ref().map(Invitation::of).transpose()
    }
}
