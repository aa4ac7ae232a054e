//! Remembers which columns of the request log somebody wants.

use axum::{
    Form,
    response::{IntoResponse as _, Redirect, Response},
};
use axum_extra::extract::cookie::{Cookie, CookieJar, SameSite};
use time::Duration;

use crate::{
    columns,
    visit::{Visit, local_path},
};

/// How long a choice is kept.
const COOKIE_AGE: Duration = Duration::days(365);

/// Takes `column` (several), `reset` and `next`, the page to go back to.
pub(crate) async fn choose(
    visit: Visit,
    jar: CookieJar,
    Form(fields): Form<Vec<(String, String)>>,
) -> Response {
    let of =
        |name: &'static str| fields.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str());
    let next = local_path(of("next").next().unwrap_or_default());
    let chosen = if of("reset").next().is_some() { Vec::new() } else { of("column").collect() };
    let mut cookie =
        Cookie::build((columns::COOKIE, columns::to_cookie(&columns::chosen(chosen.into_iter()))))
            .path("/")
            .http_only(true)
            .same_site(SameSite::Lax)
            .secure(visit.app.config.public_url.is_https())
            .max_age(COOKIE_AGE)
            .build();
    if of("reset").next().is_some() {
        cookie.set_max_age(Duration::ZERO);
    }
    (jar.add(cookie), Redirect::to(next)).into_response()
}
