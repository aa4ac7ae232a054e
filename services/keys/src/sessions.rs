//! Signing in, staying signed in, and trading tokens for access tokens.

use std::{net::IpAddr, sync::Arc};

use access::{Claims, Role, Subject};
use domain::{AccountId, WorkspaceId};
use secrecy::{ExposeSecret as _, SecretString};
use time::{Duration, OffsetDateTime};

use crate::{
    error::Error,
    invitations::{self, BAD_INVITATION, Comer},
    oidc::Provider,
    password::{self, Passwords},
    signing::{self, Issued, SigningCell},
    store::{Store, invitations::Invitation, workspaces::Workspace},
    throttle, token,
};

mod by_provider;

/// A session ends this long after its last use.
pub const IDLE_MAX: Duration = Duration::hours(12);
/// A session ends this long after it started, used or not.
pub const AGE_MAX: Duration = Duration::days(30);

const WRONG: &str = "e-mail or password is wrong";
const ENDED: &str = "the session has ended; sign in again";
const BAD_TOKEN: &str = "the service token is unknown, expired or revoked";

/// Sessions and service tokens. Clones share everything.
#[derive(Clone)]
pub struct Sessions {
    store: Store,
    passwords: Passwords,
    signing: Arc<SigningCell>,
    provider: Option<Arc<Provider>>,
}

/// A person who is signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The account.
    pub account_id: AccountId,
    /// Its e-mail address.
    pub email: String,
    /// When it was last used.
    pub last_used_time: OffsetDateTime,
    /// When it ends in any case.
    pub expire_time: OffsetDateTime,
    /// When the person last gave the password, or proved at the provider who they are.
    pub authenticate_time: OffsetDateTime,
    /// Whether it was begun at the provider, and not by a password.
    pub by_provider: bool,
}

/// How and when somebody proved who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proved {
    /// At the provider, and not by a password.
    pub by_provider: bool,
    /// When.
    pub at: OffsetDateTime,
}

impl Session {
    /// Whether it goes on at `now`.
    #[must_use]
    pub fn is_live(&self, now: OffsetDateTime) -> bool {
        now < self.expire_time && now < self.last_used_time + IDLE_MAX
    }
}

/// A new access token of a session.
pub struct Refreshed {
    /// For the workspace.
    pub access: Issued,
    /// The one asked for, or the account's first.
    pub workspace_id: WorkspaceId,
    /// What the account may do there.
    pub role: Role,
    /// The account's e-mail address.
    pub email: String,
    /// Whether the session was begun at the provider.
    pub by_provider: bool,
}

/// What a sign-in gives.
pub struct SignedIn {
    /// The session.
    pub session_token: SecretString,
    /// For the workspace.
    pub access: Issued,
    /// The account's first one.
    pub workspace_id: WorkspaceId,
}

impl Sessions {
    /// The sessions in `store`; takes as long as one check of a password.
    #[must_use]
    pub fn new(store: Store, signing: Arc<SigningCell>, provider: Option<Provider>) -> Self {
        Self { store, passwords: Passwords::new(), signing, provider: provider.map(Arc::new) }
    }

    /// Starts a session.
    ///
    /// # Errors
    /// Wrong e-mail or password, the same for both; too many wrong ones from this address; Postgres.
    pub async fn sign_in(
        &self,
        email: &str,
        password: SecretString,
        address: Option<IpAddr>,
        now: OffsetDateTime,
    ) -> Result<SignedIn, Error> {
        signing::ready(&self.signing)?;
        let account = self.store.account(email).await?;
        let account_id = self.prove(email, account, password, address, now).await?;
        let (workspace_id, role) = self.store.first_workspace(account_id).await?.ok_or(Error::NotMember)?;
        self.start((account_id, workspace_id, role), Proved { by_provider: false, at: now }, now).await
    }

    /// What an invitation is for, and its workspace.
    ///
    /// # Errors
    /// The invitation is unknown or has ended; Postgres.
    pub async fn invitation(
        &self,
        token: &str,
        now: OffsetDateTime,
    ) -> Result<(Invitation, Workspace), Error> {
        let gone = || Error::Unauthenticated(BAD_INVITATION);
        let token_hash = token_hash(token).ok_or_else(gone)?;
        let invitation = self.store.invitation(&token_hash, now).await?.ok_or_else(gone)?;
        let workspace = self.store.workspace(invitation.workspace_id).await?.ok_or_else(gone)?;
        Ok((invitation, workspace))
    }

    /// Lets an invited person in: an account that is there gives its password, a new one chooses it.
    ///
    /// # Errors
    /// The invitation is unknown or has ended; a wrong password, or one that is too short for a new account; too
    /// many wrong ones; Postgres.
    pub async fn accept(
        &self,
        token: &str,
        password: SecretString,
        address: Option<IpAddr>,
        now: OffsetDateTime,
    ) -> Result<SignedIn, Error> {
        signing::ready(&self.signing)?;
        let gone = || Error::Unauthenticated(BAD_INVITATION);
        let token_hash = token_hash(token).ok_or_else(gone)?;
        let invitation = self.store.invitation(&token_hash, now).await?.ok_or_else(gone)?;
        let account = self.store.account(&invitation.email).await?;
        let comer = match account {
            Some(account) => {
                let proven = self.prove(&invitation.email, Some(account), password, address, now);
                Comer::Known(proven.await?)
            }
            None => {
                password::check_new("password", &password)?;
                Comer::New(AccountId::generate(), Some(self.passwords.hash(password).await?))
            }
        };
        let account_id = comer.account_id();
        let mut tx = self.store.begin().await?;
        let taken = (&invitation, token_hash.as_slice());
        let accepted = invitations::accept(&mut tx, taken, comer, address, now);
        let (workspace_id, role) = (invitation.workspace_id, accepted.await?.ok_or_else(gone)?);
        tx.commit().await?;
        tracing::info!(workspace.id = %workspace_id, account.id = %account_id, "invitation accepted");
        self.start((account_id, workspace_id, role), Proved { by_provider: false, at: now }, now).await
    }

    /// Takes the password of a session's person again: an access token that says so.
    ///
    /// # Errors
    /// The session has ended; a wrong password; too many wrong ones; the account is not in the workspace; Postgres.
    pub async fn reauthenticate(
        &self,
        session_token: &str,
        password: SecretString,
        workspace_id: Option<WorkspaceId>,
        address: Option<IpAddr>,
        now: OffsetDateTime,
    ) -> Result<Refreshed, Error> {
        let (token_hash, mut session) = self.live(session_token, now).await?;
        let account = self.store.account(&session.email).await?;
        self.prove(&session.email, account, password, address, now).await?;
        self.store.authenticate_session(&token_hash, now).await?;
        session.authenticate_time = now;
        self.renew(session, workspace_id, now).await
    }

    /// A new access token of a session, for `workspace_id` or the account's first one.
    ///
    /// # Errors
    /// The session has ended; the account is not in the workspace; Postgres.
    pub async fn refresh(
        &self,
        session_token: &str,
        workspace_id: Option<WorkspaceId>,
        now: OffsetDateTime,
    ) -> Result<Refreshed, Error> {
        let (token_hash, session) = self.live(session_token, now).await?;
        let refreshed = self.renew(session, workspace_id, now).await?;
        self.store.use_session(&token_hash, now).await?;
        Ok(refreshed)
    }

    /// Ends a session, if it goes on.
    ///
    /// # Errors
    /// Postgres.
    pub async fn sign_out(&self, session_token: &str) -> Result<(), Error> {
        signing::ready(&self.signing)?;
        if let Some(token_hash) = token_hash(session_token) {
            self.store.remove_session(&token_hash).await?;
        }
        Ok(())
    }

    /// An access token for a service.
    ///
    /// # Errors
    /// The token is unknown, expired or revoked; Postgres.
    pub async fn exchange(
        &self,
        service_token: &str,
        now: OffsetDateTime,
    ) -> Result<(Issued, WorkspaceId), Error> {
        let signing = signing::ready(&self.signing)?;
        let token_hash = token_hash(service_token).ok_or(Error::Unauthenticated(BAD_TOKEN))?;
        let found = self.store.service_token(&token_hash).await?.filter(|token| token.is_live(now));
        let found = found.ok_or(Error::Unauthenticated(BAD_TOKEN))?;
        let mut expires = now + access::LIFETIME;
        if let Some(end) = found.expire_time {
            expires = expires.min(end);
        }
        self.store.use_service_token(found.service_token_id, now.date()).await?;
        let claims = Claims {
            subject: Subject::Service(found.service_token_id),
            workspace_id: found.workspace_id,
            role: Role::Service,
            scopes: found.scopes,
            authenticated: None,
            expires,
        };
        Ok((signing.issue(&claims, now), found.workspace_id))
    }

    /// Checks a password as often as the throttle admits; the account, if it is right.
    async fn prove(
        &self,
        email: &str,
        account: Option<(AccountId, Option<String>)>,
        password: SecretString,
        address: Option<IpAddr>,
        now: OffsetDateTime,
    ) -> Result<AccountId, Error> {
        let origin = throttle::Origin::of(email, address);
        throttle::admit(&self.store, &origin, now).await?;
        let (account_id, hash) = account.unzip();
        let right = self.passwords.check(hash.flatten(), password).await?;
        let account_id = account_id.filter(|_| right).ok_or(Error::Unauthenticated(WRONG))?;
        throttle::forget(&self.store, &origin).await?;
        Ok(account_id)
    }

    async fn start(
        &self,
        (account_id, workspace_id, role): (AccountId, WorkspaceId, Role),
        proved: Proved,
        now: OffsetDateTime,
    ) -> Result<SignedIn, Error> {
        let session_token = token::generate(token::SESSION);
        let token_hash = token::hash(session_token.expose_secret());
        self.store.add_session(&token_hash, account_id, proved, (now, now + AGE_MAX)).await?;
        tracing::info!(account.id = %account_id, "signed in");
        Ok(SignedIn {
            session_token,
            access: self.person(account_id, workspace_id, role, proved.at, now)?,
            workspace_id,
        })
    }

    async fn live(&self, session_token: &str, now: OffsetDateTime) -> Result<(Vec<u8>, Session), Error> {
        signing::ready(&self.signing)?;
        let token_hash = token_hash(session_token).ok_or(Error::Unauthenticated(ENDED))?;
        let session = self.store.session(&token_hash).await?.filter(|session| session.is_live(now));
        Ok((token_hash, session.ok_or(Error::Unauthenticated(ENDED))?))
    }

    async fn renew(
        &self,
        session: Session,
        workspace_id: Option<WorkspaceId>,
        now: OffsetDateTime,
    ) -> Result<Refreshed, Error> {
        let Session { account_id, email, authenticate_time, by_provider, .. } = session;
        let found = match workspace_id {
            None => self.store.first_workspace(account_id).await?,
            Some(id) => self.store.role_in(account_id, id).await?.map(|role| (id, role)),
        };
        let (workspace_id, role) = found.ok_or(Error::NotMember)?;
        let access = self.person(account_id, workspace_id, role, authenticate_time, now)?;
        Ok(Refreshed { access, workspace_id, role, email, by_provider })
    }

    fn person(
        &self,
        account_id: AccountId,
        workspace_id: WorkspaceId,
        role: Role,
        authenticated: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Result<Issued, Error> {
        let claims = Claims {
            subject: Subject::Account(account_id),
            workspace_id,
            role,
            scopes: vec![],
            authenticated: Some(authenticated),
            expires: now + access::LIFETIME,
        };
        Ok(signing::ready(&self.signing)?.issue(&claims, now))
    }
}

/// What to look for; `None` for what can be no token.
fn token_hash(text: &str) -> Option<Vec<u8>> {
    (text.len() <= token::BYTES_MAX).then(|| token::hash(text))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_session_ends_when_it_is_idle_and_when_it_is_old() {
        let start = datetime!(2026-11-22 06:00 UTC);
        let session = Session {
            account_id: AccountId::generate(),
            email: "ada@example.org".into(),
            last_used_time: start,
            expire_time: start + AGE_MAX,
            authenticate_time: start,
            by_provider: false,
        };
        assert!(session.is_live(start + IDLE_MAX - Duration::SECOND));
        assert!(!session.is_live(start + IDLE_MAX));
        let used = Session { last_used_time: start + AGE_MAX - Duration::HOUR, ..session };
        assert!(used.is_live(start + AGE_MAX - Duration::SECOND));
        assert!(!used.is_live(start + AGE_MAX));
    }
}
