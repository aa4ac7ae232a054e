//! The form of a key: what was typed, to a message and back. Pure: takes `now` as an argument, calls nothing.

use std::collections::HashMap;

use proto::{
    keys::{Environment, Key, RateLimit},
    timestamp,
};
use time::{Date, Duration, OffsetDateTime, macros::format_description};

use super::errors::FormErrors;

/// Rows for limits that a form offers by itself, and the most that keys takes.
const LIMIT_ROWS: usize = 3;
const LIMITS_MAX: usize = 10;
/// Rows that are read; keys says that it takes fewer.
const LIMIT_ROWS_MAX: usize = 50;
/// Units of a limit's window: name, label, seconds; the longest first.
pub(crate) const UNITS: [(&str, &str, i64); 4] =
    [("d", "days", 86_400), ("h", "hours", 3_600), ("min", "minutes", 60), ("s", "seconds", 1)];
/// What an update changes, but for the expiry.
const CHANGED: [&str; 6] =
    ["display_name", "description", "tags", "scopes", "allowed_networks", "rate_limits"];

/// When a key stops working, as its choices in a form.
pub(crate) static EXPIRIES: [(&str, &str); 5] =
    [("none", "Never"), ("30", "30 days"), ("90", "90 days"), ("365", "365 days"), ("date", "On a date…")];

/// A key's fields as they were typed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct KeyForm {
    /// What it is for.
    pub(crate) display_name: String,
    /// More of that.
    pub(crate) description: String,
    /// `test`, or anything else for live.
    pub(crate) environment: String,
    /// A name of [`EXPIRIES`], or `keep`.
    pub(crate) expiry: String,
    /// The day at whose end it stops working, in UTC, where `expiry` is `date`.
    pub(crate) expire_date: String,
    /// Without blank rows.
    pub(crate) limits: Vec<LimitFields>,
    /// Separated by white space or commas.
    pub(crate) scopes: String,
    /// Separated by white space or commas.
    pub(crate) networks: String,
    /// `name=value`, one a line.
    pub(crate) tags: String,
    /// Minted with the form, so that one that is sent twice makes one key.
    pub(crate) idempotency_key: String,
    /// Which version of the key was shown.
    pub(crate) etag: String,
}

/// One limit as it was typed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LimitFields {
    /// Names it in answers.
    pub(crate) name: String,
    /// How many requests.
    pub(crate) requests: String,
    /// In how many units.
    pub(crate) window: String,
    /// A name of [`UNITS`].
    pub(crate) unit: String,
}

impl KeyForm {
    /// The fields of a body or a query string; unknown names are left out.
    #[must_use]
    pub(crate) fn read(form: &str) -> Self {
        let mut read = Self::default();
        for (name, value) in form_urlencoded::parse(form.as_bytes()) {
            let value = value.trim().to_owned();
            match name.as_ref() {
                "display_name" => read.display_name = value,
                "description" => read.description = value,
                "environment" => read.environment = value,
                "expiry" => read.expiry = value,
                "expire_date" => read.expire_date = value,
                "scopes" => read.scopes = value,
                "networks" => read.networks = value,
                "tags" => read.tags = value,
                "idempotency_key" => read.idempotency_key = value,
                "etag" => read.etag = value,
                "limit_name" => read.limits.push(LimitFields { name: value, ..LimitFields::default() }),
                _ => read.read_limit(&name, value),
            }
        }
        read.limits.retain(|limit| !limit.is_blank());
        read.limits.truncate(LIMIT_ROWS_MAX);
        read
    }

    /// The other fields of a limit follow its name.
    fn read_limit(&mut self, name: &str, value: String) {
        let Some(limit) = self.limits.last_mut() else { return };
        match name {
            "limit_requests" => limit.requests = value,
            "limit_window" => limit.window = value,
            "limit_unit" => limit.unit = value,
            _ => {}
        }
    }

    /// The form that shows a key as it is.
    #[must_use]
    pub(crate) fn of(key: &Key) -> Self {
        let mut tags: Vec<_> = key.tags.iter().map(|(name, value)| format!("{name}={value}")).collect();
        tags.sort();
        Self {
            display_name: key.display_name.clone(),
            description: key.description.clone(),
            environment: if key.environment() == Environment::Test { "test" } else { "live" }.to_owned(),
            expiry: if key.expire_time.is_some() { "keep" } else { "none" }.to_owned(),
            limits: key.rate_limits.iter().map(LimitFields::of).collect(),
            scopes: key.scopes.join("\n"),
            networks: key.allowed_networks.join("\n"),
            tags: tags.join("\n"),
            etag: key.etag.clone(),
            ..Self::default()
        }
    }

    /// What to ask keys for at `now`.
    ///
    /// # Errors
    /// What can not be read, place by place.
    pub(crate) fn to_key(&self, now: OffsetDateTime) -> Result<Key, FormErrors> {
        let mut errors = FormErrors::default();
        let environment = if self.is_test() { Environment::Test } else { Environment::Live };
        let key = Key {
            display_name: self.display_name.clone(),
            description: self.description.clone(),
            environment: environment.into(),
            expire_time: self.expire_time(now, &mut errors).map(timestamp::to_proto),
            rate_limits: self.rate_limits(&mut errors),
            scopes: parts(&self.scopes),
            allowed_networks: parts(&self.networks),
            tags: self.tags(&mut errors),
            etag: self.etag.clone(),
            ..Key::default()
        };
        if errors.is_empty() { Ok(key) } else { Err(errors) }
    }

    /// Which fields an update changes.
    #[must_use]
    pub(crate) fn mask(&self) -> prost_types::FieldMask {
        let expiry = (self.expiry != "keep").then_some("expire_time");
        prost_types::FieldMask { paths: CHANGED.into_iter().chain(expiry).map(str::to_owned).collect() }
    }

    /// Titles of the fields in which another form of the same key differs.
    #[must_use]
    pub(crate) fn differences(&self, other: &Self) -> Vec<&'static str> {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let tags = |form: &Self| form.tags(&mut FormErrors::default());
        let fields = [
            ("name", self.display_name == other.display_name),
            ("description", words(&self.description) == words(&other.description)),
            ("expiry", self.expiry == other.expiry),
            ("rate limits", self.limits == other.limits),
            ("scopes", parts(&self.scopes) == parts(&other.scopes)),
            ("allowed networks", parts(&self.networks) == parts(&other.networks)),
            ("tags", tags(self) == tags(other)),
        ];
        fields.into_iter().filter(|(_, same)| !same).map(|(title, _)| title).collect()
    }

    /// Whether the key is for tests.
    #[must_use]
    pub(crate) fn is_test(&self) -> bool {
        self.environment == "test"
    }

    /// Whether this expiry is chosen; the first is, if none is.
    #[must_use]
    pub(crate) fn is_expiry(&self, name: &str) -> bool {
        self.expiry == name || self.expiry.is_empty() && name == EXPIRIES[0].0
    }

    /// The limits, and blank rows to fill in.
    #[must_use]
    pub(crate) fn limit_rows(&self) -> Vec<LimitFields> {
        let mut rows = self.limits.clone();
        let blank = LimitFields { unit: "min".to_owned(), ..LimitFields::default() };
        let one_more = (rows.len() + 1).clamp(LIMIT_ROWS, LIMITS_MAX);
        rows.resize(rows.len().max(one_more), blank);
        rows
    }

    /// The end of a day, so that a form that is sent twice asks twice for the same.
    fn expire_time(&self, now: OffsetDateTime, errors: &mut FormErrors) -> Option<OffsetDateTime> {
        let day = match self.expiry.as_str() {
            "" | "none" | "keep" => return None,
            "date" => Date::parse(&self.expire_date, format_description!("[year]-[month]-[day]"))
                .ok()
                .filter(|day| (1970..=9999).contains(&day.year())),
            days => days.parse().ok().filter(|days| (1..=3650).contains(days)).and_then(|days| {
                now.to_offset(time::UtcOffset::UTC).date().checked_add(Duration::days(days))
            }),
        };
        let end = day.and_then(|day| day.with_hms(23, 59, 59).ok());
        if end.is_none() {
            errors.note("expire_time", "Choose how long it works, or write a date such as 2030-12-31.");
        }
        end.map(time::PrimitiveDateTime::assume_utc)
    }

    fn rate_limits(&self, errors: &mut FormErrors) -> Vec<RateLimit> {
        let limits = self.limits.iter().enumerate().map(|(row, limit)| {
            let mut number = |field: &str, text: &str| {
                text.parse::<i64>().unwrap_or_else(|_| {
                    errors.note(format!("rate_limits[{row}].{field}"), "Write a whole number.");
                    0
                })
            };
            let (requests, window) = (number("requests", &limit.requests), number("window", &limit.window));
            let window =
                prost_types::Duration { seconds: window.saturating_mul(limit.unit_seconds()), nanos: 0 };
            RateLimit { name: limit.name.clone(), requests, window: Some(window) }
        });
        limits.collect()
    }

    fn tags(&self, errors: &mut FormErrors) -> HashMap<String, String> {
        let mut tags = HashMap::new();
        for line in self.tags.lines().map(str::trim).filter(|line| !line.is_empty()) {
            match line.split_once('=') {
                None => errors.note("tags", format!("“{line}” has no value: write name=value, one a line.")),
                Some((name, value)) => {
                    let (name, value) = (name.trim().to_owned(), value.trim().to_owned());
                    if tags.contains_key(&name) {
                        errors.note("tags", format!("Names {name} twice."));
                    }
                    tags.insert(name, value);
                }
            }
        }
        tags
    }
}

impl LimitFields {
    fn of(limit: &RateLimit) -> Self {
        let seconds = limit.window.as_ref().map_or(0, |window| window.seconds);
        let (unit, _, length) =
            UNITS.iter().find(|(_, _, length)| seconds % length == 0).unwrap_or(&UNITS[3]);
        Self {
            name: limit.name.clone(),
            requests: limit.requests.to_string(),
            window: (seconds / length).to_string(),
            unit: (*unit).to_owned(),
        }
    }

    /// The unit alone says nothing.
    fn is_blank(&self) -> bool {
        self.name.is_empty() && self.requests.is_empty() && self.window.is_empty()
    }

    fn unit_seconds(&self) -> i64 {
        UNITS.iter().find(|(name, _, _)| *name == self.unit).map_or(1, |(_, _, seconds)| *seconds)
    }
}

fn parts(text: &str) -> Vec<String> {
    text.split(|c: char| c.is_whitespace() || c == ',')
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
#[path = "form_tests.rs"]
mod tests;
