//! Numbers and times as pages show them. Takes `now` as an argument.

use askama::Template;
use prost_types::Timestamp;
use time::{OffsetDateTime, macros::format_description};

/// `1234567` as `1,234,567`.
#[must_use]
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// At most five characters: `99,999`, then `100k`, `1.2M`, `3.4B`.
#[must_use]
pub(crate) fn compact(value: u64) -> String {
    let scaled = |unit: u64, letter: char| {
        let (whole, tenth) = (value / unit, value % unit * 10 / unit);
        if whole >= 100 || tenth == 0 {
            format!("{whole}{letter}")
        } else {
            format!("{whole}.{tenth}{letter}")
        }
    };
    match value {
        0..100_000 => count(value),
        100_000..1_000_000 => scaled(1_000, 'k'),
        1_000_000..1_000_000_000 => scaled(1_000_000, 'M'),
        _ => scaled(1_000_000_000, 'B'),
    }
}

/// The share as `12.3%`; a dash if there is no whole. Only nothing is `0%` and only all is `100%`.
#[must_use]
pub(crate) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "–".to_owned();
    }
    let permille = (u128::from(part) * 2000 + u128::from(whole)) / (2 * u128::from(whole));
    match permille {
        0 if part > 0 => "<0.1%".to_owned(),
        0 => "0%".to_owned(),
        1000 if part < whole => ">99.9%".to_owned(),
        permille if permille % 10 == 0 => format!("{}%", permille / 10),
        permille => format!("{}.{}%", permille / 10, permille % 10),
    }
}

/// A part of a drawing, of a hundred; 0 if there is no whole.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a drawing needs three digits")]
pub(crate) fn hundredths(part: u128, whole: u128) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 * 100.0 }
}

/// A number against the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// `+12%`, `−3.4%`, `same`, `new`; `none` if there was nothing and is nothing.
    pub(crate) text: String,
    /// Whether it grew.
    pub(crate) is_more: bool,
    /// Whether it is smaller.
    pub(crate) is_less: bool,
}

/// How `now` differs from `before`.
#[must_use]
pub(crate) fn change(now: u64, before: u64) -> Change {
    let text = match (now, before) {
        (0, 0) => "none".to_owned(),
        (_, 0) => "new".to_owned(),
        (now, before) if now == before => "same".to_owned(),
        (now, before) => {
            let sign = if now > before { '+' } else { '−' };
            match u128::from(now.abs_diff(before)) * 1000 / u128::from(before) {
                0 => format!("{sign}<0.1%"),
                permille @ 1..100 => format!("{sign}{}.{}%", permille / 10, permille % 10),
                permille if permille < 10_000 => format!("{sign}{}%", permille / 10),
                permille => format!("×{}", permille / 1000 + 1),
            }
        }
    };
    Change { text, is_more: now > before, is_less: now < before }
}

/// Microseconds as `850 µs`, `12.3 ms`, `1.20 s`.
#[must_use]
pub(crate) fn latency(us: u32) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        _ => format!("{}.{:02} s", us / 1_000_000, us % 1_000_000 / 10_000),
    }
}

/// Bytes as `812 B`, `1.5 kB`, `2.0 MB`, in powers of 1,000.
#[must_use]
pub(crate) fn bytes(value: u64) -> String {
    let scaled = |unit: u64, name: &str| format!("{}.{} {name}", value / unit, value % unit * 10 / unit);
    match value {
        0..1_000 => format!("{value} B"),
        1_000..1_000_000 => scaled(1_000, "kB"),
        1_000_000..1_000_000_000 => scaled(1_000_000, "MB"),
        _ => scaled(1_000_000_000, "GB"),
    }
}

/// A time with millisecond precision in RFC 3339, UTC.
#[must_use]
pub(crate) fn rfc3339(at: OffsetDateTime) -> String {
    let form = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    at.to_offset(time::UtcOffset::UTC).format(form).unwrap_or_default()
}

/// A day for a date field, `2026-11-22`, UTC.
#[must_use]
pub(crate) fn day(at: OffsetDateTime) -> String {
    let form = format_description!("[year]-[month]-[day]");
    at.to_offset(time::UtcOffset::UTC).format(form).unwrap_or_default()
}

/// How a script may rewrite a time for its reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// Date and time.
    Full,
    /// The date, the time on hover.
    Day,
    /// `3 minutes ago`, the time on hover.
    Relative,
    /// The time, with the date only if it is another day.
    Clock,
    /// Below a chart: hours and minutes.
    TickTime,
    /// Below a chart: the day.
    TickDay,
}

/// A `<time>` element: UTC from the server, rewritten into the reader's zone where scripts run.
#[derive(Debug, Clone, PartialEq, Eq, Template)]
#[template(
    ext = "html",
    source = r#"<time datetime="{{ iso }}" title="{{ exact }}" data-show="{{ show }}">{{ text }}</time>"#
)]
pub(crate) struct Moment {
    iso: String,
    exact: String,
    show: &'static str,
    text: String,
}

impl Moment {
    /// The moment `at`, seen at `now`.
    #[must_use]
    pub(crate) fn new(at: OffsetDateTime, show: Show, now: OffsetDateTime) -> Self {
        let form = format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
        let day = format_description!("[day padding:none] [month repr:short] [year]");
        let clock = format_description!("[hour]:[minute]:[second] UTC");
        let exact = at.format(form).unwrap_or_default();
        let (show, text) = match show {
            Show::Full => ("full", exact.clone()),
            Show::Day => ("day", at.format(day).unwrap_or_default()),
            Show::Relative => ("relative", relative(at, now)),
            Show::Clock if at.date() == now.date() => ("clock", at.format(clock).unwrap_or_default()),
            Show::Clock => ("clock", exact.clone()),
            Show::TickTime => {
                ("tick-time", at.format(format_description!("[hour]:[minute]")).unwrap_or_default())
            }
            Show::TickDay => {
                let tick = format_description!("[day padding:none] [month repr:short]");
                ("tick-day", at.format(tick).unwrap_or_default())
            }
        };
        Self { iso: rfc3339(at), exact, show, text }
    }

    /// The moment of a wire time; `None` if it is unset or no time.
    #[must_use]
    pub(crate) fn of(at: Option<&Timestamp>, show: Show, now: OffsetDateTime) -> Option<Self> {
        Some(Self::new(proto::timestamp::from_proto(at?)?, show, now))
    }
}

/// `3 minutes ago`; also `just now` for a clock that is a little ahead.
fn relative(at: OffsetDateTime, now: OffsetDateTime) -> String {
    let seconds = (now - at).whole_seconds();
    let ago = |value: i64, unit: &str| format!("{value} {unit}{} ago", if value == 1 { "" } else { "s" });
    match seconds {
        ..=9 => "just now".to_owned(),
        10..60 => ago(seconds, "second"),
        60..3_600 => ago(seconds / 60, "minute"),
        3_600..86_400 => ago(seconds / 3_600, "hour"),
        86_400..2_592_000 => ago(seconds / 86_400, "day"),
        2_592_000..31_536_000 => ago(seconds / 2_592_000, "month"),
        _ => ago(seconds / 31_536_000, "year"),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use time::macros::datetime;

    use super::*;

    #[rstest]
    #[case(0, "0", "0")]
    #[case(999, "999", "999")]
    #[case(1_000, "1,000", "1,000")]
    #[case(99_999, "99,999", "99,999")]
    #[case(123_456, "123,456", "123k")]
    #[case(1_234_567, "1,234,567", "1.2M")]
    #[case(100_000_000, "100,000,000", "100M")]
    #[case(u64::MAX, "18,446,744,073,709,551,615", "18446744073B")]
    fn counts(#[case] value: u64, #[case] full: &str, #[case] short: &str) {
        assert_eq!((count(value).as_str(), compact(value).as_str()), (full, short));
    }

    #[rstest]
    #[case(0, 0, "–")]
    #[case(0, 10, "0%")]
    #[case(10, 10, "100%")]
    #[case(1, 3, "33.3%")]
    #[case(1, 1_000_000, "<0.1%")]
    #[case(999_999, 1_000_000, ">99.9%")]
    #[case(u64::MAX, u64::MAX, "100%")]
    fn shares(#[case] part: u64, #[case] whole: u64, #[case] text: &str) {
        assert_eq!(percent(part, whole), text);
    }

    #[test]
    fn units() {
        assert_eq!([latency(850), latency(12_345), latency(1_204_000)], ["850 µs", "12.3 ms", "1.20 s"]);
        assert_eq!([bytes(812), bytes(1_540), bytes(2_000_000)], ["812 B", "1.5 kB", "2.0 MB"]);
    }

    #[rstest]
    #[case(datetime!(2026-11-22 12:00:05 UTC), "just now")]
    #[case(datetime!(2026-11-22 11:59:00 UTC), "1 minute ago")]
    #[case(datetime!(2026-11-22 09:30:00 UTC), "2 hours ago")]
    #[case(datetime!(2026-11-20 12:00:00 UTC), "2 days ago")]
    #[case(datetime!(2024-11-22 12:00:00 UTC), "2 years ago")]
    fn ages(#[case] at: OffsetDateTime, #[case] text: &str) {
        assert_eq!(relative(at, datetime!(2026-11-22 12:00 UTC)), text);
    }

    #[test]
    fn a_moment_is_exact_for_machines_and_on_hover() {
        let now = datetime!(2026-11-22 12:00 UTC);
        let at = datetime!(2026-11-22 11:58:30.120 UTC);
        let html = Moment::new(at, Show::Relative, now).render().unwrap();
        assert_eq!(
            html,
            "<time datetime=\"2026-11-22T11:58:30.120Z\" title=\"2026-11-22 11:58:30 UTC\" \
             data-show=\"relative\">1 minute ago</time>"
        );
        assert_eq!(Moment::new(at, Show::Clock, now).text, "11:58:30 UTC");
        assert_eq!(
            Moment::new(at, Show::Clock, datetime!(2026-11-23 0:00 UTC)).text,
            "2026-11-22 11:58:30 UTC"
        );
    }
}
