//! A receipt in words: which edges refuse what was just withdrawn. Pure.

use proto::keys::{Receipt, ReceiptState};
use time::OffsetDateTime;

use crate::format::{Moment, Show, latency};

/// What is said of a receipt.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ReceiptView {
    /// Every edge refuses it.
    pub(crate) is_complete: bool,
    /// A sentence.
    pub(crate) text: String,
    /// Edges that gave no answer.
    pub(crate) silent: Vec<SilentEdgeView>,
}

/// An edge that gave no answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SilentEdgeView {
    /// `edge_…`
    pub(crate) edge_id: String,
    /// When it last lived.
    pub(crate) last_seen: Option<Moment>,
    /// By when it refuses every call; `None` if it never does by itself.
    pub(crate) fails_closed: Option<Moment>,
}

impl ReceiptView {
    /// The view of a receipt, if there is one, at `now`.
    #[must_use]
    pub(crate) fn new(receipt: Option<&Receipt>, now: OffsetDateTime) -> Self {
        let Some(receipt) = receipt else { return Self::unknown() };
        let (refusing, edges) = (receipt.edges_refusing, receipt.edges);
        let within = receipt.elapsed.as_ref().map_or_else(String::new, |elapsed| {
            let micros = elapsed.seconds.saturating_mul(1_000_000) + i64::from(elapsed.nanos / 1_000);
            latency(u32::try_from(micros).unwrap_or(u32::MAX))
        });
        let text = match receipt.state() {
            ReceiptState::Complete if edges == 0 => "No edge is running, so no call is served.".to_owned(),
            ReceiptState::Complete => format!("Refused by {refusing} of {edges} edges after {within}."),
            ReceiptState::Partial => format!("Refused by {refusing} of {edges} edges within {within}."),
            ReceiptState::NotAwaited | ReceiptState::Unspecified => return Self::unknown(),
        };
        let moment = |at: &Option<_>| Moment::of(at.as_ref(), Show::Clock, now);
        let silent = receipt.silent_edges.iter().map(|edge| SilentEdgeView {
            edge_id: edge.edge_id.clone(),
            last_seen: moment(&edge.last_seen_time),
            fails_closed: moment(&edge.fails_closed_time),
        });
        Self { is_complete: receipt.state() == ReceiptState::Complete, text, silent: silent.collect() }
    }

    fn unknown() -> Self {
        let text = "Edges refuse it as soon as they hear of it, usually well under a second.".to_owned();
        Self { is_complete: false, text, silent: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use proto::{keys::SilentEdge, timestamp::to_proto};
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-22 12:00 UTC);

    fn receipt(state: ReceiptState, edges_refusing: i32, edges: i32) -> Receipt {
        let elapsed = Some(prost_types::Duration { seconds: 0, nanos: 84_200_000 });
        Receipt { state: state.into(), edges_refusing, edges, elapsed, silent_edges: vec![] }
    }

    #[test]
    fn a_receipt_says_who_refuses_and_after_how_long() {
        let said = |receipt: &Receipt| ReceiptView::new(Some(receipt), NOW).text;
        assert_eq!(said(&receipt(ReceiptState::Complete, 3, 3)), "Refused by 3 of 3 edges after 84.2 ms.");
        assert_eq!(said(&receipt(ReceiptState::Partial, 2, 3)), "Refused by 2 of 3 edges within 84.2 ms.");
        assert!(said(&receipt(ReceiptState::Complete, 0, 0)).starts_with("No edge is running"));
        assert_eq!(said(&receipt(ReceiptState::NotAwaited, 0, 3)), ReceiptView::new(None, NOW).text);
    }

    #[test]
    fn silent_edges_are_named_with_the_time_when_they_refuse_all() {
        let silent = SilentEdge {
            edge_id: "edge_1".into(),
            last_seen_time: Some(to_proto(NOW - time::Duration::seconds(6))),
            fails_closed_time: Some(to_proto(NOW + time::Duration::seconds(24))),
        };
        let stubborn = SilentEdge { fails_closed_time: None, ..silent.clone() };
        let partial =
            Receipt { silent_edges: vec![silent, stubborn], ..receipt(ReceiptState::Partial, 1, 3) };
        let view = ReceiptView::new(Some(&partial), NOW);
        let at = |seconds| Some(Moment::new(NOW + time::Duration::seconds(seconds), Show::Clock, NOW));
        assert!(!view.is_complete);
        assert_eq!(view.silent[0].edge_id, "edge_1");
        assert_eq!((&view.silent[0].last_seen, &view.silent[0].fails_closed), (&at(-6), &at(24)));
        assert_eq!(view.silent[1].fails_closed, None);
    }
}
