//! Takes secrets out of texts that strangers write and we keep: callers put keys into paths and headers where
//! they do not belong.

use std::borrow::Cow;

use crate::{
    Environment,
    secret::{SECRET_BYTES, START_CHARS},
};

/// `text` with whatever has the shape of a secret, checksum aside, cut to the start that lists show and `…`.
#[must_use]
pub fn redact(text: &str) -> Cow<'_, str> {
    let Some(first) = find(text) else { return Cow::Borrowed(text) };
    let mut clean = String::with_capacity(text.len());
    let (mut rest, mut at) = (text, first);
    loop {
        clean.push_str(&rest[..at + START_CHARS]);
        clean.push('…');
        rest = &rest[at + SECRET_BYTES..];
        match find(rest) {
            Some(next) => at = next,
            None => break,
        }
    }
    clean.push_str(rest);
    Cow::Owned(clean)
}

/// Where the first secret begins.
fn find(text: &str) -> Option<usize> {
    let prefixes = [Environment::Live.prefix(), Environment::Test.prefix()];
    let is_secret = |at: usize| {
        let shape = text.as_bytes().get(at..at + SECRET_BYTES)?;
        let prefix = prefixes.iter().find(|prefix| shape.starts_with(prefix.as_bytes()))?;
        shape[prefix.len()..].iter().all(u8::is_ascii_alphanumeric).then_some(at)
    };
    // Most texts are too short to hold one.
    let starts = 0..text.len().saturating_sub(SECRET_BYTES - 1);
    starts.filter(|at| text.as_bytes()[*at] == b'k').find_map(is_secret)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Secret;

    #[test]
    fn secrets_are_cut_wherever_they_stand() {
        let (one, other) = (Secret::generate(Environment::Live), Secret::generate(Environment::Test));
        let (a, b) = (one.reveal(), other.reveal());
        let check = |text: &str, clean: &str| assert_eq!(redact(text), clean);
        check("", "");
        check("/v1/orders/km_live_short", "/v1/orders/km_live_short");
        check(a, &format!("{}…", one.start()));
        check(&format!("/v1/{a}/x/{b}"), &format!("/v1/{}…/x/{}…", one.start(), other.start()));
        check(&format!("{a}{b}é"), &format!("{}…{}…é", one.start(), other.start()));
        check(&format!("km_km_{a}"), &format!("km_km_{}…", one.start()));
        let mistyped = format!("{}Z", &a[..SECRET_BYTES - 1]);
        check(&mistyped, &format!("{}…", one.start()));
        check(&a[..SECRET_BYTES - 1], &a[..SECRET_BYTES - 1]);
    }

    proptest! {
        #[test]
        fn no_text_keeps_a_secret(before in ".{0,20}", after in ".{0,20}") {
            let secret = Secret::generate(Environment::Live);
            let text = format!("{before}{}{after}", secret.reveal());
            prop_assert!(!redact(&text).contains(secret.reveal()));
        }

        #[test]
        fn other_texts_stay_as_they_are(text in "[a-z_/é]{0,60}") {
            prop_assert_eq!(redact(&text), text.as_str());
        }
    }
}
