//! Fuzz targets: whatever strangers, a broken disk or a foreign NATS can hand to the edge. `cargo nextest` replays
//! the kept corpora and tries some random inputs; `tests/fuzz` runs each target under libFuzzer for as long as
//! wanted, and keeps what it finds.

mod feed;
mod spool;

use bolero::check;
use domain::{Secret, SecretHash, redact};
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};

use crate::{
    credential::{self, CredentialError, X_API_KEY},
    forwarded::{self, FORWARDED},
    network::Network,
    route,
    routes::RouteTemplates,
    template,
};

/// Random inputs of one test run, beside the corpus, and their longest length in bytes.
const ITERATIONS: usize = 2_000;
const INPUT_BYTES_MAX: usize = 4_096;

#[test]
fn secret() {
    check!().with_iterations(ITERATIONS).with_max_len(INPUT_BYTES_MAX).for_each(|input: &[u8]| {
        let Ok(value) = HeaderValue::from_bytes(input) else { return };
        let found = credential::extract(&HeaderMap::from_iter([(X_API_KEY, value.clone())]));
        let text = str::from_utf8(input.trim_ascii()).ok();
        match text.map(Secret::parse) {
            Some(Ok(secret)) => {
                assert_eq!(found, Ok((SecretHash::of(secret.reveal()), secret.environment())));
            }
            _ => assert_eq!(found, Err(CredentialError::Malformed)),
        }
        let bearer = credential::extract(&HeaderMap::from_iter([(AUTHORIZATION, value)]));
        assert!(bearer != Err(CredentialError::Ambiguous), "one credential does not differ from itself");
        let text = String::from_utf8_lossy(input);
        assert_eq!(redact(&redact(&text)), redact(&text), "what is clean stays as it is");
    });
}

#[test]
fn path() {
    let routes: RouteTemplates =
        "GET /v1/{a}\n* /v1/{a}/x/{b} a\nPUT /r/{n}.{k}\n* /r/p{n}q\nGET /".parse().expect("a good list");
    check!().with_iterations(ITERATIONS).with_max_len(INPUT_BYTES_MAX).for_each(|input: &[u8]| {
        let path = String::from_utf8_lossy(input);
        let kept = route::cut(&path, domain::event::PATH_BYTES_MAX);
        let (name, id) = route::template(kept);
        assert!(name.len() <= domain::event::PATH_BYTES_MAX && id.len() <= 256);
        assert!(kept.contains(id), "an id is a part of its path");
        let segments = template::segments(&path);
        assert!(segments.len() <= path.len());
        for method in ["GET", "HEAD", "PUT", "BREW"] {
            if let Some((name, id)) = routes.of(method, &path) {
                assert!(name.starts_with('/') && id.len() <= 3 * path.len());
                let again = name.replace(['{', '}'], "");
                assert!(
                    routes.of(method, &again).is_some(),
                    "a path of the template's own letters fits: {again}"
                );
            }
        }
    });
}

#[test]
fn routes() {
    check!().with_iterations(ITERATIONS).with_max_len(INPUT_BYTES_MAX).for_each(|input: &[u8]| {
        let Ok(text) = str::from_utf8(input) else { return };
        match text.parse::<RouteTemplates>() {
            Ok(routes) => assert!(!routes.is_empty()),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        drop(text.parse::<crate::RequiredScopes>());
    });
}

#[test]
fn forwarded() {
    check!().with_iterations(ITERATIONS).with_max_len(INPUT_BYTES_MAX).for_each(|input: &[u8]| {
        let Ok(value) = HeaderValue::from_bytes(input) else { return };
        let headers = HeaderMap::from_iter([(FORWARDED, value)]);
        let hops = forwarded::hops(&headers).count();
        assert!(hops <= input.len() + 1);
        if let Ok(network) = String::from_utf8_lossy(input).parse::<Network>() {
            assert!(network != Network::NOWHERE);
        }
    });
}
