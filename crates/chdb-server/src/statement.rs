//! Runs one statement on a connection of its own, from its text to its last row. Blocks: belongs on a thread that
//! may wait. Rows leave through a pipe, so the engine waits when the client does not read.

use std::{
    io::{self, PipeWriter, Read, Write as _},
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    compression::{BlockReader, FrameReader},
    engine::{Connection, Counters},
    exception::Exception,
    request::{Request, TEXT_BYTES_MAX},
    server::Server,
    sql::{self, InsertHead, Kill, Query, Statement},
};

/// The engine has no way to name a query; the id of the request travels in this setting, of no other use here, and
/// the view [`sql::PROCESSES`] shows it as `query_id`.
pub(crate) const ID_SETTING: &str = "promql_table";
/// What [`Job::query`] adds to the text of a `select`, as a pattern in a string of SQL.
pub(crate) const OUTPUT_PATTERN: &str = " into outfile \\'/proc/self/fd/[0-9]+\\' append ";
/// Bytes that are handed to the engine at a time.
const PIECE_BYTES: usize = 256 << 10;
/// How long `kill query … sync` waits for the queries to end.
const KILL_LIMIT: Duration = Duration::from_secs(30);
const KILL_PAUSE: Duration = Duration::from_millis(20);
const DEFAULT_FORMAT: &str = "TabSeparated";

/// One statement and what it is connected to.
pub(crate) struct Job<'server> {
    pub(crate) server: &'server Server,
    pub(crate) request: Request,
    /// Unique among the running statements.
    pub(crate) id: String,
    pub(crate) body: Box<dyn Read + Send>,
    pub(crate) output: PipeWriter,
    /// Told before the first byte of output.
    pub(crate) format: oneshot::Sender<String>,
    /// The statement must end.
    pub(crate) cancelled: CancellationToken,
}

impl Job<'_> {
    /// Runs the statement to its end.
    ///
    /// # Errors
    /// The exception that the client is told.
    pub(crate) fn run(mut self) -> Result<Counters, Exception> {
        let body = std::mem::replace(&mut self.body, Box::new(io::empty()));
        let mut body = decoded(body, &self.request);
        let (statement, text) = self.read_statement(&mut body)?;
        let _slot = self.slot(&statement)?;
        match statement {
            Statement::Insert(head) => self.insert(&head, &text[head.rows_at..], &mut body),
            Statement::Kill(kill) => self.kill(&kill),
            Statement::Other(query) => self.query(query),
        }
    }

    /// Reads only as much of the body as the statement's text is long.
    fn read_statement(&self, body: &mut dyn Read) -> Result<(Statement, Vec<u8>), Exception> {
        let mut text = self.request.query.clone().into_bytes();
        if !text.is_empty() {
            text.push(b'\n');
        }
        loop {
            if let Some(statement) = sql::parse(&text, false) {
                return Ok((statement, text));
            }
            if text.len() > TEXT_BYTES_MAX {
                return Err(Exception::new(
                    62,
                    format!(
                        "Max query size exceeded: the text of a statement may have {TEXT_BYTES_MAX} bytes"
                    ),
                ));
            }
            let known = text.len();
            text.resize(known + PIECE_BYTES, 0);
            let count = body.read(&mut text[known..]).map_err(|error| unreadable(&error))?;
            text.truncate(known + count);
            if count == 0 {
                let statement = sql::parse(&text, true).expect("a whole text is a statement");
                return Ok((statement, text));
            }
        }
    }

    /// Waits for its turn. `kill` never waits: it may be what frees a place.
    fn slot(&self, statement: &Statement) -> Result<Option<OwnedSemaphorePermit>, Exception> {
        if matches!(statement, Statement::Kill(_)) {
            return Ok(None);
        }
        let turn = self.cancelled.run_until_cancelled(self.server.slots.clone().acquire_owned());
        match tokio::runtime::Handle::current().block_on(turn) {
            Some(Ok(slot)) => Ok(Some(slot)),
            _ => Err(cancelled()),
        }
    }

    /// A fresh connection with the request's database and settings: nothing of a request reaches the next one.
    fn connect(&self) -> Result<Connection, Exception> {
        let mut own = vec![(ID_SETTING, self.id.as_str()), ("implicit_select", "0")];
        if self.request.reads_only {
            own.push(("readonly", "2"));
        }
        let connection = self.server.engine.connect(&own)?;
        let mut prepare = String::new();
        if !self.request.database.is_empty() {
            prepare = format!("use `{}`;", escaped(&self.request.database, '`'));
        }
        for (name, value) in &self.request.settings {
            if name == ID_SETTING || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                return Err(Exception::new(115, format!("Unknown setting '{name}'")));
            }
            prepare.push_str(&format!("set {name} = '{}';", escaped(value, '\'')));
        }
        if !prepare.is_empty() {
            connection.query(&prepare, "Null", &[])?;
        }
        Ok(connection)
    }

    fn insert(mut self, head: &InsertHead, rows: &[u8], body: &mut dyn Read) -> Result<Counters, Exception> {
        let mut connection = self.connect()?;
        self.tell_format(&head.format);
        let mut insert = connection.insert(&head.sql, &head.format, &self.request.params)?;
        let mut piece = vec![0; PIECE_BYTES];
        let mut ended = insert.append(rows);
        while ended.is_ok() {
            // An error drops `insert`, which cancels it.
            let count = body.read(&mut piece).map_err(|error| unreadable(&error))?;
            if count == 0 {
                break;
            }
            ended = insert.append(&piece[..count]);
        }
        let counters = insert.finish()?.counters();
        ended.map(|()| counters)
    }

    fn query(mut self, query: Query) -> Result<Counters, Exception> {
        if query.touches_files {
            return Err(Exception::not_implemented("INTO OUTFILE and FROM INFILE are not allowed over HTTP"));
        }
        if self.request.session && query.needs_session {
            return Err(Exception::not_implemented(
                "this server keeps no sessions; send settings and the database with each request",
            ));
        }
        let connection = self.connect()?;
        let analysis = connection.analyse(&query.sql);
        if analysis.statements > 1 {
            return Err(Exception::new(62, "Syntax error: multi-statements are not allowed"));
        }
        let format = query.format.or_else(|| self.request.format.take()).unwrap_or(DEFAULT_FORMAT.to_owned());
        self.tell_format(&format);
        if self.cancelled.is_cancelled() {
            return Err(cancelled());
        }
        let params = std::mem::take(&mut self.request.params);
        let mut sql = query.sql;
        // The engine's own streaming makes each piece a whole document, with its own header; a file is one document.
        if let Some(at) = query.output_at.filter(|_| analysis.reads_only) {
            let descriptor = self.output.as_raw_fd();
            sql.insert_str(at, &format!(" into outfile '/proc/self/fd/{descriptor}' append "));
        }
        let output = connection.query(&sql, &format, &params)?;
        self.write(output.bytes());
        Ok(output.counters())
    }

    fn kill(mut self, kill: &Kill) -> Result<Counters, Exception> {
        let connection = self.connect()?;
        let format = kill.format.clone().or(self.request.format.take()).unwrap_or(DEFAULT_FORMAT.to_owned());
        self.tell_format(&format);
        let params = std::mem::take(&mut self.request.params);
        let chosen = format!(
            "from {} where ({}) and query_id != '{}'",
            sql::PROCESSES,
            kill.condition,
            escaped(&self.id, '\'')
        );
        let status = if kill.sync { "finished" } else { "waiting" };
        let table = format!("select '{status}' as kill_status, query_id, user, query {chosen}");
        let answer = connection.query(&table, &format, &params)?;
        if kill.test {
            self.write(answer.bytes());
            return Ok(answer.counters());
        }
        let killed =
            connection.query(&format!("select engine_query_id, query_id {chosen}"), "TSVRaw", &params)?;
        let killed = String::from_utf8_lossy(killed.bytes()).into_owned();
        let killed: Vec<_> = killed.lines().filter_map(|line| line.split_once('\t')).collect();
        if !killed.is_empty() {
            let ids: Vec<_> = killed.iter().map(|(engine_id, _)| format!("'{engine_id}'")).collect();
            let ids = ids.join(", ");
            connection.query(&format!("kill query where query_id in ({ids}) async"), "Null", &[])?;
            // An insert that waits for its client does not hear the engine.
            killed.iter().for_each(|(_, id)| self.server.cancel(id));
            if kill.sync {
                self.wait_for_end(&connection, &ids)?;
            }
        }
        self.write(answer.bytes());
        Ok(answer.counters())
    }

    /// The engine's own `sync` can hang, so ask.
    fn wait_for_end(&self, connection: &Connection, ids: &str) -> Result<(), Exception> {
        let left = format!("select count() from system.processes where query_id in ({ids})");
        let deadline = Instant::now() + KILL_LIMIT;
        while connection.query(&left, "TSV", &[])?.bytes() != b"0\n" {
            if Instant::now() > deadline {
                return Err(Exception::new(159, "Timeout exceeded: a killed query has not ended yet"));
            }
            let pause = self.cancelled.run_until_cancelled(tokio::time::sleep(KILL_PAUSE));
            if tokio::runtime::Handle::current().block_on(pause).is_none() {
                return Err(cancelled());
            }
        }
        Ok(())
    }

    fn tell_format(&mut self, format: &str) {
        let (nobody, _) = oneshot::channel();
        // Nobody listens if the client is gone.
        let _ = std::mem::replace(&mut self.format, nobody).send(format.to_owned());
    }

    fn write(&mut self, bytes: &[u8]) {
        // Fails if the client is gone.
        let _ = self.output.write_all(bytes);
    }
}

/// Code 394.
pub(crate) fn cancelled() -> Exception {
    Exception::new(394, "Query was cancelled")
}

fn decoded(body: Box<dyn Read + Send>, request: &Request) -> Box<dyn Read + Send> {
    let body = if request.input.frame { Box::new(FrameReader::new(body)) } else { body };
    if request.input.blocks { Box::new(BlockReader::new(body)) } else { body }
}

fn unreadable(error: &io::Error) -> Exception {
    match error.kind() {
        io::ErrorKind::TimedOut => cancelled(),
        io::ErrorKind::ConnectionAborted => {
            Exception::new(210, "the request's body ended early; rows of an unfinished block are not written")
        }
        _ => Exception::new(271, format!("the request's body can not be read: {error}")),
    }
}

fn escaped(text: &str, quote: char) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if character == quote || character == '\\' {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}
