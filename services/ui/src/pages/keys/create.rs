//! Generating a key: the form with all it can be told, and the page with its secret. Never shows a secret twice.

use askama::Template;
use axum::{
    extract::RawQuery,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use proto::{
    keys::{CreateKeyRequest, CreateKeyResponse},
    resource::workspace_name,
};
use time::OffsetDateTime;
use tonic::Code;

use super::{SecretPage, errors::FormErrors, form::KeyForm, mint_idempotency_key};
use crate::{
    format::{Moment, day},
    pages::Shell,
    problem::{Service, Stop, page},
    visit::Visit,
};

#[derive(Template)]
#[template(path = "key_new.html")]
struct NewPage {
    shell: Shell,
    form: KeyForm,
    errors: FormErrors,
    /// The first day that may be chosen.
    today: String,
    /// Only a key that is there has one.
    expires: Option<Moment>,
}

/// `GET /keys/new`: what the address has is filled in.
pub(crate) async fn form(visit: Visit, RawQuery(query): RawQuery) -> Response {
    let form = KeyForm::read(query.as_deref().unwrap_or_default());
    respond(&visit, form, FormErrors::default())
}

/// `POST /keys`: the page with the secret, which no other page shows.
pub(crate) async fn submit(visit: Visit, form: String) -> Result<Response, Stop> {
    let form = KeyForm::read(&form);
    let key = match form.to_key(OffsetDateTime::now_utc()) {
        Ok(key) => key,
        Err(errors) => return Ok(refuse(&visit, form, errors)),
    };
    let request = visit.call(CreateKeyRequest {
        parent: workspace_name(visit.access.workspace_id),
        key: Some(key),
        idempotency_key: form.idempotency_key.clone(),
    });
    match visit.app.clients.keys.clone().create_key(request).await {
        Ok(created) => {
            let CreateKeyResponse { key, secret } = created.into_inner();
            SecretPage::respond(&visit, key.as_ref(), secret, "Key generated", None)
        }
        Err(status) if matches!(status.code(), Code::InvalidArgument | Code::AlreadyExists) => {
            Ok(refuse(&visit, form, FormErrors::of(&status)))
        }
        Err(status) => Err(visit.stop(Service::Keys, &status)),
    }
}

fn refuse(visit: &Visit, form: KeyForm, errors: FormErrors) -> Response {
    (StatusCode::UNPROCESSABLE_ENTITY, respond(visit, form, errors)).into_response()
}

/// The number of a form that was used for another key would be refused again, so each has its own.
fn respond(visit: &Visit, form: KeyForm, errors: FormErrors) -> Response {
    let form = KeyForm { idempotency_key: mint_idempotency_key(), ..form };
    let today = day(OffsetDateTime::now_utc());
    page(&NewPage { shell: visit.shell(), form, errors, today, expires: None })
}
