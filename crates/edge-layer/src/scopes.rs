//! Which scope a route requires, and whether a key has it. Pure.

use std::borrow::Cow;

/// Longest list of routes.
const ROUTES_MAX: usize = 10_000;

/// Routes with the scope that each requires; a route that is not listed requires none.
///
/// A line is `METHOD /template scope`: the method, or `*` for every one; a path in which a segment in braces stands
/// for any one; a scope. Empty lines and lines that start with # do not count. `HEAD` requires what `GET` does
/// unless it has a line of its own. Of several templates that fit the one with the earliest literal segment counts.
/// Paths are compared as an API may read them: decoded, without empty segments and dots.
#[derive(Debug, Clone, Default)]
pub struct RequiredScopes {
    /// Those with the earlier literal segment first.
    routes: Vec<Route>,
}

#[derive(Debug, Clone)]
struct Route {
    /// `None` is every one.
    method: Option<String>,
    /// `None` stands for any segment.
    segments: Vec<Option<String>>,
    scope: String,
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
        let mut routes = Vec::<Route>::new();
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let route = parse(line).ok_or(RequiredScopesError::Line(number))?;
            if routes.iter().any(|other| other.method == route.method && other.segments == route.segments) {
                return Err(RequiredScopesError::Twice(number));
            }
            routes.push(route);
            if routes.len() > ROUTES_MAX {
                return Err(RequiredScopesError::TooMany);
            }
        }
        let place = |route: &Route| -> (Vec<bool>, bool) {
            (route.segments.iter().map(Option::is_none).collect(), route.method.is_none())
        };
        routes.sort_by_cached_key(place);
        Ok(Self { routes })
    }
}

impl RequiredScopes {
    /// The scope that a call requires.
    #[must_use]
    pub fn of(&self, method: &str, path: &str) -> Option<&str> {
        if self.routes.is_empty() {
            return None;
        }
        let segments = segments(path);
        let find = |method: &str| {
            let mut fitting = self.routes.iter().filter(|route| route.fits(&segments));
            fitting.find(|route| route.method.as_deref().is_none_or(|own| own == method))
        };
        let own = find(method).filter(|route| method != "HEAD" || route.method.is_some());
        let route = own.or_else(|| if method == "HEAD" { find("GET") } else { None });
        route.map(|route| route.scope.as_str())
    }
}

impl Route {
    fn fits(&self, segments: &[Cow<'_, [u8]>]) -> bool {
        let same = |(own, other): (&Option<String>, &Cow<'_, [u8]>)| {
            own.as_ref().is_none_or(|own| own.as_bytes() == &**other)
        };
        self.segments.len() == segments.len() && self.segments.iter().zip(segments).all(same)
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

fn parse(line: &str) -> Option<Route> {
    let mut words = line.split_ascii_whitespace();
    let (method, template, scope) = (words.next()?, words.next()?, words.next()?);
    let is_method = method == "*" || method.bytes().all(|byte| byte.is_ascii_uppercase());
    if words.next().is_some() || !is_method || !template.starts_with('/') || scope.contains('*') {
        return None;
    }
    let segment = |segment: &str| match segment.strip_prefix('{') {
        Some(name) => (name.len() > 1 && name.find('}') == Some(name.len() - 1)).then_some(None),
        None => (!segment.contains(['{', '}', '%', '?'])).then(|| Some(segment.to_owned())),
    };
    let segments = template.split('/').filter(|part| !part.is_empty()).map(segment);
    Some(Route {
        method: (method != "*").then(|| method.to_owned()),
        segments: segments.collect::<Option<_>>()?,
        scope: scope.to_owned(),
    })
}

fn segments(path: &str) -> Vec<Cow<'_, [u8]>> {
    let mut segments = Vec::new();
    for segment in path.split('/').map(decoded) {
        match &*segment {
            b"" | b"." => {}
            b".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    segments
}

fn decoded(segment: &str) -> Cow<'_, [u8]> {
    if !segment.contains('%') {
        return Cow::Borrowed(segment.as_bytes());
    }
    let (mut bytes, mut rest) = (Vec::with_capacity(segment.len()), segment.as_bytes());
    while let [first, after @ ..] = rest {
        let escaped = (*first == b'%').then(|| after.first_chunk::<2>()).flatten();
        let byte = escaped.and_then(|hex| data_encoding::HEXUPPER_PERMISSIVE.decode(hex).ok());
        bytes.push(byte.as_ref().map_or(*first, |byte| byte[0]));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    Cow::Owned(bytes)
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
    #[case("GET /{a}b s", RequiredScopesError::Line(1))]
    #[case("GET /a{b} s", RequiredScopesError::Line(1))]
    #[case("GET /%61 s", RequiredScopesError::Line(1))]
    #[case("GET /a s*", RequiredScopesError::Line(1))]
    #[case("GET /{a} s\nGET /{b} t", RequiredScopesError::Twice(2))]
    fn a_bad_list_is_told(#[case] text: &str, #[case] error: RequiredScopesError) {
        assert_eq!(text.parse::<RequiredScopes>().unwrap_err(), error);
    }
}
