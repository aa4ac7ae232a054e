//! Signing in and out.

use std::sync::Arc;

use askama::Template;
use axum::{
    Extension, Form,
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Redirect, Response},
};
use axum_extra::extract::CookieJar;
use proto::keys::SignInRequest;
use serde::Deserialize;
use tonic::{Code, Status};

use crate::{
    App, clients,
    problem::{Problem, Service, page, retry_seconds},
    visit::{Reference, local_path},
};

/// Where to go afterwards.
#[derive(Deserialize)]
pub(crate) struct Next {
    #[serde(default)]
    next: String,
}

/// The filled-in form.
#[derive(Deserialize)]
pub(crate) struct Credentials {
    #[serde(default)]
    email: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    next: String,
}

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignIn<'a> {
    email: &'a str,
    next: &'a str,
    error: Option<String>,
}

/// The empty form.
pub(crate) async fn form(Query(Next { next }): Query<Next>) -> Response {
    page(&SignIn { email: "", next: local_path(&next), error: None })
}

/// Starts a session: always a new one, whatever cookie the browser came with; that one's session ends.
pub(crate) async fn submit(
    State(app): State<Arc<App>>,
    Extension(reference): Extension<Reference>,
    jar: CookieJar,
    Form(credentials): Form<Credentials>,
) -> Response {
    let Credentials { email, password, next } = credentials;
    let message = SignInRequest { email: email.clone(), password };
    let answer = app.clients.sessions.clone().sign_in(clients::open(message, &reference)).await;
    let session = match answer {
        Ok(answer) => answer.into_inner(),
        Err(status) => return refusal(&email, local_path(&next), &status, &reference),
    };
    if let Some(old) = app.sessions.token(&jar)
        && let Err(status) = app.sessions.end(&old, &reference).await
    {
        tracing::warn!(rpc.code = ?status.code(), request.reference = %reference, "the session before was not ended");
    }
    (jar.add(app.sessions.cookie(session.session_token)), Redirect::to(local_path(&next))).into_response()
}

/// Ends the session at keys and in the browser.
pub(crate) async fn sign_out(
    State(app): State<Arc<App>>,
    Extension(reference): Extension<Reference>,
    jar: CookieJar,
) -> Response {
    if let Some(token) = app.sessions.token(&jar)
        && let Err(status) = app.sessions.end(&token, &reference).await
        && status.code() != Code::Unauthenticated
    {
        // The cookie stays: signed out here but not at keys would be a lie.
        return Problem::of(Service::Keys, &status, &reference).into_response_as(false, None);
    }
    (jar.add(app.sessions.end_cookie()), Redirect::to("/sign-in")).into_response()
}

fn refusal(email: &str, next: &str, status: &Status, reference: &Reference) -> Response {
    let (http, error) = match status.code() {
        Code::Unauthenticated | Code::InvalidArgument => {
            (StatusCode::UNAUTHORIZED, "The e-mail address or the password is wrong.".to_owned())
        }
        Code::PermissionDenied => {
            let text = "You are in no workspace any more. Ask somebody to invite you to one.";
            (StatusCode::FORBIDDEN, text.to_owned())
        }
        Code::ResourceExhausted => {
            let wait =
                retry_seconds(status).map_or("a moment".to_owned(), |seconds| format!("{seconds} seconds"));
            (StatusCode::TOO_MANY_REQUESTS, format!("Too many attempts. Try again in {wait}."))
        }
        _ => {
            let problem = Problem::of(Service::Keys, status, reference);
            (problem.status, format!("{} Reference: {}", problem.text, problem.reference))
        }
    };
    let mut response = (http, page(&SignIn { email, next, error: Some(error) })).into_response();
    if let Some(seconds) = retry_seconds(status) {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}
