//! Checks an ID token (OpenID Connect Core 1.0, 3.1.3.7). Pure.

use jsonwebtoken::{
    Algorithm, DecodingKey, Validation,
    jwk::{AlgorithmParameters, Jwk, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;

use super::{Email, LEEWAY};

/// What may have signed it: with public keys only, or whoever knows one could sign.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];
/// Longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 64 * 1024;
/// Longest name of a person (OpenID Connect Core 1.0, 2).
const SUBJECT_BYTES_MAX: usize = 255;

/// What it must be.
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) client_id: &'a str,
    pub(super) nonce: &'a str,
}

/// What it says; checked.
#[derive(Debug, Deserialize)]
pub(super) struct IdToken {
    iss: String,
    pub(super) sub: String,
    aud: Audience,
    azp: Option<String>,
    exp: i64,
    iat: i64,
    nonce: Option<String>,
    auth_time: Option<i64>,
    email: Option<String>,
    email_verified: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// None of the keys is meant.
    UnknownKey,
    /// It is not good, whatever the keys.
    Bad(&'static str),
}

impl IdToken {
    /// When the person proved who they are.
    pub(super) fn auth_time(&self) -> Option<OffsetDateTime> {
        OffsetDateTime::from_unix_timestamp(self.auth_time?).ok()
    }

    /// The person's address.
    pub(super) fn email(&self) -> Option<Email> {
        super::email(self.email.as_deref(), self.email_verified.as_ref())
    }
}

/// What a token says, if it was signed by one of the keys and is what is expected at `now`.
pub(super) fn check(
    token: &str,
    keys: &[Jwk],
    expected: &Expected<'_>,
    now: OffsetDateTime,
) -> Result<IdToken, Fault> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Fault::Bad("too long"));
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| Fault::Bad("its header can not be read"))?;
    if !ALGORITHMS.contains(&header.alg) {
        return Err(Fault::Bad("signed with an algorithm that is not taken"));
    }
    let key = find(keys, header.kid.as_deref(), header.alg)?;
    let key = DecodingKey::from_jwk(key).map_err(|_| Fault::Bad("its key can not be read"))?;
    let told = jsonwebtoken::decode::<IdToken>(token, &key, &signature_only(header.alg));
    let told = told.map_err(|_| Fault::Bad("wrong signature, or a claim is missing"))?.claims;
    told.hold(expected, now).map_err(Fault::Bad)?;
    Ok(told)
}

impl IdToken {
    fn hold(&self, expected: &Expected<'_>, now: OffsetDateTime) -> Result<(), &'static str> {
        let (now, leeway) = (now.unix_timestamp(), LEEWAY.whole_seconds());
        let (known, others) = match &self.aud {
            Audience::One(one) => (one == expected.client_id, false),
            Audience::Many(many) => (
                many.iter().any(|one| one == expected.client_id),
                many.iter().any(|one| one != expected.client_id),
            ),
        };
        let party = self.azp.as_deref();
        let rules = [
            (self.iss == expected.issuer, "of another issuer"),
            (known, "for another client"),
            (party.map_or(!others, |party| party == expected.client_id), "for another authorized party"),
            (self.nonce.as_deref() == Some(expected.nonce), "of another nonce"),
            (now < self.exp.saturating_add(leeway), "expired"),
            (self.iat <= now.saturating_add(leeway), "issued in the future"),
            (self.auth_time.is_none_or(|at| at <= now.saturating_add(leeway)), "proved in the future"),
            ((1..=SUBJECT_BYTES_MAX).contains(&self.sub.len()), "without a subject that can be kept"),
            (!self.sub.chars().any(char::is_control), "without a subject that can be kept"),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, why)| Err(why))
    }
}

/// The key that is named; without a name, the only one that fits.
fn find<'a>(keys: &'a [Jwk], kid: Option<&str>, algorithm: Algorithm) -> Result<&'a Jwk, Fault> {
    let mut fitting = keys.iter().filter(|key| fits(key, algorithm));
    let Some(kid) = kid else {
        let only = fitting.next().ok_or(Fault::UnknownKey)?;
        return if fitting.next().is_none() { Ok(only) } else { Err(Fault::Bad("names no key of several")) };
    };
    fitting.find(|key| key.common.key_id.as_deref() == Some(kid)).ok_or(Fault::UnknownKey)
}

fn fits(key: &Jwk, algorithm: Algorithm) -> bool {
    use Algorithm as A;
    let for_signatures = key.common.public_key_use.as_ref().is_none_or(|of| *of == PublicKeyUse::Signature);
    let same = key.common.key_algorithm.is_none_or(|of| of == algorithm.into());
    let kind = match key.algorithm {
        AlgorithmParameters::RSA(_) => {
            matches!(algorithm, A::RS256 | A::RS384 | A::RS512 | A::PS256 | A::PS384 | A::PS512)
        }
        AlgorithmParameters::EllipticCurve(_) => matches!(algorithm, A::ES256 | A::ES384),
        AlgorithmParameters::OctetKeyPair(_) => algorithm == A::EdDSA,
        _ => false,
    };
    for_signatures && same && kind
}

/// All else is looked at in [`IdToken::hold`], by the caller's clock.
fn signature_only(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    validation
}
