//! Signing in at the OpenID Connect provider: the way there, and the way back. What the browser has to bring back is
//! in a cookie of its own for ten minutes; whether it is good, keys decides.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Query, State},
    http::{HeaderMap, HeaderValue, StatusCode},
    response::{IntoResponse as _, Redirect, Response},
};
use axum_extra::extract::{CookieJar, cookie::Cookie};
use data_encoding::BASE64URL_NOPAD;
use proto::keys::{BeginProviderSignInRequest, FinishProviderSignInRequest, ProviderAnswer};
use serde::Deserialize;
use time::Duration;
use tonic::Status;

use super::{invitations, sign_in};
use crate::{
    App, clients,
    cookies::cookie,
    problem::{Problem, Service},
    session,
    visit::{HOME, Reference, local_path},
};

/// Where the provider sends browsers back to; registered there.
const CALLBACK: &str = "/sign-in/oidc/callback";
/// How long the way there and back may take: as long as keys takes it.
const TRIP_AGE: Duration = Duration::minutes(10);
/// Longest address that is come back to: browsers keep cookies of 4 KiB.
const NEXT_BYTES_MAX: usize = 2_000;

/// What somebody wants at the provider.
#[derive(Default, Deserialize)]
pub(crate) struct Wish {
    /// Where to go afterwards.
    #[serde(default)]
    next: String,
    /// The token of an invitation to accept.
    #[serde(default)]
    invitation: String,
    /// Anything to prove once more who one is.
    #[serde(default)]
    again: String,
}

/// What the provider adds to the address.
#[derive(Deserialize)]
pub(crate) struct Back {
    #[serde(default)]
    state: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    error: String,
}

/// A way to the provider that was begun in this browser.
struct Trip {
    flow: String,
    wish: Wish,
}

/// `GET /sign-in/oidc`: a link, since a form may lead only to ourselves. Other sites can not send anybody there.
pub(crate) async fn start(
    State(app): State<Arc<App>>,
    Extension(reference): Extension<Reference>,
    headers: HeaderMap,
    jar: CookieJar,
    Query(mut wish): Query<Wish>,
) -> Response {
    let from = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if from.is_some_and(|site| !matches!(site, b"same-origin" | b"none")) {
        return Redirect::to("/sign-in").into_response();
    }
    if !wish.again.is_empty() {
        "1".clone_into(&mut wish.again);
    }
    if wish.next.len() > NEXT_BYTES_MAX || local_path(&wish.next) != wish.next {
        HOME.clone_into(&mut wish.next);
    }
    if !invitations::is_plausible(&wish.invitation) {
        wish.invitation.clear();
    }
    let message = BeginProviderSignInRequest {
        redirect_uri: redirect_uri(&app),
        reauthenticate: !wish.again.is_empty(),
    };
    let begun = app.clients.sessions.clone().begin_provider_sign_in(clients::open(message, &reference)).await;
    match begun.map(tonic::Response::into_inner) {
        Ok(begun) => {
            let trip = Trip { flow: begun.flow, wish };
            (jar.add(trip.cookie(&app)), Redirect::to(&begun.authorization_url)).into_response()
        }
        Err(status) => refusal(&app, &jar, wish, &status, &reference).await,
    }
}

/// `GET /sign-in/oidc/callback`: once for each trip, whatever comes of it.
pub(crate) async fn callback(
    State(app): State<Arc<App>>,
    Extension(reference): Extension<Reference>,
    jar: CookieJar,
    Query(Back { state, code, error }): Query<Back>,
) -> Response {
    let trip = Trip::of(&jar, &app);
    let jar = jar.add(over(&app));
    let Some(Trip { flow, wish }) = trip else {
        let ended = proto::status::error(tonic::Code::Unauthenticated, "PROVIDER_SIGN_IN_ENDED", "no cookie");
        let page = refusal(&app, &jar, Wish::default(), &ended, &reference).await;
        return (jar, page).into_response();
    };
    let answer = ProviderAnswer { flow, state, code, error, redirect_uri: redirect_uri(&app) };
    if !wish.again.is_empty() {
        return again(&app, jar, wish, answer, &reference).await;
    }
    let message =
        FinishProviderSignInRequest { answer: Some(answer), invitation_token: wish.invitation.clone() };
    let finished =
        app.clients.sessions.clone().finish_provider_sign_in(clients::open(message, &reference)).await;
    match finished.map(tonic::Response::into_inner) {
        Ok(came) => {
            let invited_to = (!wish.invitation.is_empty()).then_some(came.workspace.as_str());
            let next = local_path(&wish.next);
            sign_in::come_in(&app, jar, came.session_token, invited_to, next, &reference).await
        }
        Err(status) => {
            let page = refusal(&app, &jar, wish, &status, &reference).await;
            (jar, page).into_response()
        }
    }
}

/// Back from proving once more who one is: the session goes on.
async fn again(
    app: &App,
    jar: CookieJar,
    wish: Wish,
    answer: ProviderAnswer,
    reference: &Reference,
) -> Response {
    let Some(token) = app.sessions.token(&jar) else {
        return (jar, Redirect::to("/sign-in")).into_response();
    };
    let proved = async {
        let access = app.sessions.access(&token, session::wanted(&jar), reference).await?;
        app.sessions.reauthenticate_by_provider(&token, &access, answer, reference).await
    };
    match proved.await {
        Ok(_) => (jar, Redirect::to(local_path(&wish.next))).into_response(),
        Err(status) => {
            let page = refusal(app, &jar, wish, &status, reference).await;
            (jar, page).into_response()
        }
    }
}

/// The page where it was begun, which says what went wrong and lets one try again.
async fn refusal(app: &App, jar: &CookieJar, wish: Wish, status: &Status, reference: &Reference) -> Response {
    let problem = worded(Problem::of(Service::Keys, status, reference));
    if !wish.again.is_empty() {
        return problem.into_response_as(false, None);
    }
    let (code, text) = (problem.status, format!("{} Reference: {}", problem.text, problem.reference));
    let mut response = if wish.invitation.is_empty() {
        sign_in::refused_at_provider(app, local_path(&wish.next), text, reference).await
    } else {
        invitations::refused_at_provider(app, jar, &wish.invitation, &text, reference).await
    };
    *response.status_mut() = code;
    response
}

/// What the reasons of keys mean to the person.
fn worded(mut problem: Problem) -> Problem {
    let (status, title, text) = match problem.reason.as_str() {
        "PROVIDER_NOT_CONFIGURED" => (
            StatusCode::NOT_FOUND,
            "No such sign-in",
            "There is no other way to sign in here than by e-mail address and password.",
        ),
        "PROVIDER_SIGN_IN_ENDED" => (
            StatusCode::UNAUTHORIZED,
            "Sign-in has ended",
            "This sign-in took more than 10 minutes, was used before, or was begun elsewhere. Try again.",
        ),
        "PROVIDER_REFUSED" => (
            StatusCode::UNAUTHORIZED,
            "Not signed in",
            "The sign-in was cancelled or refused where you were sent to. Try again, or use your password.",
        ),
        "PROVIDER_TOKEN_INVALID" => (
            StatusCode::BAD_GATEWAY,
            "Not signed in",
            "What came back about you does not hold, so you are not signed in. Tell whoever runs this.",
        ),
        "PROVIDER_AWAY" => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Not signed in",
            "The place where you sign in gives no good answer. Try again in a moment, or use your password.",
        ),
        "NOT_PROVED_AGAIN" => (
            StatusCode::UNAUTHORIZED,
            "Not signed in again",
            "You were not asked to sign in again, so keys stay covered. Tell whoever runs this.",
        ),
        "ANOTHER_PERSON" => (
            StatusCode::FORBIDDEN,
            "Somebody else",
            "You have signed in as somebody else than here. Try again as the same person, or sign out here first.",
        ),
        "NO_ACCOUNT" => (
            StatusCode::FORBIDDEN,
            "No account",
            "You have no account here yet. Ask somebody in your team to invite you, and open the link that you get.",
        ),
        "EMAIL_NOT_VERIFIED" => (
            StatusCode::FORBIDDEN,
            "Address not verified",
            "Your e-mail address is not verified where you have signed in. Have it verified there, or use your \
             password.",
        ),
        "LINKED_TO_ANOTHER" => (
            StatusCode::FORBIDDEN,
            "Somebody else’s account",
            "The account of your e-mail address belongs to somebody else’s sign-in. Tell whoever runs this.",
        ),
        "INVITED_IS_ANOTHER" => (
            StatusCode::FORBIDDEN,
            "Somebody else is invited",
            "This invitation is for another e-mail address than yours. Sign in with that one, or ask for an \
             invitation of your own.",
        ),
        "NOT_A_MEMBER" => (
            StatusCode::FORBIDDEN,
            "No workspace",
            "You are in no workspace any more. Ask somebody to invite you to one.",
        ),
        _ => return problem,
    };
    (problem.status, problem.title, problem.text) = (status, title, text.to_owned());
    problem
}

impl Trip {
    fn of(jar: &CookieJar, app: &App) -> Option<Self> {
        let value = jar.get(cookie_name(app))?.value();
        let text = String::from_utf8(BASE64URL_NOPAD.decode(value.as_bytes()).ok()?).ok()?;
        let mut lines = text.split('\n').map(str::to_owned);
        let mut line = || lines.next();
        let (flow, again, invitation, next) = (line()?, line()?, line()?, line()?);
        Some(Self { flow, wish: Wish { next, invitation, again } })
    }

    fn cookie(&self, app: &App) -> Cookie<'static> {
        let Self { flow, wish: Wish { next, invitation, again } } = self;
        // No part of it has line ends. Jars write most other signs in three bytes.
        let text = format!("{flow}\n{again}\n{invitation}\n{next}");
        let value = BASE64URL_NOPAD.encode(text.as_bytes());
        cookie(cookie_name(app), value, TRIP_AGE, app.config.public_url.is_https())
    }
}

/// Forgets the trip.
fn over(app: &App) -> Cookie<'static> {
    cookie(cookie_name(app), "", Duration::ZERO, app.config.public_url.is_https())
}

fn cookie_name(app: &App) -> &'static str {
    if app.config.public_url.is_https() { "__Host-keymeter-provider" } else { "keymeter_provider" }
}

fn redirect_uri(app: &App) -> String {
    format!("{}{CALLBACK}", app.config.public_url.origin())
}
