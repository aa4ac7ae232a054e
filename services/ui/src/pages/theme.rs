//! Remembers whether somebody wants pages light, dark, or as the system says.

use std::sync::Arc;

use axum::{
    Form,
    extract::State,
    response::{IntoResponse as _, Redirect, Response},
};
use axum_extra::extract::cookie::CookieJar;
use serde::Deserialize;
use time::Duration;

use crate::{
    App,
    cookies::{CHOICE_AGE, cookie},
    theme::{COOKIE, Theme},
    visit::local_path,
};

/// The pressed button, and the page to go back to.
#[derive(Deserialize)]
pub(crate) struct Choice {
    #[serde(default)]
    theme: String,
    #[serde(default)]
    next: String,
}

/// `POST /theme`, for everybody: the system's theme is the end of the cookie.
pub(crate) async fn choose(
    State(app): State<Arc<App>>,
    jar: CookieJar,
    Form(choice): Form<Choice>,
) -> Response {
    let theme = Theme::named(&choice.theme);
    let age = if theme.is_some() { CHOICE_AGE } else { Duration::ZERO };
    let secure = app.config.public_url.is_https();
    let cookie = cookie(COOKIE, theme.map_or("", Theme::name), age, secure);
    (jar.add(cookie), Redirect::to(local_path(&choice.next))).into_response()
}
