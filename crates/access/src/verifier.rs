//! Checks access tokens with public keys held in memory; never asks anybody on a call.

use std::{collections::HashMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use proto::{keys as pb, status};
use serde::de::DeserializeOwned;
use time::OffsetDateTime;
use tokio::sync::Notify;
use tonic::{Code, Status, metadata::MetadataMap};

use crate::{AUDIENCE, Claims, claims::Wire};

/// Longest token looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// When to try again while no public key is known.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The public keys by their names. Clones share them.
#[derive(Clone, Default)]
pub struct Verifier {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    keys: ArcSwap<HashMap<String, DecodingKey>>,
    unknown_kid: Notify,
}

impl Verifier {
    /// Takes these public keys instead of all before; skips what is no Ed25519 key.
    pub fn replace(&self, keys: &[pb::SigningKey]) {
        let keys = keys
            .iter()
            .filter(|key| key.public_key.len() == 32)
            .map(|key| (key.kid.clone(), DecodingKey::from_ed_der(&key.public_key)));
        self.shared.keys.store(Arc::new(keys.collect()));
    }

    /// Who calls, by `authorization: Bearer <token>`.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` if there is no good token; `UNAVAILABLE` until the first public key is known.
    pub fn authenticate(&self, metadata: &MetadataMap) -> Result<Claims, Status> {
        self.authenticate_at(metadata, OffsetDateTime::now_utc())
    }

    /// As [`Self::authenticate`], at a given time.
    ///
    /// # Errors
    /// As there.
    pub fn authenticate_at(&self, metadata: &MetadataMap, now: OffsetDateTime) -> Result<Claims, Status> {
        let claims = self.read::<Wire>(metadata, AUDIENCE)?.read().ok_or_else(invalid)?;
        if claims.expires <= now {
            return Err(status::error(
                Code::Unauthenticated,
                "ACCESS_TOKEN_EXPIRED",
                "the access token has expired; get a new one with SessionsService.Refresh or ExchangeToken",
            ));
        }
        Ok(claims)
    }

    /// What a token says that one of the keys signed for `audience`; its end is not looked at.
    pub(crate) fn read<W: DeserializeOwned>(
        &self,
        metadata: &MetadataMap,
        audience: &str,
    ) -> Result<W, Status> {
        let token = bearer(metadata)?;
        let header = jsonwebtoken::decode_header(token).map_err(|_| invalid())?;
        let keys = self.shared.keys.load();
        if keys.is_empty() {
            return Err(status::unavailable("the keys service's list of signing keys", RETRY_AFTER));
        }
        let Some(key) = header.kid.and_then(|kid| keys.get(&kid)) else {
            self.shared.unknown_kid.notify_one();
            return Err(invalid());
        };
        Ok(jsonwebtoken::decode::<W>(token, key, &validation(audience)).map_err(|_| invalid())?.claims)
    }

    /// Waits until a token names a key that is not held.
    pub(crate) async fn unknown_kid(&self) {
        self.shared.unknown_kid.notified().await;
    }
}

fn bearer(metadata: &MetadataMap) -> Result<&str, Status> {
    let missing = || {
        status::error(
            Code::Unauthenticated,
            "ACCESS_TOKEN_MISSING",
            "send an access token in the metadata `authorization: Bearer <token>`; SessionsService issues them",
        )
    };
    let header = metadata.get("authorization").and_then(|value| value.to_str().ok()).ok_or_else(missing)?;
    let (scheme, token) = header.split_once(' ').ok_or_else(missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(missing());
    }
    if token.len() > TOKEN_BYTES_MAX { Err(invalid()) } else { Ok(token) }
}

/// One answer for every way in which a token can be bad.
fn invalid() -> Status {
    status::error(
        Code::Unauthenticated,
        "ACCESS_TOKEN_INVALID",
        "the access token is not one of this installation; get a new one with SessionsService.Refresh or \
         ExchangeToken",
    )
}

/// Algorithm and audience; the time is checked by us, so that it can be given.
fn validation(audience: &str) -> Validation {
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_audience(&[audience]);
    validation.set_required_spec_claims(&["aud", "exp", "sub"]);
    validation.validate_exp = false;
    validation
}

#[cfg(test)]
pub(crate) mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use domain::{AccountId, WorkspaceId};
    use rstest::rstest;
    use tonic_types::StatusExt as _;

    use super::*;
    use crate::{Role, Signer, Subject};

    const NOW: OffsetDateTime = time::macros::datetime!(2026-11-22 06:00 UTC);

    pub(crate) fn key(kid: &str) -> (Signer, pb::SigningKey) {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let public_key = pair.public_key().as_ref().to_vec();
        (Signer::new(kid, pkcs8.as_ref()).unwrap(), pb::SigningKey { kid: kid.into(), public_key })
    }

    pub(crate) fn claims() -> Claims {
        Claims {
            subject: Subject::Account(AccountId::generate()),
            workspace_id: WorkspaceId::generate(),
            role: Role::Admin,
            scopes: vec!["keys.read".into()],
            authenticated: Some(NOW - time::Duration::HOUR),
            expires: NOW + crate::LIFETIME,
        }
    }

    /// A verifier, and what signs tokens of a role that it finds good.
    pub(crate) fn taught() -> (Verifier, impl Fn(Role) -> String) {
        let (signer, public) = key("a");
        let verifier = Verifier::default();
        verifier.replace(&[public]);
        let now = OffsetDateTime::now_utc();
        (verifier, move |role| signer.sign(&Claims { role, expires: now + crate::LIFETIME, ..claims() }, now))
    }

    pub(crate) fn metadata(header: &str) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        metadata.insert("authorization", header.parse().unwrap());
        metadata
    }

    fn reason(result: Result<Claims, Status>) -> (Code, String) {
        let status = result.unwrap_err();
        (status.code(), status.get_details_error_info().unwrap().reason)
    }

    #[test]
    fn a_token_is_good_until_it_ends_and_only_under_its_key() {
        let (signer, public) = key("a");
        let claims = claims();
        let bearer = metadata(&format!("bearer {}", signer.sign(&claims, NOW)));
        let verifier = Verifier::default();
        assert_eq!(reason(verifier.authenticate_at(&bearer, NOW)).0, Code::Unavailable);

        verifier.replace(std::slice::from_ref(&public));
        assert_eq!(
            verifier.authenticate_at(&bearer, claims.expires - time::Duration::SECOND).unwrap(),
            claims
        );
        let expired = (Code::Unauthenticated, "ACCESS_TOKEN_EXPIRED".to_owned());
        assert_eq!(reason(verifier.authenticate_at(&bearer, claims.expires)), expired);

        // Another key under the same name, and no key of that name.
        let refused = (Code::Unauthenticated, "ACCESS_TOKEN_INVALID".to_owned());
        verifier.replace(&[key("a").1]);
        assert_eq!(reason(verifier.authenticate_at(&bearer, NOW)), refused);
        verifier.replace(&[key("b").1]);
        assert_eq!(reason(verifier.authenticate_at(&bearer, NOW)), refused);
    }

    #[test]
    fn a_changed_token_is_refused() {
        let (signer, public) = key("a");
        let verifier = Verifier::default();
        verifier.replace(&[public]);
        let token = signer.sign(&claims(), NOW);
        let parts: Vec<&str> = token.split('.').collect();
        let other = signer.sign(&claims(), NOW);
        let other_payload = other.split('.').nth(1).unwrap();
        let swapped = format!("{}.{other_payload}.{}", parts[0], parts[2]);
        // {"alg":"none","kid":"a"} and {"alg":"HS256","kid":"a"}
        let none = format!("eyJhbGciOiJub25lIiwia2lkIjoiYSJ9.{}.", parts[1]);
        let hmac = format!("eyJhbGciOiJIUzI1NiIsImtpZCI6ImEifQ.{}.{}", parts[1], parts[2]);
        assert!(verifier.authenticate_at(&metadata(&format!("Bearer {token}")), NOW).is_ok());
        for bad in [swapped, none, hmac, "x".to_owned(), format!("{token}A"), "x".repeat(9000)] {
            let refused = (Code::Unauthenticated, "ACCESS_TOKEN_INVALID".to_owned());
            assert_eq!(reason(verifier.authenticate_at(&metadata(&format!("Bearer {bad}")), NOW)), refused);
        }
    }

    #[rstest]
    #[case::other_scheme("Basic abc")]
    #[case::no_token("Bearer ")]
    #[case::nothing("")]
    fn a_missing_token_is_told(#[case] header: &str) {
        let missing = (Code::Unauthenticated, "ACCESS_TOKEN_MISSING".to_owned());
        assert_eq!(reason(Verifier::default().authenticate(&metadata(header))), missing);
        assert_eq!(reason(Verifier::default().authenticate(&MetadataMap::new())), missing);
    }
}
