//! Where a command writes: what was asked for to standard output, what a person should know to standard error.

use std::io::{self, IsTerminal as _, Write as _};

use prost_types::Timestamp;
use serde_json::Value;
use time::OffsetDateTime;

use crate::{
    arguments::{Output, Show},
    failure::Failure,
    table::Table,
    words::{printable, relative, rfc3339, time},
};

/// Standard output and error, and how to write to them.
pub(crate) struct Screen {
    /// JSON instead of tables.
    pub(crate) is_json: bool,
    is_exact: bool,
}

impl Screen {
    pub(crate) const fn new(show: &Show) -> Self {
        Self { is_json: matches!(show.output, Output::Json), is_exact: show.utc }
    }

    /// A line of what was asked for.
    pub(crate) fn line(&self, text: &str) -> Result<(), Failure> {
        self.bytes(format!("{}\n", printable(text)).as_bytes())
    }

    /// A piece of what was asked for, as it is.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| Failure::output(&error))
    }

    /// One document.
    pub(crate) fn document(&self, document: &Value) -> Result<(), Failure> {
        self.bytes(format!("{document:#}\n").as_bytes())
    }

    /// One object on a line of its own.
    pub(crate) fn object(&self, object: &Value) -> Result<(), Failure> {
        self.bytes(format!("{object}\n").as_bytes())
    }

    /// Rows.
    pub(crate) fn table(&self, table: &Table) -> Result<(), Failure> {
        self.bytes(table.lines().iter().map(|line| format!("{line}\n")).collect::<String>().as_bytes())
    }

    /// What a person should know. Nobody may be reading.
    pub(crate) fn note(&self, text: &str) {
        let _ = writeln!(io::stderr(), "{}", printable(text));
    }

    /// Writes over the line before; only to a terminal.
    pub(crate) fn progress(&self, text: &str) {
        if io::stderr().is_terminal() {
            let _ = write!(io::stderr(), "\r\u{1b}[K{text}");
        }
    }

    /// A time: `3 h ago`, or exact where that was asked for; `absent` if there is none.
    pub(crate) fn time(&self, at: Option<&Timestamp>, absent: &str) -> String {
        time(at).map_or_else(|| absent.to_owned(), |at| self.moment(at))
    }

    /// As [`Self::time`].
    pub(crate) fn moment(&self, at: OffsetDateTime) -> String {
        if self.is_exact { rfc3339(at) } else { relative(at, OffsetDateTime::now_utc()) }
    }
}
