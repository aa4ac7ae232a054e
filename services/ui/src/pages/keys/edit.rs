//! Changing what a key was told. Never writes over a change that the person has not seen.

use askama::Template;
use axum::{
    extract::{Path, RawQuery},
    http::StatusCode,
    response::{IntoResponse as _, Redirect, Response},
};
use proto::keys::{Key, UpdateKeyRequest};
use time::OffsetDateTime;
use tonic::Code;

use super::{errors::FormErrors, form::KeyForm, get_living};
use crate::{
    filters::field,
    format::{Moment, Show, day},
    pages::{Shell, keys_view::KeyView},
    problem::{Service, Stop, page},
    visit::Visit,
};

#[derive(Template)]
#[template(path = "key_edit.html")]
struct EditPage {
    shell: Shell,
    key: KeyView,
    form: KeyForm,
    errors: FormErrors,
    /// The first day that may be chosen.
    today: String,
    /// When it stops working, as it is.
    expires: Option<Moment>,
    is_saved: bool,
    /// Somebody else's change came first: in what the key now differs from what was typed.
    conflict: Option<String>,
}

/// `GET /keys/{key_id}/edit`
pub(crate) async fn form(
    visit: Visit,
    Path(key_id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Stop> {
    let (key, shown) = get_living(&visit, &key_id).await?;
    let mut edit = EditPage::new(&visit, &key, shown, KeyForm::of(&key));
    edit.is_saved = field(query.as_deref().unwrap_or_default(), "saved") == "1";
    Ok(page(&edit))
}

/// `POST /keys/{key_id}/edit`
pub(crate) async fn submit(visit: Visit, Path(key_id): Path<String>, form: String) -> Result<Response, Stop> {
    let form = KeyForm::read(&form);
    let key = match form.to_key(OffsetDateTime::now_utc()) {
        Ok(key) => Key { name: super::name_of(&visit, &key_id)?, ..key },
        Err(errors) => return refuse(&visit, &key_id, form, errors).await,
    };
    let request = visit.call(UpdateKeyRequest { key: Some(key), update_mask: Some(form.mask()) });
    match visit.app.clients.keys.clone().update_key(request).await {
        Ok(_) => Ok(Redirect::to(&format!("/keys/{key_id}/edit?saved=1")).into_response()),
        Err(status) if status.code() == Code::InvalidArgument => {
            refuse(&visit, &key_id, form, FormErrors::of(&status)).await
        }
        Err(status) if status.code() == Code::Aborted => show_conflict(&visit, &key_id, form).await,
        Err(status) => Err(visit.stop(Service::Keys, &status)),
    }
}

async fn refuse(visit: &Visit, key_id: &str, form: KeyForm, errors: FormErrors) -> Result<Response, Stop> {
    let (key, shown) = get_living(visit, key_id).await?;
    let edit = EditPage { errors, ..EditPage::new(visit, &key, shown, form) };
    Ok((StatusCode::UNPROCESSABLE_ENTITY, page(&edit)).into_response())
}

/// What was typed stays, and can be saved over what the key is now, which the page tells.
async fn show_conflict(visit: &Visit, key_id: &str, form: KeyForm) -> Result<Response, Stop> {
    let (key, shown) = get_living(visit, key_id).await?;
    let differences = form.differences(&KeyForm::of(&key)).join(", ");
    let form = KeyForm { etag: key.etag.clone(), ..form };
    let edit = EditPage { conflict: Some(differences), ..EditPage::new(visit, &key, shown, form) };
    Ok((StatusCode::CONFLICT, page(&edit)).into_response())
}

impl EditPage {
    fn new(visit: &Visit, key: &Key, shown: KeyView, form: KeyForm) -> Self {
        let now = OffsetDateTime::now_utc();
        Self {
            shell: visit.shell(),
            key: shown,
            form,
            errors: FormErrors::default(),
            today: day(now),
            expires: Moment::of(key.expire_time.as_ref(), Show::Full, now),
            is_saved: false,
            conflict: None,
        }
    }
}
