//! The one place where a question becomes SQL. Values never enter the text: each is a server-side parameter,
//! `{name:Type}`. The workspace is a condition of every statement, added once, in [`Builder::events`]. Pure.

use domain::{KeyId, RequestId, SecretId, TimeRange, WorkspaceId};
use uuid::Uuid;

use crate::{
    filter::Filter,
    plan::{self, Segment, Source},
};

/// Values in one parameter. ClickHouse refuses a form field above 128 KiB, and a value may have 1 KiB, every
/// byte of it escaped.
const VALUES_PER_PARAMETER: usize = 50;

/// Every column of the log. Names with an ending keep conditions from meaning the converted value.
const CALL: &str = "\
    key_id, secret_id, request_id, client_request_id, occurred_at, ingested_at, clock_skewed, interrupted,\n  \
    method, route, path, resource_id, status_code, toString(outcome) as outcome_name,\n  \
    toString(origin) as origin_name, denial, limit_name, latency_us, request_bytes, response_bytes, client_ip,\n  \
    user_agent, region, trace_id, edge_id, limit_window_s, limit_remaining";

/// UUIDs of equal times in the order of their text; ClickHouse's own order of UUIDs is another.
const REQUEST_ORDER: &str = "UUIDToNum(request_id)";

const COUNTS: &str = "\
    sum(calls) as total_count,\n  \
    sumIf(calls, outcome = 'completed') as completed_count,\n  \
    sumIf(calls, outcome = 'failed') as failed_count,\n  \
    sumIf(calls, outcome = 'rate_limited') as rate_limited_count";

/// How far each shard is complete; one row a shard.
const WATERMARKS: &str = "\
select
  toUnixTimestamp64Milli(complete_up_to) as complete_up_to_ms,
  arrayMap(edge -> edge.1, unaccounted) as edge_ids,
  arrayMap(edge -> toUnixTimestamp64Milli(edge.2), unaccounted) as since_ms
from keymeter.watermarks final";

/// Calls that are known to be missing: the workspace's own, and those of which it is not known whose they were. Of the
/// latter no number is told, since it may be another workspace's.
const GAPS: &str = "\
select
  edge_id,
  toString(reason) as reason_name,
  toUnixTimestamp64Milli(min(from_at)) as from_ms,
  toUnixTimestamp64Milli(max(to_at)) as to_ms,
  if(is_own, sum(toUInt64(last_seq - first_seq + 1)), 0) as call_count
from (
select *, workspace_id = {workspace_id:UUID} as is_own
from keymeter.gaps final
where workspace_id in ({workspace_id:UUID}, toUUID('00000000-0000-0000-0000-000000000000'))
  and reason != 'erased'
  and from_at < fromUnixTimestamp64Milli({to_ms:Int64}, 'UTC')
  and to_at > fromUnixTimestamp64Milli({from_ms:Int64}, 'UTC')
)
group by edge_id, reason, is_own, toStartOfHour(from_at)
order by from_ms desc, edge_id, reason_name
limit 100";

/// Answers, without rows, only if the schema is there.
const PROBE: &str = "\
select count() as tables
from (select 1 from keymeter.request_events limit 0) as events
cross join (select 1 from keymeter.watermarks limit 0) as watermarks
cross join (select 1 from keymeter.gaps limit 0) as gaps";

/// SQL and its parameters, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    pub(crate) text: String,
    pub(crate) params: Vec<(String, Value)>,
}

/// A parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Int(i64),
    Uuid(Uuid),
    Uuids(Vec<Uuid>),
    Codes(Vec<u16>),
    Texts(Vec<String>),
}

impl Value {
    const fn type_name(&self) -> &'static str {
        match self {
            Self::Int(_) => "Int64",
            Self::Uuid(_) => "UUID",
            Self::Uuids(_) => "Array(UUID)",
            Self::Codes(_) => "Array(UInt16)",
            Self::Texts(_) => "Array(String)",
        }
    }
}

/// What calls are told apart by, beside their outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dimension {
    Method,
    StatusCode,
    Route,
    Outcome,
    Secret,
    Denial,
    ClientIp,
}

impl Dimension {
    const fn is_in_projection(self) -> bool {
        matches!(self, Self::Method | Self::StatusCode | Self::Route | Self::Outcome)
    }
}

/// A place in the log, which is in falling order of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) occurred_at_ms: i64,
    pub(crate) request_id: RequestId,
}

/// Counts over everything: one row.
pub(crate) fn summary(workspace_id: WorkspaceId, filter: &Filter) -> Statement {
    let mut builder = Builder::new(workspace_id);
    let tallies = builder.tallies(filter, i64::MAX, |_| None);
    builder.end(format!("select\n  {COUNTS}\nfrom (\n{tallies}\n)"))
}

/// Counts by the values of `dimension`: the `limit` most called ones, each `listed`, and one row, not `listed`,
/// with all the others together.
pub(crate) fn breakdown(
    workspace_id: WorkspaceId,
    filter: &Filter,
    dimension: Dimension,
    limit: u32,
) -> Statement {
    let value = match dimension {
        Dimension::Method => "toString(method)",
        Dimension::StatusCode => "toString(status_code)",
        Dimension::Route => "toString(route)",
        Dimension::Outcome => "toString(outcome)",
        Dimension::Secret => "toString(secret_id)",
        Dimension::Denial => "toString(denial)",
        Dimension::ClientIp => r"replaceRegexpOne(toString(client_ip), '^::ffff:([0-9.]+)$', '\\1')",
    };
    let finest_ms = if dimension.is_in_projection() { i64::MAX } else { 0 };
    let mut builder = Builder::new(workspace_id);
    let tallies = builder.tallies(filter, finest_ms, |_| Some(format!("{value} as value")));
    let limit = builder.put("limit", Value::Int(limit.into()));
    builder.end(format!(
        "select
  place <= {limit} as listed,
  if(listed, value, '') as name,
  count() as value_count,
  sum(total_count) as total,
  sum(completed_count) as completed,
  sum(failed_count) as failed,
  sum(rate_limited_count) as rate_limited
from (
select
  value,
  {COUNTS},
  row_number() over (order by total_count desc, value) as place
from (
{tallies}
)
group by value
)
group by listed, name
order by listed desc, total desc, name"
    ))
}

/// Counts by bars of `bar_s` seconds, in order; bars without calls are left out.
pub(crate) fn series(workspace_id: WorkspaceId, filter: &Filter, bar_s: i64) -> Statement {
    let mut builder = Builder::new(workspace_id);
    let bar_length = builder.put("bar_s", Value::Int(bar_s));
    let tallies = builder.tallies(filter, bar_s * 1000, |source| {
        let at = time_of(source);
        Some(format!("intDiv(toInt64(toUnixTimestamp({at})), {bar_length}) * {bar_length} as start_s"))
    });
    builder.end(format!(
        "select\n  start_s,\n  {COUNTS}\nfrom (\n{tallies}\n)\ngroup by start_s\norder by start_s"
    ))
}

/// At most `limit` calls after `position`, newest first.
pub(crate) fn page(
    workspace_id: WorkspaceId,
    filter: &Filter,
    position: Option<Position>,
    limit: u32,
) -> Statement {
    let mut builder = Builder::new(workspace_id);
    let mut conditions = builder.conditions(filter);
    conditions.extend(builder.within("", plan::rows(&filter.range)));
    if let Some(position) = position {
        let at = builder.put("after_ms", Value::Int(position.occurred_at_ms));
        let at = format!("fromUnixTimestamp64Milli({at}, 'UTC')");
        let request_id = builder.put("after_id", Value::Uuid(position.request_id.as_uuid()));
        conditions.push(format!("occurred_at <= {at}"));
        conditions.push(format!("(occurred_at < {at} or {REQUEST_ORDER} < UUIDToNum({request_id}))"));
    }
    let limit = builder.put("limit", Value::Int(limit.into()));
    let events = Builder::events(&conditions);
    builder.end(format!(
        "select\n  {CALL}\n{events}\norder by occurred_at desc, {REQUEST_ORDER} desc\nlimit {limit}"
    ))
}

/// One call; `near` are the times that it can have happened at, in milliseconds, half-open.
pub(crate) fn call(workspace_id: WorkspaceId, request_id: RequestId, near: Option<(i64, i64)>) -> Statement {
    let mut builder = Builder::new(workspace_id);
    let request_id = builder.put("request_id", Value::Uuid(request_id.as_uuid()));
    let mut conditions = vec![format!("request_id = {request_id}")];
    if let Some((from_ms, to_ms)) = near {
        conditions.extend(builder.within("", Segment { source: Source::Rows, from_ms, to_ms }));
    }
    let events = Builder::events(&conditions);
    builder.end(format!("select\n  {CALL}\n{events}\nlimit 1"))
}

/// How far each shard is complete.
pub(crate) fn watermarks() -> Statement {
    Statement { text: WATERMARKS.to_owned(), params: Vec::new() }
}

/// Calls in `range` that are known to be missing.
pub(crate) fn gaps(workspace_id: WorkspaceId, range: &TimeRange) -> Statement {
    let segment = plan::rows(range);
    let params = [
        ("workspace_id", Value::Uuid(workspace_id.as_uuid())),
        ("from_ms", Value::Int(segment.from_ms)),
        ("to_ms", Value::Int(segment.to_ms)),
    ];
    let params = params.map(|(name, value)| (name.to_owned(), value)).to_vec();
    Statement { text: GAPS.to_owned(), params }
}

/// Fails unless every table that is read is there.
pub(crate) fn probe() -> Statement {
    Statement { text: PROBE.to_owned(), params: Vec::new() }
}

struct Builder {
    params: Vec<(String, Value)>,
}

impl Builder {
    fn new(workspace_id: WorkspaceId) -> Self {
        Self { params: vec![("workspace_id".to_owned(), Value::Uuid(workspace_id.as_uuid()))] }
    }

    /// The events of the workspace that meet `conditions`.
    fn events(conditions: &[String]) -> String {
        let mut text = "from keymeter.request_events\nwhere workspace_id = {workspace_id:UUID}".to_owned();
        for condition in conditions {
            text.push_str("\n  and ");
            text.push_str(condition);
        }
        text
    }

    fn end(self, text: String) -> Statement {
        Statement { text, params: self.params }
    }

    /// Takes a parameter; returns what stands for it in the text.
    fn put(&mut self, name: &str, value: Value) -> String {
        let placeholder = format!("{{{name}:{}}}", value.type_name());
        self.params.push((name.to_owned(), value));
        placeholder
    }

    /// Numbers of calls by outcome and by what `group` selects, one select for each segment of the range.
    fn tallies(
        &mut self,
        filter: &Filter,
        finest_ms: i64,
        group: impl Fn(Source) -> Option<String>,
    ) -> String {
        let conditions = self.conditions(filter);
        let selects = plan::segments(filter, finest_ms).into_iter().enumerate().map(|(index, segment)| {
            let mut conditions = conditions.clone();
            conditions.extend(self.within(&format!("_{index}"), segment));
            let events = Self::events(&conditions);
            match group(segment.source) {
                Some(key) => {
                    let name = key.rsplit(' ').next().unwrap_or_default();
                    format!("select {key}, outcome, count() as calls\n{events}\ngroup by {name}, outcome")
                }
                None => format!("select outcome, count() as calls\n{events}\ngroup by outcome"),
            }
        });
        selects.collect::<Vec<_>>().join("\nunion all\n")
    }

    fn within(&mut self, suffix: &str, segment: Segment) -> [String; 2] {
        let from = self.put(&format!("from_ms{suffix}"), Value::Int(segment.from_ms));
        let to = self.put(&format!("to_ms{suffix}"), Value::Int(segment.to_ms));
        let at = time_of(segment.source);
        [
            format!("{at} >= fromUnixTimestamp64Milli({from}, 'UTC')"),
            format!("{at} < fromUnixTimestamp64Milli({to}, 'UTC')"),
        ]
    }

    /// Everything that a filter asks for but the range.
    fn conditions(&mut self, filter: &Filter) -> Vec<String> {
        let Filter {
            range: _,
            key_ids,
            outcomes,
            methods,
            routes,
            status_codes,
            resource_ids,
            secret_ids,
            denials,
        } = filter;
        let mut conditions = Vec::new();
        match key_ids.as_deref() {
            None => {}
            // Equality, not membership: only then is the log of a key read in its order, from its end.
            Some([key_id]) => {
                let key_id = self.put("key_id", Value::Uuid(key_id.as_uuid()));
                conditions.push(format!("key_id = {key_id}"));
            }
            Some(key_ids) => {
                let key_ids = self.put("key_ids", Value::Uuids(key_ids.iter().map(KeyId::as_uuid).collect()));
                conditions.push(format!("key_id in {key_ids}"));
            }
        }
        if let Some(outcomes) = outcomes {
            let names = outcomes.iter().map(|outcome| outcome.as_str().to_owned()).collect::<Vec<_>>();
            conditions.push(self.any_of("outcome", "outcomes", &names));
        }
        if let Some(secret_ids) = secret_ids {
            let secret_ids = secret_ids.iter().map(SecretId::as_uuid).collect();
            let secret_ids = self.put("secret_ids", Value::Uuids(secret_ids));
            conditions.push(format!("secret_id in {secret_ids}"));
        }
        if let Some(codes) = status_codes {
            let codes = self.put("status_codes", Value::Codes(codes.clone()));
            conditions.push(format!("status_code in {codes}"));
        }
        for (column, name, values) in [
            ("method", "methods", methods),
            ("route", "routes", routes),
            ("resource_id", "resource_ids", resource_ids),
            ("denial", "denials", denials),
        ] {
            if let Some(values) = values {
                conditions.push(self.any_of(column, name, values));
            }
        }
        conditions
    }

    fn any_of(&mut self, column: &str, name: &str, values: &[String]) -> String {
        if values.len() <= VALUES_PER_PARAMETER {
            let values = self.put(name, Value::Texts(values.to_vec()));
            return format!("{column} in {values}");
        }
        let parts = values.chunks(VALUES_PER_PARAMETER).enumerate().map(|(index, values)| {
            let values = self.put(&format!("{name}_{index}"), Value::Texts(values.to_vec()));
            format!("{column} in {values}")
        });
        format!("({})", parts.collect::<Vec<_>>().join(" or "))
    }
}

/// The time of an event as far as a source tells it.
const fn time_of(source: Source) -> &'static str {
    match source {
        Source::Rows => "occurred_at",
        Source::Quarters => "toStartOfFifteenMinutes(occurred_at)",
    }
}

#[cfg(test)]
mod tests;
