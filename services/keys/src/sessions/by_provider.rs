//! Signing in at the provider: which account a person there has.
//!
//! The provider's name for the person (issuer and subject) is what counts, once it was linked. Before that the e-mail
//! address links an account to it, under three conditions: there is one provider, which whoever runs this has chosen
//! and trusts for addresses; it says that the address is verified; and the account is not linked yet, since an address
//! may be given to somebody else later. Nobody gets an account or a workspace without an invitation.

use std::{net::IpAddr, sync::Arc};

use domain::{AccountId, WorkspaceId};
use serde_json::json;
use time::OffsetDateTime;

use super::{Proved, Refreshed, Sessions, SignedIn, token_hash};
use crate::{
    caller::Caller,
    error::Error,
    invitations::{self, BAD_INVITATION, Comer},
    oidc::{Answer, Begun, Email, Person, Provider, Refusal},
    signing,
    store::Tx,
};

impl Sessions {
    /// What the button to the provider says; `None` if there is none.
    #[must_use]
    pub fn provider_name(&self) -> Option<&str> {
        self.provider.as_ref().map(|provider| provider.display_name())
    }

    /// The way to the provider; `again` to prove once more who one is.
    ///
    /// # Errors
    /// There is no provider, or it does not answer.
    pub async fn begin(&self, redirect_uri: &str, again: bool, now: OffsetDateTime) -> Result<Begun, Error> {
        Ok(self.provider()?.begin(redirect_uri, again, now).await?)
    }

    /// Starts a session for whom the provider vouches for.
    ///
    /// # Errors
    /// As [`Refusal`] says; the account is in no workspace; Postgres.
    pub async fn sign_in_by_provider(
        &self,
        answer: &Answer,
        address: Option<IpAddr>,
        now: OffsetDateTime,
    ) -> Result<SignedIn, Error> {
        let (provider, person) = self.vouched(answer, now).await?;
        let account_id = match self.store.identity(provider.issuer(), &person.subject).await? {
            Some((account_id, _)) => account_id,
            None => self.link_by_email(&provider, &person, address, now).await?,
        };
        let (workspace_id, role) = self.store.first_workspace(account_id).await?.ok_or(Error::NotMember)?;
        self.start((account_id, workspace_id, role), proved(&person, now), now).await
    }

    /// Lets an invited person in for whom the provider vouches.
    ///
    /// # Errors
    /// The invitation is unknown or has ended; as [`Refusal`] says; Postgres.
    pub async fn accept_by_provider(
        &self,
        token: &str,
        answer: &Answer,
        address: Option<IpAddr>,
        now: OffsetDateTime,
    ) -> Result<SignedIn, Error> {
        let gone = || Error::Unauthenticated(BAD_INVITATION);
        let token_hash = token_hash(token).ok_or_else(gone)?;
        let invitation = self.store.invitation(&token_hash, now).await?.ok_or_else(gone)?;
        let (provider, person) = self.vouched(answer, now).await?;
        let comer = match self.store.identity(provider.issuer(), &person.subject).await? {
            Some((account_id, email)) if email == invitation.email => Comer::Known(account_id),
            Some(_) => return Err(Refusal::InvitedIsAnother.into()),
            None => {
                let email = provider.email(&person).await?;
                if email.as_ref().is_some_and(|email| email.address != invitation.email) {
                    return Err(Refusal::InvitedIsAnother.into());
                }
                match self.store.account(&invitation.email).await? {
                    Some((account_id, _)) if email.is_some_and(|email| email.is_verified) => {
                        Comer::Known(account_id)
                    }
                    Some(_) => return Err(Refusal::EmailNotVerified.into()),
                    // Whoever has the link could as well choose a password.
                    None => Comer::New(AccountId::generate(), None),
                }
            }
        };
        let account_id = comer.account_id();
        let mut tx = self.store.begin().await?;
        let taken = (&invitation, token_hash.as_slice());
        let accepted = invitations::accept(&mut tx, taken, comer, address, now).await?;
        let (workspace_id, role) = (invitation.workspace_id, accepted.ok_or_else(gone)?);
        link(&mut tx, (provider.issuer(), &person.subject), account_id, address, now).await?;
        tx.commit().await?;
        tracing::info!(workspace.id = %workspace_id, account.id = %account_id, "invitation accepted");
        self.start((account_id, workspace_id, role), proved(&person, now), now).await
    }

    /// Takes the provider's word that a session's person has just proved again who they are.
    ///
    /// # Errors
    /// The session has ended; as [`Refusal`] says; the account is not in the workspace; Postgres.
    pub async fn reauthenticate_by_provider(
        &self,
        session_token: &str,
        answer: &Answer,
        workspace_id: Option<WorkspaceId>,
        now: OffsetDateTime,
    ) -> Result<Refreshed, Error> {
        let (token_hash, mut session) = self.live(session_token, now).await?;
        let (provider, person) = self.vouched(answer, now).await?;
        let found = self.store.identity(provider.issuer(), &person.subject).await?;
        if found.is_none_or(|(account_id, _)| account_id != session.account_id) {
            return Err(Refusal::AnotherPerson.into());
        }
        if !person.was_asked_again() {
            return Err(Refusal::NotAgain.into());
        }
        self.store.authenticate_session(&token_hash, now).await?;
        session.authenticate_time = now;
        self.renew(session, workspace_id, now).await
    }

    /// Whom the provider vouches for, once for each flow.
    async fn vouched(&self, answer: &Answer, now: OffsetDateTime) -> Result<(Arc<Provider>, Person), Error> {
        signing::ready(&self.signing)?;
        let provider = self.provider()?;
        let person = provider.person(answer, now).await?;
        if !self.store.use_flow(&person.flow_hash, now).await? {
            return Err(Refusal::Ended.into());
        }
        Ok((provider, person))
    }

    fn provider(&self) -> Result<Arc<Provider>, Error> {
        Ok(self.provider.clone().ok_or(Refusal::NotConfigured)?)
    }

    async fn link_by_email(
        &self,
        provider: &Provider,
        person: &Person,
        address: Option<IpAddr>,
        now: OffsetDateTime,
    ) -> Result<AccountId, Error> {
        let Some(Email { address: email, is_verified: true }) = provider.email(person).await? else {
            // Before it is looked whether there is such an account: nobody else is to learn it.
            return Err(Refusal::EmailNotVerified.into());
        };
        let mut tx = self.store.begin().await?;
        let account_id = tx.account_id(&email).await?.ok_or(Refusal::NoAccount)?;
        link(&mut tx, (provider.issuer(), &person.subject), account_id, address, now).await?;
        tx.commit().await?;
        Ok(account_id)
    }
}

/// Links an account, with an entry in each of its workspaces if that is new.
async fn link(
    tx: &mut Tx,
    (issuer, subject): (&str, &str),
    account_id: AccountId,
    address: Option<IpAddr>,
    now: OffsetDateTime,
) -> Result<(), Error> {
    let memberships = tx.hold_memberships(account_id).await?;
    if !tx.add_identity((issuer, subject), account_id, now).await?.ok_or(Refusal::LinkedToAnother)? {
        return Ok(());
    }
    let caller = Caller { actor: account_id.to_string(), address };
    for (workspace_id, _) in memberships {
        let change = crate::store::audit::Change::made(json!({ "issuer": issuer }));
        let name = format!("accounts/{account_id}");
        tx.audit_change(workspace_id, "link_identity", &name, change, &caller, now).await?;
    }
    tracing::info!(account.id = %account_id, "account linked to a person at the provider");
    Ok(())
}

/// A provider that knows the browser lets people in without asking. Unless it says when it asked, that was long ago.
fn proved(person: &Person, now: OffsetDateTime) -> Proved {
    let at = person.authenticate_time.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    Proved { by_provider: true, at: at.min(now) }
}
