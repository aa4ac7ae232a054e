//! gRPC errors as every Keymeter server sends them: one `ErrorInfo` of the domain `keymeter`, and what the
//! caller can do about it.

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

const DOMAIN: &str = "keymeter";

/// An error with its reason in `UPPER_SNAKE`; `message` says what to do about it.
#[must_use]
pub fn error(code: Code, reason: &str, message: impl Into<String>) -> Status {
    Status::with_error_details(code, message, info(reason))
}

/// `INVALID_ARGUMENT` for one field, named as in the request, `filter.from`.
#[must_use]
pub fn invalid(field: &str, description: impl Into<String>) -> Status {
    let description = description.into();
    let mut details = info("INVALID_FIELD");
    details.add_bad_request_violation(field, &description);
    Status::with_error_details(Code::InvalidArgument, format!("{field}: {description}"), details)
}

/// `NOT_FOUND`, the same for what never was and for what belongs to another workspace.
#[must_use]
pub fn not_found(what: &str, name: &str) -> Status {
    error(Code::NotFound, "NOT_FOUND", format!("no {what} has the name {name}"))
}

/// `UNAVAILABLE`: the caller may try again after `retry_after`.
#[must_use]
pub fn unavailable(what: &str, retry_after: Duration) -> Status {
    let mut details = info("UNAVAILABLE");
    details.set_retry_info(Some(retry_after));
    Status::with_error_details(Code::Unavailable, format!("{what} is away; try again"), details)
}

/// `INTERNAL` without a word of the cause, which belongs in the log.
#[must_use]
pub fn internal() -> Status {
    error(Code::Internal, "INTERNAL", "an internal error; the server's log has the cause")
}

fn info(reason: &str) -> ErrorDetails {
    ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_field_is_named() {
        let status = invalid("key.display_name", "must not be empty");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "key.display_name: must not be empty");
        let details = status.get_error_details();
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "key.display_name");
        assert_eq!(details.error_info().unwrap().domain, "keymeter");
    }
}
