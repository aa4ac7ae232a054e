//! Questions that are answered by counts.

use domain::WorkspaceId;

use super::{Builder, Source, Statement, Value, time_of};
use crate::{
    condition::{Condition, Detail},
    plan::Plan,
};

const COUNTS: &str = "\
    sum(calls) as total_count,\n  \
    sumIf(calls, outcome = 'completed') as completed_count,\n  \
    sumIf(calls, outcome = 'failed') as failed_count,\n  \
    sumIf(calls, outcome = 'rate_limited') as rate_limited_count";

/// Bits of a 32-bit float that are left out of a latency's bucket: sixteen buckets for each factor of two.
const BUCKET_SHIFT: u32 = 19;

/// The longest latency that a call can have.
const LATENCY_MAX_US: u32 = u32::MAX;

/// What calls are told apart by, beside their outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dimension {
    Key,
    Method,
    StatusCode,
    StatusClass,
    Route,
    Outcome,
    Origin,
    Denial,
    Secret,
    ClientIp,
    Resource,
    UserAgent,
    Limit,
    Region,
}

impl Dimension {
    pub(crate) const fn detail(self) -> Detail {
        match self {
            Self::Key
            | Self::Method
            | Self::StatusCode
            | Self::StatusClass
            | Self::Outcome
            | Self::Origin
            | Self::Denial => Detail::Answers,
            Self::Route => Detail::Routes,
            Self::Secret | Self::ClientIp | Self::Resource | Self::UserAgent | Self::Limit | Self::Region => {
                Detail::Calls
            }
        }
    }

    const fn column(self) -> &'static str {
        match self {
            Self::Key => "toString(key_id)",
            Self::Method => "toString(method)",
            Self::StatusCode => "toString(status_code)",
            Self::StatusClass => "toString(intDiv(status_code, 100))",
            Self::Route => "toString(route)",
            Self::Outcome => "toString(outcome)",
            Self::Origin => "toString(origin)",
            Self::Denial => "toString(denial)",
            Self::Secret => "toString(secret_id)",
            Self::ClientIp => r"replaceRegexpOne(toString(client_ip), '^::ffff:([0-9.]+)$', '\\1')",
            Self::Resource => "resource_id",
            Self::UserAgent => "toString(user_agent)",
            Self::Limit => "toString(limit_name)",
            Self::Region => "toString(region)",
        }
    }
}

/// Counts over everything: one row.
pub(crate) fn summary(workspace_id: WorkspaceId, condition: &Condition, plan: &Plan) -> Statement {
    let mut builder = Builder::new(workspace_id);
    let tallies = builder.tallies(condition, plan, &[], |_| String::new());
    builder.end("summary", format!("select\n  {COUNTS}\nfrom (\n{tallies}\n)"))
}

/// Counts by the values of `dimensions`, one or two: the `limit` most called ones, each `listed`, and one row, not
/// `listed`, with all the others together.
pub(crate) fn breakdown(
    workspace_id: WorkspaceId,
    condition: &Condition,
    plan: &Plan,
    dimensions: (Dimension, Option<Dimension>),
    limit: u32,
) -> Statement {
    let (value, second) = (dimensions.0.column(), dimensions.1.map_or("''", Dimension::column));
    let mut builder = Builder::new(workspace_id);
    let tallies = builder.tallies(condition, plan, &["value", "second"], |_| {
        format!("{value} as value, {second} as second, ")
    });
    let limit = builder.put("limit", Value::Int(limit.into()));
    builder.end(
        "breakdown",
        format!(
            "select
  place <= {limit} as listed,
  if(listed, value, '') as name,
  if(listed, second, '') as second_name,
  count() as value_count,
  sum(total_count) as total,
  sum(completed_count) as completed,
  sum(failed_count) as failed,
  sum(rate_limited_count) as rate_limited
from (
select
  value,
  second,
  {COUNTS},
  row_number() over (order by total_count desc, value, second) as place
from (
{tallies}
)
group by value, second
)
group by listed, name, second_name
order by listed desc, total desc, name, second_name"
        ),
    )
}

/// Counts by bars that begin at `starts_s`, in seconds since 1970, in order; bars without calls are left out.
pub(crate) fn series(
    workspace_id: WorkspaceId,
    condition: &Condition,
    plan: &Plan,
    starts_s: &[i64],
) -> Statement {
    let mut builder = Builder::new(workspace_id);
    let starts = builder.put("starts_s", Value::Ints(starts_s.to_vec()));
    let tallies = builder.tallies(condition, plan, &["start_s"], |source| bar(source, &starts));
    let tallies = if plan.moved.is_empty() {
        tallies
    } else {
        let signed = builder.moved(&tallies, condition, plan, &starts, &[]);
        format!(
            "select start_s, outcome, toUInt64(greatest(sum(signed), 0)) as calls
from (
{signed}
)
group by start_s, outcome"
        )
    };
    builder.end(
        "series",
        format!("select\n  start_s,\n  {COUNTS}\nfrom (\n{tallies}\n)\ngroup by start_s\norder by start_s"),
    )
}

/// Counts by bar as in a series, by method, and by status code, all from one read; what has no calls is left out.
pub(crate) fn overview(
    workspace_id: WorkspaceId,
    condition: &Condition,
    plan: &Plan,
    starts_s: &[i64],
) -> Statement {
    let (method, status_code) = (Dimension::Method.column(), Dimension::StatusCode.column());
    let mut builder = Builder::new(workspace_id);
    let starts = builder.put("starts_s", Value::Ints(starts_s.to_vec()));
    let tallies = builder.tallies(condition, plan, &["start_s", "value", "second"], |source| {
        format!("{}{method} as value, {status_code} as second, ", bar(source, &starts))
    });
    let signed = builder.moved(&tallies, condition, plan, &starts, &["value", "second"]);
    builder.end(
        "overview",
        format!(
            "select
  part.1 as kind,
  toInt64(part.2) as start_s,
  part.3 as name,
  {COUNTS}
from (
select part, outcome, toUInt64(greatest(sum(signed), 0)) as calls
from (
{signed}
)
array join [('bar', start_s, ''), ('method', 0, value), ('status_code', 0, second)] as part
group by part, outcome
having calls > 0
)
group by part"
        ),
    )
}

/// Counts, last call and bars of the `limit` most called keys; `key_count` is the number of all.
pub(crate) fn key_usage(
    workspace_id: WorkspaceId,
    condition: &Condition,
    plan: &Plan,
    starts_s: &[i64],
    limit: u32,
) -> Statement {
    let mut builder = Builder::new(workspace_id);
    let starts = builder.put("starts_s", Value::Ints(starts_s.to_vec()));
    let tallies = builder.segments(plan, condition, |source, events| {
        let bar = bar(source, &starts);
        let (calls, last) = match source {
            Source::Archive => ("toUInt64(sum(archive.calls))", "max(last_occurred_at)"),
            _ => ("count()", "max(occurred_at)"),
        };
        let events = aliased(&events);
        format!(
            "select key_id, {bar}outcome, {calls} as calls, {last} as last_at\n{events}\ngroup by key_id, start_s, outcome"
        )
    });
    let limit = builder.put("limit", Value::Int(limit.into()));
    builder.end(
        "key_usage",
        format!(
            "select
  key_id,
  sum(bar_count) as total_count,
  sum(completed) as completed_count,
  sum(failed) as failed_count,
  sum(rate_limited) as rate_limited_count,
  toUnixTimestamp64Milli(max(last)) as last_occurred_at_ms,
  groupArray(start_s) as bar_starts_s,
  groupArray(bar_count) as bar_counts,
  groupArray(failed + rate_limited) as bar_error_counts,
  count() over () as key_count
from (
select
  key_id,
  start_s,
  sum(calls) as bar_count,
  sumIf(calls, outcome = 'completed') as completed,
  sumIf(calls, outcome = 'failed') as failed,
  sumIf(calls, outcome = 'rate_limited') as rate_limited,
  max(last_at) as last
from (
{tallies}
)
group by key_id, start_s
)
group by key_id
order by total_count desc, UUIDToNum(key_id)
limit {limit}"
        ),
    )
}

/// Percentiles of latency, in microseconds: from the calls themselves, or, if not `is_exact`, from the middles of
/// buckets.
pub(crate) fn latency(
    workspace_id: WorkspaceId,
    condition: &Condition,
    plan: &Plan,
    is_exact: bool,
) -> Statement {
    let mut builder = Builder::new(workspace_id);
    let levels = "0.5, 0.9, 0.95, 0.99";
    if is_exact {
        let events = builder.segments(plan, condition, |_, events| events);
        return builder.end("latency", format!(
            "select\n  count() as call_count,\n  quantilesExact({levels})(latency_us) as percentiles_us,\n  \
             max(latency_us) as max_us\n{events}"
        ));
    }
    let (bucket, middle_us) = (bucket(), middle_us());
    let buckets = builder.segments(plan, condition, |_, events| {
        format!(
            "select\n  {bucket} as bucket,\n  \
             count() as calls,\n  max(latency_us) as longest\n{events}\ngroup by bucket"
        )
    });
    builder.end("latency", format!(
        "select\n  sum(calls) as call_count,\n  quantilesExactWeighted({levels})(middle_us, calls) as percentiles_us,\n  \
         max(longest) as max_us\nfrom (\nselect {middle_us} as middle_us, calls, longest\nfrom (\n{buckets}\n)\n)"
    ))
}

/// How long 95 of 100 calls took, in microseconds, for each of the values of a dimension: the middle of a bucket.
pub(crate) fn p95_by(
    workspace_id: WorkspaceId,
    condition: &Condition,
    plan: &Plan,
    dimension: Dimension,
    values: Vec<String>,
) -> Statement {
    let mut builder = Builder::new(workspace_id);
    let values = builder.put("values", Value::Texts(values));
    let (value, bucket, middle_us) = (dimension.column(), bucket(), middle_us());
    let buckets = builder.segments(plan, condition, |_, events| {
        format!(
            "select\n  {value} as value,\n  {bucket} as bucket,\n  count() as calls\n{events}\n  \
             and {value} in {values}\ngroup by value, bucket"
        )
    });
    builder.end("p95_by", format!(
        "select value, quantileExactWeighted(0.95)({middle_us}, calls) as p95_us\nfrom (\n{buckets}\n)\ngroup by value"
    ))
}

/// Number of the bucket that a latency is in.
fn bucket() -> String {
    format!("bitShiftRight(reinterpretAsUInt32(toFloat32(latency_us)), {BUCKET_SHIFT})")
}

/// Middle of a bucket; that of the last one is above what fits.
fn middle_us() -> String {
    let middle = format!(
        "reinterpretAsFloat32(toUInt32(bitShiftLeft(toUInt64(bucket), {BUCKET_SHIFT}) + {}))",
        1 << (BUCKET_SHIFT - 1)
    );
    format!("toUInt32(least(round({middle}), {LATENCY_MAX_US}))")
}

/// Numbers of different callers: one row.
pub(crate) fn callers(workspace_id: WorkspaceId, condition: &Condition, plan: &Plan) -> Statement {
    let mut builder = Builder::new(workspace_id);
    let events = builder.segments(plan, condition, |_, events| events);
    builder.end("callers", format!(
        "select\n  uniqExact(client_ip) as client_ip_count,\n  uniqExact(user_agent) as user_agent_count,\n  \
         uniqExact(key_id) as key_count\n{events}"
    ))
}

/// Start of a call's bar, as `start_s`.
fn bar(source: Source, starts: &str) -> String {
    let at = time_of(source);
    let seconds = match source {
        Source::Rows | Source::Quarters => format!("toInt64(toUnixTimestamp({at}))"),
        Source::Days => noon_s(at),
        Source::Archive => format!("toInt64(toUInt16({at})) * 86400"),
    };
    format!("toInt64(roundDown({seconds}, {starts})) as start_s, ")
}

/// Noon of a day, in seconds since 1970: days are counted with the bar that it lies in.
fn noon_s(day: &str) -> String {
    format!("toInt64(toUInt16({day})) * 86400 + 43200")
}

/// The archive has a column `calls` of its own.
fn aliased(events: &str) -> String {
    events.replacen("keymeter.daily_totals", "keymeter.daily_totals as archive", 1)
}

impl Builder {
    /// Tallies by bar and by other `names`, and with them the plan's moved calls, taken from the bar of their day's noon and
    /// added to their own, under no name. What comes in between two reads of one question may make the sum of a bar
    /// negative, for that moment.
    fn moved(
        &mut self,
        tallies: &str,
        condition: &Condition,
        plan: &Plan,
        starts: &str,
        names: &[&str],
    ) -> String {
        let named = names.iter().map(|name| format!("{name}, ")).collect::<String>();
        let tallies =
            format!("select start_s, {named}outcome, toInt64(calls) as signed\nfrom (\n{tallies}\n)");
        if plan.moved.is_empty() {
            return tallies;
        }
        let days = plan.segments.iter().filter(|segment| segment.source == Source::Days);
        let days: Vec<_> = days.flat_map(|segment| segment.spans.iter().copied()).collect();
        let mut conditions = self.conditions(condition);
        conditions.push(self.within(Source::Rows, &days));
        // Other calls of these days are in the bar of their noon: what is read of them changes nothing.
        conditions.push(format!("indexHint({})", self.within(Source::Rows, &plan.moved)));
        let events = Self::events(Source::Rows, &[], &conditions);
        let (own, noon) = ("toInt64(toUnixTimestamp(quarter))", noon_s("toDate(quarter)"));
        let nameless = "'', ".repeat(names.len());
        format!(
            "{tallies}
union all
select start_s, {nameless}outcome, change
from (
select toStartOfFifteenMinutes(occurred_at) as quarter, outcome, toInt64(count()) as beyond
{events}
group by quarter, outcome
)
array join
  [toInt64(roundDown({own}, {starts})), toInt64(roundDown({noon}, {starts}))] as start_s,
  [beyond, -beyond] as change"
        )
    }

    /// Numbers of calls by outcome and by what `group` selects under `names`, each column with a comma behind it.
    fn tallies(
        &mut self,
        condition: &Condition,
        plan: &Plan,
        names: &[&str],
        group: impl Fn(Source) -> String,
    ) -> String {
        let by = names.iter().map(|name| format!("{name}, ")).collect::<String>();
        self.segments(plan, condition, |source, events| {
            let calls = match source {
                Source::Archive => "toUInt64(sum(archive.calls))",
                _ => "count()",
            };
            let (group, events) = (group(source), aliased(&events));
            format!("select {group}outcome, {calls} as calls\n{events}\ngroup by {by}outcome")
        })
    }
}
