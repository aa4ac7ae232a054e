//! Checks of what callers send, field by field; each error names the field as it stands in the request.

use prost_types::{FieldMask, Timestamp};
use time::OffsetDateTime;

use crate::{
    error::Error,
    key::{Changes, Expiry},
};

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

/// The changes that an update asks for: what its mask names, or without a mask what is set.
///
/// # Errors
/// A bad value, or `update_mask` for a path that is unknown or can not be changed.
pub fn changes(key: &proto::keys::Key, mask: Option<&FieldMask>) -> Result<Changes, Error> {
    let no_mask = FieldMask::default();
    let paths = &mask.unwrap_or(&no_mask).paths;
    for path in paths {
        match path.as_str() {
            "*" | "display_name" | "description" | "expire_time" => {}
            "name" | "environment" | "state" | "start" | "create_time" | "update_time" | "delete_time"
            | "last_used_time" | "etag" => {
                return Err(Error::invalid("update_mask", format!("{path} can not be changed")));
            }
            _ => return Err(Error::invalid("update_mask", "names a field that a key does not have")),
        }
    }
    let asked = |path: &str, is_set: bool| {
        if paths.is_empty() { is_set } else { paths.iter().any(|asked| asked == path || asked == "*") }
    };
    let mut changes = Changes::default();
    if asked("display_name", !key.display_name.is_empty()) {
        changes.display_name = Some(display_name("key.display_name", &key.display_name)?);
    }
    if asked("description", !key.description.is_empty()) {
        changes.description = Some(description("key.description", &key.description)?);
    }
    if asked("expire_time", key.expire_time.is_some()) {
        changes.expire_time = Some(Expiry::from(time("key.expire_time", key.expire_time.as_ref())?));
    }
    Ok(changes)
}

/// Whether each of `known` is to be changed: what the mask names, `*` for all, or without a mask what is set.
///
/// # Errors
/// `update_mask` for a path that is not known.
pub fn masked<const N: usize>(
    mask: Option<&FieldMask>,
    known: [(&str, bool); N],
) -> Result<[bool; N], Error> {
    let no_mask = FieldMask::default();
    let paths = &mask.unwrap_or(&no_mask).paths;
    if let Some(path) = paths.iter().find(|path| *path != "*" && known.iter().all(|(name, _)| name != path)) {
        return Err(Error::invalid("update_mask", format!("{} can not be changed", path.escape_debug())));
    }
    let asked = |path: &str| paths.iter().any(|asked| asked == path || asked == "*");
    Ok(known.map(|(path, is_set)| if paths.is_empty() { is_set } else { asked(path) }))
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
    use proto::keys::Key;
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

    #[test]
    fn times_are_kept_to_the_microsecond() {
        let read = |seconds, nanos| time("f", Some(&Timestamp { seconds, nanos })).ok().flatten();
        assert_eq!(read(1, 1_999).map(OffsetDateTime::unix_timestamp_nanos), Some(1_000_001_000));
        assert_eq!(read(1, -1), None);
        assert_eq!(read(1, 1_000_000_000), None);
        assert_eq!(read(i64::MAX, 0), None);
    }

    fn mask(paths: &[&str]) -> Option<FieldMask> {
        Some(FieldMask { paths: paths.iter().map(|&path| path.to_owned()).collect() })
    }

    #[rstest]
    #[case::no_mask(None, true, true)]
    #[case::empty_mask(mask(&[]), true, true)]
    #[case::named(mask(&["display_name"]), true, false)]
    #[case::both(mask(&["expire_time", "display_name"]), true, true)]
    #[case::all(mask(&["*"]), true, true)]
    fn a_mask_says_what_changes(#[case] mask: Option<FieldMask>, #[case] name: bool, #[case] expiry: bool) {
        let key = Key {
            display_name: "a".into(),
            expire_time: Some(Timestamp { seconds: 9, nanos: 0 }),
            ..Key::default()
        };
        let changes = changes(&key, mask.as_ref()).unwrap();
        assert_eq!((changes.display_name.is_some(), changes.expire_time.is_some()), (name, expiry));
    }

    #[test]
    fn a_star_clears_what_is_not_set_and_no_mask_leaves_it() {
        let key = Key { display_name: "a".into(), description: String::new(), ..Key::default() };
        let all = changes(&key, mask(&["*"]).as_ref()).unwrap();
        assert_eq!((all.description, all.expire_time), (Some(String::new()), Some(Expiry::Never)));
        let set = changes(&key, None).unwrap();
        assert_eq!((set.description, set.expire_time), (None, None));
        assert!(changes(&Key::default(), mask(&["*"]).as_ref()).is_err(), "a name can not be cleared");
    }

    #[rstest]
    #[case("environment")]
    #[case("state")]
    #[case("etag")]
    #[case("nothing")]
    #[case("")]
    #[case("display_name.x")]
    fn other_paths_are_refused(#[case] path: &str) {
        let key = Key { display_name: "a".into(), ..Key::default() };
        let error = changes(&key, mask(&["display_name", path]).as_ref()).unwrap_err();
        assert!(matches!(error, Error::Invalid { field: "update_mask", .. }));
    }
}
