//! A receipt in words: which edges refuse what was just withdrawn.

use proto::keys::{Receipt, ReceiptState};

use crate::{
    failure::{Exit, Failure},
    screen::Screen,
    words::latency,
};

/// A sentence, and what it comes to for the exit code; `screen` says how times look.
pub(crate) fn tell(receipt: Option<&Receipt>, screen: &Screen) -> (String, Result<(), Failure>) {
    let unknown = "edges refuse it as soon as they hear of it, usually well under a second".to_owned();
    let Some(receipt) = receipt else { return (unknown, Ok(())) };
    let (refusing, edges) = (receipt.edges_refusing, receipt.edges);
    let after = receipt.elapsed.as_ref().map_or(0, |elapsed| {
        u64::try_from(elapsed.seconds).unwrap_or(0) * 1_000_000
            + u64::from(elapsed.nanos.unsigned_abs()) / 1_000
    });
    let after = latency(after);
    match receipt.state() {
        ReceiptState::Complete if edges == 0 => {
            ("no edge is running, so no call is served".to_owned(), Ok(()))
        }
        ReceiptState::Complete => (format!("refused by {refusing} of {edges} edges after {after}"), Ok(())),
        ReceiptState::Partial => {
            let silent = receipt.silent_edges.iter().map(|edge| {
                let seen = screen.time(edge.last_seen_time.as_ref(), "never");
                let refuses = edge.fails_closed_time.as_ref();
                let refuses =
                    refuses.map_or("by itself never".to_owned(), |at| screen.time(Some(at), "some time"));
                format!("\n{} gave no answer: last seen {seen}, refuses every call {refuses}", edge.edge_id)
            });
            let text = format!(
                "refused by {refusing} of {edges} edges within {after}{}",
                silent.collect::<String>()
            );
            let why = "some edge has not said that it refuses the key; the command can be repeated";
            (text, Err(Failure::new(Exit::Unconfirmed, why)))
        }
        ReceiptState::NotAwaited | ReceiptState::Unspecified => (unknown, Ok(())),
    }
}

#[cfg(test)]
mod tests {
    use proto::{keys::SilentEdge, timestamp::to_proto};
    use time::macros::datetime;

    use super::*;
    use crate::arguments::{Output, Show};

    fn told(receipt: &Receipt) -> (String, Option<Exit>) {
        let screen = Screen::new(&Show { output: Output::Table, utc: true });
        let (text, result) = tell(Some(receipt), &screen);
        (text, result.err().map(|failure| failure.exit))
    }

    fn receipt(state: ReceiptState, edges_refusing: i32, edges: i32) -> Receipt {
        let elapsed = Some(prost_types::Duration { seconds: 0, nanos: 84_200_000 });
        Receipt { state: state.into(), edges_refusing, edges, elapsed, silent_edges: vec![] }
    }

    #[test]
    fn a_receipt_says_who_refuses_and_after_how_long() {
        let complete = told(&receipt(ReceiptState::Complete, 3, 3));
        assert_eq!(complete, ("refused by 3 of 3 edges after 84.2 ms".into(), None));
        assert!(told(&receipt(ReceiptState::Complete, 0, 0)).0.starts_with("no edge is running"));
        assert!(told(&receipt(ReceiptState::NotAwaited, 0, 3)).0.starts_with("edges refuse it as soon"));
    }

    #[test]
    fn silent_edges_are_named_and_no_success() {
        let silent = SilentEdge {
            edge_id: "edge_1".into(),
            last_seen_time: Some(to_proto(datetime!(2026-11-22 12:00 UTC))),
            fails_closed_time: Some(to_proto(datetime!(2026-11-22 12:00:30 UTC))),
        };
        let stubborn = SilentEdge { edge_id: "edge_2".into(), ..SilentEdge::default() };
        let partial =
            Receipt { silent_edges: vec![silent, stubborn], ..receipt(ReceiptState::Partial, 1, 3) };
        let expected = "refused by 1 of 3 edges within 84.2 ms\n\
                        edge_1 gave no answer: last seen 2026-11-22T12:00:00Z, refuses every call 2026-11-22T12:00:30Z\n\
                        edge_2 gave no answer: last seen never, refuses every call by itself never";
        assert_eq!(told(&partial), (expected.into(), Some(Exit::Unconfirmed)));
    }
}
