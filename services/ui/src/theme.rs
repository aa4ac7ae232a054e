//! Light, dark, or as the reader's system says: kept in a cookie and put on the page by the server, so that no
//! page flashes. Never looks at who is signed in.

use axum::{extract::Request, middleware::Next, response::Response};
use axum_extra::extract::CookieJar;

/// The cookie's name.
pub(crate) const COOKIE: &str = "keymeter_theme";

tokio::task_local! {
    /// What the reader of the page that is being made has chosen: every page needs it, also those that say that
    /// something failed.
    static CHOSEN: Option<Theme>;
}

/// A choice against the system's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Theme {
    /// Dark on light.
    Light,
    /// Light on dark.
    Dark,
}

impl Theme {
    /// Its name in the cookie, in the form and on the page.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    /// The theme of a name; `None`, the system's, for every other text.
    #[must_use]
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Light, Self::Dark].into_iter().find(|theme| theme.name() == name)
    }
}

/// What the reader has chosen; `None` is the system's.
#[must_use]
pub(crate) fn chosen() -> Option<Theme> {
    CHOSEN.try_with(|theme| *theme).unwrap_or_default()
}

/// Whether the reader has chosen the theme of this name; `system` if none.
#[must_use]
pub(crate) fn is(name: &str) -> bool {
    chosen().map_or("system", Theme::name) == name
}

/// Reads the cookie of a request for the page that answers it.
pub(crate) async fn apply(request: Request, next: Next) -> Response {
    let jar = CookieJar::from_headers(request.headers());
    let theme = jar.get(COOKIE).and_then(|cookie| Theme::named(cookie.value()));
    CHOSEN.scope(theme, next.run(request)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_two_names_are_themes() {
        assert_eq!(Theme::named("dark"), Some(Theme::Dark));
        assert_eq!(Theme::named("light"), Some(Theme::Light));
        for other in ["", "Dark", "system", "\"><script>", "dark "] {
            assert_eq!(Theme::named(other), None, "{other}");
        }
    }

    #[test]
    fn outside_of_a_request_it_is_the_systems() {
        assert_eq!(chosen(), None);
        assert!(is("system"));
    }
}
