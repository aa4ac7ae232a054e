//! A ClickHouse exception: its code, its text, the HTTP status that ClickHouse gives it, and how it is written into
//! a response that has already begun.

use std::fmt;

use hyper::StatusCode;

/// Why a statement failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exception {
    /// ClickHouse's number of the error.
    pub(crate) code: u32,
    /// `Code: 60. DB::Exception: …. (UNKNOWN_TABLE)`, without a version.
    text: String,
}

impl Exception {
    /// An exception of this server's own.
    pub(crate) fn new(code: u32, message: impl fmt::Display) -> Self {
        let name = match code {
            36 => "BAD_ARGUMENTS",
            48 => "NOT_IMPLEMENTED",
            62 => "SYNTAX_ERROR",
            115 => "UNKNOWN_SETTING",
            159 => "TIMEOUT_EXCEEDED",
            210 => "NETWORK_ERROR",
            216 => "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING",
            241 => "MEMORY_LIMIT_EXCEEDED",
            271 => "CANNOT_DECOMPRESS",
            372 => "SESSION_NOT_FOUND",
            394 => "QUERY_WAS_CANCELLED",
            516 => "AUTHENTICATION_FAILED",
            _ => "UNKNOWN_EXCEPTION",
        };
        Self { code, text: format!("Code: {code}. DB::Exception: {message}. ({name})") }
    }

    /// Code 36: a request that makes no sense.
    pub(crate) fn bad_arguments(message: impl fmt::Display) -> Self {
        Self::new(36, message)
    }

    /// Code 48: something that ClickHouse has and this server has not.
    pub(crate) fn not_implemented(message: impl fmt::Display) -> Self {
        Self::new(48, message)
    }

    /// Takes the engine's text apart.
    pub(crate) fn parse(text: &str) -> Self {
        let text = text.trim_end();
        let text = match text.rfind(" (version ") {
            Some(at) if text.ends_with(')') => &text[..at],
            _ => text,
        };
        let code = text
            .find("Code: ")
            .and_then(|at| text[at + 6..].split('.').next())
            .and_then(|digits| digits.parse().ok());
        match code {
            Some(code) => Self { code, text: text.to_owned() },
            None => Self::new(1002, text),
        }
    }

    /// The body of an error response, as ClickHouse writes it.
    pub(crate) fn body(&self, version: &str) -> String {
        format!("{} (version {version} (libchdb))\n", self.text)
    }

    /// What is appended to a response that already holds rows. A client knows it by `tag`, which the header
    /// `X-ClickHouse-Exception-Tag` named before.
    pub(crate) fn frame(&self, version: &str, tag: &str) -> String {
        let body = self.body(version);
        format!("\r\n__exception__\r\n{tag}\r\n{body}{} {tag}\r\n__exception__\r\n", body.len())
    }

    /// Whether the engine's user may not do it: no grant, or read-only.
    pub(crate) const fn is_about_rights(&self) -> bool {
        matches!(self.code, 164 | 497)
    }

    /// The HTTP status that ClickHouse gives this code.
    pub(crate) fn status(&self) -> StatusCode {
        match self.code {
            // cannot parse …, syntax error, bad arguments, wrong type, column, regular expression or syntax tree
            6 | 8 | 15 | 25 | 26 | 27 | 36 | 37 | 38 | 41 | 44 | 53 | 62 | 72 | 117 | 123 | 167 | 168
            | 223 | 321 | 376 | 427 | 441 | 675 | 676 => StatusCode::BAD_REQUEST,
            // unknown function, identifier, type, table, aggregate function, format, database, setting, role, …
            46 | 47 | 50 | 56 | 60 | 63 | 73 | 78 | 81 | 115 | 152 | 336 | 511 => StatusCode::NOT_FOUND,
            48 => StatusCode::NOT_IMPLEMENTED,
            159 => StatusCode::REQUEST_TIMEOUT,
            192 | 193 | 497 | 512 | 516 => StatusCode::FORBIDDEN,
            194 => StatusCode::UNAUTHORIZED,
            229 => StatusCode::PAYLOAD_TOO_LARGE,
            76 | 209 | 439 => StatusCode::SERVICE_UNAVAILABLE,
            381 => StatusCode::LENGTH_REQUIRED,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl std::error::Error for Exception {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_s_text_is_taken_apart() {
        let exception = Exception::parse(
            "Code: 60. DB::Exception: Unknown table 'nope'. (UNKNOWN_TABLE) (version 26.7.2.1)\n",
        );
        assert_eq!(exception.code, 60);
        assert_eq!(exception.status(), StatusCode::NOT_FOUND);
        assert_eq!(
            exception.body("26.7.2.1"),
            "Code: 60. DB::Exception: Unknown table 'nope'. (UNKNOWN_TABLE) (version 26.7.2.1 (libchdb))\n"
        );
        assert_eq!(Exception::parse("odd").code, 1002);
    }

    #[test]
    fn a_frame_says_the_length_of_its_message() {
        let exception = Exception::new(159, "too slow");
        let body = exception.body("1");
        assert_eq!(
            exception.frame("1", "abc"),
            format!("\r\n__exception__\r\nabc\r\n{body}{} abc\r\n__exception__\r\n", body.len())
        );
    }
}
