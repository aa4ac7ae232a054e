//! The usage page's filter in its URL, both ways. Pure: takes `now` as an argument, calls nothing.

use std::borrow::Cow;

use domain::{KeyId, Outcome};
use proto::{timestamp, usage::UsageFilter};
use time::{
    Duration, OffsetDateTime, PrimitiveDateTime, format_description::well_known::Rfc3339,
    macros::format_description,
};

use crate::format::rfc3339;

mod drill;

pub(crate) use drill::Chip;

/// Longest period that usage is kept for.
const PERIOD_MAX: Duration = Duration::days(400);
/// Values in one list of a filter.
const VALUES_MAX: usize = 100;
/// Longest text of a field, in bytes.
const TEXT_BYTES_MAX: usize = 1024;
/// Longest HTTP method, in bytes.
const METHOD_BYTES_MAX: usize = 32;

/// A period that ends now: its name in the URL, its label, its length.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Preset {
    /// `24h`
    pub(crate) name: &'static str,
    /// `Last 24 hours`
    pub(crate) label: &'static str,
    length: Duration,
}

/// The periods to choose from.
pub(crate) static PRESETS: [Preset; 6] = [
    Preset { name: "15m", label: "Last 15 minutes", length: Duration::minutes(15) },
    Preset { name: "1h", label: "Last hour", length: Duration::hours(1) },
    Preset { name: "24h", label: "Last 24 hours", length: Duration::hours(24) },
    Preset { name: "7d", label: "Last 7 days", length: Duration::days(7) },
    Preset { name: "30d", label: "Last 30 days", length: Duration::days(30) },
    Preset { name: "90d", label: "Last 90 days", length: Duration::days(90) },
];
/// The period of a page without one.
static DEFAULT: &Preset = &PRESETS[3];
/// The value of `range` that says that `from` and `to` hold.
pub(crate) const CUSTOM: &str = "custom";

/// The fields as the URL has them, right or wrong, to be shown again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fields {
    /// A preset's name or [`CUSTOM`].
    pub(crate) range: String,
    /// RFC 3339, or a date and time without a zone, taken as UTC.
    pub(crate) from: String,
    /// As `from`.
    pub(crate) to: String,
    /// When a preset's period ends; now if empty. Keeps the pages of one log together.
    pub(crate) at: String,
    /// Absent means the page's own key if it has one, empty every key.
    pub(crate) key_id: Option<String>,
    /// Names of outcomes.
    pub(crate) outcomes: Vec<String>,
    /// HTTP methods.
    pub(crate) methods: Vec<String>,
    /// A route template.
    pub(crate) route: String,
    /// HTTP statuses, separated by commas or spaces.
    pub(crate) status_codes: String,
    /// An id that paths name.
    pub(crate) resource_id: String,
    /// Where the log goes on.
    pub(crate) page_token: String,
    /// Whether a page without scripts tells how long calls took.
    pub(crate) has_latency: bool,
}

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FieldError {
    /// The field's name in the URL.
    pub(crate) field: &'static str,
    /// What to write instead.
    pub(crate) message: String,
}

/// Which time is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Period {
    /// A length that ends now, or at a fixed time on later pages of a log.
    Last(&'static Preset, Option<OffsetDateTime>),
    /// `[from, to)`.
    Between(OffsetDateTime, OffsetDateTime),
}

/// Whose calls are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keys {
    /// Those of the key whose page it is.
    Own(KeyId),
    /// Those of another key.
    Other(KeyId),
    /// Those of every key of the workspace.
    Every,
}

/// A filter that can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filters {
    /// Which time.
    pub(crate) period: Period,
    /// Which keys.
    pub(crate) keys: Keys,
    own: Option<KeyId>,
    outcomes: Vec<Outcome>,
    methods: Vec<String>,
    route: String,
    status_codes: Vec<u16>,
    resource_id: String,
    /// Where the log goes on; empty for the newest calls.
    pub(crate) page_token: String,
}

/// The value of a field of a form or of a query string; empty if it was not sent.
pub(crate) fn field<'a>(form: &'a str, name: &str) -> Cow<'a, str> {
    let found = form_urlencoded::parse(form.as_bytes()).find(|(field, _)| field == name);
    found.map_or(Cow::Borrowed(""), |(_, value)| value)
}

impl Fields {
    /// The fields of a query string; unknown names are left out.
    #[must_use]
    pub(crate) fn read(query: &str) -> Self {
        let mut fields = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let value = value.trim().to_owned();
            match name.as_ref() {
                "range" => fields.range = value,
                "from" => fields.from = value,
                "to" => fields.to = value,
                "at" => fields.at = value,
                "key_id" => fields.key_id = Some(value),
                "outcome" if !value.is_empty() => fields.outcomes.push(value),
                "method" if !value.is_empty() => fields.methods.push(value.to_ascii_uppercase()),
                "route" => fields.route = value,
                "status_code" if fields.status_codes.is_empty() => fields.status_codes = value,
                "status_code" => fields.status_codes = format!("{}, {value}", fields.status_codes),
                "resource_id" => fields.resource_id = value,
                "page_token" => fields.page_token = value,
                "latency" => fields.has_latency = value == "1",
                _ => {}
            }
        }
        if fields.range.is_empty() && !(fields.from.is_empty() && fields.to.is_empty()) {
            CUSTOM.clone_into(&mut fields.range);
        }
        fields
    }
}

impl Filters {
    /// The filter that `fields` ask for on the page of `own`, or of the workspace.
    ///
    /// # Errors
    /// What is wrong, field by field.
    pub(crate) fn parse(fields: &Fields, own: impl Into<Option<KeyId>>) -> Result<Self, Vec<FieldError>> {
        let own = own.into();
        let mut errors = Vec::new();
        let mut note = |field, message: &str| errors.push(FieldError { field, message: message.to_owned() });
        let period = period(fields, &mut note);
        let keys = keys(fields.key_id.as_deref(), own).unwrap_or_else(|message| {
            note("key_id", message);
            Keys::Every
        });
        let outcomes = fields.outcomes.iter().filter_map(|name| name.parse().ok()).collect::<Vec<_>>();
        if outcomes.len() < fields.outcomes.len() {
            note("outcome", "Choose completed, failed or rate_limited.");
        }
        if fields.methods.len() > VALUES_MAX || !fields.methods.iter().all(|method| is_method(method)) {
            note("method", "Write methods such as GET, at most 100 of up to 32 letters.");
        }
        let status_codes = status_codes(&fields.status_codes).unwrap_or_else(|message| {
            note("status_code", message);
            Vec::new()
        });
        for (field, text) in [("route", &fields.route), ("resource_id", &fields.resource_id)] {
            if text.len() > TEXT_BYTES_MAX {
                note(field, "Too long: at most 1,024 bytes.");
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self {
            period: period.unwrap_or(Period::Last(DEFAULT, None)),
            keys,
            own,
            outcomes,
            methods: fields.methods.clone(),
            route: fields.route.clone(),
            status_codes,
            resource_id: fields.resource_id.clone(),
            page_token: fields.page_token.clone(),
        })
    }

    /// `[from, to)` at `now`, to the millisecond.
    #[must_use]
    pub(crate) fn range(&self, now: OffsetDateTime) -> (OffsetDateTime, OffsetDateTime) {
        match self.period {
            Period::Between(from, to) => (from, to),
            Period::Last(preset, at) => {
                let to = at.unwrap_or(now);
                (to - preset.length, to)
            }
        }
    }

    /// What to ask query for.
    #[must_use]
    pub(crate) fn to_proto(&self, now: OffsetDateTime) -> UsageFilter {
        let (from, to) = self.range(now);
        let one = |text: &String| if text.is_empty() { Vec::new() } else { vec![text.clone()] };
        UsageFilter {
            from: Some(timestamp::to_proto(from)),
            to: Some(timestamp::to_proto(to)),
            key_ids: match self.keys {
                Keys::Own(key_id) | Keys::Other(key_id) => vec![key_id.to_string()],
                Keys::Every => Vec::new(),
            },
            outcomes: self.outcomes.iter().map(|outcome| outcome_to_proto(*outcome).into()).collect(),
            methods: self.methods.clone(),
            routes: one(&self.route),
            status_codes: self.status_codes.iter().copied().map(u32::from).collect(),
            resource_ids: one(&self.resource_id),
            ..UsageFilter::default()
        }
    }

    /// The only route whose calls are asked for.
    #[must_use]
    pub(crate) fn route(&self) -> Option<&str> {
        (!self.route.is_empty()).then_some(self.route.as_str())
    }

    /// The query string of this filter's first page; empty for the default.
    #[must_use]
    pub(crate) fn query(&self) -> String {
        self.write(None, "")
    }

    /// The query string of the log's page at `page_token`, with a preset's period held at `now`.
    #[must_use]
    pub(crate) fn query_of_page(&self, page_token: &str, now: OffsetDateTime) -> String {
        self.write(Some(now), page_token)
    }

    fn write(&self, held_at: Option<OffsetDateTime>, page_token: &str) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        match self.period {
            Period::Between(from, to) => {
                query.append_pair("from", &rfc3339(from)).append_pair("to", &rfc3339(to));
            }
            Period::Last(preset, at) => {
                if preset != DEFAULT {
                    query.append_pair("range", preset.name);
                }
                if let Some(now) = held_at {
                    query.append_pair("at", &rfc3339(at.unwrap_or(now)));
                }
            }
        }
        match self.keys {
            Keys::Own(_) => {}
            Keys::Other(key_id) => _ = query.append_pair("key_id", &key_id.to_string()),
            Keys::Every if self.own.is_none() => {}
            Keys::Every => _ = query.append_pair("key_id", ""),
        }
        query.extend_pairs(self.outcomes.iter().map(|outcome| ("outcome", outcome.as_str())));
        query.extend_pairs(self.methods.iter().map(|method| ("method", method)));
        query.extend_pairs(self.status_codes.iter().map(|code| ("status_code", code.to_string())));
        for (name, text) in
            [("route", self.route.as_str()), ("resource_id", &self.resource_id), ("page_token", page_token)]
        {
            if !text.is_empty() {
                query.append_pair(name, text);
            }
        }
        query.finish()
    }
}

fn period(fields: &Fields, note: &mut impl FnMut(&'static str, &str)) -> Option<Period> {
    let mut read = |field, text: &str| {
        let at = if text.is_empty() { None } else { parse_time(text) };
        if at.is_none() {
            note(field, "Write a date and a time, such as 2026-11-22T12:00:00Z.");
        }
        at
    };
    match fields.range.as_str() {
        CUSTOM => {
            let (from, to) = (read("from", &fields.from), read("to", &fields.to));
            let (from, to) = (from?, to?);
            if from >= to {
                note("to", "The period must end after it starts.");
            } else if to - from > PERIOD_MAX {
                note("to", "The period can be at most 400 days long.");
            }
            Some(Period::Between(from, to))
        }
        name => {
            let at = if fields.at.is_empty() { None } else { Some(read("range", &fields.at)?) };
            let preset =
                if name.is_empty() { Some(DEFAULT) } else { PRESETS.iter().find(|p| p.name == name) };
            if preset.is_none() {
                note("range", "Choose one of the listed periods.");
            }
            Some(Period::Last(preset?, at))
        }
    }
}

/// A time with a zone, or one without that is taken as UTC; years 1970 to 9999.
pub(crate) fn parse_time(text: &str) -> Option<OffsetDateTime> {
    let plain = format_description!(
        "[year]-[month]-[day]T[hour]:[minute][optional [:[second][optional [.[subsecond]]]]]"
    );
    OffsetDateTime::parse(text, &Rfc3339)
        .or_else(|_| PrimitiveDateTime::parse(text, plain).map(PrimitiveDateTime::assume_utc))
        .ok()
        .map(|at| at.to_offset(time::UtcOffset::UTC))
        .filter(|at| (1970..=9999).contains(&at.year()))
}

fn keys(text: Option<&str>, own: Option<KeyId>) -> Result<Keys, &'static str> {
    match (text, own) {
        (None, Some(own)) => Ok(Keys::Own(own)),
        (None | Some(""), _) => Ok(Keys::Every),
        (Some(text), own) => {
            let key_id = text.parse().map_err(|_| "A key's id is key_ and 26 characters.")?;
            Ok(if own == Some(key_id) { Keys::Own(key_id) } else { Keys::Other(key_id) })
        }
    }
}

fn is_method(text: &str) -> bool {
    text.len() <= METHOD_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn status_codes(text: &str) -> Result<Vec<u16>, &'static str> {
    let mut codes = Vec::new();
    for part in text.split([',', ' ', ';']).filter(|part| !part.is_empty()) {
        let code = part.parse().ok().filter(|code| (100..600).contains(code));
        let code = code.ok_or("Write numbers from 100 to 599, such as 200, 429.")?;
        if !codes.contains(&code) {
            codes.push(code);
        }
    }
    if codes.len() > VALUES_MAX { Err("At most 100 numbers.") } else { Ok(codes) }
}

fn outcome_to_proto(outcome: Outcome) -> proto::usage::Outcome {
    match outcome {
        Outcome::Completed => proto::usage::Outcome::Completed,
        Outcome::Failed => proto::usage::Outcome::Failed,
        Outcome::RateLimited => proto::usage::Outcome::RateLimited,
    }
}

#[cfg(test)]
mod tests;
