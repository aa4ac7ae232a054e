//! What a list of keys can be narrowed to and sorted by. Pure; the statement is made in `store`.

use std::collections::BTreeMap;

use access::Subject;
use domain::{Environment, KeyId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{error::Error, key::Standing, store::keys::Shown};

/// Most words that are searched for, and the most characters of each; the index cuts there too.
const WORDS_MAX: usize = 10;
const WORD_CHARS_MAX: usize = 50;

/// Which keys, in which order. All must be met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// In which order.
    pub order: Order,
    /// Each begins a word of the key.
    pub words: Vec<String>,
    /// Where they may be used.
    pub environment: Option<Environment>,
    /// Tags that they have.
    pub tags: BTreeMap<String, String>,
    /// Who answers for them.
    pub owner: Option<Subject>,
    /// Any of these; never empty.
    pub standings: Vec<Standing>,
    /// All of these.
    pub hygiene: Vec<Hygiene>,
}

/// What may be amiss with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hygiene {
    /// Never used.
    NeverUsed,
    /// Not used for so many days, and that old.
    UnusedDays(i64),
    /// Without an expiry.
    NoExpiry,
    /// Expires within some days.
    ExpiresSoon,
    /// Used from many addresses.
    ManyAddresses,
    /// A leak was reported.
    Exposed,
    /// More than one secret works.
    SeveralSecrets,
}

/// In which order keys are listed; equal ones by their id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Newest first.
    CreateTime,
    /// By name.
    DisplayName,
    /// Last used first.
    LastUsedTime,
    /// First to expire first.
    ExpireTime,
}

/// Where a list goes on: after the key with this id, which had this mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// What the list is sorted by.
    pub mark: Mark,
    /// The key.
    pub key_id: KeyId,
}

/// What a list is sorted by, of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// When it was made.
    CreateTime(OffsetDateTime),
    /// Its name.
    DisplayName(String),
    /// When it was last used.
    LastUsedTime(Option<OffsetDateTime>),
    /// When it expires.
    ExpireTime(Option<OffsetDateTime>),
}

/// A position as a page token holds it: microseconds or text, and the id.
#[derive(Debug, Serialize, Deserialize)]
pub struct Wire(Option<i64>, Option<String>, String);

impl Position {
    /// The place of a key in a list.
    #[must_use]
    pub fn of(order: Order, shown: &Shown) -> Self {
        let key = &shown.key;
        let mark = match order {
            Order::CreateTime => Mark::CreateTime(key.create_time),
            Order::DisplayName => Mark::DisplayName(key.display_name.clone()),
            Order::LastUsedTime => Mark::LastUsedTime(shown.usage.last_used_time),
            Order::ExpireTime => Mark::ExpireTime(key.expire_time),
        };
        Self { mark, key_id: key.key_id }
    }

    /// For a page token.
    #[must_use]
    pub fn write(&self) -> Wire {
        let micros =
            |at: OffsetDateTime| i64::try_from(at.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX);
        let (time, text) = match &self.mark {
            Mark::CreateTime(at) => (Some(micros(*at)), None),
            Mark::DisplayName(name) => (None, Some(name.clone())),
            Mark::LastUsedTime(at) | Mark::ExpireTime(at) => (at.map(micros), None),
        };
        Wire(time, text, self.key_id.to_string())
    }

    /// From a page token of a list in this order.
    ///
    /// # Errors
    /// `page_token` if it is none.
    pub fn read(order: Order, Wire(micros, text, key_id): Wire) -> Result<Self, Error> {
        let damaged = || Error::invalid("page_token", "is damaged; start again without it");
        let time = |micros| OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000);
        let time: Option<OffsetDateTime> = micros.map(time).transpose().map_err(|_| damaged())?;
        let mark = match order {
            Order::CreateTime => Mark::CreateTime(time.ok_or_else(damaged)?),
            Order::DisplayName => Mark::DisplayName(text.ok_or_else(damaged)?),
            Order::LastUsedTime => Mark::LastUsedTime(time),
            Order::ExpireTime => Mark::ExpireTime(time),
        };
        Ok(Self { mark, key_id: key_id.parse().map_err(|_| damaged())? })
    }
}

/// The words of a text, parted by ASCII characters that are neither letters nor digits, as the index parts them.
///
/// # Errors
/// If it has no word, or too many.
pub fn words(field: &'static str, text: &str) -> Result<Vec<String>, Error> {
    let parts = |c: char| c.is_ascii() && !c.is_ascii_alphanumeric();
    let words = text.split(parts).filter(|word| !word.is_empty());
    let words: Vec<String> = words.map(|word| word.chars().take(WORD_CHARS_MAX).collect()).collect();
    match words.len() {
        0 => Err(Error::invalid(field, "must have a letter or a digit")),
        1..=WORDS_MAX => Ok(words),
        _ => Err(Error::invalid(field, format!("must have at most {WORDS_MAX} words"))),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("Billing", Some("Billing"))]
    #[case("  nightly  run ", Some("nightly run"))]
    #[case("km_live_Ab12", Some("km live Ab12"))]
    #[case("a'b:*&|!()\\", Some("a b"))]
    #[case("Zürich-2", Some("Zürich 2"))]
    #[case("_-", None)]
    #[case("a b c d e f g h i j k", None)]
    fn texts_have_words(#[case] text: &str, #[case] expected: Option<&str>) {
        assert_eq!(words("f", text).ok().map(|words| words.join(" ")).as_deref(), expected);
    }

    #[test]
    fn positions_are_read_back_in_their_order_only() {
        let at = OffsetDateTime::UNIX_EPOCH + time::Duration::microseconds(17);
        let marks = [
            (Order::CreateTime, Mark::CreateTime(at)),
            (Order::DisplayName, Mark::DisplayName("a".into())),
            (Order::LastUsedTime, Mark::LastUsedTime(None)),
            (Order::ExpireTime, Mark::ExpireTime(Some(at))),
        ];
        for (order, mark) in marks {
            let position = Position { mark, key_id: KeyId::generate() };
            assert_eq!(Position::read(order, position.write()).unwrap(), position);
        }
        let damaged = |order, wire| Position::read(order, wire).is_err();
        let id = KeyId::generate().to_string();
        assert!(damaged(Order::CreateTime, Wire(None, Some("a".into()), id.clone())));
        assert!(damaged(Order::CreateTime, Wire(Some(i64::MAX), None, id.clone())));
        assert!(damaged(Order::DisplayName, Wire(Some(1), None, id)));
        assert!(damaged(Order::ExpireTime, Wire(Some(1), None, "key_".into())));
    }
}
