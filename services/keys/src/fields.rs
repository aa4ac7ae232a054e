//! Checks of what callers send, field by field; each error names the field as it stands in the request.

use prost_types::Timestamp;
use time::{Duration, OffsetDateTime};

use crate::error::Error;

mod attributes;
mod mask;

pub use attributes::{allowed_networks, owner, rate_limits, scopes, tag_name, tag_value, tags};
pub use mask::{changes, masked};

const DISPLAY_NAME_CHARS_MAX: usize = 100;
const DESCRIPTION_CHARS_MAX: usize = 1_000;
const IDEMPOTENCY_KEY_CHARS_MAX: usize = 64;
/// Longest address that mail is sent to, in bytes (RFC 5321).
const EMAIL_BYTES_MAX: usize = 254;

/// A name of display: 1 to 100 characters, one line, not only blanks.
///
/// # Errors
/// What is wrong with it.
pub fn display_name(field: &'static str, text: &str) -> Result<String, Error> {
    if text.trim().is_empty() {
        return Err(Error::invalid(field, "must not be empty"));
    }
    one_line(field, text, DISPLAY_NAME_CHARS_MAX)
}

/// A description: at most 1,000 characters; lines and tabs are fine.
///
/// # Errors
/// What is wrong with it.
pub fn description(field: &'static str, text: &str) -> Result<String, Error> {
    at_most(field, text, DESCRIPTION_CHARS_MAX)?;
    if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return Err(Error::invalid(
            field,
            "must not have control characters other than line breaks and tabs",
        ));
    }
    Ok(text.to_owned())
}

/// An idempotency key: at most 64 characters, one line; `None` if it is empty.
///
/// # Errors
/// What is wrong with it.
pub fn idempotency_key(text: &str) -> Result<Option<String>, Error> {
    let text = one_line("idempotency_key", text, IDEMPOTENCY_KEY_CHARS_MAX)?;
    Ok(Some(text).filter(|text| !text.is_empty()))
}

/// An e-mail address in lower case: something on both sides of an `@`, no blanks.
///
/// # Errors
/// What is wrong with it.
pub fn email(field: &'static str, text: &str) -> Result<String, Error> {
    let text = text.trim().to_lowercase();
    let form = text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty());
    let clean = !text.chars().any(|c| c.is_control() || c.is_whitespace());
    if form && clean && text.len() <= EMAIL_BYTES_MAX {
        Ok(text)
    } else {
        Err(Error::invalid(field, "must be an e-mail address of at most 254 bytes"))
    }
}

/// A time, kept to the microsecond as Postgres does; `None` if it is not set.
///
/// # Errors
/// If it is none.
pub fn time(field: &'static str, at: Option<&Timestamp>) -> Result<Option<OffsetDateTime>, Error> {
    let Some(at) = at else { return Ok(None) };
    let at = proto::timestamp::from_proto(at).ok_or_else(|| {
        Error::invalid(field, "must be a time of the years 1 to 9999, nanoseconds below 1e9")
    })?;
    Ok(Some(to_micros(at)))
}

/// A length of time from 0 to `max`, kept to the microsecond; `None` if it is not set.
///
/// # Errors
/// If it is out of these bounds.
pub fn duration(
    field: &'static str,
    length: Option<&prost_types::Duration>,
    max: Duration,
) -> Result<Option<Duration>, Error> {
    let Some(length) = length else { return Ok(None) };
    let whole = (0..1_000_000_000).contains(&length.nanos) && length.seconds >= 0;
    let length = Duration::new(length.seconds, length.nanos / 1_000 * 1_000);
    if whole && length <= max {
        Ok(Some(length))
    } else {
        Err(Error::invalid(field, format!("must be from 0 s to {} s", max.whole_seconds())))
    }
}

/// Cuts a time to the microsecond.
///
/// # Panics
/// Never: what is left is below 1e9.
#[must_use]
pub fn to_micros(at: OffsetDateTime) -> OffsetDateTime {
    at.replace_nanosecond(at.nanosecond() / 1_000 * 1_000).expect("fewer nanoseconds are still nanoseconds")
}

/// An expiry that is set must lie ahead.
///
/// # Errors
/// If it does not.
pub fn ahead(field: &'static str, at: Option<OffsetDateTime>, now: OffsetDateTime) -> Result<(), Error> {
    if at.is_some_and(|at| at <= now) { Err(Error::invalid(field, "must be in the future")) } else { Ok(()) }
}

fn one_line(field: &'static str, text: &str, chars_max: usize) -> Result<String, Error> {
    at_most(field, text, chars_max)?;
    if text.chars().any(char::is_control) {
        return Err(Error::invalid(field, "must not have control characters"));
    }
    Ok(text.to_owned())
}

fn at_most(field: &'static str, text: &str, chars_max: usize) -> Result<(), Error> {
    if text.chars().count() > chars_max {
        return Err(Error::invalid(field, format!("must have at most {chars_max} characters")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::one("x", true)]
    #[case::longest(&"é".repeat(100), true)]
    #[case::blanks_inside(" a b ", true)]
    #[case::empty("", false)]
    #[case::blank(" \u{a0} ", false)]
    #[case::too_long(&"x".repeat(101), false)]
    #[case::line_break("a\nb", false)]
    #[case::nul("a\0b", false)]
    #[case::escape("a\u{1b}[31mb", false)]
    fn display_names(#[case] text: &str, #[case] good: bool) {
        assert_eq!(display_name("f", text).is_ok(), good);
    }

    #[rstest]
    #[case::empty("", true)]
    #[case::lines("a\n\tb\r\n", true)]
    #[case::longest(&"é".repeat(1_000), true)]
    #[case::too_long(&"x".repeat(1_001), false)]
    #[case::nul("\0", false)]
    fn descriptions(#[case] text: &str, #[case] good: bool) {
        assert_eq!(description("f", text).is_ok(), good);
    }

    #[rstest]
    #[case(" Ada@Example.ORG ", Some("ada@example.org"))]
    #[case("a@b", Some("a@b"))]
    #[case("", None)]
    #[case("ada", None)]
    #[case("@b", None)]
    #[case("a@", None)]
    #[case("a b@c", None)]
    #[case("a\0@c", None)]
    #[case(&format!("{}@b", "a".repeat(253)), None)]
    fn emails(#[case] text: &str, #[case] read: Option<&str>) {
        assert_eq!(email("f", text).ok().as_deref(), read);
    }

    #[rstest]
    #[case::none(0, 0, Some(0))]
    #[case::longest(9, 0, Some(9_000_000))]
    #[case::to_the_microsecond(1, 1_999, Some(1_000_001))]
    #[case::too_long(9, 1_000, None)]
    #[case::negative(-1, 0, None)]
    #[case::negative_part(0, -1, None)]
    #[case::no_part(0, 1_000_000_000, None)]
    #[case::overflow(i64::MAX, 999_999_999, None)]
    fn durations(#[case] seconds: i64, #[case] nanos: i32, #[case] micros: Option<i128>) {
        let length = prost_types::Duration { seconds, nanos };
        let read = duration("f", Some(&length), Duration::seconds(9)).ok().flatten();
        assert_eq!(read.map(Duration::whole_microseconds), micros);
    }

    #[test]
    fn times_are_kept_to_the_microsecond() {
        let read = |seconds, nanos| time("f", Some(&Timestamp { seconds, nanos })).ok().flatten();
        assert_eq!(read(1, 1_999).map(OffsetDateTime::unix_timestamp_nanos), Some(1_000_001_000));
        assert_eq!(read(1, -1), None);
        assert_eq!(read(1, 1_000_000_000), None);
        assert_eq!(read(i64::MAX, 0), None);
    }
}
