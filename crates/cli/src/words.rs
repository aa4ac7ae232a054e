//! Values as people read them: times, shares, lengths, bytes. Pure: what depends on time takes `now`.

use prost_types::Timestamp;
use time::{Duration, OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

/// Without what a terminal would obey: strangers choose paths, and a path must not paint the screen.
pub(crate) fn printable(text: &str) -> String {
    let is_plain = |c: char| c == '\n' || !(c.is_control() || is_turning(c));
    text.chars()
        .flat_map(|c| {
            let escaped = (!is_plain(c)).then(|| c.escape_unicode());
            let plain = is_plain(c).then_some(c);
            plain.into_iter().chain(escaped.into_iter().flatten())
        })
        .collect()
}

/// Marks that turn the direction of text, by which one line can look like another.
const fn is_turning(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// In UTC, to the second: `2026-11-22T12:00:00Z`.
pub(crate) fn rfc3339(at: OffsetDateTime) -> String {
    let at = at.to_offset(UtcOffset::UTC);
    let at = at.replace_nanosecond(0).unwrap_or(at);
    at.format(&Rfc3339).unwrap_or_else(|_| at.to_string())
}

/// `12 s ago`, `in 3 d`.
pub(crate) fn relative(at: OffsetDateTime, now: OffsetDateTime) -> String {
    let length = length((at - now).abs());
    if at > now { format!("in {length}") } else { format!("{length} ago") }
}

/// `12 s`, `5 min`, `3 h`, `12 d`: the largest unit, rounded down.
pub(crate) fn length(length: Duration) -> String {
    let seconds = length.whole_seconds();
    match seconds {
        ..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// `840 µs`, `12.3 ms`, `1.5 s`.
pub(crate) fn latency(us: u64) -> String {
    match us {
        ..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        _ => format!("{}.{} s", us / 1_000_000, us % 1_000_000 / 100_000),
    }
}

/// `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Part of a whole in percent, to a tenth; empty of nothing.
pub(crate) fn share(part: u64, whole: u64) -> String {
    let Some(tenths) = (u128::from(part) * 1_000).checked_div(u128::from(whole)) else {
        return String::new();
    };
    format!("{}.{} %", tenths / 10, tenths % 10)
}

/// `512 B`, `1.2 kB`, `3.4 MB`, `5.6 GB`.
pub(crate) fn bytes(number: u64) -> String {
    match number {
        ..1_000 => format!("{number} B"),
        1_000..1_000_000 => format!("{}.{} kB", number / 1_000, number % 1_000 / 100),
        1_000_000..1_000_000_000 => {
            format!("{}.{} MB", number / 1_000_000, number % 1_000_000 / 100_000)
        }
        _ => format!("{}.{} GB", number / 1_000_000_000, number % 1_000_000_000 / 100_000_000),
    }
}

/// The time of a message.
pub(crate) fn time(at: Option<&Timestamp>) -> Option<OffsetDateTime> {
    at.and_then(proto::timestamp::from_proto)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-22 12:00 UTC);

    #[test]
    fn times_are_told_from_now() {
        assert_eq!(relative(NOW - Duration::seconds(59), NOW), "59 s ago");
        assert_eq!(relative(NOW - Duration::minutes(119), NOW), "1 h ago");
        assert_eq!(relative(NOW + Duration::days(90), NOW), "in 90 d");
        assert_eq!(rfc3339(datetime!(2026-11-22 13:00:00.5 +1)), "2026-11-22T12:00:00Z");
    }

    #[test]
    fn numbers_are_told_with_units() {
        assert_eq!([7, 1_234, 1_234_567].map(count), ["7", "1,234", "1,234,567"]);
        assert_eq!([999, 84_250, 1_550_000].map(latency), ["999 µs", "84.2 ms", "1.5 s"]);
        assert_eq!(
            (share(1, 3), share(0, 0), share(5, 5)),
            ("33.3 %".into(), String::new(), "100.0 %".into())
        );
        assert_eq!([12, 1_299, 3_456_789].map(bytes), ["12 B", "1.2 kB", "3.4 MB"]);
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(printable("/v1/é\u{1b}]0;x\u{7}\u{9b}2J\r"), "/v1/é\\u{1b}]0;x\\u{7}\\u{9b}2J\\u{d}");
        assert_eq!(printable("a\u{202e}b"), "a\\u{202e}b");
    }
}
