//! Signing in, staying signed in, and trading tokens for access tokens.

use std::{net::IpAddr, sync::Arc};

use access::{Claims, Role, Subject};
use domain::{AccountId, WorkspaceId};
use secrecy::{ExposeSecret as _, SecretString};
use time::{Duration, OffsetDateTime};

use crate::{
    error::Error,
    password::Passwords,
    signing::{self, Issued, SigningCell},
    store::Store,
    throttle, token,
};

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
}

impl Session {
    /// Whether it goes on at `now`.
    #[must_use]
    pub fn is_live(&self, now: OffsetDateTime) -> bool {
        now < self.expire_time && now < self.last_used_time + IDLE_MAX
    }
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
    pub fn new(store: Store, signing: Arc<SigningCell>) -> Self {
        Self { store, passwords: Passwords::new(), signing }
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
        let origin = throttle::Origin::of(email, address);
        throttle::admit(&self.store, &origin, now).await?;
        let account = self.store.account(email).await?;
        let (account_id, hash) = account.map_or((None, None), |(id, hash)| (Some(id), Some(hash)));
        let right = self.passwords.check(hash, password).await?;
        let Some(account_id) = account_id.filter(|_| right) else {
            return Err(Error::Unauthenticated(WRONG));
        };
        throttle::forget(&self.store, &origin).await?;
        let workspace_id = self.store.first_workspace(account_id).await?.ok_or(Error::NotMember)?;
        let session_token = token::generate(token::SESSION);
        let token_hash = token::hash(session_token.expose_secret());
        self.store.add_session(&token_hash, account_id, now, now + AGE_MAX).await?;
        tracing::info!(account.id = %account_id, "signed in");
        Ok(SignedIn { session_token, access: self.person(account_id, workspace_id, now)?, workspace_id })
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
    ) -> Result<(Issued, WorkspaceId, String), Error> {
        signing::ready(&self.signing)?;
        let token_hash = token_hash(session_token).ok_or(Error::Unauthenticated(ENDED))?;
        let session = self.store.session(&token_hash).await?.filter(|session| session.is_live(now));
        let session = session.ok_or(Error::Unauthenticated(ENDED))?;
        let account_id = session.account_id;
        let workspace_id = match workspace_id {
            None => self.store.first_workspace(account_id).await?,
            Some(id) => self.store.is_member(account_id, id).await?.then_some(id),
        };
        let workspace_id = workspace_id.ok_or(Error::NotMember)?;
        self.store.use_session(&token_hash, now).await?;
        Ok((self.person(account_id, workspace_id, now)?, workspace_id, session.email))
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
        let claims = Claims {
            subject: Subject::Service(found.service_token_id),
            workspace_id: found.workspace_id,
            role: Role::Service,
            scopes: found.scopes,
            expires,
        };
        Ok((signing.issue(&claims, now), found.workspace_id))
    }

    fn person(
        &self,
        account_id: AccountId,
        workspace_id: WorkspaceId,
        now: OffsetDateTime,
    ) -> Result<Issued, Error> {
        let claims = Claims {
            subject: Subject::Account(account_id),
            workspace_id,
            role: Role::Admin,
            scopes: vec![],
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
        };
        assert!(session.is_live(start + IDLE_MAX - Duration::SECOND));
        assert!(!session.is_live(start + IDLE_MAX));
        let used = Session { last_used_time: start + AGE_MAX - Duration::HOUR, ..session };
        assert!(used.is_live(start + AGE_MAX - Duration::SECOND));
        assert!(!used.is_live(start + AGE_MAX));
    }
}
