//! Which scope a route requires, and whether a key has it. Pure.

use crate::template::{Segment, Template, Templates, segments};

/// Longest list of routes.
const ROUTES_MAX: usize = 10_000;

/// Routes with the scope that each requires; a route that is not listed requires none.
///
/// A line is `METHOD /template scope`: the method, or `*` for every one; a path in which a part in braces stands
/// for any text within its segment; a scope. Empty lines and lines that start with # do not count. `HEAD` requires
/// what `GET` does unless it has a line of its own. Of several templates that fit the one with the earliest literal
/// segment counts. Paths are compared as an API may read them: decoded, without empty segments and dots.
#[derive(Debug, Clone, Default)]
pub struct RequiredScopes {
    routes: Templates<String>,
}

/// Why a list of routes can not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequiredScopesError {
    /// A line is none.
    #[error("line {0} is not `METHOD /template scope`, such as `GET /v1/orders/{{id}} orders:read`")]
    Line(usize),
    /// Two lines are for the same calls.
    #[error("line {0} is for the same method and path as an earlier one; keep one of them")]
    Twice(usize),
    /// The list is too long.
    #[error("more than {ROUTES_MAX} lines")]
    TooMany,
}

impl std::str::FromStr for RequiredScopes {
    type Err = RequiredScopesError;

    fn from_str(text: &str) -> Result<Self, RequiredScopesError> {
        let mut routes = Templates::default();
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (method, template, scope) = parse(line).ok_or(RequiredScopesError::Line(number))?;
            if !routes.insert(method, &template, scope.to_owned()) {
                return Err(RequiredScopesError::Twice(number));
            }
            if routes.len() > ROUTES_MAX {
                return Err(RequiredScopesError::TooMany);
            }
        }
        Ok(Self { routes })
    }
}

impl RequiredScopes {
    /// The scope that a call requires.
    #[must_use]
    pub fn of(&self, method: &str, path: &str) -> Option<&str> {
        if self.is_empty() { None } else { self.of_segments(method, &segments(path)) }
    }

    pub(crate) fn of_segments(&self, method: &str, segments: &[Segment<'_>]) -> Option<&str> {
        self.routes.find(method, segments).map(String::as_str)
    }

    /// No route requires a scope.
    pub(crate) fn is_empty(&self) -> bool {
        self.routes.len() == 0
    }
}

/// Whether one of a key's scopes is the required one, or ends with `*` and the required one starts with what stands
/// before it.
pub(crate) fn has(scopes: &[Box<str>], required: &str) -> bool {
    scopes.iter().any(|scope| match scope.strip_suffix('*') {
        Some(start) => required.starts_with(start),
        None => **scope == *required,
    })
}

fn parse(line: &str) -> Option<(Option<&str>, Template, &str)> {
    let mut words = line.split_ascii_whitespace();
    let (method, template, scope) = (method(words.next()?)?, words.next()?, words.next()?);
    if words.next().is_some() || scope.contains('*') {
        return None;
    }
    Some((method, template.parse().ok()?, scope))
}

/// A method in a list, if the word is one; `None` inside is every method, `*`.
pub(crate) fn method(word: &str) -> Option<Option<&str>> {
    match word {
        "*" => Some(None),
        _ => word.bytes().all(|byte| byte.is_ascii_uppercase()).then_some(Some(word)),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const LIST: &str = "
        # orders
        GET /v1/orders orders:list
        GET /v1/orders/{id} orders:read
        GET /v1/orders/export orders:export
        DELETE /v1/orders/{id} orders:delete
        * /v1/admin/{what} admin
        GET /v1/admin/health health
        GET / root
    ";

    #[rstest]
    #[case("GET", "/v1/orders", Some("orders:list"))]
    #[case("GET", "/v1/orders/", Some("orders:list"))]
    #[case("GET", "//v1/./x/../orders", Some("orders:list"))]
    #[case("GET", "/v1/%6Frders", Some("orders:list"))]
    #[case("GET", "/v1/%6frders", Some("orders:list"))]
    #[case("HEAD", "/v1/orders", Some("orders:list"))]
    #[case("GET", "/v1/orders/17", Some("orders:read"))]
    #[case("GET", "/v1/orders/any-thing", Some("orders:read"))]
    #[case("GET", "/v1/orders/a%2Fb", Some("orders:read"))]
    #[case("GET", "/v1/orders/export", Some("orders:export"))]
    #[case("DELETE", "/v1/orders/17", Some("orders:delete"))]
    #[case("POST", "/v1/orders/17", None)]
    #[case("GET", "/v1/orders/17/items", None)]
    #[case("GET", "/V1/orders", None)]
    #[case("BREW", "/v1/admin/x", Some("admin"))]
    #[case("HEAD", "/v1/admin/x", Some("admin"))]
    #[case("GET", "/v1/admin/health", Some("health"))]
    #[case("POST", "/v1/admin/health", Some("admin"))]
    #[case("HEAD", "/v1/admin/health", Some("health"))]
    #[case("GET", "/", Some("root"))]
    #[case("GET", "/v1/orders/%", Some("orders:read"))]
    #[case("GET", "/v1/orders/%zz", Some("orders:read"))]
    fn routes_require_scopes(#[case] method: &str, #[case] path: &str, #[case] scope: Option<&str>) {
        assert_eq!(LIST.parse::<RequiredScopes>().unwrap().of(method, path), scope);
    }

    #[rstest]
    #[case(&[], "orders:read", false)]
    #[case(&["orders:read"], "orders:read", true)]
    #[case(&["orders:re"], "orders:read", false)]
    #[case(&["orders:readall"], "orders:read", false)]
    #[case(&["users:*", "orders:*"], "orders:read", true)]
    #[case(&["orders:*"], "orders:", true)]
    #[case(&["orders:*"], "orders", false)]
    #[case(&["*"], "anything", true)]
    #[case(&["o*r"], "or", false)]
    fn a_scope_fits_as_a_whole_or_by_its_start(
        #[case] scopes: &[&str],
        #[case] required: &str,
        #[case] expected: bool,
    ) {
        let scopes: Vec<Box<str>> = scopes.iter().map(|scope| Box::from(*scope)).collect();
        assert_eq!(has(&scopes, required), expected);
    }

    #[rstest]
    #[case("GET /a", RequiredScopesError::Line(1))]
    #[case("\nGET /a s more", RequiredScopesError::Line(2))]
    #[case("get /a s", RequiredScopesError::Line(1))]
    #[case("GET a s", RequiredScopesError::Line(1))]
    #[case("GET /{} s", RequiredScopesError::Line(1))]
    #[case("GET /{a}{b} s", RequiredScopesError::Line(1))]
    #[case("GET /a}b s", RequiredScopesError::Line(1))]
    #[case("GET /{a}.pdf s\nGET /{b}.pdf t", RequiredScopesError::Twice(2))]
    #[case("GET /%61 s", RequiredScopesError::Line(1))]
    #[case("GET /a s*", RequiredScopesError::Line(1))]
    #[case("GET /{a} s\nGET /{b} t", RequiredScopesError::Twice(2))]
    fn a_bad_list_is_told(#[case] text: &str, #[case] error: RequiredScopesError) {
        assert_eq!(text.parse::<RequiredScopes>().unwrap_err(), error);
    }
}
