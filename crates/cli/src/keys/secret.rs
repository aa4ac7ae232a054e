//! What hands out a secret: a new key, a rotation, a look at the sealed copy. The secret alone goes to standard
//! output, so that `> secret` or `$(…)` takes it; with JSON it is in the document.

use std::time::Duration;

use proto::keys::{CreateKeyRequest, Key, RevealKeyRequest, RotateKeyRequest};
use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    fields,
    look::{details, id},
};
use crate::{
    arguments::{Create, Once, Reveal, Rotate},
    clients::Clients,
    failure::{Exit, Failure},
    json, key_reference,
    screen::Screen,
    session,
};

/// Makes a key.
pub(crate) async fn create(clients: &mut Clients, asked: &Create, screen: &Screen) -> Result<(), Failure> {
    let once = idempotency_key(&asked.once);
    let create = CreateKeyRequest {
        parent: clients.workspace().await?,
        key: Some(fields::created(asked, OffsetDateTime::now_utc())),
        idempotency_key: once.clone(),
    };
    let mut client = clients.keys.clone();
    let made = clients.change(create, Duration::ZERO, async |call| client.create_key(call).await).await;
    let made = made.map_err(|failure| unsure(failure, &once))?;
    let key = made.key.unwrap_or_default();
    if screen.is_json {
        let key = json::of("keymeter.keys.v1.Key", &key);
        return screen.document(&json!({ "key": key, "secret": made.secret }));
    }
    hand_out(&key, &made.secret, "This is the key's secret; store it now:", screen)
}

/// Gives a key a new secret.
pub(crate) async fn rotate(clients: &mut Clients, asked: &Rotate, screen: &Screen) -> Result<(), Failure> {
    let key = key_reference::find(clients, &asked.key).await?;
    let once = idempotency_key(&asked.once);
    let overlap = prost_types::Duration { seconds: asked.overlap.whole_seconds(), nanos: 0 };
    let rotate = RotateKeyRequest {
        name: key.name,
        overlap: Some(overlap),
        idempotency_key: once.clone(),
        ..RotateKeyRequest::default()
    };
    let mut client = clients.keys.clone();
    let made = clients.change(rotate, Duration::ZERO, async |call| client.rotate_key(call).await).await;
    let made = made.map_err(|failure| unsure(failure, &once))?;
    let key = made.key.unwrap_or_default();
    if screen.is_json {
        return screen.document(&json!({
            "key": json::of("keymeter.keys.v1.Key", &key),
            "secret": made.secret,
            "retired_secrets": made.retired_secrets,
            "version": made.version,
        }));
    }
    hand_out(&key, &made.secret, "This is the key's new secret; store it now:", screen)
}

/// Prints the secret that a key has.
pub(crate) async fn reveal(clients: &mut Clients, asked: &Reveal, screen: &Screen) -> Result<(), Failure> {
    session::reauthenticate(clients, &asked.password).await?;
    let key = key_reference::find(clients, &asked.key).await?;
    let mut client = clients.keys.clone();
    let reveal = RevealKeyRequest { name: key.name };
    let revealed = clients.change(reveal, Duration::ZERO, async |call| client.reveal_key(call).await).await?;
    if screen.is_json {
        screen.document(&json!({ "secret": revealed.secret }))
    } else {
        screen.line(&revealed.secret)
    }
}

fn hand_out(key: &Key, secret: &str, words: &str, screen: &Screen) -> Result<(), Failure> {
    screen.note(&details(key, screen).lines().join("\n"));
    if secret.is_empty() {
        let why = format!("{} was made before, and there is no copy of its secret to show again", id(key));
        return Err(Failure::new(Exit::Conflict, why));
    }
    screen.note(words);
    screen.line(secret)
}

/// The caller's own, or a new one: if the answer is lost, the error says how to get it.
fn idempotency_key(once: &Once) -> String {
    once.idempotency_key.clone().unwrap_or_else(|| Uuid::now_v7().to_string())
}

/// Of a change whose answer was lost nobody knows whether it was made.
fn unsure(failure: Failure, once: &str) -> Failure {
    if failure.exit != Exit::Unreachable {
        return failure;
    }
    let hint =
        format!("it may have been done all the same: run the command again with --idempotency-key {once}");
    failure.with(&hint)
}
