//! Times and lengths as they are typed: `24h`, `7d`, `2026-11-22`, `2026-11-22T12:00:00Z`. Pure.

use std::str::FromStr;

use time::{
    Date, Duration, OffsetDateTime, PrimitiveDateTime, UtcOffset, format_description::well_known::Rfc3339,
    macros::format_description,
};

const EXPECTED: &str = "write a length such as 15m, 24h, 7d, or a time such as 2026-11-22T12:00:00Z";

/// A time, as it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct When {
    /// What was typed: of two commands the same text means the same question.
    pub(crate) text: String,
    meant: Meant,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Meant {
    Length(Duration),
    At(OffsetDateTime),
}

impl When {
    /// That long before `now`, or the time itself.
    pub(crate) fn past(&self, now: OffsetDateTime) -> OffsetDateTime {
        match self.meant {
            Meant::Length(length) => now.checked_sub(length).unwrap_or(OffsetDateTime::UNIX_EPOCH),
            Meant::At(at) => at,
        }
    }

    /// That long after `now`, or the time itself.
    pub(crate) fn future(&self, now: OffsetDateTime) -> OffsetDateTime {
        match self.meant {
            Meant::Length(length) => now + length,
            Meant::At(at) => at,
        }
    }
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let meant = length(text).map(Meant::Length).or_else(|_| at(text).map(Meant::At).ok_or(EXPECTED))?;
        Ok(Self { text: text.to_owned(), meant })
    }
}

/// A length: a whole number and `s`, `m`, `h`, `d` or `w`; at most 1,000 days.
///
/// # Errors
/// What to write instead.
pub(crate) fn length(text: &str) -> Result<Duration, String> {
    let expected = || "write a length such as 30s, 15m, 24h, 7d, 2w".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(expected)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return Err(expected()),
    };
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(expected());
    }
    let length =
        number.parse::<i64>().ok().and_then(|number| number.checked_mul(seconds)).map(Duration::seconds);
    let length = length.ok_or_else(expected)?;
    if length > Duration::days(1_000) { Err("at most 1,000 days".to_owned()) } else { Ok(length) }
}

/// A time with a zone, or a day or a time without one, which is taken as UTC; years 1970 to 9999.
fn at(text: &str) -> Option<OffsetDateTime> {
    let day = format_description!("[year]-[month]-[day]");
    let plain = format_description!("[year]-[month]-[day]T[hour]:[minute][optional [:[second]]]");
    OffsetDateTime::parse(text, &Rfc3339)
        .or_else(|_| PrimitiveDateTime::parse(text, plain).map(PrimitiveDateTime::assume_utc))
        .or_else(|_| Date::parse(text, day).map(|day| day.midnight().assume_utc()))
        .ok()
        .map(|at| at.to_offset(UtcOffset::UTC))
        .filter(|at| (1970..=9999).contains(&at.year()))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-22 12:00 UTC);

    #[rstest]
    #[case("15m", datetime!(2026-11-22 11:45 UTC))]
    #[case("2w", datetime!(2026-11-08 12:00 UTC))]
    #[case("0s", NOW)]
    #[case("2026-11-20", datetime!(2026-11-20 0:00 UTC))]
    #[case("2026-11-20T06:30", datetime!(2026-11-20 6:30 UTC))]
    #[case("2026-11-20T06:30:10", datetime!(2026-11-20 6:30:10 UTC))]
    #[case("2026-11-20T06:30:00+02:00", datetime!(2026-11-20 4:30 UTC))]
    fn times_are_read(#[case] text: &str, #[case] expected: OffsetDateTime) {
        assert_eq!(text.parse::<When>().unwrap().past(NOW), expected);
    }

    #[rstest]
    #[case("")]
    #[case("d")]
    #[case("-1d")]
    #[case("1 d")]
    #[case("1y")]
    #[case("7µ")]
    #[case("1001d")]
    #[case("99999999999999999999d")]
    #[case("yesterday")]
    #[case("1969-12-31")]
    #[case("2026-02-30")]
    fn others_are_refused(#[case] text: &str) {
        assert_eq!(text.parse::<When>(), Err(EXPECTED.to_owned()));
    }

    #[test]
    fn a_length_goes_either_way() {
        let when: When = "90d".parse().unwrap();
        assert_eq!(when.future(NOW) - when.past(NOW), Duration::days(180));
    }
}
