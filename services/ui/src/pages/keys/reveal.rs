//! A key's secret for the clipboard, as JSON. It is part of no page.

use axum::{
    Json,
    extract::Path,
    response::{IntoResponse as _, Response},
};
use proto::keys::RevealKeyRequest;
use serde::Serialize;
use tonic::{Code, Status};

use super::name_of;
use crate::{
    problem::{Problem, Service, Stop},
    visit::{Reference, Visit},
};

/// What a script puts on the clipboard.
#[derive(Serialize)]
struct Revealed {
    secret: String,
}

/// `POST /keys/{key_id}/reveal`: the form may hold the person's password, which keys wants again from time to time.
pub(crate) async fn reveal(
    mut visit: Visit,
    Path(key_id): Path<String>,
    form: String,
) -> Result<Response, Stop> {
    let name = name_of(&visit, &key_id)?;
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
