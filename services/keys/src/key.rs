//! A key as its events make it. Pure: takes the time, knows no store and no wire.

use std::collections::BTreeMap;

use access::Subject;
use domain::{Environment, KeyId, SecretHash, SecretId, WorkspaceId};
use ipnet::IpNet;
use time::{Duration, OffsetDateTime};

mod event;
#[cfg(test)]
mod tests;

pub use event::{Changes, Created, Expiry, Exposed, KeyEvent, RateLimit, Rotated, SecretRetired};

/// How many secrets of a key may work at once.
pub const WORKING_SECRETS_MAX: usize = 5;

/// A key, after some number of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The tenant.
    pub workspace_id: WorkspaceId,
    /// Its id, for good.
    pub key_id: KeyId,
    /// How many events it has had; the first makes it 1.
    pub version: i64,
    /// What it is for.
    pub display_name: String,
    /// Anything worth knowing; may be empty.
    pub description: String,
    /// Where it may be used.
    pub environment: Environment,
    /// First characters of its current secret.
    pub start: String,
    /// Whatever helps to find it.
    pub tags: BTreeMap<String, String>,
    /// Who answers for it; `None` for keys from before there were owners.
    pub owner: Option<Subject>,
    /// What it may do.
    pub scopes: Vec<String>,
    /// From where it may be used; empty is from anywhere.
    pub allowed_networks: Vec<IpNet>,
    /// What it may be called at most.
    pub rate_limits: Vec<RateLimit>,
    /// When it was made.
    pub create_time: OffsetDateTime,
    /// When it last changed.
    pub update_time: OffsetDateTime,
    /// When it stops working; `None` is never.
    pub expire_time: Option<OffsetDateTime>,
    /// Since when it is switched off; `None` if it is not.
    pub disable_time: Option<OffsetDateTime>,
    /// When a leak was last reported; `None` if none was.
    pub expose_time: Option<OffsetDateTime>,
    /// When it was deleted.
    pub delete_time: Option<OffsetDateTime>,
    /// Newest first, so the first is the current one. A store may leave out those that retired long ago.
    pub secrets: Vec<KeySecret>,
}

/// One of a key's secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySecret {
    /// Its id, for good.
    pub secret_id: SecretId,
    /// What verifies it.
    pub hash: SecretHash,
    /// First characters, for lists.
    pub start: String,
    /// The key's version that made it.
    pub key_version: i64,
    /// When it was made.
    pub create_time: OffsetDateTime,
    /// When it stops working, or did; `None` for the current one.
    pub retire_time: Option<OffsetDateTime>,
    /// When its leak was reported; `None` if it was not.
    pub expose_time: Option<OffsetDateTime>,
}

impl KeySecret {
    /// Whether it has not retired at `now`.
    #[must_use]
    pub fn works(&self, now: OffsetDateTime) -> bool {
        self.retire_time.is_none_or(|end| end > now)
    }
}

/// Whether a key works at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Accepted.
    Active,
    /// Its expiry has passed.
    Expired,
    /// Refused for good.
    Deleted,
    /// Switched off.
    Disabled,
}

/// Whether a secret of a key is good at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Accepted.
    Good,
    /// The key itself is refused; not with [`Standing::Active`].
    Key(Standing),
    /// The key is active, but this secret has retired.
    Retired,
}

impl Key {
    /// The key that a first event makes. A damaged one makes a key without a secret.
    #[must_use]
    pub fn created(workspace_id: WorkspaceId, key_id: KeyId, event: &Created, at: OffsetDateTime) -> Self {
        let mut key = Self {
            workspace_id,
            key_id,
            version: 1,
            display_name: event.display_name.clone(),
            description: event.description.clone(),
            environment: event.environment,
            start: event.start.clone(),
            tags: event.tags.clone(),
            owner: event.owner,
            scopes: event.scopes.clone(),
            allowed_networks: event.allowed_networks.clone(),
            rate_limits: event.rate_limits.clone(),
            create_time: at,
            update_time: at,
            expire_time: event.expire_time,
            disable_time: None,
            expose_time: None,
            delete_time: None,
            secrets: Vec::new(),
        };
        key.add_secret(event.secret(), &event.start, at);
        key
    }

    /// The key after one more event. A second `Created` changes nothing but the version.
    #[must_use]
    pub fn after(mut self, event: &KeyEvent, at: OffsetDateTime) -> Self {
        self.version += 1;
        self.update_time = at;
        match event {
            KeyEvent::Created(_) => {}
            KeyEvent::Updated(changes) => self.update(changes),
            KeyEvent::Disabled {} => self.disable_time = Some(at),
            KeyEvent::Enabled {} => self.disable_time = None,
            KeyEvent::Rotated(rotated) => {
                for secret_id in &rotated.retired {
                    self.retire(secret_id, rotated.retire_time);
                }
                self.start.clone_from(&rotated.start);
                self.add_secret(rotated.secret(), &rotated.start, at);
            }
            KeyEvent::SecretRetired(retired) => self.retire(&retired.secret_id, at),
            KeyEvent::Exposed(exposed) => {
                self.expose_time = Some(at);
                if let Some(secret) = self.secret_mut(&exposed.secret_id) {
                    secret.expose_time = Some(at);
                }
            }
            KeyEvent::Deleted {} => self.delete_time = Some(at),
        }
        self
    }

    fn update(&mut self, changes: &Changes) {
        fn take<T: Clone>(field: &mut T, change: Option<&T>) {
            if let Some(change) = change {
                field.clone_from(change);
            }
        }
        take(&mut self.display_name, changes.display_name.as_ref());
        take(&mut self.description, changes.description.as_ref());
        take(&mut self.expire_time, changes.expire_time.map(Expiry::time).as_ref());
        take(&mut self.tags, changes.tags.as_ref());
        self.owner = changes.owner.or(self.owner);
        take(&mut self.scopes, changes.scopes.as_ref());
        take(&mut self.allowed_networks, changes.allowed_networks.as_ref());
        take(&mut self.rate_limits, changes.rate_limits.as_ref());
    }

    fn add_secret(&mut self, made: Option<(SecretId, SecretHash)>, start: &str, at: OffsetDateTime) {
        let Some((secret_id, hash)) = made else { return };
        let secret = KeySecret {
            secret_id,
            hash,
            start: start.to_owned(),
            key_version: self.version,
            create_time: at,
            retire_time: None,
            expose_time: None,
        };
        self.secrets.insert(0, secret);
    }

    fn retire(&mut self, secret_id: &str, at: OffsetDateTime) {
        if let Some(secret) = self.secret_mut(secret_id) {
            secret.retire_time = Some(at);
        }
    }

    fn secret_mut(&mut self, secret_id: &str) -> Option<&mut KeySecret> {
        let secret_id: SecretId = secret_id.parse().ok()?;
        self.secrets.iter_mut().find(|secret| secret.secret_id == secret_id)
    }

    /// One of its secrets.
    #[must_use]
    pub fn secret(&self, secret_id: SecretId) -> Option<&KeySecret> {
        self.secrets.iter().find(|secret| secret.secret_id == secret_id)
    }

    /// Whom a rotation at `now` tells to retire after `overlap`: those that would work longer. `None` if more
    /// than [`WORKING_SECRETS_MAX`] secrets, the new one among them, would work at once.
    #[must_use]
    pub fn retired_by_rotation(&self, overlap: Duration, now: OffsetDateTime) -> Option<Vec<SecretId>> {
        let working = self.secrets.iter().filter(|secret| secret.works(now));
        if !overlap.is_zero() && working.clone().count() >= WORKING_SECRETS_MAX {
            return None;
        }
        let ends_later = |secret: &&KeySecret| secret.retire_time.is_none_or(|end| end > now + overlap);
        Some(working.filter(ends_later).map(|secret| secret.secret_id).collect())
    }

    /// Whether it works at `now`.
    #[must_use]
    pub fn standing(&self, now: OffsetDateTime) -> Standing {
        if self.delete_time.is_some() {
            Standing::Deleted
        } else if self.disable_time.is_some() {
            Standing::Disabled
        } else if self.expire_time.is_some_and(|end| end <= now) {
            Standing::Expired
        } else {
            Standing::Active
        }
    }

    /// Whether a call with one of its secrets is to be accepted at `now`.
    #[must_use]
    pub fn answer(&self, secret_id: SecretId, now: OffsetDateTime) -> Answer {
        match self.standing(now) {
            // A secret that is left out retired long ago.
            Standing::Active if self.secret(secret_id).is_some_and(|secret| secret.works(now)) => {
                Answer::Good
            }
            Standing::Active => Answer::Retired,
            standing => Answer::Key(standing),
        }
    }

    /// Changes with every visible change, also when the expiry passes.
    #[must_use]
    pub fn etag(&self, now: OffsetDateTime) -> String {
        let standing = self.standing(now) as u8;
        let seen = [&self.key_id.as_bytes()[..], &self.version.to_be_bytes(), &[standing]].concat();
        data_encoding::HEXLOWER.encode(&crate::token::sha256(&seen)[..8])
    }
}
