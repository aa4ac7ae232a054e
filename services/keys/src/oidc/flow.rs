//! One way to the provider and back. State, nonce and PKCE verifier follow from one random text that only the browser
//! keeps, so nothing has to be stored for a sign-in that nobody may ever finish.

use aws_lc_rs::{constant_time, hmac};
use data_encoding::BASE64URL_NOPAD;
use secrecy::{ExposeSecret as _, SecretString};
use time::{Duration, OffsetDateTime};

use super::LEEWAY;
use crate::token;

/// How long the person may take.
pub const OPEN_FOR: Duration = Duration::minutes(10);
/// Longest text that is looked at as a flow.
pub const FLOW_BYTES_MAX: usize = 128;

const LEAD: &str = "kmflow_";

/// A flow.
pub(super) struct Flow {
    /// `kmflow_<43 characters of randomness>.<when it began, in Unix seconds>`. Another time makes another flow, whose
    /// state the provider has not sent.
    text: SecretString,
    begin_time: OffsetDateTime,
}

impl Flow {
    /// A new one.
    pub(super) fn begin(now: OffsetDateTime) -> Self {
        let random = token::generate(LEAD);
        let text = format!("{}.{}", random.expose_secret(), now.unix_timestamp()).into();
        Self { text, begin_time: now }
    }

    /// What a browser brought back; `None` if that is none, or too old at `now`.
    pub(super) fn parse(text: &SecretString, now: OffsetDateTime) -> Option<Self> {
        let (random, began) = text.expose_secret().split_once('.')?;
        let begin_time = OffsetDateTime::from_unix_timestamp(began.parse().ok()?).ok()?;
        // Another replica may have begun it, by its own clock.
        let open = begin_time - LEEWAY <= now && now < begin_time + OPEN_FOR;
        (open && token::is_well_formed(LEAD, random)).then(|| Self { text: text.clone(), begin_time })
    }

    /// Whether the provider was sent there by this flow.
    pub(super) fn is_of(&self, state: &str) -> bool {
        constant_time::verify_slices_are_equal(self.state().as_bytes(), state.as_bytes()).is_ok()
    }

    pub(super) const fn begin_time(&self) -> OffsetDateTime {
        self.begin_time
    }

    pub(super) fn state(&self) -> String {
        self.derive("state")
    }

    pub(super) fn nonce(&self) -> String {
        self.derive("nonce")
    }

    pub(super) fn verifier(&self) -> String {
        self.derive("verifier")
    }

    /// S256 of the verifier.
    pub(super) fn challenge(&self) -> String {
        BASE64URL_NOPAD.encode(&token::sha256(self.verifier().as_bytes()))
    }

    /// What it is known by once it was used.
    pub(super) fn hash(&self) -> Vec<u8> {
        token::hash(self.text.expose_secret())
    }

    pub(super) fn into_secret(self) -> SecretString {
        self.text
    }

    /// 43 characters; none tells of another, nor of the flow.
    fn derive(&self, what: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.text.expose_secret().as_bytes());
        BASE64URL_NOPAD.encode(hmac::sign(&key, what.as_bytes()).as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_follows_from_the_text_and_nothing_from_each_other() {
        let now = OffsetDateTime::from_unix_timestamp(1_790_000_000).unwrap();
        let flow = Flow::begin(now);
        let texts = [flow.state(), flow.nonce(), flow.verifier(), flow.challenge()];
        for (at, text) in texts.iter().enumerate() {
            assert_eq!(text.len(), 43, "RFC 7636 wants 43 characters at least");
            assert!(!texts[..at].contains(text));
        }
        let text = flow.into_secret();
        assert!(text.expose_secret().len() <= FLOW_BYTES_MAX);
        let again = Flow::parse(&text, now).unwrap();
        assert_eq!([again.state(), again.nonce(), again.verifier(), again.challenge()], texts);
        assert!(again.is_of(&texts[0]) && !again.is_of(&texts[1]) && !again.is_of(""));
        assert_ne!(Flow::begin(now).state(), texts[0]);
    }

    #[test]
    fn it_ends_and_its_time_is_part_of_it() {
        let now = OffsetDateTime::from_unix_timestamp(1_790_000_000).unwrap();
        let flow = Flow::begin(now);
        let state = flow.state();
        let text = flow.into_secret();
        assert!(Flow::parse(&text, now + OPEN_FOR - Duration::SECOND).is_some());
        assert!(Flow::parse(&text, now + OPEN_FOR).is_none());
        assert!(Flow::parse(&text, now - LEEWAY - Duration::SECOND).is_none());
        let younger: SecretString = text.expose_secret().replace(".17900", ".17901").into();
        let later = now + Duration::seconds(10_000);
        let younger = Flow::parse(&younger, later + Duration::seconds(90_000));
        assert!(younger.is_none_or(|flow| !flow.is_of(&state)));
        let moved = format!("{}1", text.expose_secret().trim_end_matches('0'));
        for text in ["", "kmflow_.1790000000", "x.y", moved.as_str(), "kmflow_", ".1790000000"] {
            assert!(Flow::parse(&text.into(), now).is_none(), "{text}");
        }
    }
}
