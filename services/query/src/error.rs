//! What can go wrong at ClickHouse, and the one place where it becomes a gRPC status. Callers never see an
//! address, SQL or ClickHouse's own words: those are in the log.

use std::time::Duration;

use proto::status;
use tonic::{Code, Status};

const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why there is no answer from ClickHouse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("ClickHouse can not be reached: {0}")]
    Away(String),
    #[error("ingest has not made the schema yet")]
    NoSchema,
    #[error("the query took too long")]
    TimedOut,
    #[error("the query needs more memory than one may take")]
    OutOfMemory,
    #[error("the query reads more rows than one may")]
    TooManyRows,
    #[error("too many queries run")]
    Busy,
    #[error("ClickHouse refused the query: {0}")]
    Failed(String),
}

impl StoreError {
    /// Its name in spans.
    pub(crate) const fn label(&self) -> &'static str {
        match self {
            Self::Away(_) => "away",
            Self::NoSchema => "no_schema",
            Self::TimedOut => "timed_out",
            Self::OutOfMemory => "out_of_memory",
            Self::TooManyRows => "too_many_rows",
            Self::Busy => "busy",
            Self::Failed(_) => "failed",
        }
    }

    /// Sorts an exception, `Code: 60. DB::Exception: …`; anything else came from something before ClickHouse.
    pub(crate) fn of_exception(message: &str) -> Self {
        let digits = message.strip_prefix("Code: ").map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            &rest[..end]
        });
        match digits.and_then(|digits| digits.parse().ok()) {
            // UNKNOWN_TABLE, UNKNOWN_DATABASE
            Some(60 | 81) => Self::NoSchema,
            // TIMEOUT_EXCEEDED, TOO_SLOW
            Some(159 | 160) => Self::TimedOut,
            // TOO_MANY_ROWS
            Some(158) => Self::TooManyRows,
            // MEMORY_LIMIT_EXCEEDED
            Some(241) => Self::OutOfMemory,
            // TOO_MANY_SIMULTANEOUS_QUERIES
            Some(202) => Self::Busy,
            // ABORTED and QUERY_WAS_CANCELLED: it stops
            Some(236 | 394) | None => Self::Away(message.to_owned()),
            Some(_) => Self::Failed(message.to_owned()),
        }
    }
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        // Only the last is a fault of ours; the others pass.
        match &error {
            StoreError::Failed(_) => tracing::error!(%error, "a query found no answer"),
            _ => tracing::warn!(%error, "a query found no answer"),
        }
        match error {
            StoreError::Away(_) => status::unavailable("the store of request events", RETRY_AFTER),
            StoreError::NoSchema => {
                status::unavailable("the schema, which ingest has not made yet,", RETRY_AFTER)
            }
            StoreError::TimedOut => timed_out(),
            StoreError::OutOfMemory => status::error(
                Code::ResourceExhausted,
                "QUERY_MEMORY",
                "the query needs more memory than one may take; narrow its range or filter",
            ),
            StoreError::TooManyRows => status::error(
                Code::ResourceExhausted,
                "QUERY_ROWS",
                "the query reads more rows than one may; narrow its range or filter",
            ),
            StoreError::Busy => status::error(
                Code::ResourceExhausted,
                "TOO_MANY_QUERIES",
                "too many queries of this workspace or of all run at once; try again",
            ),
            StoreError::Failed(_) => status::internal(),
        }
    }
}

fn timed_out() -> Status {
    status::error(
        Code::DeadlineExceeded,
        "QUERY_TIME",
        "the query took longer than it may; narrow its range or filter",
    )
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::table("Code: 60. DB::Exception: Unknown table …", Code::Unavailable)]
    #[case::database("Code: 81. DB::Exception: Database keymeter does not exist", Code::Unavailable)]
    #[case::time("Code: 159. DB::Exception: Timeout exceeded", Code::DeadlineExceeded)]
    #[case::slow("Code: 160. DB::Exception: …", Code::DeadlineExceeded)]
    #[case::rows("Code: 158. DB::Exception: Limit for rows exceeded", Code::ResourceExhausted)]
    #[case::memory("Code: 241. DB::Exception: (total) memory limit exceeded", Code::ResourceExhausted)]
    #[case::crowd("Code: 202. DB::Exception: Too many simultaneous queries", Code::ResourceExhausted)]
    #[case::stop("Code: 394. DB::Exception: Query was cancelled", Code::Unavailable)]
    #[case::bare_code("Code: 241", Code::ResourceExhausted)]
    #[case::syntax("Code: 62. DB::Exception: Syntax error at secret.host:8123", Code::Internal)]
    #[case::proxy("502 Bad Gateway at secret.host", Code::Unavailable)]
    #[case::not_a_code("Code: x", Code::Unavailable)]
    fn an_exception_has_a_code_and_no_internals(#[case] message: &str, #[case] code: Code) {
        let status = Status::from(StoreError::of_exception(message));
        assert_eq!(status.code(), code);
        assert!(!status.message().contains("secret") && !status.message().contains("DB::"));
    }
}
