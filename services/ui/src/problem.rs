//! What went wrong, in words for the reader: on a page of its own, in a panel, or as JSON for a script.

use askama::Template;
use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use serde::Serialize;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{metrics, pages::Shell, visit::Reference};

/// The reason of somebody who is in no workspace.
const NOT_A_MEMBER: &str = "NOT_A_MEMBER";

/// Who failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    /// Keys, workspaces and sessions.
    Keys,
    /// Usage.
    Query,
}

/// Something that went wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    /// HTTP status of a page or answer that has nothing else to say.
    #[serde(skip)]
    pub(crate) status: StatusCode,
    /// A few words.
    pub(crate) title: &'static str,
    /// What to do.
    pub(crate) text: String,
    /// The service's own word for a script, such as REAUTHENTICATION_REQUIRED; empty if it gave none.
    pub(crate) reason: String,
    /// Finds the cause in the logs.
    pub(crate) reference: String,
}

/// An answer that ends a handler early.
pub(crate) struct Stop(Box<Response>);

impl Stop {
    /// Ends with `response`.
    #[must_use]
    pub(crate) fn new(response: Response) -> Self {
        Self(Box::new(response))
    }
}

impl IntoResponse for Stop {
    fn into_response(self) -> Response {
        *self.0
    }
}

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage {
    shell: Shell,
    problem: Problem,
}

#[derive(Template)]
#[template(path = "problem_alone.html")]
struct ProblemAlone {
    problem: Problem,
}

impl Problem {
    /// The problem of a failed call; logged and counted here, once.
    #[must_use]
    pub(crate) fn of(service: Service, status: &Status, reference: &Reference) -> Self {
        let name = service.name();
        metrics::call_failed(name, status.code());
        let (code, message) = (status.code(), status.message());
        tracing::warn!(service = name, rpc.code = ?code, rpc.message = message, request.reference = %reference, "a call failed");
        let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
        let (status, title, text) = explain(service, status);
        Self { status, title, text, reason, reference: reference.to_string() }
    }

    /// A page or key that is not there.
    #[must_use]
    pub(crate) fn not_found(reference: &Reference) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            title: "Not found",
            text: "There is nothing at this address, or it belongs to another workspace.".to_owned(),
            reason: String::new(),
            reference: reference.to_string(),
        }
    }

    /// A form that came from another site.
    #[must_use]
    pub(crate) fn foreign() -> Self {
        Self {
            status: StatusCode::FORBIDDEN,
            title: "Refused",
            text: "This request came from another site. Open the page here and try again.".to_owned(),
            reason: String::new(),
            reference: Reference::mint().to_string(),
        }
    }

    /// Somebody who is in no workspace.
    #[must_use]
    pub(crate) fn no_workspace(reference: &Reference) -> Self {
        Self {
            status: StatusCode::FORBIDDEN,
            title: "No workspace",
            text: "You are signed in, but in no workspace any more. Ask somebody to invite you to one."
                .to_owned(),
            reason: NOT_A_MEMBER.to_owned(),
            reference: reference.to_string(),
        }
    }

    /// A form that was opened in another workspace than the one that is shown now.
    #[must_use]
    pub(crate) fn other_workspace(workspace: &str, reference: &Reference) -> Self {
        Self {
            status: StatusCode::CONFLICT,
            title: "Another workspace",
            text: format!(
                "You have switched to {workspace} since this form was opened, so nothing was changed. Switch back, \
                 or open the page again here."
            ),
            reason: "WORKSPACE_SWITCHED".to_owned(),
            reference: reference.to_string(),
        }
    }

    /// A password that is not the person's.
    #[must_use]
    pub(crate) fn wrong_password(reference: &Reference) -> Self {
        Self {
            status: StatusCode::FORBIDDEN,
            title: "Wrong password",
            text: "That is not your password.".to_owned(),
            reason: "WRONG_PASSWORD".to_owned(),
            reference: reference.to_string(),
        }
    }

    /// A script's call after the session has ended.
    #[must_use]
    pub(crate) fn signed_out() -> Self {
        Self {
            status: StatusCode::UNAUTHORIZED,
            title: "Signed out",
            text: "Your session has ended. Reload the page and sign in again.".to_owned(),
            reason: String::new(),
            reference: Reference::mint().to_string(),
        }
    }

    /// Whether no page of ours leads on.
    #[must_use]
    pub(crate) fn is_homeless(&self) -> bool {
        self.reason == NOT_A_MEMBER
    }

    /// As JSON, as a page inside `shell`, or as a page alone for somebody who is not signed in.
    #[must_use]
    pub(crate) fn into_response_as(self, json: bool, shell: Option<Shell>) -> Response {
        let status = self.status;
        let mut response = match shell {
            _ if json => Json(self).into_response(),
            Some(shell) => page(&ProblemPage { shell, problem: self }),
            None => page(&ProblemAlone { problem: self }),
        };
        *response.status_mut() = status;
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}

impl Service {
    /// Its name in logs and metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::Query => "query",
        }
    }

    const fn away(self) -> (&'static str, &'static str) {
        match self {
            Self::Keys => (
                "Keys are away",
                "The keys service does not answer. Calls to your API go on meanwhile: edges verify from memory. \
                 Try again in a moment.",
            ),
            Self::Query => (
                "Usage is away",
                "The query service does not answer. Calls are still counted, and nothing of them is lost. \
                 Try again in a moment.",
            ),
        }
    }
}

/// Renders a template as a page.
pub(crate) fn page(template: &impl Template) -> Response {
    page_of(template.render())
}

/// A page that was rendered before.
#[must_use]
pub(crate) fn page_of(rendered: askama::Result<String>) -> Response {
    match rendered {
        Ok(html) => Html(html).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page could not be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn explain(service: Service, status: &Status) -> (StatusCode, &'static str, String) {
    let said = || sentence(status.message());
    match status.code() {
        Code::Unavailable | Code::Unknown => {
            let (title, text) = service.away();
            (StatusCode::SERVICE_UNAVAILABLE, title, text.to_owned())
        }
        Code::DeadlineExceeded | Code::Cancelled => {
            let text = match service {
                Service::Keys => "The keys service did not answer in time. Try again in a moment.",
                Service::Query => {
                    "The answer took too long. Choose a shorter period, or filter more narrowly."
                }
            };
            (StatusCode::GATEWAY_TIMEOUT, "Out of time", text.to_owned())
        }
        Code::NotFound => {
            let text = "There is nothing with this name, or it belongs to another workspace.";
            (StatusCode::NOT_FOUND, "Not found", text.to_owned())
        }
        Code::PermissionDenied => {
            let text = "Your role in this workspace does not allow this. Ask one of its administrators.";
            (StatusCode::FORBIDDEN, "Not allowed", text.to_owned())
        }
        Code::Unauthenticated => {
            let text = "Your sign-in was not accepted. Reload the page, or sign in again.";
            (StatusCode::UNAUTHORIZED, "Signed out", text.to_owned())
        }
        Code::ResourceExhausted => {
            let wait = match retry_seconds(status) {
                Some(seconds) => format!("Try again in {seconds} seconds."),
                None => "Try again in a moment.".to_owned(),
            };
            (StatusCode::TOO_MANY_REQUESTS, "Too many requests", wait)
        }
        Code::InvalidArgument | Code::OutOfRange => (StatusCode::BAD_REQUEST, "Not understood", said()),
        Code::FailedPrecondition | Code::Aborted | Code::AlreadyExists => {
            (StatusCode::CONFLICT, "Not possible", said())
        }
        _ => {
            let text = "Something failed on our side. Try again; if it stays, give the reference to whoever runs this.";
            (StatusCode::BAD_GATEWAY, "Unexpected failure", text.to_owned())
        }
    }
}

/// In how many seconds a service asks to be tried again, rounded up.
#[must_use]
pub(crate) fn retry_seconds(status: &Status) -> Option<u64> {
    let delay = status.get_error_details().retry_info()?.retry_delay?;
    Some(delay.as_secs() + u64::from(delay.subsec_nanos() > 0))
}

/// A service's message as a sentence.
#[must_use]
pub(crate) fn sentence(message: &str) -> String {
    let mut letters = message.chars();
    let start = letters.next().map_or_else(String::new, |first| first.to_uppercase().collect());
    let end = if message.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{start}{}{end}", letters.as_str())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Code::Unavailable, 503)]
    #[case(Code::DeadlineExceeded, 504)]
    #[case(Code::NotFound, 404)]
    #[case(Code::PermissionDenied, 403)]
    #[case(Code::InvalidArgument, 400)]
    #[case(Code::FailedPrecondition, 409)]
    #[case(Code::Internal, 502)]
    fn each_code_has_its_status(#[case] code: Code, #[case] status: u16) {
        let problem = Problem::of(Service::Query, &Status::new(code, "why"), &Reference::mint());
        assert_eq!(problem.status.as_u16(), status);
        assert!(problem.text.ends_with('.'));
    }

    #[test]
    fn an_internal_message_stays_inside() {
        let status = Status::internal("password of postgres");
        assert!(!Problem::of(Service::Keys, &status, &Reference::mint()).text.contains("postgres"));
    }

    #[test]
    fn messages_become_sentences() {
        assert_eq!(sentence("must not be empty"), "Must not be empty.");
        assert_eq!(sentence("Élan?"), "Élan?");
        assert_eq!(sentence(""), ".");
    }
}
