//! The one place where a question becomes SQL. Values never enter the text: each is a server-side parameter,
//! `{name:Type}`. The workspace is a condition of every statement, added once, in [`Builder::events`]. Pure.

use std::net::Ipv6Addr;

use domain::WorkspaceId;
use uuid::Uuid;

use crate::{
    condition::{Condition, Detail},
    plan::{Plan, Segment, Source, Span},
};

mod calls;
mod conditions;
mod horizon;
mod totals;

pub(crate) use calls::{
    Direction, Fields, Part, Position, Since, call, export, export_count, export_end, page, quarters, tail,
    tail_ends,
};
pub(crate) use horizon::{archive, gaps, gaps_version, probe, retentions, watermarks};
pub(crate) use totals::{
    Dimension, breakdown, callers, key_usage, latency, overview, p95_by, series, summary,
};

/// SQL and its parameters, by name; and a name of its own, for spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    pub(crate) name: &'static str,
    pub(crate) text: String,
    pub(crate) params: Vec<(String, Value)>,
}

/// A parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Int(i64),
    Ints(Vec<i64>),
    Uuid(Uuid),
    Uuids(Vec<Uuid>),
    Codes(Vec<u16>),
    Ips(Vec<Ipv6Addr>),
    Texts(Vec<String>),
}

impl Value {
    const fn type_name(&self) -> &'static str {
        match self {
            Self::Int(_) => "Int64",
            Self::Ints(_) => "Array(Int64)",
            Self::Uuid(_) => "UUID",
            Self::Uuids(_) => "Array(UUID)",
            Self::Codes(_) => "Array(UInt16)",
            Self::Ips(_) => "Array(IPv6)",
            Self::Texts(_) => "Array(String)",
        }
    }
}

struct Builder {
    params: Vec<(String, Value)>,
}

impl Builder {
    fn new(workspace_id: WorkspaceId) -> Self {
        Self { params: vec![("workspace_id".to_owned(), Value::Uuid(workspace_id.as_uuid()))] }
    }

    /// The workspace's events that meet `conditions`, of which those in `first` are looked at before anything else is
    /// read.
    fn events(source: Source, first: &[String], conditions: &[String]) -> String {
        let table = match source {
            Source::Rows | Source::Quarters | Source::Days => "keymeter.request_events",
            Source::Archive => "keymeter.daily_totals",
        };
        let mut text = format!("from {table}");
        if !first.is_empty() {
            text.push_str("\nprewhere ");
            text.push_str(&first.join("\n  and "));
        }
        text.push_str("\nwhere workspace_id = {workspace_id:UUID}");
        for condition in conditions {
            text.push_str("\n  and ");
            text.push_str(condition);
        }
        text
    }

    fn end(self, name: &'static str, text: String) -> Statement {
        Statement { name, text, params: self.params }
    }

    /// Takes a parameter; returns what stands for it in the text. Of equal names the later ones get a number.
    fn put(&mut self, name: &str, value: Value) -> String {
        let is_taken = |name: &str| self.params.iter().any(|(taken, _)| taken == name);
        let mut unique = name.to_owned();
        for number in 2.. {
            if !is_taken(&unique) {
                break;
            }
            unique = format!("{name}_{number}");
        }
        let placeholder = format!("{{{unique}:{}}}", value.type_name());
        self.params.push((unique, value));
        placeholder
    }

    /// One select for each segment of the plan, joined, over what meets the condition there.
    fn segments(
        &mut self,
        plan: &Plan,
        condition: &Condition,
        select: impl Fn(Source, String) -> String,
    ) -> String {
        let nothing = [Segment { source: Source::Rows, spans: Vec::new() }];
        let segments = if plan.segments.is_empty() { &nothing[..] } else { &plan.segments };
        let (first, asked) = if condition.detail() == Detail::Calls {
            self.conditions_of_rows(condition)
        } else {
            (Vec::new(), self.conditions(condition))
        };
        let selects = segments.iter().map(|segment| {
            let mut conditions = asked.clone();
            conditions.push(self.within(segment.source, &segment.spans));
            select(segment.source, Self::events(segment.source, &first, &conditions))
        });
        selects.collect::<Vec<_>>().join("\nunion all\n")
    }

    /// In one of the spans.
    fn within(&mut self, source: Source, spans: &[Span]) -> String {
        let at = time_of(source);
        let spans = spans.iter().map(|span| {
            let from = self.put("from_ms", Value::Int(span.from_ms));
            let to = self.put("to_ms", Value::Int(span.to_ms));
            let time = |ms| match source {
                Source::Rows | Source::Quarters => format!("fromUnixTimestamp64Milli({ms}, 'UTC')"),
                Source::Days | Source::Archive => format!("toDate(fromUnixTimestamp64Milli({ms}, 'UTC'))"),
            };
            format!("{at} >= {} and {at} < {}", time(from), time(to))
        });
        let spans: Vec<_> = spans.collect();
        match &spans[..] {
            [] => "0".to_owned(),
            [span] => span.replace(" and ", "\n  and "),
            spans => format!("(({}))", spans.join(")\n    or (")),
        }
    }
}

/// The time of an event as far as a source tells it.
const fn time_of(source: Source) -> &'static str {
    match source {
        Source::Rows => "occurred_at",
        Source::Quarters => "toStartOfFifteenMinutes(occurred_at)",
        Source::Days => "toDate(occurred_at)",
        Source::Archive => "day",
    }
}

#[cfg(test)]
mod tests;
