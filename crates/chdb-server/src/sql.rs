//! What the server must know of a statement's text before the engine sees it: where an insert's rows begin, which
//! format it names, whether it kills. Knows ClickHouse's tokens, not its grammar; the engine parses.

use std::ops::Range;

/// What to do with the text of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Statement {
    /// `insert into …` whose rows follow.
    Insert(InsertHead),
    /// `kill query where …`
    Kill(Kill),
    /// Anything else.
    Other(Query),
}

/// An insert without its rows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InsertHead {
    /// The statement up to, and without, `format` or `values`.
    pub(crate) sql: String,
    /// Format of the rows.
    pub(crate) format: String,
    /// Where the rows begin in the text, in bytes.
    pub(crate) rows_at: usize,
}

/// `kill query where <condition> [sync | async | test] [format …]`
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kill {
    /// On the columns of `system.processes`.
    pub(crate) condition: String,
    /// Wait until the queries have ended.
    pub(crate) sync: bool,
    /// Only tell which queries would be killed.
    pub(crate) test: bool,
    /// The format named in the statement.
    pub(crate) format: Option<String>,
}

/// A statement that is not an insert with rows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Query {
    /// The text, with `system.processes` replaced by [`PROCESSES`].
    pub(crate) sql: String,
    /// Where `into outfile` may be put, if it is a `select` (or `with`, `from`, or in parentheses).
    pub(crate) output_at: Option<usize>,
    /// The format named in the statement.
    pub(crate) format: Option<String>,
    /// The first word, in lower case.
    pub(crate) verb: String,
    /// Would change what only a session keeps: `set`, `use`, temporary tables, transactions.
    pub(crate) needs_session: bool,
    /// Reads or writes a file of this machine: `into outfile`, `from infile`.
    pub(crate) touches_files: bool,
}

/// The view that shows the queries under the ids that clients gave them.
pub(crate) const PROCESSES: &str = "system.client_processes";

/// Takes the text apart. `whole` says that no more text follows; while it does, `None` means: more is needed.
pub(crate) fn parse(text: &[u8], whole: bool) -> Option<Statement> {
    let mut tokens = Tokens::new(text).peekable();
    match tokens.peek() {
        Some(token) if token.is("insert") && (whole || token.range.end < text.len()) => {
            if let Some(head) = insert(text, whole)? {
                return Some(Statement::Insert(head));
            }
        }
        Some(token) if token.is("insert") => return None,
        _ => {}
    }
    if !whole {
        return None;
    }
    let sql = String::from_utf8_lossy(text).into_owned();
    let tokens: Vec<_> = Tokens::new(sql.as_bytes()).collect();
    Some(match tokens.as_slice() {
        [kill, query, condition, ..] if kill.is("kill") && query.is("query") && condition.is("where") => {
            Statement::Kill(kill_query(&sql, &tokens))
        }
        _ => Statement::Other(query(&sql, &tokens)),
    })
}

/// `None`: more text is needed. `Some(None)`: no insert with rows of its own.
fn insert(text: &[u8], whole: bool) -> Option<Option<InsertHead>> {
    let head = |end: usize, format: &str, rows_at: usize| {
        let sql = String::from_utf8_lossy(&text[..end]).trim_end().to_owned();
        Some(Some(InsertHead { sql, format: format.to_owned(), rows_at }))
    };
    let mut depth = 0_usize;
    let mut tokens = Tokens::new(text).skip(1).peekable();
    while tokens.next_if(|token| token.is("into") || token.is("table") || token.is("function")).is_some() {}
    // The table may be called anything, `format` too.
    tokens.next();
    if tokens.next_if(|token| token.text == b".").is_some() {
        tokens.next();
    }
    while let Some(token) = tokens.next() {
        // A word at the very end may go on in the next piece of text.
        if !whole && token.range.end == text.len() {
            return None;
        }
        match token.text {
            b"(" | b"[" | b"{" => depth += 1,
            b")" | b"]" | b"}" => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            _ if token.is("values") => return head(token.range.start, "Values", token.range.end),
            _ if token.is("select") || token.is("with") || token.is("watch") || token.is("from") => {
                return Some(None);
            }
            _ if token.is("format") => {
                let Some(name) = tokens.next() else { break };
                if !whole && name.range.end == text.len() {
                    return None;
                }
                let format = String::from_utf8_lossy(name.text).into_owned();
                if format.eq_ignore_ascii_case("values") {
                    return head(token.range.start, "Values", name.range.end);
                }
                let rows_at = rows_at(text, name.range.end, whole)?;
                return head(token.range.start, &format, rows_at);
            }
            b";" => return head(token.range.start, "Values", text.len()),
            _ => {}
        }
    }
    if whole { head(text.len(), "Values", text.len()) } else { None }
}

/// After the format's name come blanks and one end of line, then the rows.
fn rows_at(text: &[u8], mut at: usize, whole: bool) -> Option<usize> {
    while matches!(text.get(at), Some(b' ' | b'\t' | b'\x0c')) {
        at += 1;
    }
    if !whole && text[at..].iter().all(|byte| matches!(byte, b';' | b'\r')) {
        return None;
    }
    if text.get(at) == Some(&b';') {
        at += 1;
    }
    if text.get(at) == Some(&b'\r') {
        at += 1;
    }
    if text.get(at) == Some(&b'\n') {
        at += 1;
    }
    Some(at)
}

fn kill_query(sql: &str, tokens: &[Token<'_>]) -> Kill {
    let mut kill = Kill { condition: String::new(), sync: false, test: false, format: None };
    let mut end = tokens.len();
    if end > 0 && tokens[end - 1].text == b";" {
        end -= 1;
    }
    if let Some(at) = format_clause(&tokens[..end]) {
        kill.format = Some(String::from_utf8_lossy(tokens[at + 1].text).into_owned());
        end = at;
    }
    match tokens[..end].last() {
        Some(mode) if mode.is("sync") || mode.is("async") || mode.is("test") => {
            kill.sync = mode.is("sync");
            kill.test = mode.is("test");
            end -= 1;
        }
        _ => {}
    }
    if let [first, .., last] | [first @ last] = &tokens[3.min(end)..end] {
        kill.condition = processes_renamed(&sql[first.range.start..last.range.end]);
    }
    kill
}

fn query(sql: &str, tokens: &[Token<'_>]) -> Query {
    let verb = tokens.iter().find(|token| token.text != b"(").map_or(&b""[..], |token| token.text);
    let verb = String::from_utf8_lossy(verb).to_ascii_lowercase();
    let mut end = tokens.len();
    while end > 0 && tokens[end - 1].text == b";" {
        end -= 1;
    }
    let clause = format_clause(&tokens[..end]);
    let format = clause.map(|at| String::from_utf8_lossy(tokens[at + 1].text).into_owned());
    let selects = ["select", "with", "from"].contains(&verb.as_str());
    // Replacing keeps what comes after the end of the last replaced name in place: measure from the end.
    let renamed = processes_renamed(sql);
    let output_at = (selects && end > 0).then(|| {
        let at = clause.map_or(tokens[end - 1].range.end, |at| tokens[at].range.start);
        renamed.len() - (sql.len() - at)
    });
    let temporary = verb == "create" && tokens.iter().take(4).any(|token| token.is("temporary"));
    let session_verb = ["set", "use", "begin", "commit", "rollback"].contains(&verb.as_str());
    let touches_files = tokens.windows(3).any(|window| match window {
        [way, file, name] if name.kind == Kind::Quoted => {
            way.is("into") && file.is("outfile") || way.is("from") && file.is("infile")
        }
        _ => false,
    });
    Query { sql: renamed, output_at, format, needs_session: temporary || session_verb, verb, touches_files }
}

/// The place of `format <name>` at the end of a statement, before `settings` at most.
fn format_clause(tokens: &[Token<'_>]) -> Option<usize> {
    let mut depth = 0_usize;
    let mut found = None;
    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            b"(" | b"[" | b"{" => depth += 1,
            b")" | b"]" | b"}" => depth = depth.saturating_sub(1),
            _ if depth == 0 && token.is("format") && at > 0 && ends_expression(&tokens[at - 1]) => {
                let name = tokens.get(at + 1).is_some_and(|name| name.kind == Kind::Word);
                let last = tokens.get(at + 2).is_none_or(|next| next.is("settings"));
                if name && last {
                    found = Some(at);
                }
            }
            _ => {}
        }
    }
    found
}

/// Whether a clause may follow: `order by format desc` has none.
fn ends_expression(token: &Token<'_>) -> bool {
    const OPEN: [&str; 10] = ["select", "distinct", "by", "where", "and", "or", "not", "as", "from", "in"];
    match token.kind {
        Kind::Word => !OPEN.iter().any(|word| token.is(word)),
        Kind::Quoted => true,
        Kind::Symbol => matches!(token.text, b")" | b"]" | b"}" | b"*"),
    }
}

fn processes_renamed(sql: &str) -> String {
    let tokens: Vec<_> = Tokens::new(sql.as_bytes()).collect();
    let mut renamed = String::with_capacity(sql.len());
    let mut copied = 0;
    for window in tokens.windows(3) {
        let [database, dot, table] = window else { continue };
        if database.is("system") && dot.text == b"." && table.is("processes") {
            renamed.push_str(&sql[copied..database.range.start]);
            renamed.push_str(PROCESSES);
            copied = table.range.end;
        }
    }
    renamed.push_str(&sql[copied..]);
    renamed
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Bare identifier, keyword or number.
    Word,
    /// `'…'`, `"…"`, `` `…` `` or a heredoc.
    Quoted,
    Symbol,
}

#[derive(Clone, Debug)]
struct Token<'text> {
    kind: Kind,
    text: &'text [u8],
    range: Range<usize>,
}

impl Token<'_> {
    fn is(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word.as_bytes())
    }
}

/// The tokens of a text, without blanks and comments.
struct Tokens<'text> {
    text: &'text [u8],
    at: usize,
}

impl<'text> Tokens<'text> {
    fn new(text: &'text [u8]) -> Self {
        Self { text, at: 0 }
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = &self.text[self.at..];
            let line = rest.starts_with(b"--") || rest.starts_with(b"# ") || rest.starts_with(b"#!");
            self.at += match rest {
                [byte, ..] if byte.is_ascii_whitespace() || *byte == 0x0b => 1,
                _ if line => position(rest, b"\n").map_or(rest.len(), |end| end + 1),
                [b'/', b'*', ..] => position(&rest[2..], b"*/").map_or(rest.len(), |end| end + 4),
                _ => return,
            };
        }
    }
}

impl<'text> Iterator for Tokens<'text> {
    type Item = Token<'text>;

    fn next(&mut self) -> Option<Self::Item> {
        self.skip_blank();
        let rest = &self.text[self.at..];
        let word =
            rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_' || **byte >= 0x80);
        let (kind, length) = match (rest.first()?, word.count()) {
            (_, length) if length > 0 => (Kind::Word, length),
            (quote @ (b'\'' | b'"' | b'`'), _) => (Kind::Quoted, quoted(rest, *quote)),
            (b'$', _) => heredoc(rest).map_or((Kind::Symbol, 1), |length| (Kind::Quoted, length)),
            _ => (Kind::Symbol, 1),
        };
        let range = self.at..self.at + length;
        self.at = range.end;
        Some(Token { kind, text: &self.text[range.clone()], range })
    }
}

fn quoted(text: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < text.len() {
        match text[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

fn heredoc(text: &[u8]) -> Option<usize> {
    let tag = position(&text[1..], b"$")? + 2;
    let named = text[1..tag - 1].iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let body = named.then(|| position(&text[tag..], &text[..tag]))??;
    Some(tag + body + tag)
}

fn position(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_insert(text: &str, sql: &str, format: &str, rows: &str) {
        let Some(Statement::Insert(head)) = parse(text.as_bytes(), true) else { panic!("no insert: {text}") };
        assert_eq!((head.sql.as_str(), head.format.as_str(), &text[head.rows_at..]), (sql, format, rows));
    }

    #[track_caller]
    fn check_output(text: &str, with_output: &str, format: Option<&str>) {
        let Some(Statement::Other(query)) = parse(text.as_bytes(), true) else { panic!("no query: {text}") };
        let mut sql = query.sql;
        if let Some(at) = query.output_at {
            sql.insert_str(at, " ! ");
        }
        assert_eq!((sql.as_str(), query.format.as_deref()), (with_output, format));
    }

    #[test]
    fn rows_begin_after_the_format_and_one_end_of_line() {
        check_insert("insert into t format Native\n\n\0x", "insert into t", "Native", "\n\0x");
        check_insert(
            "INSERT INTO a.b (x, `y z`) FORMAT RowBinary \r\n1",
            "INSERT INTO a.b (x, `y z`)",
            "RowBinary",
            "1",
        );
        check_insert(
            "insert into t(a) values (1, 'format x')",
            "insert into t(a)",
            "Values",
            " (1, 'format x')",
        );
        check_insert(
            "insert into t settings async_insert=0 format CSV 1,2",
            "insert into t settings async_insert=0",
            "CSV",
            "1,2",
        );
        check_insert("/* select */ insert t values(1)", "/* select */ insert t", "Values", "(1)");
        check_insert("insert into format.values format TSV\n1", "insert into format.values", "TSV", "1");
        check_insert("insert into t", "insert into t", "Values", "");
        check_insert(
            "insert into function file('a', 'CSV', 'select String') format CSV\n",
            "insert into function file('a', 'CSV', 'select String')",
            "CSV",
            "",
        );
    }

    #[test]
    fn an_insert_of_a_select_has_no_rows_of_its_own() {
        for text in [
            "insert into t select 1 format Native",
            "insert into t (a) with 1 as x select x",
            "insert into t from infile 'x' format CSV",
        ] {
            assert!(matches!(parse(text.as_bytes(), true), Some(Statement::Other(_))), "{text}");
        }
    }

    #[test]
    fn more_text_is_asked_for_until_the_rows_begin() {
        let text = "insert into t format Native \r\nab";
        for end in 0..=text.find('\r').unwrap() + 1 {
            assert_eq!(parse(&text.as_bytes()[..end], false), None, "{}", &text[..end]);
        }
        assert!(matches!(parse(text.as_bytes(), false), Some(Statement::Insert(_))));
        assert_eq!(parse(b"select 1", false), None);
    }

    #[test]
    fn output_goes_before_the_format_or_to_the_end() {
        check_output("select 1", "select 1 ! ", None);
        check_output("select 1 ; ", "select 1 !  ; ", None);
        check_output("select 1 -- end", "select 1 !  -- end", None);
        check_output(
            "(select 1) union all (select 2) format JSON",
            "(select 1) union all (select 2)  ! format JSON",
            Some("JSON"),
        );
        check_output("select a format from t", "select a format from t ! ", None);
        check_output(
            "select format from t order by format desc",
            "select format from t order by format desc ! ",
            None,
        );
        check_output(
            "select 'format X' format TSV settings max_threads = 1",
            "select 'format X'  ! format TSV settings max_threads = 1",
            Some("TSV"),
        );
        check_output("show tables format CSV;", "show tables format CSV;", Some("CSV"));
    }

    #[test]
    fn the_list_of_processes_is_the_view() {
        check_output(
            "select count() from System.processes",
            "select count() from System.processes ! ".replace("System.processes", PROCESSES).as_str(),
            None,
        );
        check_output("select 'system.processes'", "select 'system.processes' ! ", None);
    }

    #[test]
    fn kill_is_taken_apart() {
        let kill = |text: &str| match parse(text.as_bytes(), true) {
            Some(Statement::Kill(kill)) => kill,
            other => panic!("{other:?}"),
        };
        let full = kill("KILL QUERY WHERE query_id like 'x%' and query != 'sync' SYNC FORMAT JSON;");
        assert_eq!(full.condition, "query_id like 'x%' and query != 'sync'");
        assert_eq!((full.sync, full.test, full.format.as_deref()), (true, false, Some("JSON")));
        assert!(kill("kill query where user='a' test").test);
        assert_eq!(kill("kill query where 1").condition, "1");
        assert_eq!(kill("kill query where").condition, "");
    }
}
