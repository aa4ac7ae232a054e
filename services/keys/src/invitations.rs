//! What is done with invitations: make, show, withdraw, accept. The token is shown once and kept as a hash.

use std::net::IpAddr;

use access::{Claims, Role};
use domain::{AccountId, InvitationId, WorkspaceId};
use proto::resource::invitation_name;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use time::{Duration, OffsetDateTime};

use crate::{
    caller::Caller,
    error::Error,
    members::{check_may_manage, hold_actor},
    page,
    password::Busy,
    store::{Store, Tx, audit::Change, invitations::Invitation},
    token,
};

/// How long an invitation is open.
pub const OPEN_FOR: Duration = Duration::days(7);
/// Why one lets nobody in.
pub const BAD_INVITATION: &str =
    "the invitation is unknown, used, withdrawn or older than 7 days; ask for a new one";

/// The invitations of all workspaces. Clones share everything.
#[derive(Clone)]
pub struct Invitations {
    store: Store,
}

/// Who comes in by an invitation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comer {
    /// Somebody with an account.
    Known(AccountId),
    /// Somebody who gets one, with the hash of the chosen password, if any.
    New(AccountId, Option<String>),
}

impl Comer {
    /// The account.
    #[must_use]
    pub const fn account_id(&self) -> AccountId {
        match self {
            Self::Known(account_id) | Self::New(account_id, _) => *account_id,
        }
    }
}

/// Where a list goes on: after the invitation made then with this id.
pub type ListPosition = (OffsetDateTime, InvitationId);

impl Invitations {
    /// The invitations in `store`.
    #[must_use]
    pub const fn new(store: Store) -> Self {
        Self { store }
    }

    /// Invites a person: the invitation, and its token.
    ///
    /// # Errors
    /// A role that the caller may not manage; a member already; an open invitation already; Postgres.
    pub async fn create(
        &self,
        workspace_id: WorkspaceId,
        (email, role): (String, Role),
        (claims, caller): (&Claims, &Caller),
        now: OffsetDateTime,
    ) -> Result<(Invitation, SecretString), Error> {
        let mut tx = self.store.begin().await?;
        let actor = hold_actor(&mut tx, workspace_id, claims).await?;
        check_may_manage(actor.role, role)?;
        if tx.is_member_email(workspace_id, &email).await? {
            return Err(Error::AlreadyThere {
                reason: "ALREADY_MEMBER",
                message: "this person is a member; change the role with UpdateMember",
            });
        }
        let invitation_id = InvitationId::generate();
        let expire_time = now + OPEN_FOR;
        let new = Invitation { invitation_id, workspace_id, email, role, create_time: now, expire_time };
        let invitation_token = token::generate(token::INVITATION);
        let token_hash = token::hash(invitation_token.expose_secret());
        if !tx.add_invitation(&new, &token_hash, &caller.actor).await? {
            return Err(Error::AlreadyThere {
                reason: "ALREADY_INVITED",
                message: "this person has an open invitation; withdraw it with DeleteInvitation first",
            });
        }
        let name = invitation_name(workspace_id, invitation_id);
        let change = Change::made(json!({ "role": role }));
        tx.audit_change(workspace_id, "create_invitation", &name, change, caller, now).await?;
        tx.commit().await?;
        tracing::info!(workspace.id = %workspace_id, actor = caller.actor, "person invited");
        Ok((new, invitation_token))
    }

    /// A page of a workspace's open invitations, newest first, and where the next one starts.
    ///
    /// # Errors
    /// Postgres.
    pub async fn list(
        &self,
        workspace_id: WorkspaceId,
        after: Option<ListPosition>,
        size: usize,
        now: OffsetDateTime,
    ) -> Result<(Vec<Invitation>, Option<ListPosition>), Error> {
        let found = self.store.invitations_of(workspace_id, after, size + 1, now).await?;
        Ok(page::cut(found, size, |last| (last.create_time, last.invitation_id)))
    }

    /// Withdraws an invitation.
    ///
    /// # Errors
    /// Not found or not open; for a role that the caller may not manage; Postgres.
    pub async fn delete(
        &self,
        (workspace_id, invitation_id): (WorkspaceId, InvitationId),
        (claims, caller): (&Claims, &Caller),
        now: OffsetDateTime,
    ) -> Result<(), Error> {
        let name = invitation_name(workspace_id, invitation_id);
        let mut tx = self.store.begin().await?;
        let actor = hold_actor(&mut tx, workspace_id, claims).await?;
        let Some(gone) = tx.remove_invitation(workspace_id, invitation_id, now).await? else {
            return Err(Error::NotFound { what: "invitation", name });
        };
        check_may_manage(actor.role, gone.role)?;
        let change = Change::ended(json!({ "role": gone.role }));
        tx.audit_change(workspace_id, "delete_invitation", &name, change, caller, now).await?;
        Ok(tx.commit().await?)
    }
}

/// Takes an invitation and lets the person in; `None` if the invitation is not open any more.
///
/// # Errors
/// Somebody else has just made an account of that address: try again; Postgres.
pub async fn accept(
    tx: &mut Tx,
    (invitation, token_hash): (&Invitation, &[u8]),
    comer: Comer,
    address: Option<IpAddr>,
    now: OffsetDateTime,
) -> Result<Option<Role>, Error> {
    let Invitation { invitation_id, workspace_id, email, role, .. } = invitation;
    if tx.hold_workspace(*workspace_id).await?.is_none() || !tx.take_invitation(token_hash, now).await? {
        return Ok(None);
    }
    let account_id = comer.account_id();
    if let Comer::New(_, hash) = comer
        && !tx.add_account(account_id, email, hash.as_deref(), now).await?
    {
        return Err(Busy.into());
    }
    tx.add_member(*workspace_id, account_id, *role, now).await?;
    let caller = Caller { actor: account_id.to_string(), address };
    let name = invitation_name(*workspace_id, *invitation_id);
    let change = Change::made(json!({ "role": role }));
    tx.audit_change(*workspace_id, "accept_invitation", &name, change, &caller, now).await?;
    Ok(Some(*role))
}
