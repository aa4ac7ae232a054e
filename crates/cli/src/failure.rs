//! What went wrong, in a line that names the field and the remedy, and the exit code that a script branches on.

use std::{error::Error as _, io, path::Path};

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::words::printable;

/// How a command that did not do its work ends; `arguments::EXIT_CODES` tells it to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Anything that has no code of its own.
    Failed = 1,
    /// An argument is wrong; clap ends with it too.
    Usage = 2,
    /// Not signed in, or not allowed to.
    Denied = 3,
    /// What was named is not there.
    NotFound = 4,
    /// A service can not be reached or did not answer in time.
    Unreachable = 5,
    /// What is there does not allow it.
    Conflict = 6,
    /// Too many calls.
    TooMany = 7,
    /// Done, but some edge has not said that it refuses.
    Unconfirmed = 8,
    /// Ctrl-C.
    Interrupted = 130,
}

/// A command that did not do its work.
#[derive(Debug)]
pub(crate) struct Failure {
    /// How the process ends.
    pub(crate) exit: Exit,
    text: Option<String>,
}

/// Which service was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    /// Keys, workspaces and sessions.
    Keys,
    /// Usage and the log.
    Query,
}

impl Service {
    const fn name(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::Query => "query",
        }
    }

    const fn option(self) -> &'static str {
        match self {
            Self::Keys => "--keys-url",
            Self::Query => "--query-url",
        }
    }
}

impl Failure {
    pub(crate) fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: Some(text.into()) }
    }

    /// An argument that can not be.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(Exit::Usage, text)
    }

    /// A file that can not be read or written.
    pub(crate) fn file(what: &str, path: &Path, error: &io::Error) -> Self {
        Self::new(Exit::Failed, format!("{what} {} can not be used: {error}", path.display()))
    }

    /// Whoever read standard output has had enough: nothing to tell, and no success.
    pub(crate) fn output(error: &io::Error) -> Self {
        let closed = error.kind() == io::ErrorKind::BrokenPipe;
        Self { exit: Exit::Failed, text: (!closed).then(|| format!("standard output: {error}")) }
    }

    /// What a service answered; `url` is where it was asked.
    pub(crate) fn of(service: Service, url: &str, status: &Status) -> Self {
        let broken = cause(status);
        let exit = match status.code() {
            // Without an answer of the service its code is a guess of ours.
            _ if broken.is_some() => Exit::Unreachable,
            Code::InvalidArgument | Code::OutOfRange => Exit::Usage,
            Code::Unauthenticated | Code::PermissionDenied => Exit::Denied,
            Code::NotFound => Exit::NotFound,
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Exit::Unreachable,
            Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => Exit::Conflict,
            Code::ResourceExhausted => Exit::TooMany,
            _ => Exit::Failed,
        };
        let name = service.name();
        let text = match (status.code(), broken) {
            (Code::DeadlineExceeded, _) => format!("{name} at {url} did not answer in time; try again"),
            // The transport says so of its own deadline.
            (Code::Cancelled, _) if status.message().contains("Timeout") => {
                format!("{name} at {url} did not answer in time; try again")
            }
            (_, Some(cause)) => {
                format!("{name} at {url} can not be reached: {cause}; is {} right?", service.option())
            }
            _ => described(status),
        };
        Self::new(exit, printable(&text))
    }

    /// The same with one more line.
    #[must_use]
    pub(crate) fn with(mut self, hint: &str) -> Self {
        if let Some(text) = &mut self.text {
            text.push('\n');
            text.push_str(hint);
        }
        self
    }

    /// What to tell; nothing if nobody listens.
    pub(crate) fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }
}

/// The fields at fault with what is wrong with them, or else the message; and when to try again.
fn described(status: &Status) -> String {
    let details = status.get_error_details();
    let fields = details.bad_request().map_or(&[][..], |bad| &bad.field_violations);
    let mut text = if fields.is_empty() {
        status.message().to_owned()
    } else {
        let each = fields.iter().map(|at| format!("{}: {}", at.field, at.description));
        each.collect::<Vec<_>>().join("; ")
    };
    if text.is_empty() {
        text = status.code().description().to_owned();
    }
    if let Some(delay) = details.retry_info().and_then(|info| info.retry_delay) {
        let seconds = delay.as_millis().div_ceil(1_000);
        text.push_str(&format!("; try again in {seconds} s"));
    }
    text
}

/// The innermost cause of a failed transport, which says more than `transport error`.
fn cause(status: &Status) -> Option<String> {
    let mut cause = status.source()?;
    while let Some(source) = cause.source() {
        cause = source;
    }
    Some(cause.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rstest::rstest;
    use tonic_types::ErrorDetails;

    use super::*;

    fn failure(status: &Status) -> (u8, String) {
        let failure = Failure::of(Service::Keys, "http://127.0.0.1:1", status);
        (failure.exit as u8, failure.text().unwrap().to_owned())
    }

    #[rstest]
    #[case(Status::invalid_argument("x"), 2, "x")]
    #[case(Status::unauthenticated("sign in"), 3, "sign in")]
    #[case(Status::permission_denied("no"), 3, "no")]
    #[case(Status::not_found("no key"), 4, "no key")]
    #[case(Status::unavailable("Postgres is away; try again"), 5, "Postgres is away; try again")]
    #[case(Status::aborted("etag"), 6, "etag")]
    #[case(Status::already_exists("used"), 6, "used")]
    #[case(Status::internal("odd"), 1, "odd")]
    #[case(Status::unimplemented(""), 1, "Operation is not implemented or not supported")]
    #[case(Status::not_found("a\u{1b}[2Jb"), 4, "a\\u{1b}[2Jb")]
    fn a_code_has_an_exit_code(#[case] status: Status, #[case] exit: u8, #[case] text: &str) {
        assert_eq!(failure(&status), (exit, text.to_owned()));
    }

    #[test]
    fn fields_and_waits_are_told() {
        let bad = proto::status::invalid("key.display_name", "must not be empty");
        assert_eq!(failure(&bad), (2, "key.display_name: must not be empty".into()));
        let mut details = ErrorDetails::new();
        details.set_retry_info(Some(Duration::from_millis(1_200)));
        let busy = Status::with_error_details(Code::ResourceExhausted, "too many", details);
        assert_eq!(failure(&busy), (7, "too many; try again in 2 s".into()));
    }
}
