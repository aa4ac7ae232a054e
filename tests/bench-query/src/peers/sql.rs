//! A question as SQL over a table of calls, for engines that know `filter (where …)`. Values are our own and hold no
//! quotes.

use crate::{
    ours::LOG_ROWS,
    questions::{By, Condition, Field, Kind, Question, Range},
};

/// Columns of a call but for its time, named the same everywhere.
pub(crate) const COLUMNS: &str = "request_id, key_id, secret_id, method, route, path, resource_id, status_code, \
     outcome, origin, denial, limit_name, latency_us, request_bytes, response_bytes, client_ip, user_agent, region, \
     edge_id";
/// Those that a page of the log shows unless somebody chooses others.
const PAGE_COLUMNS: &str = "request_id, method, route, status_code, outcome";
const COUNTS: &str = "count(*), count(*) filter (where outcome = 'completed'), \
     count(*) filter (where outcome = 'failed'), count(*) filter (where outcome = 'rate_limited')";

/// What differs from engine to engine.
pub(crate) trait Dialect {
    const TABLE: &str;
    const TIME: &str;
    /// Median, three more percentiles and the longest of `latency_us`.
    const PERCENTILES: &str;

    /// A time since 1970, as it can be compared with the time's column.
    fn moment(ms: i64) -> String;
    /// The day of a call, by the clocks of a time zone.
    fn day(zone: &str) -> String;
}

/// One statement, or several that are asked at once. The first column of a single line is what was counted.
pub(crate) fn statements<D: Dialect>(question: &Question) -> Vec<String> {
    match question.kind {
        Kind::Page => {
            let kinds = [Kind::Summary, Kind::Log].into_iter().chain(By::ALL.map(Kind::Breakdown));
            kinds.map(|kind| statement::<D>(question, kind)).collect()
        }
        kind => vec![statement::<D>(question, kind)],
    }
}

fn statement<D: Dialect>(question: &Question, kind: Kind) -> String {
    let (table, time, meant) = (D::TABLE, D::TIME, meant::<D>(question, kind));
    match kind {
        Kind::Summary => format!("select {COUNTS} from {table} where {meant}"),
        Kind::Breakdown(by) => {
            let (column, limit) = (by.column(), by.limit());
            format!(
                "select {column}, {COUNTS} from {table} where {meant} group by 1 order by 2 desc, 1 limit {limit}"
            )
        }
        Kind::Series(zone) => {
            let day = D::day(zone);
            format!("select {day}, {COUNTS} from {table} where {meant} group by 1 order by 1")
        }
        Kind::Latency => format!("select count(*), {} from {table} where {meant}", D::PERCENTILES),
        Kind::Log | Kind::Page => format!(
            "select {PAGE_COLUMNS}, {time} from {table} where {meant} order by {time} desc, request_id desc limit {LOG_ROWS}"
        ),
        Kind::Call => format!("select {COLUMNS}, {time} from {table} where {meant}"),
        Kind::KeyUsage => {
            let day = D::day("UTC");
            format!("select key_id, {day}, {COUNTS}, max({time}) from {table} where {meant} group by 1, 2")
        }
    }
}

fn meant<D: Dialect>(question: &Question, kind: Kind) -> String {
    let Question { key, range: Range { from_ms, to_ms, .. }, .. } = question;
    let workspace = format!("workspace_id = '{}'", key.workspace_id.as_uuid());
    if kind == Kind::Call {
        return format!("{workspace} and request_id = '{}'", key.request_id.as_uuid());
    }
    let (time, from, to) = (D::TIME, D::moment(*from_ms), D::moment(*to_ms));
    let mut meant = format!("{workspace} and {time} >= {from} and {time} < {to}");
    if kind != Kind::KeyUsage {
        meant += &format!(" and key_id = '{}'", key.key_id.as_uuid());
    }
    for (field, value) in &question.conditions {
        meant += &condition(&(*field, value.clone()));
    }
    meant
}

fn condition((field, value): &Condition) -> String {
    let column = field.column();
    match field {
        Field::LatencyUsFrom => format!(" and {column} >= {value}"),
        Field::StatusCode => format!(" and {column} = {value}"),
        _ => format!(" and {column} = '{value}'"),
    }
}
