//! Remembers which columns of the request log somebody wants.

use axum::{
    Form,
    response::{IntoResponse as _, Redirect, Response},
};
use axum_extra::extract::cookie::CookieJar;
use time::Duration;

use crate::{
    columns,
    cookies::{CHOICE_AGE, cookie},
    visit::{Visit, local_path},
};

/// Takes `column` (several, in order), `up` (one to be a place earlier), `reset` and `next`, the page to go back to.
pub(crate) async fn choose(
    visit: Visit,
    jar: CookieJar,
    Form(fields): Form<Vec<(String, String)>>,
) -> Response {
    let of =
        |name: &'static str| fields.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str());
    let next = local_path(of("next").next().unwrap_or_default());
    let chosen = if of("reset").next().is_some() { Vec::new() } else { of("column").collect() };
    let mut chosen = columns::chosen(chosen.into_iter());
    if let Some(name) = of("up").next() {
        chosen = columns::moved_up(chosen, name);
    }
    let age = if of("reset").next().is_some() { Duration::ZERO } else { CHOICE_AGE };
    let secure = visit.app.config.public_url.is_https();
    let cookie = cookie(columns::COOKIE, columns::to_cookie(&chosen), age, secure);
    (jar.add(cookie), Redirect::to(next)).into_response()
}
