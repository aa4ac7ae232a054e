//! What a service says is wrong with a form, by field, in words. Never hides a refusal: what has no field of the
//! form is said above it.

use axum::http::StatusCode;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::problem::sentence;

/// What is wrong with a form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Violations {
    fields: Vec<(String, String)>,
    general: Option<String>,
}

impl Violations {
    /// What `status` says of a form that has these fields, named as in the request.
    #[must_use]
    pub(crate) fn of(status: &Status, known: &[&str]) -> Self {
        let mut all = Self::default();
        let details = status.get_error_details();
        for violation in details.bad_request().map_or(&[][..], |bad| &bad.field_violations) {
            let text = sentence(&violation.description);
            if known.contains(&violation.field.as_str()) {
                all.add(&violation.field, text);
            } else {
                all.general = Some(text);
            }
        }
        if all == Self::default() {
            all.general = Some(sentence(status.message()));
        }
        all
    }

    /// One problem with one field.
    #[must_use]
    pub(crate) fn one(field: &str, text: impl Into<String>) -> Self {
        let mut all = Self::default();
        all.add(field, text);
        all
    }

    /// One problem with the whole form.
    #[must_use]
    pub(crate) fn whole(text: impl Into<String>) -> Self {
        Self { fields: Vec::new(), general: Some(text.into()) }
    }

    /// One more problem with a field.
    pub(crate) fn add(&mut self, field: &str, text: impl Into<String>) {
        self.fields.push((field.to_owned(), text.into()));
    }

    /// What is wrong with a field.
    #[must_use]
    pub(crate) fn at(&self, field: &str) -> Option<&str> {
        self.fields.iter().find(|(name, _)| name == field).map(|(_, text)| text.as_str())
    }

    /// What is wrong with the rest.
    #[must_use]
    pub(crate) fn general(&self) -> Option<&str> {
        self.general.as_deref()
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.general.is_none()
    }
}

/// The HTTP status of a form that is shown again with what was refused; `None` for failures that no other input
/// mends.
#[must_use]
pub(crate) fn refusal(status: &Status) -> Option<StatusCode> {
    match status.code() {
        Code::InvalidArgument | Code::OutOfRange => Some(StatusCode::UNPROCESSABLE_ENTITY),
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => Some(StatusCode::CONFLICT),
        Code::PermissionDenied => Some(StatusCode::FORBIDDEN),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_field_has_its_own_words_and_the_rest_is_said_above() {
        let status = proto::status::invalid("invitation.email", "must be an e-mail address");
        let violations = Violations::of(&status, &["invitation.email"]);
        assert_eq!(violations.at("invitation.email"), Some("Must be an e-mail address."));
        assert_eq!((violations.general(), violations.at("invitation.role")), (None, None));
        let violations = Violations::of(&status, &[]);
        assert_eq!(violations.general(), Some("Must be an e-mail address."));
        let violations = Violations::of(&Status::failed_precondition("make another one first"), &[]);
        assert_eq!(violations.general(), Some("Make another one first."));
    }

    #[test]
    fn failures_of_the_service_are_no_refusals() {
        assert_eq!(refusal(&Status::unavailable("away")), None);
        assert_eq!(refusal(&Status::unauthenticated("ended")), None);
        assert_eq!(refusal(&Status::failed_precondition("last")), Some(StatusCode::CONFLICT));
    }
}
