//! Making keys.

use access::{Claims, Subject};
use domain::{Environment, KeyId, Secret, SecretId, WorkspaceId};
use time::OffsetDateTime;

use super::{Keys, repeat, tell};
use crate::{
    caller::Caller,
    error::Error,
    fields,
    key::{Created, Key, KeyEvent},
    ownership::may_change,
    seal::CopyPlace,
    store::{
        Tx,
        keys::{Shown, Usage},
    },
};

/// What a new key is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    /// What it starts with, but for the secret.
    pub created: Created,
    /// Makes a repeated request return the same key.
    pub idempotency_key: Option<String>,
}

impl NewKey {
    /// A key of that name with nothing else said.
    #[must_use]
    pub fn named(display_name: &str, environment: Environment) -> Self {
        let created = Created {
            display_name: display_name.to_owned(),
            description: String::new(),
            environment,
            expire_time: None,
            start: String::new(),
            secret_id: String::new(),
            secret_hash: String::new(),
            tags: std::collections::BTreeMap::new(),
            owner: None,
            scopes: Vec::new(),
            allowed_networks: Vec::new(),
            rate_limits: Vec::new(),
        };
        Self { created, idempotency_key: None }
    }
}

impl Keys {
    /// Makes a key, or finds the one that the same request made before. The secret is `None` if a repeated
    /// request finds no copy.
    ///
    /// # Errors
    /// An expiry in the past; an owner who is not of the workspace; an idempotency key used for another request;
    /// Postgres.
    pub async fn create(
        &self,
        workspace_id: WorkspaceId,
        new: NewKey,
        (claims, caller): (&Claims, &Caller),
        now: OffsetDateTime,
    ) -> Result<(Shown, Option<Secret>), Error> {
        let data_key = self.data_key(workspace_id).await?;
        let mut tx = self.store.begin().await?;
        let (key_id, version) = (KeyId::generate(), 1);
        let NewKey { created, idempotency_key } = new;
        let request = ("create", &created);
        let again = repeat::made_before(
            &mut tx,
            workspace_id,
            idempotency_key.as_deref(),
            &request,
            (key_id, version),
            (caller, now),
        );
        if let Some(made) = again.await? {
            let action = "repeat_create_key";
            let (shown, secret) =
                repeat::show_again(&mut tx, workspace_id, made, action, &data_key, (caller, now)).await?;
            tx.commit().await?;
            return Ok((shown, secret));
        }
        fields::ahead("key.expire_time", created.expire_time, now)?;
        check_owner(&mut tx, workspace_id, created.owner, claims).await?;
        let secret = Secret::generate(created.environment);
        let created = Created {
            start: secret.start().to_owned(),
            secret_id: SecretId::generate().to_string(),
            secret_hash: secret.hash().to_string(),
            owner: created.owner.or(Some(claims.subject)),
            ..created
        };
        let key = Key::created(workspace_id, key_id, &created, now);
        if !may_change(claims, &key) {
            return Err(Error::NotOwner);
        }
        tx.record(&key, &KeyEvent::Created(created), caller).await?;
        let place = CopyPlace { workspace_id, key_id, key_version: version };
        tx.add_secret(key_id, &key.secrets[0], data_key.seal_copy(place, &secret).as_deref()).await?;
        tx.feed(key_id).await?;
        tx.commit().await?;
        tell("created", &key, caller);
        Ok((Shown { key, usage: Usage::default() }, Some(secret)))
    }
}

/// Someone else than the caller must be of the workspace.
pub(super) async fn check_owner(
    tx: &mut Tx,
    workspace_id: WorkspaceId,
    owner: Option<Subject>,
    claims: &Claims,
) -> Result<(), Error> {
    let Some(owner) = owner else { return Ok(()) };
    if owner == claims.subject || tx.is_inside(workspace_id, owner).await? {
        return Ok(());
    }
    Err(Error::invalid("key.owner", "is no member and no service token of this workspace"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::key::RateLimit;

    #[test]
    fn requests_that_differ_have_other_hashes() {
        let new = NewKey::named("a", Environment::Live).created;
        let hash = |created: &Created| repeat::hash(&("create", created));
        assert_eq!(hash(&new), hash(&new.clone()));
        for other in [
            Created { display_name: "b".into(), ..new.clone() },
            Created { description: "b".into(), ..new.clone() },
            Created { environment: Environment::Test, ..new.clone() },
            Created { expire_time: Some(OffsetDateTime::UNIX_EPOCH), ..new.clone() },
            Created { tags: BTreeMap::from([("a".into(), "b".into())]), ..new.clone() },
            Created { owner: "acc_00000000000000000000000000".parse().ok(), ..new.clone() },
            Created { scopes: vec!["a".into()], ..new.clone() },
            Created { allowed_networks: vec!["::/0".parse().unwrap()], ..new.clone() },
            Created {
                rate_limits: vec![RateLimit { name: "a".into(), requests: 1, window_s: 1 }],
                ..new.clone()
            },
        ] {
            assert_ne!(hash(&new), hash(&other));
        }
    }
}
