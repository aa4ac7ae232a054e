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
use proto::{keys::SignInRequest, resource::parse_workspace_name};
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
    /// Where one may sign in as well.
    provider: Option<String>,
}

impl SignIn<'_> {
    /// The way there.
    fn provider_link(&self) -> String {
        let query = form_urlencoded::Serializer::new(String::new()).append_pair("next", self.next).finish();
        format!("/sign-in/oidc?{query}")
    }
}

/// The empty form.
pub(crate) async fn form(
    State(app): State<Arc<App>>,
    Extension(reference): Extension<Reference>,
    Query(Next { next }): Query<Next>,
) -> Response {
    let provider = app.sessions.provider(&reference).await;
    page(&SignIn { email: "", next: local_path(&next), error: None, provider })
}

/// The form after nobody came in by the provider, which `error` is about.
pub(crate) async fn refused_at_provider(
    app: &App,
    next: &str,
    error: String,
    reference: &Reference,
) -> Response {
    let provider = app.sessions.provider(reference).await;
    page(&SignIn { email: "", next, error: Some(error), provider })
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
        Err(status) => {
            let provider = app.sessions.provider(&reference).await;
            let form = SignIn { email: &email, next: local_path(&next), error: None, provider };
            return refusal(form, &status, &reference);
        }
    };
    come_in(&app, jar, session.session_token, None, local_path(&next), &reference).await
}

/// Starts the session in the browser, in the workspace that somebody was `invited_to`; the one before ends.
pub(crate) async fn come_in(
    app: &App,
    mut jar: CookieJar,
    session_token: String,
    invited_to: Option<&str>,
    next: &str,
    reference: &Reference,
) -> Response {
    if let Some(old) = app.sessions.token(&jar)
        && let Err(status) = app.sessions.end(&old, reference).await
    {
        tracing::warn!(rpc.code = ?status.code(), request.reference = %reference, "the session before was not ended");
    }
    jar = jar.add(app.sessions.cookie(session_token));
    if let Some(workspace_id) = invited_to.and_then(|name| parse_workspace_name(name).ok()) {
        jar = jar.add(app.sessions.workspace_cookie(workspace_id));
    }
    (jar, Redirect::to(next)).into_response()
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

fn refusal(form: SignIn<'_>, status: &Status, reference: &Reference) -> Response {
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
    let mut response = (http, page(&SignIn { error: Some(error), ..form })).into_response();
    if let Some(seconds) = retry_seconds(status) {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}
