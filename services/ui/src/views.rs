//! Saved views of usage, each a name and the query string of a filter, kept in a cookie.

use axum_extra::extract::cookie::CookieJar;

/// The cookie's name.
pub(crate) const COOKIE: &str = "keymeter_views";
/// Views kept; the oldest goes first.
const VIEWS_MAX: usize = 12;
/// Longest name, in characters.
const NAME_MAX: usize = 40;
/// Longest cookie, in bytes: browsers keep 4,096 with its name.
const COOKIE_BYTES_MAX: usize = 3_500;

/// A saved view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    /// What its owner calls it.
    pub(crate) name: String,
    /// The query string of its filter.
    pub(crate) query: String,
}

/// The views of a cookie.
#[must_use]
pub(crate) fn of(jar: &CookieJar) -> Vec<View> {
    let text = jar.get(COOKIE).map_or("", |cookie| cookie.value());
    let views = form_urlencoded::parse(text.as_bytes()).take(VIEWS_MAX);
    views.map(|(name, query)| View { name: name.into_owned(), query: query.into_owned() }).collect()
}

/// The views with another one, in place of one of the same name; older ones go if they do not fit.
#[must_use]
pub(crate) fn with(mut views: Vec<View>, name: &str, query: &str) -> Vec<View> {
    let name: String = name.trim().chars().filter(|c| !c.is_control()).take(NAME_MAX).collect();
    views.retain(|view| view.name != name);
    if !name.is_empty() && query.len() <= COOKIE_BYTES_MAX / 2 {
        views.push(View { name, query: query.to_owned() });
    }
    while views.len() > VIEWS_MAX || to_cookie(&views).len() > COOKIE_BYTES_MAX {
        views.remove(0);
    }
    views
}

/// The cookie's value.
#[must_use]
pub(crate) fn to_cookie(views: &[View]) -> String {
    let pairs = views.iter().map(|view| (&view.name, &view.query));
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

#[cfg(test)]
mod tests {
    use axum_extra::extract::cookie::Cookie;

    use super::*;

    fn names(views: &[View]) -> Vec<&str> {
        views.iter().map(|view| view.name.as_str()).collect()
    }

    #[test]
    fn views_survive_the_cookie_and_replace_each_other() {
        let views = with(with(vec![], "Fehler; \"heute\"", "outcome=failed"), "Slow", "range=1h&method=GET");
        let jar = CookieJar::new().add(Cookie::new(COOKIE, to_cookie(&views)));
        assert_eq!(of(&jar), views);
        let views = with(views, "Slow", "range=24h");
        assert_eq!(
            (names(&views), views[1].query.as_str()),
            (vec!["Fehler; \"heute\"", "Slow"], "range=24h")
        );
        assert_eq!(with(views.clone(), "  ", "x"), views, "a view has a name");
    }

    #[test]
    fn views_are_bounded() {
        let mut views = vec![];
        for at in 0..20 {
            views = with(views, &format!("view {at}"), "range=1h");
        }
        assert_eq!((views.len(), views[0].name.as_str()), (12, "view 8"));
        let long = with(with(views, "one", &"a".repeat(1_700)), "two", &"b".repeat(1_700));
        assert_eq!((names(&long)[0], names(&long).len()), ("view 16", 6), "the oldest go");
        assert_eq!(with(vec![], &"n".repeat(90), "x")[0].name.len(), 40);
        assert!(with(vec![], "too long", &"a".repeat(2_000)).is_empty());
    }
}
