//! Questions about single calls: pages of the log, one call, what was written since, files.

use domain::{RequestId, WorkspaceId};
use uuid::Uuid;

use super::{Builder, Source, Statement, Value};
use crate::{condition::Condition, plan::Span};

/// The columns of the log: the field of a call that each becomes, how it is read, its name, and of which type nothing is where
/// it is not read. Names with an ending keep conditions from meaning the converted value. Nothing has the name of the column
/// that it stands for: by a setting of the page, conditions mean the column.
const CALL: [(&str, &str, &str, &str); 28] = [
    ("key_id", "key_id", "key_id", "UUID"),
    ("secret_id", "secret_id", "secret_id", "UUID"),
    ("name", "request_id", "request_id", ALWAYS),
    ("client_request_id", "client_request_id", "client_request_id", "String"),
    ("occurred_at", "occurred_at", "occurred_at", ALWAYS),
    ("ingested_at", "ingested_at", "ingested_at", "DateTime64(3)"),
    ("clock_skewed", "clock_skewed", "clock_skewed", "Bool"),
    ("interrupted", "interrupted", "interrupted", "Bool"),
    ("method", "method", "method", "String"),
    ("route", "route", "route", "String"),
    ("path", "path", "path", "String"),
    ("resource_id", "resource_id", "resource_id", "String"),
    ("status_code", "status_code", "status_code", "UInt16"),
    ("outcome", "toString(outcome)", "outcome_name", ALWAYS),
    ("origin", "toString(origin)", "origin_name", "String"),
    ("denial", "denial", "denial", "String"),
    ("limit_name", "limit_name", "limit_name", "String"),
    ("latency_us", "latency_us", "latency_us", "UInt32"),
    ("request_bytes", "request_bytes", "request_bytes", "UInt64"),
    ("response_bytes", "response_bytes", "response_bytes", "UInt64"),
    ("client_ip", "client_ip", "client_ip", "IPv6"),
    ("user_agent", "user_agent", "user_agent", "String"),
    ("region", "region", "region", "String"),
    ("trace_id", "trace_id", "trace_id", "FixedString(16)"),
    ("edge_id", "edge_id", "edge_id", "String"),
    ("limit_window_s", "limit_window_s", "limit_window_s", "UInt32"),
    ("limit_remaining", "limit_remaining", "limit_remaining", "UInt64"),
    ("", "shard", "shard", "UInt16"),
];
const ALWAYS: &str = "";

/// Which fields of calls are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fields {
    All,
    /// Those that are always, and these.
    Only(Vec<String>),
}

impl Fields {
    /// Whether there is such a field.
    pub(crate) fn is_known(name: &str) -> bool {
        !name.is_empty() && CALL.iter().any(|(field, ..)| *field == name)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.iter().any(|known| known == name),
        }
    }

    fn columns(&self) -> String {
        let column = |(field, read, name, nothing): &(&str, &str, &str, &str)| {
            if *nothing != ALWAYS && !self.has(field) {
                format!("defaultValueOfTypeName('{nothing}') as {name}")
            } else if read == name {
                (*name).to_owned()
            } else {
                format!("{read} as {name}")
            }
        };
        CALL.iter().map(column).collect::<Vec<_>>().join(", ")
    }
}

/// The columns of a file, as people read them. Some have the name of what they are made of: elsewhere in the statement
/// that means the table's column, by a setting.
const FILE: &str = "\
    toString(request_id) as request_id, toString(key_id) as key_id, toString(secret_id) as secret_id,\n  \
    client_request_id, occurred_at, ingested_at, clock_skewed, interrupted, toString(method) as method,\n  \
    toString(route) as route, path, resource_id, status_code, toString(outcome) as outcome,\n  \
    toString(origin) as origin, toString(denial) as denial, toString(limit_name) as limit_name, limit_window_s,\n  \
    limit_remaining, latency_us, request_bytes, response_bytes,\n  \
    replaceRegexpOne(toString(client_ip), '^::ffff:([0-9.]+)$', '\\\\1') as client_ip,\n  \
    toString(user_agent) as user_agent, toString(region) as region,\n  \
    if(trace_id = toFixedString('', 16), '', lower(hex(trace_id))) as trace_id, toString(edge_id) as edge_id";

/// The order of a file: the table's own, so that nothing is sorted.
const FILE_ORDER: &str = "key_id, occurred_at, request_id";

/// A place in the log or in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) occurred_at_ms: i64,
    pub(crate) request_id: RequestId,
}

/// Which way the log is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the latest call on.
    Falling,
    /// From the earliest call on.
    Rising,
}

/// What was written since: after a time in milliseconds, or, for the shards named, at or after one of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Since {
    pub(crate) start_ms: i64,
    pub(crate) shards: Vec<(u16, i64)>,
}

impl Since {
    /// That of one shard, which has its own from now on.
    pub(crate) fn last_ms(&mut self, shard: u16) -> &mut i64 {
        let at = self.shards.iter().position(|(known, _)| *known == shard).unwrap_or_else(|| {
            self.shards.push((shard, self.start_ms));
            self.shards.len() - 1
        });
        &mut self.shards[at].1
    }
}

impl Direction {
    pub(crate) const fn opposite(self) -> Self {
        match self {
            Self::Falling => Self::Rising,
            Self::Rising => Self::Falling,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Falling => "desc",
            Self::Rising => "asc",
        }
    }
}

/// Quarter hours with calls, the first ones in the direction, at most `limit`, and the number of calls in each, of which
/// it is known that they meet the condition as far as a quarter hour tells.
pub(crate) fn quarters(
    workspace_id: WorkspaceId,
    condition: &Condition,
    span: Span,
    direction: Direction,
    limit: u32,
) -> Statement {
    let mut builder = Builder::new(workspace_id);
    let mut conditions = builder.conditions(&condition.weakened());
    conditions.push(builder.within(Source::Quarters, &[span.touched_quarters()]));
    let limit = builder.put("limit", Value::Int(limit.into()));
    let events = Builder::events(Source::Quarters, &[], &conditions);
    builder.end("quarters", format!(
        "select toInt64(toUnixTimestamp(toStartOfFifteenMinutes(occurred_at))) as start_s, count() as call_count\n\
         {events}\ngroup by start_s\norder by start_s {}\nlimit {limit}",
        direction.word()
    ))
}

/// At most `limit` calls of the span behind `position`, in the direction. Of equal times they are in the table's order,
/// so that those of one key are read from the end of the span on, until there are enough. Others are read whole and
/// sorted: in order they would be read part by part.
pub(crate) fn page(
    workspace_id: WorkspaceId,
    (condition, fields): (&Condition, &Fields),
    span: Span,
    position: Option<Position>,
    direction: Direction,
    limit: u32,
) -> Statement {
    let mut builder = Builder::new(workspace_id);
    let (first, mut conditions) = builder.conditions_of_rows(condition);
    conditions.push(builder.within(Source::Rows, &[span]));
    if let Some(position) = position {
        let at = builder.put("position_ms", Value::Int(position.occurred_at_ms));
        let at = format!("fromUnixTimestamp64Milli({at}, 'UTC')");
        let request_id = builder.put("position_id", Value::Uuid(position.request_id.as_uuid()));
        let behind = match direction {
            Direction::Falling => '<',
            Direction::Rising => '>',
        };
        conditions.push(format!("occurred_at {behind}= {at}"));
        conditions.push(format!("(occurred_at {behind} {at} or request_id {behind} {request_id})"));
    }
    let limit = builder.put("limit", Value::Int(limit.into()));
    let events = Builder::events(Source::Rows, &first, &conditions);
    let order = direction.word();
    let in_order = u8::from(condition.is_of_one_key());
    builder.end(
        "page",
        format!(
            "select\n  {}\n{events}\norder by occurred_at {order}, request_id {order}\nlimit {limit}\n\
         settings optimize_read_in_order = {in_order}, prefer_column_name_to_alias = 1",
            fields.columns()
        ),
    )
}

/// One call, if it happened in the span.
pub(crate) fn call(workspace_id: WorkspaceId, request_id: RequestId, span: Span) -> Statement {
    let mut builder = Builder::new(workspace_id);
    let request_id = builder.put("request_id", Value::Uuid(request_id.as_uuid()));
    let conditions = [format!("request_id = {request_id}"), builder.within(Source::Rows, &[span])];
    let events = Builder::events(Source::Rows, &[], &conditions);
    builder.end("call", format!("select\n  {}\n{events}\nlimit 1", Fields::All.columns()))
}

/// At most `limit` calls that were written since, in the order in which they were.
pub(crate) fn tail(
    workspace_id: WorkspaceId,
    condition: &Condition,
    span: Span,
    since: &Since,
    limit: u32,
) -> Statement {
    let mut builder = Builder::new(workspace_id);
    let events = builder.written(condition, span, since);
    let limit = builder.put("limit", Value::Int(limit.into()));
    builder.end(
        "tail",
        format!(
            "select\n  {}\n{events}\norder by ingested_at, shard, request_id\nlimit {limit}",
            Fields::All.columns()
        ),
    )
}

/// Of each shard the number of calls that were written since, and when the last one was.
pub(crate) fn tail_ends(
    workspace_id: WorkspaceId,
    condition: &Condition,
    span: Span,
    since: &Since,
) -> Statement {
    let mut builder = Builder::new(workspace_id);
    let events = builder.written(condition, span, since);
    builder.end("tail_ends", format!(
        "select shard, toUnixTimestamp64Milli(max(ingested_at)) as written_ms, count() as call_count\n{events}\ngroup by shard"
    ))
}

impl Builder {
    fn written(&mut self, condition: &Condition, span: Span, since: &Since) -> String {
        let (first, mut conditions) = self.conditions_of_rows(condition);
        conditions.push(self.within(Source::Rows, &[span]));
        let least = since.shards.iter().map(|(_, ms)| *ms).chain([since.start_ms]).min().unwrap_or_default();
        let least = self.put("least_ms", Value::Int(least));
        let start = self.put("start_ms", Value::Int(since.start_ms));
        conditions.push(format!("ingested_at >= fromUnixTimestamp64Milli({least}, 'UTC')"));
        let written = "toUnixTimestamp64Milli(ingested_at)";
        conditions.push(if since.shards.is_empty() {
            format!("{written} >= {start}")
        } else {
            let (shards, times): (Vec<i64>, Vec<i64>) =
                since.shards.iter().map(|(shard, ms)| (i64::from(*shard), *ms)).unzip();
            let shards = self.put("shards", Value::Ints(shards));
            let times = self.put("times", Value::Ints(times));
            format!("{written} >= transform(toInt64(shard), {shards}, {times}, {start})")
        });
        Self::events(Source::Rows, &first, &conditions)
    }
}

/// What a file has of calls: those behind `after` that were written by `written_ms`.
pub(crate) struct Part<'p> {
    pub(crate) condition: &'p Condition,
    pub(crate) span: Span,
    pub(crate) after: Option<(Uuid, Position)>,
    pub(crate) written_ms: i64,
}

impl Part<'_> {
    fn conditions(&self, builder: &mut Builder) -> (Vec<String>, Vec<String>) {
        let (first, mut conditions) = builder.conditions_of_rows(self.condition);
        conditions.push(builder.within(Source::Rows, &[self.span]));
        let written = builder.put("written_ms", Value::Int(self.written_ms));
        conditions.push(format!("ingested_at <= fromUnixTimestamp64Milli({written}, 'UTC')"));
        if let Some(after) = self.after {
            conditions.extend(beside(builder, '>', "", after));
        }
        (first, conditions)
    }
}

/// The last call of a part of `rows` calls: no row if it has fewer.
pub(crate) fn export_end(workspace_id: WorkspaceId, part: &Part<'_>, rows: u32) -> Statement {
    let mut builder = Builder::new(workspace_id);
    let (first, conditions) = part.conditions(&mut builder);
    let skipped = builder.put("skipped", Value::Int(i64::from(rows) - 1));
    let events = Builder::events(Source::Rows, &first, &conditions);
    builder.end(
        "export_end",
        format!(
            "select key_id, toUnixTimestamp64Milli(occurred_at) as occurred_at_ms, request_id\n{events}\n\
         order by {FILE_ORDER}\nlimit 1 offset {skipped}"
        ),
    )
}

/// How many calls a part has that has no end.
pub(crate) fn export_count(workspace_id: WorkspaceId, part: &Part<'_>) -> Statement {
    let mut builder = Builder::new(workspace_id);
    let (first, conditions) = part.conditions(&mut builder);
    builder.end(
        "export_count",
        format!("select count() as call_count\n{}", Builder::events(Source::Rows, &first, &conditions)),
    )
}

/// The calls of a part, up to and with `end` if it has one.
pub(crate) fn export(workspace_id: WorkspaceId, part: &Part<'_>, end: Option<(Uuid, Position)>) -> Statement {
    let mut builder = Builder::new(workspace_id);
    let (first, mut conditions) = part.conditions(&mut builder);
    if let Some(end) = end {
        conditions.extend(beside(&mut builder, '<', "=", end));
    }
    let events = Builder::events(Source::Rows, &first, &conditions);
    builder.end("export", format!("select\n  {FILE}\n{events}\norder by {FILE_ORDER}"))
}

/// Calls on one side of a place in a file, `end` being `=` if with the one at the place. The engine compares the three columns
/// together, but finds what to read by one column at a time alone.
fn beside(builder: &mut Builder, side: char, end: &str, (key_id, position): (Uuid, Position)) -> [String; 3] {
    let key_id = builder.put("place_key", Value::Uuid(key_id));
    let at = builder.put("place_ms", Value::Int(position.occurred_at_ms));
    let at = format!("fromUnixTimestamp64Milli({at}, 'UTC')");
    let request_id = builder.put("place_id", Value::Uuid(position.request_id.as_uuid()));
    [
        format!("key_id {side}= {key_id}"),
        format!("(key_id {side} {key_id} or occurred_at {side}= {at})"),
        format!("({FILE_ORDER}) {side}{end} ({key_id}, {at}, {request_id})"),
    ]
}
