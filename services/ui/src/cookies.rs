//! The one way a cookie is set: for the whole site, not for scripts, not with requests from other sites but links.

use std::borrow::Cow;

use axum_extra::extract::cookie::{Cookie, SameSite};
use time::Duration;

/// How long a choice is remembered.
pub(crate) const CHOICE_AGE: Duration = Duration::days(365);

/// A cookie that a browser keeps for `age`; of no length it forgets it. `secure` if pages are served over https.
pub(crate) fn cookie(
    name: &'static str,
    value: impl Into<Cow<'static, str>>,
    age: Duration,
    secure: bool,
) -> Cookie<'static> {
    Cookie::build((name, value))
        .path("/")
        .http_only(true)
        .same_site(SameSite::Lax)
        .secure(secure)
        .max_age(age)
        .build()
}
