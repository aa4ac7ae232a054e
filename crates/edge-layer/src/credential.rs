//! The secret of a request: where it may stand, and that it goes no further than here. Pure.

use domain::{Environment, SecretHash, secret};
use http::{
    HeaderMap, HeaderName,
    header::{AUTHORIZATION, PROXY_AUTHORIZATION},
};

/// The other place for a secret.
pub(crate) const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Why a request has no usable secret. None of them says whether a key exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialError {
    /// None was sent.
    Missing,
    /// Two that differ were sent.
    Ambiguous,
    /// What was sent is no secret of ours.
    Malformed,
}

/// The hash and the environment of the secret in `Authorization: Bearer` or `X-API-Key`. Format and checksum are checked before
/// anything is hashed or looked up.
///
/// # Errors
/// See [`CredentialError`].
pub(crate) fn extract(headers: &HeaderMap) -> Result<(SecretHash, Environment), CredentialError> {
    let bearer = headers.get_all(AUTHORIZATION).iter().filter_map(|value| bearer(value.as_bytes()));
    let plain = headers.get_all(X_API_KEY).iter().map(|value| value.as_bytes().trim_ascii());
    let mut sent = bearer.chain(plain);
    let secret = sent.next().ok_or(CredentialError::Missing)?;
    if sent.any(|other| other != secret) {
        return Err(CredentialError::Ambiguous);
    }
    let environment = secret::check(secret).map_err(|_| CredentialError::Malformed)?;
    let text = str::from_utf8(secret).map_err(|_| CredentialError::Malformed)?;
    Ok((SecretHash::of(text), environment))
}

/// Takes every credential out, so that no secret reaches the API behind.
pub(crate) fn strip(headers: &mut HeaderMap) {
    headers.remove(AUTHORIZATION);
    headers.remove(PROXY_AUTHORIZATION);
    headers.remove(X_API_KEY);
}

/// What follows the scheme `Bearer`, in any case; `None` for another scheme.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let value = value.trim_ascii();
    let (scheme, rest) = value.split_at_checked("Bearer".len())?;
    let separated = rest.is_empty() || rest[0] == b' ' || rest[0] == b'\t';
    (scheme.eq_ignore_ascii_case(b"Bearer") && separated).then(|| rest.trim_ascii())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const GOOD: &str = "km_test_0123456789ABCDEFGHIJKLMNOPQRST3Hvnqc";
    const OTHER: &str = "km_live_0123456789ABCDEFGHIJKLMNOPQRST000000";

    #[rstest]
    #[case::bearer(&[("authorization", &*format!("Bearer {GOOD}"))])]
    #[case::scheme_in_any_case(&[("authorization", &*format!("bEARER  {GOOD} "))])]
    #[case::api_key(&[("x-api-key", GOOD)])]
    #[case::both_the_same(&[("x-api-key", GOOD), ("authorization", &*format!("Bearer {GOOD}"))])]
    #[case::beside_another_scheme(&[("x-api-key", GOOD), ("authorization", "Basic dTpw")])]
    fn finds_the_secret(#[case] sent: &[(&'static str, &str)]) {
        assert_eq!(extract(&headers(sent)), Ok((SecretHash::of(GOOD), Environment::Test)));
    }

    #[rstest]
    #[case::nothing(&[], CredentialError::Missing)]
    #[case::another_scheme(&[("authorization", "Basic dTpw")], CredentialError::Missing)]
    #[case::glued(&[("authorization", &*format!("Bearer{GOOD}"))], CredentialError::Missing)]
    #[case::bare_scheme(&[("authorization", "Bearer")], CredentialError::Malformed)]
    #[case::empty(&[("x-api-key", "")], CredentialError::Malformed)]
    #[case::checksum(&[("x-api-key", OTHER)], CredentialError::Malformed)]
    #[case::two_in_one(&[("x-api-key", &*format!("{GOOD},{GOOD}"))], CredentialError::Malformed)]
    #[case::not_ascii(&[("x-api-key", "km_live_é")], CredentialError::Malformed)]
    #[case::differing(&[("x-api-key", GOOD), ("authorization", &*format!("Bearer {OTHER}"))], CredentialError::Ambiguous)]
    #[case::differing_twice(&[("x-api-key", GOOD), ("x-api-key", OTHER)], CredentialError::Ambiguous)]
    fn refuses(#[case] sent: &[(&'static str, &str)], #[case] error: CredentialError) {
        assert_eq!(extract(&headers(sent)), Err(error));
    }

    #[test]
    fn nothing_is_left() {
        let mut all = headers(&[("x-api-key", GOOD), ("authorization", "Basic dTpw"), ("accept", "*/*")]);
        all.insert(PROXY_AUTHORIZATION, http::HeaderValue::from_static("Basic dTpw"));
        strip(&mut all);
        assert_eq!(all, headers(&[("accept", "*/*")]));
    }

    fn headers(sent: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = sent.iter().map(|(name, value)| {
            (HeaderName::from_static(name), http::HeaderValue::from_bytes(value.as_bytes()).unwrap())
        });
        let mut all = HeaderMap::new();
        for (name, value) in pairs {
            all.append(name, value);
        }
        all
    }
}
