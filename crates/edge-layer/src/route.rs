//! Routes of low cardinality: a template that fits, else ids in a path become `{id}`, and each workspace has a
//! bounded number of routes a day. Pure but for the set of routes seen.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet, hash_map::RandomState},
    hash::BuildHasher as _,
    sync::{PoisonError, RwLock},
};

use domain::{WorkspaceId, redact};
use time::{Date, OffsetDateTime};

use crate::{routes::RouteTemplates, template::Segment};

/// What stands for an id.
const ID: &str = "{id}";
/// The route of calls over the bound; totals stay exact.
pub(crate) const OTHER: &str = "__other__";
/// Longest resource id kept, in bytes.
const RESOURCE_ID_BYTES_MAX: usize = 256;

/// The template of a path, and the last id in it (empty if none). The path has no query string and is ASCII, as
/// HTTP wants it, or at least UTF-8.
#[must_use]
pub(crate) fn template(path: &str) -> (String, &str) {
    let mut route = String::with_capacity(path.len());
    let mut resource_id = "";
    for (at, segment) in path.split('/').enumerate() {
        if at > 0 {
            route.push('/');
        }
        if is_id(segment) {
            route.push_str(ID);
            resource_id = segment;
        } else {
            route.push_str(segment);
        }
    }
    // A path is cut before this, but `{id}` is longer than a short number.
    route.truncate(route.floor_char_boundary(domain::event::PATH_BYTES_MAX));
    (route, cut(resource_id, RESOURCE_ID_BYTES_MAX))
}

/// The longest start of `text` that has at most `bytes_max` bytes.
#[must_use]
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// A number, a UUID, a ULID, a hash in hexadecimal, or one of our own ids.
fn is_id(segment: &str) -> bool {
    let bytes = segment.as_bytes();
    let hex = |part: &[u8]| part.iter().all(u8::is_ascii_hexdigit);
    let is_number = !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit);
    let is_uuid = bytes.len() == 36 && {
        let groups: Vec<_> = segment.split('-').map(str::as_bytes).collect();
        groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12]) && groups.iter().all(|group| hex(group))
    };
    let is_hash = bytes.len() >= 16 && hex(bytes);
    is_number || is_uuid || is_hash || is_ulid(bytes) || is_own(bytes)
}

/// Crockford's base32, 26 characters; the first is at most 7, since 128 bits are no more.
fn is_ulid(bytes: &[u8]) -> bool {
    let digit =
        |byte: &u8| byte.is_ascii_alphanumeric() && !b"iloILO".contains(byte) && !b"uU".contains(byte);
    bytes.len() == 26 && (b'0'..=b'7').contains(&bytes[0]) && bytes.iter().all(digit)
}

/// A short lead in lower case, `_`, and 26 characters of base32hex, `key_01jd…`.
fn is_own(bytes: &[u8]) -> bool {
    let Some((lead, digits)) = bytes.len().checked_sub(26).map(|at| bytes.split_at(at)) else { return false };
    let known = [&b"ws_"[..], b"key_", b"sec_", b"req_", b"acc_", b"svc_", b"edge_"];
    known.contains(&lead) && digits.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'v'))
}

/// What strangers wrote, as it is kept: UTF-8, without secrets, and cut.
#[must_use]
pub(crate) fn clean(bytes: &[u8], bytes_max: usize) -> Cow<'_, str> {
    if let Ok(text) = str::from_utf8(bytes)
        && let Cow::Borrowed(text) = redact(text)
    {
        return cut(text, bytes_max).into();
    }
    cut(&redact(&String::from_utf8_lossy(bytes)), bytes_max).to_owned().into()
}

/// A resource id that strangers wrote, as it is kept.
#[must_use]
pub(crate) fn resource_id(bytes: &[u8]) -> Cow<'_, str> {
    clean(bytes, RESOURCE_ID_BYTES_MAX)
}

/// The routes that were named, and those that each workspace has used today beside them.
#[derive(Debug)]
pub(crate) struct Routes {
    named: RouteTemplates,
    /// Others of one workspace and UTC day, at one edge.
    others_max: usize,
    seen: RwLock<HashMap<WorkspaceId, Seen>>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Seen {
    day: Date,
    /// Hashes, so that long routes cost no memory; two routes that share one count as one, which only lets one
    /// more in.
    routes: HashSet<u64>,
}

impl Routes {
    /// At most `routes_max` a workspace and day; those that are named always have their place.
    pub(crate) fn new(named: RouteTemplates, routes_max: usize) -> Self {
        let others_max = routes_max.saturating_sub(named.len());
        Self { named, others_max, seen: RwLock::default(), hasher: RandomState::default() }
    }

    /// Whether no routes are named, so that nobody needs the segments of a path.
    pub(crate) fn names_none(&self) -> bool {
        self.named.is_empty()
    }

    /// The route of a call, and its resource id. `segments` are those of the path as it was sent, `path` is what is
    /// kept of it.
    #[must_use]
    pub(crate) fn of<'a>(
        &'a self,
        workspace_id: WorkspaceId,
        method: &str,
        segments: &[Segment<'_>],
        path: &'a str,
        now: OffsetDateTime,
    ) -> (Cow<'a, str>, Cow<'a, str>) {
        if let Some((route, id)) = self.named.of_segments(method, segments) {
            return (route.into(), resource_id(id.as_bytes()).into_owned().into());
        }
        let (route, id) = template(path);
        (self.admit(workspace_id, route, now), id.into())
    }

    /// The route itself, or `__other__` once the workspace has had its others on the day of `now`.
    #[must_use]
    fn admit(&self, workspace_id: WorkspaceId, route: String, now: OffsetDateTime) -> Cow<'static, str> {
        let (day, hash) = (now.date(), self.hasher.hash_one(&route));
        let full = {
            let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
            match seen.get(&workspace_id).filter(|seen| seen.day == day) {
                Some(today) if today.routes.contains(&hash) => return route.into(),
                Some(today) => today.routes.len() >= self.others_max,
                None => self.others_max == 0,
            }
        };
        if full || !self.add(workspace_id, day, hash) { OTHER.into() } else { route.into() }
    }

    fn add(&self, workspace_id: WorkspaceId, day: Date, hash: u64) -> bool {
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        let today = seen.entry(workspace_id).or_insert_with(|| Seen { day, routes: HashSet::new() });
        // Forward only: around midnight calls of both days come in turn.
        if today.day < day {
            *today = Seen { day, routes: HashSet::new() };
        }
        let fits = today.routes.len() < self.others_max || today.routes.contains(&hash);
        if fits {
            today.routes.insert(hash);
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("/", "/", "")]
    #[case("", "", "")]
    #[case("*", "*", "")]
    #[case("/v1/orders", "/v1/orders", "")]
    #[case("/v1/orders/17", "/v1/orders/{id}", "17")]
    #[case("/v1/orders/17/items/4", "/v1/orders/{id}/items/{id}", "4")]
    #[case("/v1/orders/17/", "/v1/orders/{id}/", "17")]
    #[case("//17//", "//{id}//", "17")]
    #[case("/u/0192a5f0-7c1e-7abc-8def-0123456789ab/x", "/u/{id}/x", "0192a5f0-7c1e-7abc-8def-0123456789ab")]
    #[case("/u/0192A5F0-7C1E-7ABC-8DEF-0123456789AB", "/u/{id}", "0192A5F0-7C1E-7ABC-8DEF-0123456789AB")]
    #[case("/u/0192a5f07c1e-7abc-8def-0123456789ab-", "/u/0192a5f07c1e-7abc-8def-0123456789ab-", "")]
    #[case("/t/01ARZ3NDEKTSV4RRFFQ69G5FAV", "/t/{id}", "01ARZ3NDEKTSV4RRFFQ69G5FAV")]
    #[case("/t/81ARZ3NDEKTSV4RRFFQ69G5FAV", "/t/81ARZ3NDEKTSV4RRFFQ69G5FAV", "")]
    #[case("/blobs/d41d8cd98f00b204", "/blobs/{id}", "d41d8cd98f00b204")]
    #[case("/blobs/d41d8cd98f00b20", "/blobs/d41d8cd98f00b20", "")]
    #[case("/keys/key_01jd00000000000000000000vv", "/keys/{id}", "key_01jd00000000000000000000vv")]
    #[case("/keys/cat_01jd00000000000000000000vv", "/keys/cat_01jd00000000000000000000vv", "")]
    #[case("/keys/key_01jd00000000000000000000vw", "/keys/key_01jd00000000000000000000vw", "")]
    #[case("/v2/users/v17", "/v2/users/v17", "")]
    #[case("/a/%FF%00/é", "/a/%FF%00/é", "")]
    fn ids_become_id(#[case] path: &str, #[case] route: &str, #[case] resource_id: &str) {
        assert_eq!(template(path), (route.to_owned(), resource_id));
    }

    #[test]
    fn our_own_ids_are_known() {
        for id in [domain::KeyId::generate().to_string(), domain::EdgeId::generate().to_string()] {
            assert_eq!(template(&id).1, id);
        }
    }

    proptest! {
        #[test]
        fn bounds_hold(path: String) {
            let path = cut(&path, 1024);
            let (route, resource_id) = template(path);
            prop_assert!(route.len() <= 1024 && resource_id.len() <= 256);
            prop_assert_eq!(template(&route).0, route, "a template of a template is itself");
        }
    }

    #[test]
    fn short_numbers_do_not_make_a_route_too_long() {
        assert_eq!(template(&"/1".repeat(512)).0.len(), 1024);
        assert_eq!(template(&"9".repeat(1024)).1.len(), 256);
    }

    #[test]
    fn each_workspace_has_its_own_bound_and_a_new_day() {
        let (routes, now) = (Routes::new(RouteTemplates::default(), 1000), OffsetDateTime::UNIX_EPOCH);
        let (busy, calm) = (WorkspaceId::generate(), WorkspaceId::generate());
        for number in 0..1000 {
            assert_eq!(routes.admit(busy, format!("/r{number}"), now), format!("/r{number}"));
        }
        assert_eq!(routes.admit(busy, "/one-more".into(), now), OTHER);
        assert_eq!(routes.admit(busy, "/r7".into(), now), "/r7");
        assert_eq!(routes.admit(calm, "/one-more".into(), now), "/one-more");
        assert_eq!(routes.admit(busy, "/one-more".into(), now + time::Duration::DAY), "/one-more");
    }

    #[test]
    fn named_routes_always_have_their_place() {
        let named: RouteTemplates = "GET /a/{x}\nPOST /a/{x}\n* /b/{y}/{z} y".parse().unwrap();
        let (routes, workspace_id) = (Routes::new(named, 3), WorkspaceId::generate());
        let of = |method: &str, path: &str| {
            let segments = crate::template::segments(path);
            let (route, id) = routes.of(workspace_id, method, &segments, path, OffsetDateTime::UNIX_EPOCH);
            (route.into_owned(), id.into_owned())
        };
        let check = |method: &str, path: &str, route: &str, id: &str| {
            assert_eq!(of(method, path), (route.to_owned(), id.to_owned()), "{method} {path}");
        };
        check("GET", "/c/17", "/c/{id}", "17");
        check("GET", "/d/17", OTHER, "17");
        check("GET", "/a/one", "/a/{x}", "one");
        check("PUT", "/b/one/two", "/b/{y}/{z}", "one");
        let secret = domain::Secret::generate(domain::Environment::Live);
        check("GET", &format!("/a/{}", secret.reveal()), "/a/{x}", &format!("{}…", secret.start()));
        check("GET", &format!("/a/{}", "é".repeat(200)), "/a/{x}", &"é".repeat(128));
    }
}
