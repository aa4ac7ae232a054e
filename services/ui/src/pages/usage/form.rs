//! The filter's form, filled in. Pure.

use domain::KeyId;
use time::OffsetDateTime;

use super::donut::OTHER;
use crate::{
    filters::{CUSTOM, FieldError, Fields, Filters, PRESETS, Period, parse_time},
    format,
};

/// Methods that the filter always offers.
const METHODS: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];

/// Values on the page, to be offered by its form.
#[derive(Default)]
pub(crate) struct Seen {
    /// HTTP methods.
    pub(crate) methods: Vec<String>,
    /// Route templates.
    pub(crate) routes: Vec<String>,
}

/// The filter's form, filled in.
pub(crate) struct FilterForm {
    /// As in the address.
    pub(crate) fields: Fields,
    /// What is wrong with it.
    pub(crate) errors: Vec<FieldError>,
    /// Name, label, chosen.
    pub(crate) ranges: Vec<(&'static str, &'static str, bool)>,
    /// Name, label, colour, chosen.
    pub(crate) outcomes: Vec<(&'static str, &'static str, &'static str, bool)>,
    /// Name, chosen.
    pub(crate) methods: Vec<(String, bool)>,
    /// Routes to suggest.
    pub(crate) routes: Vec<String>,
    /// Start of the period for `datetime-local`, UTC, with its exact time.
    pub(crate) from: (String, String),
    /// End of the period, likewise.
    pub(crate) to: (String, String),
}

impl FilterForm {
    /// The form for `fields` and what they mean on the page of `own`; `seen` are values to offer.
    #[must_use]
    pub(crate) fn new(
        mut fields: Fields,
        filters: &Result<Filters, Vec<FieldError>>,
        own: Option<KeyId>,
        seen: Seen,
        now: OffsetDateTime,
    ) -> Self {
        let range = match filters {
            Ok(Filters { period: Period::Last(preset, _), .. }) => preset.name,
            Ok(_) => CUSTOM,
            Err(_) if fields.range.is_empty() => PRESETS[3].name,
            Err(_) => fields.range.as_str(),
        };
        let ranges = PRESETS.iter().map(|preset| (preset.name, preset.label)).chain([(CUSTOM, "Custom…")]);
        let ranges = ranges.map(|(name, label)| (name, label, name == range)).collect();
        let chosen = |name: &str| fields.outcomes.iter().any(|outcome| outcome == name);
        let outcomes = [
            ("completed", "Completed", "completed"),
            ("failed", "Failed", "failed"),
            ("rate_limited", "Rate limited", "limited"),
        ];
        let outcomes = outcomes.map(|(name, label, hue)| (name, label, hue, chosen(name))).to_vec();
        let (from, to) = match filters {
            Ok(filters) => {
                let (from, to) = filters.range(now);
                (local_input(from), local_input(to))
            }
            Err(_) => (typed(&fields.from), typed(&fields.to)),
        };
        let methods = offered_methods(&fields.methods, &seen.methods);
        let errors = filters.as_ref().err().cloned().unwrap_or_default();
        fields.key_id.get_or_insert_with(|| own.map_or_else(String::new, |own| own.to_string()));
        Self { fields, errors, ranges, outcomes, methods, routes: seen.routes, from, to }
    }

    /// What is wrong with one field.
    #[must_use]
    pub(crate) fn error(&self, field: &str) -> Option<&str> {
        self.errors.iter().find(|error| error.field == field).map(|error| error.message.as_str())
    }
}

/// The usual methods, those chosen, and those seen.
fn offered_methods(chosen: &[String], seen: &[String]) -> Vec<(String, bool)> {
    let mut methods: Vec<String> = METHODS.iter().map(ToString::to_string).collect();
    for method in chosen.iter().chain(seen.iter().filter(|method| *method != OTHER)) {
        if !methods.contains(method) {
            methods.push(method.clone());
        }
    }
    methods.into_iter().map(|method| (method.clone(), chosen.contains(&method))).collect()
}

/// As [`local_input`] for what was typed, or as it is if that is no time.
fn typed(text: &str) -> (String, String) {
    parse_time(text).map_or_else(|| (text.to_owned(), String::new()), local_input)
}

/// The value of a `datetime-local` field, in UTC, and the exact time.
fn local_input(at: OffsetDateTime) -> (String, String) {
    let exact = format::rfc3339(at);
    (exact[..19].to_owned(), exact)
}
