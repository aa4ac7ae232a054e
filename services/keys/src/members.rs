//! What is done with members: show, change, remove. The rules hold by what Postgres says of the caller now, not by
//! the access token, so that of two who act on each other at once only one succeeds.

use access::{Claims, Role, Subject};
use domain::{AccountId, WorkspaceId};
use proto::resource::{member_name, workspace_name};
use serde_json::json;
use time::OffsetDateTime;

use crate::{
    caller::Caller,
    error::Error,
    page,
    store::{Store, Tx, audit::Change, members::Member},
};

/// The members of all workspaces. Clones share everything.
#[derive(Clone)]
pub struct Members {
    store: Store,
}

/// Where a list goes on: after the member that came in then.
pub type ListPosition = (OffsetDateTime, AccountId);

impl Members {
    /// The members in `store`.
    #[must_use]
    pub const fn new(store: Store) -> Self {
        Self { store }
    }

    /// One member.
    ///
    /// # Errors
    /// Not found; Postgres.
    pub async fn get(&self, workspace_id: WorkspaceId, account_id: AccountId) -> Result<Member, Error> {
        let member = self.store.member(workspace_id, account_id).await?;
        member.ok_or_else(|| not_found(workspace_id, account_id))
    }

    /// A page of a workspace's members, the longest in it first, and where the next one starts.
    ///
    /// # Errors
    /// Postgres.
    pub async fn list(
        &self,
        workspace_id: WorkspaceId,
        after: Option<ListPosition>,
        size: usize,
    ) -> Result<(Vec<Member>, Option<ListPosition>), Error> {
        let members = self.store.members_of(workspace_id, after, size + 1).await?;
        Ok(page::cut(members, size, |member| (member.create_time, member.account_id)))
    }

    /// Gives a member another role.
    ///
    /// # Errors
    /// Not found; the own role; a role that the caller may not manage; the last owner; Postgres.
    pub async fn update(
        &self,
        (workspace_id, account_id): (WorkspaceId, AccountId),
        role: Role,
        (claims, caller): (&Claims, &Caller),
        now: OffsetDateTime,
    ) -> Result<Member, Error> {
        let mut tx = self.store.begin().await?;
        let (actor, member) = hold(&mut tx, workspace_id, account_id, claims).await?;
        if member.role == role {
            return Ok(member);
        }
        if actor.account_id == account_id {
            return Err(Error::NotAllowed("nobody changes the own role; ask an owner of the workspace"));
        }
        check_may_manage(actor.role, member.role)?;
        check_may_manage(actor.role, role)?;
        check_not_last_owner(&mut tx, workspace_id, &member).await?;
        tx.set_role(workspace_id, account_id, role).await?;
        let change = Change::of(json!({ "role": member.role }), json!({ "role": role }));
        let name = member_name(workspace_id, account_id);
        tx.audit_change(workspace_id, "update_member", &name, change, caller, now).await?;
        tx.commit().await?;
        tracing::info!(workspace.id = %workspace_id, member.id = %account_id, actor = caller.actor, "member changed");
        Ok(Member { role, ..member })
    }

    /// Removes a member, or lets the caller go.
    ///
    /// # Errors
    /// Not found; a role that the caller may not manage; the last owner; Postgres.
    pub async fn remove(
        &self,
        (workspace_id, account_id): (WorkspaceId, AccountId),
        (claims, caller): (&Claims, &Caller),
        now: OffsetDateTime,
    ) -> Result<(), Error> {
        let mut tx = self.store.begin().await?;
        let (actor, member) = hold(&mut tx, workspace_id, account_id, claims).await?;
        if actor.account_id != account_id {
            check_may_manage(actor.role, member.role)?;
        }
        check_not_last_owner(&mut tx, workspace_id, &member).await?;
        tx.remove_member(workspace_id, account_id).await?;
        let change = Change::ended(json!({ "role": member.role }));
        let name = member_name(workspace_id, account_id);
        tx.audit_change(workspace_id, "remove_member", &name, change, caller, now).await?;
        tx.commit().await?;
        tracing::info!(workspace.id = %workspace_id, member.id = %account_id, actor = caller.actor, "member removed");
        Ok(())
    }
}

/// The person who calls, as a member of the workspace now, which is held against changes of its members.
///
/// # Errors
/// A service; somebody who is no member any more; Postgres.
pub async fn hold_actor(tx: &mut Tx, workspace_id: WorkspaceId, claims: &Claims) -> Result<Member, Error> {
    let Subject::Account(actor_id) = claims.subject else { return Err(Error::PeopleOnly) };
    if tx.hold_workspace(workspace_id).await?.is_none() {
        return Err(Error::NotFound { what: "workspace", name: workspace_name(workspace_id) });
    }
    tx.member(workspace_id, actor_id).await?.ok_or(Error::NotMember)
}

/// That a role may be given or taken.
///
/// # Errors
/// If it may not.
pub fn check_may_manage(actor: Role, role: Role) -> Result<(), Error> {
    if actor.may_manage(role) {
        Ok(())
    } else {
        Err(Error::NotAllowed(
            "only owners and admins manage members, and only owners manage owners and admins; ask one",
        ))
    }
}

async fn hold(
    tx: &mut Tx,
    workspace_id: WorkspaceId,
    account_id: AccountId,
    claims: &Claims,
) -> Result<(Member, Member), Error> {
    let actor = hold_actor(tx, workspace_id, claims).await?;
    let member = tx.member(workspace_id, account_id).await?;
    Ok((actor, member.ok_or_else(|| not_found(workspace_id, account_id))?))
}

async fn check_not_last_owner(tx: &mut Tx, workspace_id: WorkspaceId, member: &Member) -> Result<(), Error> {
    if member.role == Role::Owner && tx.owners(workspace_id).await? <= 1 {
        return Err(Error::Precondition {
            reason: "LAST_OWNER",
            message: "a workspace always has an owner; make another member one first",
        });
    }
    Ok(())
}

fn not_found(workspace_id: WorkspaceId, account_id: AccountId) -> Error {
    Error::NotFound { what: "member", name: member_name(workspace_id, account_id) }
}
