//! How far the page can be trusted, whose calls it shows, and who still calls a deleted key. Pure.

use domain::KeyId;
use proto::usage::{Breakdown, Counts};
use time::OffsetDateTime;

use crate::{
    format::{Moment, Show, count},
    pages::keys_view::KeyView,
};

/// How far the page can be trusted.
pub(crate) struct Trust {
    /// Everything before is counted; `None` before anything was.
    pub(crate) complete_up_to: Option<Moment>,
    /// Edges that are silent, and since when.
    pub(crate) unaccounted: Vec<(String, Option<Moment>)>,
    /// Before this time there are only totals of whole days; `None` if the period has none such.
    pub(crate) calls_from: Option<Moment>,
    /// Calls that are known to be missing, from the first moment to the last; `None` if none are.
    pub(crate) missing: Option<(Option<Moment>, Option<Moment>)>,
}

impl Trust {
    /// From the message.
    #[must_use]
    pub(crate) fn new(freshness: &proto::usage::Freshness, now: OffsetDateTime) -> Self {
        let edges = freshness.unaccounted_edges.iter();
        let at = |at: Option<&prost_types::Timestamp>| Moment::of(at, Show::Full, now);
        let gaps = || freshness.known_gaps.iter();
        let first = gaps().filter_map(|gap| gap.from.as_ref()).min_by_key(|at| (at.seconds, at.nanos));
        let last = gaps().filter_map(|gap| gap.to.as_ref()).max_by_key(|at| (at.seconds, at.nanos));
        Self {
            calls_from: Moment::of(freshness.calls_from.as_ref(), Show::Full, now),
            missing: gaps().next().map(|_| (at(first), at(last))),
            complete_up_to: Moment::of(freshness.complete_up_to.as_ref(), Show::Clock, now),
            unaccounted: edges
                .map(|edge| (edge.edge_id.clone(), Moment::of(edge.since.as_ref(), Show::Full, now)))
                .collect(),
        }
    }
}

/// Calls that came with a deleted key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct StillCalled {
    /// `412 times from 2 addresses`
    pub(crate) text: String,
}

impl StillCalled {
    /// From refused calls by address; `None` if there are none.
    #[must_use]
    pub(crate) fn new(by_address: &Breakdown) -> Option<Self> {
        let calls = |counts: &Option<Counts>| counts.as_ref().map_or(0, |counts| counts.total_count);
        let total =
            by_address.rows.iter().map(|row| calls(&row.counts)).sum::<u64>() + calls(&by_address.other);
        let addresses = by_address.rows.len() as u64 + by_address.other_value_count;
        let many = |number: u64, one: &str, more: &str| match number {
            1 => format!("1 {one}"),
            _ => format!("{} {more}", count(number)),
        };
        let text =
            format!("{} from {}", many(total, "time", "times"), many(addresses, "address", "addresses"));
        (total > 0).then_some(Self { text })
    }
}

/// Whose calls the page shows.
pub(crate) enum Scope {
    /// Its own key's.
    Own,
    /// Another key's.
    Other(Box<KeyView>),
    /// A key's that this workspace does not have, or that can not be looked up now.
    Unknown(KeyId),
    /// Every key's.
    Every,
}
