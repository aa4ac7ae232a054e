//! Which calls are meant: one filter for totals, the log, the live log and exports, as the pages have it.

use clap::Args;
use proto::{
    timestamp,
    usage::{Condition, Conditions, Match, Outcome, UsageFilter, condition::Kind},
};
use time::OffsetDateTime;

use crate::{
    clients::Clients,
    failure::Failure,
    key_reference,
    values::{self, StatusCodes},
    when::When,
};

/// What calls must have; each option takes several values, of which a call has one.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Which calls")]
pub(crate) struct Which {
    /// Key: id (key_…), resource name or exact name
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,
    /// What came of it
    #[arg(long = "outcome", value_name = "OUTCOME", value_delimiter = ',', value_parser = values::outcome())]
    outcomes: Vec<Outcome>,
    /// HTTP method
    #[arg(long = "method", value_name = "METHOD", value_delimiter = ',')]
    methods: Vec<String>,
    /// Route template, /v1/orders/{id}
    #[arg(long = "route", value_name = "ROUTE")]
    routes: Vec<String>,
    /// HTTP status, 404 or 4xx
    #[arg(long = "status", value_name = "STATUS", value_delimiter = ',', value_parser = values::status)]
    statuses: Vec<StatusCodes>,
    /// Id that the path names
    #[arg(long = "resource-id", value_name = "ID")]
    resource_ids: Vec<String>,
}

/// When calls began.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Which calls")]
pub(crate) struct Period {
    /// From when on: 15m, 24h, 7d ago, or a time in UTC
    #[arg(long, value_name = "WHEN", default_value = "7d")]
    pub(crate) since: When,
    /// Until when; now if not given
    #[arg(long, value_name = "WHEN")]
    pub(crate) until: Option<When>,
}

impl Period {
    /// `[from, to)` at `now`; the server says what is wrong with it.
    pub(crate) fn range(&self, now: OffsetDateTime) -> (OffsetDateTime, OffsetDateTime) {
        (self.since.past(now), self.until.as_ref().map_or(now, |until| until.past(now)))
    }
}

impl Which {
    /// The filter to ask with; looks up keys that are given by name.
    pub(crate) async fn filter(
        &self,
        clients: &mut Clients,
        (from, to): (OffsetDateTime, OffsetDateTime),
    ) -> Result<UsageFilter, Failure> {
        let mut key_ids = Vec::with_capacity(self.keys.len());
        for key in &self.keys {
            key_ids.push(key_reference::id(clients, key).await?.to_string());
        }
        Ok(self.to_proto(key_ids, from, to))
    }

    fn to_proto(&self, key_ids: Vec<String>, from: OffsetDateTime, to: OffsetDateTime) -> UsageFilter {
        let (mut status_codes, mut status_classes) = (Vec::new(), Vec::new());
        for status in &self.statuses {
            match *status {
                StatusCodes::One(code) => status_codes.push(code),
                StatusCodes::Class(class) => status_classes.push(class),
            }
        }
        // Lists hold all at once, but a call has one status: of both kinds any will do.
        let is_either = !status_codes.is_empty() && !status_classes.is_empty();
        let condition = is_either.then(|| {
            let codes = Match { status_codes: std::mem::take(&mut status_codes), ..Match::default() };
            let classes = Match { status_classes: std::mem::take(&mut status_classes), ..Match::default() };
            let one = |each| Condition { kind: Some(Kind::Match(Box::new(each))) };
            let conditions = vec![one(codes), one(classes)];
            Condition { kind: Some(Kind::AnyOf(Conditions { conditions })) }
        });
        UsageFilter {
            from: Some(timestamp::to_proto(from)),
            to: Some(timestamp::to_proto(to)),
            key_ids,
            outcomes: self.outcomes.iter().map(|outcome| i32::from(*outcome)).collect(),
            methods: self.methods.clone(),
            routes: self.routes.clone(),
            status_codes,
            status_classes,
            resource_ids: self.resource_ids.clone(),
            condition,
            ..UsageFilter::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Asked {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        period: Period,
    }

    fn asked(arguments: &[&str]) -> UsageFilter {
        let asked = Asked::parse_from([&["x"], arguments].concat());
        let now = OffsetDateTime::from_unix_timestamp(1_000_000).unwrap();
        let (from, to) = asked.period.range(now);
        asked.which.to_proto(asked.which.keys.clone(), from, to)
    }

    #[test]
    fn options_become_lists() {
        let filter = asked(&[
            "--since=1h",
            "--until=1m",
            "--outcome=failed,rate_limited",
            "--method",
            "GET",
            "--method=PUT",
            "--route=/v1/a,b",
            "--status=404,500",
            "--resource-id=7",
            "--key=key_1",
        ]);
        let expected = UsageFilter {
            from: Some(prost_types::Timestamp { seconds: 996_400, nanos: 0 }),
            to: Some(prost_types::Timestamp { seconds: 999_940, nanos: 0 }),
            key_ids: vec!["key_1".into()],
            outcomes: vec![Outcome::Failed.into(), Outcome::RateLimited.into()],
            methods: vec!["GET".into(), "PUT".into()],
            routes: vec!["/v1/a,b".into()],
            status_codes: vec![404, 500],
            resource_ids: vec!["7".into()],
            ..UsageFilter::default()
        };
        assert_eq!(filter, expected);
        let bare = asked(&[]);
        assert_eq!(bare.to.unwrap().seconds - bare.from.unwrap().seconds, 7 * 86_400);
    }

    #[test]
    fn codes_and_classes_are_alternatives() {
        let classes = asked(&["--status=4xx"]);
        assert_eq!((classes.status_classes, classes.condition), (vec![4], None));
        let both = asked(&["--status=404,5xx"]);
        assert_eq!((both.status_codes.len(), both.status_classes.len()), (0, 0));
        let Some(Kind::AnyOf(any)) = both.condition.unwrap().kind else { panic!("any of both") };
        assert_eq!(any.conditions.len(), 2);
    }
}
