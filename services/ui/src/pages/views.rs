//! Saves a view of usage, or takes one away.

use axum::{
    Form,
    response::{IntoResponse as _, Redirect, Response},
};
use axum_extra::extract::cookie::CookieJar;

use crate::{
    cookies::{CHOICE_AGE, cookie},
    views,
    visit::{Visit, local_path},
};

/// Takes `name` and `query`, or `remove`, a name; and `next`, the page to go back to.
pub(crate) async fn change(
    visit: Visit,
    jar: CookieJar,
    Form(fields): Form<Vec<(String, String)>>,
) -> Response {
    let of = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
    let mut kept = views::of(&jar);
    match of("remove") {
        Some(name) => kept.retain(|view| view.name != name),
        None => kept = views::with(kept, of("name").unwrap_or_default(), of("query").unwrap_or_default()),
    }
    let secure = visit.app.config.public_url.is_https();
    let cookie = cookie(views::COOKIE, views::to_cookie(&kept), CHOICE_AGE, secure);
    (jar.add(cookie), Redirect::to(local_path(of("next").unwrap_or_default()))).into_response()
}
