//! The list of keys, and the pages that generate, change, rotate, switch, delete and copy one. Holds what they
//! share; never shows a secret but on the page that follows its making.

use std::time::Duration;

use askama::Template;
use axum::response::{IntoResponse as _, Redirect, Response};
use domain::KeyId;
use proto::{
    keys::{GetKeyRequest, Key, Secret},
    resource::key_name,
};
use time::OffsetDateTime;
use tonic::Status;

use super::{Shell, keys_view::KeyView, receipt_view::ReceiptView};
use crate::{
    format::Moment,
    problem::{Service, Stop, page},
    visit::Visit,
};

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod edit;
mod errors;
mod form;
pub(crate) mod list;
mod list_query;
pub(crate) mod reveal;
pub(crate) mod rotate;
pub(crate) mod secrets;
mod spark;
mod split;
pub(crate) mod switch;

/// How long a person waits to hear that every edge refuses what was withdrawn.
const RECEIPT_TIMEOUT: Duration = Duration::from_secs(3);

/// A secret, once, with what to do with it.
#[derive(Template)]
#[template(path = "key_created.html")]
struct SecretPage {
    shell: Shell,
    key: KeyView,
    /// `Key generated`
    done: &'static str,
    /// Empty if it was shown before and no copy is kept.
    secret: String,
    edge_url: String,
    /// Until when the secrets before it work, if it took their place.
    overlap: Option<Overlap>,
}

/// What becomes of the secrets that a new one takes the place of.
enum Overlap {
    /// They work until then.
    Until(Moment),
    /// They are refused already.
    Over,
}

/// What was done to a key, and which edges know.
#[derive(Template)]
#[template(path = "key_done.html")]
struct DonePage {
    shell: Shell,
    key: KeyView,
    /// What happened, after the key's name.
    what: &'static str,
    /// The first characters of the secret that it happened to.
    start: String,
    receipt: Option<ReceiptView>,
    text: &'static str,
    /// Where to look next.
    next: Next,
}

/// Where a person goes on from what was done.
enum Next {
    Usage,
    Secrets,
}

impl SecretPage {
    fn respond(
        visit: &Visit,
        key: Option<&Key>,
        secret: String,
        done: &'static str,
        overlap: Option<Overlap>,
    ) -> Result<Response, Stop> {
        let key = view(visit, key, OffsetDateTime::now_utc())?;
        let edge_url = visit.app.config.edge_url.to_string();
        Ok(page(&Self { shell: visit.shell(), key, done, secret, edge_url, overlap }))
    }
}

/// What a service is asked for when somebody waits for a receipt.
fn receipt_timeout() -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(RECEIPT_TIMEOUT).ok()
}

/// A number for a form, so that one that is sent twice is done once.
fn mint_idempotency_key() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// The name of the key that an address means.
fn name_of(visit: &Visit, key_id: &str) -> Result<String, Stop> {
    let key_id: KeyId = key_id.parse().map_err(|_| visit.not_found())?;
    Ok(key_name(visit.access.workspace_id, key_id))
}

/// The key that an address means, deleted or not.
async fn get(visit: &Visit, key_id: &str) -> Result<Key, Stop> {
    let name = name_of(visit, key_id)?;
    let key = visit.app.clients.keys.clone().get_key(visit.call(GetKeyRequest { name })).await;
    Ok(key.map_err(|status| visit.stop(Service::Keys, &status))?.into_inner())
}

/// As [`get`] with its view; of a deleted key there is only its usage to see.
async fn get_living(visit: &Visit, key_id: &str) -> Result<(Key, KeyView), Stop> {
    let key = get(visit, key_id).await?;
    let shown = view(visit, Some(&key), OffsetDateTime::now_utc())?;
    if shown.is_deleted() {
        return Err(Stop::new(Redirect::to(&shown.usage_link()).into_response()));
    }
    Ok((key, shown))
}

fn view(visit: &Visit, key: Option<&Key>, now: OffsetDateTime) -> Result<KeyView, Stop> {
    let shown = key.and_then(|key| KeyView::new(key, now));
    shown.ok_or_else(|| visit.stop(Service::Keys, &Status::internal("a key without a name")))
}

/// The secret with this id, as `sec_…`, among those of a key.
fn secret_of<'a>(key: &'a Key, secret_id: &str) -> Option<&'a Secret> {
    key.secrets.iter().find(|secret| secret.name.rsplit('/').next() == Some(secret_id))
}
