//! The list of keys, and the forms that generate, copy and delete one.

use std::time::Duration;

use askama::Template;
use axum::{
    Form, Json,
    extract::{Path, Query},
    http::StatusCode,
    response::{IntoResponse as _, Redirect, Response},
};
use domain::KeyId;
use proto::{
    keys::{
        CreateKeyRequest, CreateKeyResponse, DeleteKeyRequest, Environment, GetKeyRequest, Key,
        ListKeysRequest, RevealKeyRequest,
    },
    resource::{key_name, workspace_name},
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{
    Shell,
    keys_view::{KeyView, ListLinks},
    receipt_view::ReceiptView,
};
use crate::{
    problem::{Problem, Service, Stop, page, sentence},
    visit::{Reference, Visit},
};

/// Keys on one page of the list.
const PAGE_SIZE: i32 = 50;
/// How long a person waits to hear that every edge refuses a key.
const RECEIPT_TIMEOUT: Duration = Duration::from_secs(3);

/// The list's address.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ListQuery {
    /// Where the list goes on.
    #[serde(default)]
    page_token: String,
    /// Not empty: deleted keys too.
    #[serde(default)]
    deleted: String,
}

/// The form of a new key, as it was filled in.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct NewKey {
    #[serde(default)]
    display_name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    environment: String,
    /// Minted with the form, so that a form that is sent twice makes one key.
    #[serde(default)]
    idempotency_key: String,
}

/// What is wrong with a form, by field; `general` for the rest.
#[derive(Debug, Default, PartialEq, Eq)]
struct FormErrors {
    display_name: Option<String>,
    description: Option<String>,
    environment: Option<String>,
    general: Option<String>,
}

#[derive(Template)]
#[template(path = "keys.html")]
struct ListPage {
    shell: Shell,
    keys: Vec<KeyView>,
    links: ListLinks,
    form: NewKey,
    errors: FormErrors,
}

#[derive(Template)]
#[template(path = "key_new.html")]
struct NewPage {
    shell: Shell,
    form: NewKey,
    errors: FormErrors,
}

#[derive(Template)]
#[template(path = "key_created.html")]
struct CreatedPage {
    shell: Shell,
    key: KeyView,
    secret: String,
    edge_url: String,
}

#[derive(Template)]
#[template(path = "key_delete.html")]
struct DeletePage {
    shell: Shell,
    key: KeyView,
}

#[derive(Template)]
#[template(path = "key_deleted.html")]
struct DeletedPage {
    shell: Shell,
    key: KeyView,
    receipt: ReceiptView,
}

/// What a script puts on the clipboard.
#[derive(Serialize)]
struct Revealed {
    secret: String,
}

/// `GET /keys`
pub(crate) async fn list(visit: Visit, Query(query): Query<ListQuery>) -> Result<Response, Stop> {
    let show_deleted = !query.deleted.is_empty();
    let mut client = visit.app.clients.keys.clone();
    let request = visit.call(ListKeysRequest {
        parent: workspace_name(visit.access.workspace_id),
        page_size: PAGE_SIZE,
        page_token: query.page_token.clone(),
        show_deleted,
        ..ListKeysRequest::default()
    });
    let listed = match client.list_keys(request).await {
        Ok(listed) => listed.into_inner(),
        // A link to a page of the list from before a change of it: start over.
        Err(status) if status.code() == Code::InvalidArgument && !query.page_token.is_empty() => {
            return Ok(Redirect::to(&ListLinks::first(show_deleted)).into_response());
        }
        Err(status) => return Err(visit.stop(Service::Keys, &status)),
    };
    let now = OffsetDateTime::now_utc();
    Ok(page(&ListPage {
        shell: visit.shell(),
        keys: listed.keys.iter().filter_map(|key| KeyView::new(key, now)).collect(),
        links: ListLinks::new(show_deleted, &query.page_token, &listed.next_page_token),
        form: NewKey::blank(),
        errors: FormErrors::default(),
    }))
}

/// `GET /keys/new`
pub(crate) async fn new(visit: Visit) -> Response {
    page(&NewPage { shell: visit.shell(), form: NewKey::blank(), errors: FormErrors::default() })
}

/// `POST /keys`: the page with the secret, which no other page shows.
pub(crate) async fn create(visit: Visit, Form(form): Form<NewKey>) -> Result<Response, Stop> {
    let environment = if form.environment == "test" { Environment::Test } else { Environment::Live };
    let request = visit.call(CreateKeyRequest {
        parent: workspace_name(visit.access.workspace_id),
        key: Some(Key {
            display_name: form.display_name.trim().to_owned(),
            description: form.description.trim().to_owned(),
            environment: environment.into(),
            ..Key::default()
        }),
        idempotency_key: form.idempotency_key.clone(),
    });
    match visit.app.clients.keys.clone().create_key(request).await {
        Ok(created) => {
            let CreateKeyResponse { key, secret } = created.into_inner();
            let key = key.as_ref().and_then(|key| KeyView::new(key, OffsetDateTime::now_utc()));
            let key =
                key.ok_or_else(|| visit.stop(Service::Keys, &Status::internal("a key without a name")))?;
            let edge_url = visit.app.config.edge_url.to_string();
            Ok(page(&CreatedPage { shell: visit.shell(), key, secret, edge_url }))
        }
        Err(status) if matches!(status.code(), Code::InvalidArgument | Code::AlreadyExists) => {
            // The number of a form that was used for another key would be refused again.
            let form = NewKey { idempotency_key: NewKey::blank().idempotency_key, ..form };
            let errors = FormErrors::of(&status);
            let code = StatusCode::UNPROCESSABLE_ENTITY;
            Ok((code, page(&NewPage { shell: visit.shell(), form, errors })).into_response())
        }
        Err(status) => Err(visit.stop(Service::Keys, &status)),
    }
}

/// `GET /keys/{key_id}/delete`
pub(crate) async fn confirm_delete(visit: Visit, Path(key_id): Path<String>) -> Result<Response, Stop> {
    let key = get(&visit, &key_id).await?;
    if key.is_deleted() {
        return Ok(Redirect::to(&key.usage_link()).into_response());
    }
    Ok(page(&DeletePage { shell: visit.shell(), key }))
}

/// `POST /keys/{key_id}/delete`: the receipt. Sent twice it deletes once.
pub(crate) async fn delete(visit: Visit, Path(key_id): Path<String>) -> Result<Response, Stop> {
    let key_id: KeyId = key_id.parse().map_err(|_| visit.not_found())?;
    let name = key_name(visit.access.workspace_id, key_id);
    let request = visit.call(DeleteKeyRequest {
        name,
        receipt_timeout: prost_types::Duration::try_from(RECEIPT_TIMEOUT).ok(),
        ..DeleteKeyRequest::default()
    });
    let deleted = visit.app.clients.keys.clone().delete_key(request).await;
    let deleted = deleted.map_err(|status| visit.stop(Service::Keys, &status))?.into_inner();
    let now = OffsetDateTime::now_utc();
    let key = deleted.key.as_ref().and_then(|key| KeyView::new(key, now));
    let key = key.ok_or_else(|| visit.stop(Service::Keys, &Status::internal("a key without a name")))?;
    let receipt = ReceiptView::new(deleted.receipt.as_ref(), now);
    Ok(page(&DeletedPage { shell: visit.shell(), key, receipt }))
}

/// `POST /keys/{key_id}/reveal`: the secret as JSON for the clipboard; it is part of no page. The form may hold the
/// person's password, which keys wants again from time to time.
pub(crate) async fn reveal(
    mut visit: Visit,
    Path(key_id): Path<String>,
    form: String,
) -> Result<Response, Stop> {
    let key_id: KeyId = key_id.parse().map_err(|_| visit.not_found())?;
    let name = key_name(visit.access.workspace_id, key_id);
    let password = form_urlencoded::parse(form.as_bytes()).find(|(field, _)| field == "password");
    if let Some((_, password)) = password {
        visit.reauthenticate(password.into_owned()).await.map_err(wrong_password(&visit.reference))?;
    }
    let revealed = visit.app.clients.keys.clone().reveal_key(visit.call(RevealKeyRequest { name })).await;
    let revealed = revealed.map_err(|status| {
        let problem = visit.problem(Service::Keys, &status);
        Stop::new(problem.into_response_as(true, None))
    })?;
    Ok(Json(Revealed { secret: revealed.into_inner().secret }).into_response())
}

/// A refused password is said where it was asked for; the session goes on.
fn wrong_password(reference: &Reference) -> impl Fn(Status) -> Stop {
    let reference = reference.clone();
    move |status| {
        let problem = match status.code() {
            Code::Unauthenticated => Problem::wrong_password(&reference),
            _ => Problem::of(Service::Keys, &status, &reference),
        };
        Stop::new(problem.into_response_as(true, None))
    }
}

async fn get(visit: &Visit, key_id: &str) -> Result<KeyView, Stop> {
    let key_id: KeyId = key_id.parse().map_err(|_| visit.not_found())?;
    let name = key_name(visit.access.workspace_id, key_id);
    let key = visit.app.clients.keys.clone().get_key(visit.call(GetKeyRequest { name })).await;
    let key = key.map_err(|status| visit.stop(Service::Keys, &status))?.into_inner();
    KeyView::new(&key, OffsetDateTime::now_utc()).ok_or_else(|| visit.not_found())
}

impl NewKey {
    fn blank() -> Self {
        Self { idempotency_key: uuid::Uuid::now_v7().to_string(), ..Self::default() }
    }

    fn is_test(&self) -> bool {
        self.environment == "test"
    }
}

impl FormErrors {
    fn of(status: &Status) -> Self {
        let mut errors = Self::default();
        let details = status.get_error_details();
        for violation in details.bad_request().map_or(&[][..], |bad| &bad.field_violations) {
            let place = match violation.field.as_str() {
                "key.display_name" => &mut errors.display_name,
                "key.description" => &mut errors.description,
                "key.environment" => &mut errors.environment,
                _ => &mut errors.general,
            };
            *place = Some(sentence(&violation.description));
        }
        if errors == Self::default() {
            errors.general = Some(match status.code() {
                Code::AlreadyExists => {
                    "This form was already used for another key. Send it again.".to_owned()
                }
                _ => sentence(status.message()),
            });
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_field_is_said_at_the_field() {
        let errors = FormErrors::of(&proto::status::invalid("key.display_name", "must not be empty"));
        assert_eq!(errors.display_name.as_deref(), Some("Must not be empty."));
        assert_eq!(errors.general, None);
        let errors = FormErrors::of(&proto::status::invalid("idempotency_key", "too long"));
        assert_eq!(errors.general.as_deref(), Some("Too long."));
        let errors = FormErrors::of(&Status::invalid_argument("no details"));
        assert_eq!(errors.general.as_deref(), Some("No details."));
    }
}
