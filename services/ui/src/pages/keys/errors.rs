//! What is wrong with a form or an address, place by place. Pure: reads what keys said, calls nothing.

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::problem::sentence;

/// Fields of keys' messages that have a place of their own, and the place's name.
const PLACES: [(&str, &str); 11] = [
    ("key.display_name", "display_name"),
    ("key.description", "description"),
    ("key.environment", "environment"),
    ("key.expire_time", "expire_time"),
    ("key.tags", "tags"),
    ("key.scopes", "scopes"),
    ("key.allowed_networks", "allowed_networks"),
    ("key.rate_limits", "rate_limits"),
    ("overlap", "overlap"),
    ("filter.search", "search"),
    ("filter.tags", "tag"),
];

/// Messages at places such as `display_name` or `rate_limits[0].window`; `general` is for the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FormErrors {
    places: Vec<(String, String)>,
    /// What belongs to no place.
    pub(crate) general: Option<String>,
}

impl FormErrors {
    /// What a refused call said.
    #[must_use]
    pub(crate) fn of(status: &Status) -> Self {
        let mut errors = Self::default();
        let details = status.get_error_details();
        for violation in details.bad_request().map_or(&[][..], |bad| &bad.field_violations) {
            match place(&violation.field) {
                Some(place) => errors.note(place, sentence(&violation.description)),
                None => errors.general = Some(sentence(&violation.description)),
            }
        }
        if errors.is_empty() {
            errors.general = Some(match status.code() {
                Code::AlreadyExists => {
                    "This form was already used for another request. Send it again.".to_owned()
                }
                _ => sentence(status.message()),
            });
        }
        errors
    }

    /// Something that belongs to no place.
    #[must_use]
    pub(crate) fn general(message: &str) -> Self {
        Self { general: Some(message.to_owned()), ..Self::default() }
    }

    /// Adds what is wrong at a place.
    pub(crate) fn note(&mut self, place: impl Into<String>, message: impl Into<String>) {
        self.places.push((place.into(), message.into()));
    }

    /// What is wrong at a place.
    #[must_use]
    pub(crate) fn at(&self, place: &str) -> Option<&str> {
        self.places.iter().find(|(known, _)| known == place).map(|(_, message)| message.as_str())
    }

    /// What is wrong with one field of a limit, or with the limit: `field` is empty then.
    #[must_use]
    pub(crate) fn at_limit(&self, row: &usize, field: &str) -> Option<&str> {
        let dot = if field.is_empty() { "" } else { "." };
        self.at(&format!("rate_limits[{row}]{dot}{field}"))
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty() && self.general.is_none()
    }
}

/// The place of a field: of a part of a list or map that of the whole, but for limits, which have rows.
fn place(field: &str) -> Option<String> {
    let (whole, part) = field.split_at(field.find('[').unwrap_or(field.len()));
    let (_, place) = PLACES.iter().find(|(known, _)| *known == whole)?;
    Some(if *place == "rate_limits" { format!("{place}{part}") } else { (*place).to_owned() })
}

#[cfg(test)]
mod tests {
    use proto::status::invalid;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("key.display_name", "display_name")]
    #[case("key.rate_limits", "rate_limits")]
    #[case("key.rate_limits[0].window", "rate_limits[0].window")]
    #[case("key.scopes[3]", "scopes")]
    #[case("key.tags[\"team\"]", "tags")]
    #[case("filter.tags", "tag")]
    fn a_bad_field_is_said_at_its_place(#[case] field: &str, #[case] place: &str) {
        let errors = FormErrors::of(&invalid(field, "must not be empty"));
        assert_eq!((errors.at(place), errors.general.as_deref()), (Some("Must not be empty."), None));
    }

    #[test]
    fn the_rest_is_said_above_the_form() {
        let errors = FormErrors::of(&invalid("idempotency_key", "too long"));
        assert_eq!(errors.general.as_deref(), Some("Too long."));
        let errors = FormErrors::of(&Status::invalid_argument("no details"));
        assert_eq!(errors.general.as_deref(), Some("No details."));
        assert!(!errors.is_empty() && FormErrors::default().is_empty());
    }
}
