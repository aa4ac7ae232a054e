//! Sequences that are closed and have no row, and why: so that an audit misses nothing else, and readers are told of
//! calls that are in no total. Pure.

use domain::WorkspaceId;
use time::{Duration, OffsetDateTime};

use crate::{erasures::Erased, event, intervals::Interval, time_rule};

/// Why there is no row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The edge had no room for it.
    Lost,
    /// It is in the dead letters.
    DeadLetter,
    /// Its workspace was erased.
    Erased,
    /// There was one, and nothing is left to make it anew from.
    Missing,
}

impl Reason {
    /// As the table has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::DeadLetter => "dead_letter",
            Self::Erased => "erased",
            Self::Missing => "missing",
        }
    }
}

/// Sequences of one boot of an edge without rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The edge that numbered them.
    pub edge_id: String,
    /// Its start that did.
    pub boot_epoch: u32,
    /// Which ones.
    pub interval: Interval,
    /// Why.
    pub reason: Reason,
    /// Whose they were, if that is known.
    pub workspace_id: Option<WorkspaceId>,
    /// When the first began; `None` if that is not known, so that their neighbours tell.
    pub from: Option<OffsetDateTime>,
    /// They began before this.
    pub to: OffsetDateTime,
}

impl Gap {
    /// Sequences that an edge says are lost.
    #[must_use]
    pub fn lost(edge_id: &str, boot_epoch: u32, interval: Interval, said_at: OffsetDateTime) -> Self {
        Self::of(edge_id, boot_epoch, interval, Reason::Lost, said_at)
    }

    /// Sequences whose rows are gone.
    #[must_use]
    pub fn missing(edge_id: &str, boot_epoch: u32, interval: Interval, found_at: OffsetDateTime) -> Self {
        Self::of(edge_id, boot_epoch, interval, Reason::Missing, found_at)
    }

    /// An erased event. Nothing is kept of when or whose it was.
    #[must_use]
    pub fn erased(edge_id: &str, boot_epoch: u32, edge_seq: u64) -> Self {
        let epoch = OffsetDateTime::UNIX_EPOCH;
        let gap = Self::of(edge_id, boot_epoch, (edge_seq, edge_seq), Reason::Erased, epoch);
        Self { from: Some(epoch), ..gap }
    }

    /// An unreadable event, with what could be read of it.
    #[must_use]
    pub fn dead_letter(
        edge_id: &str,
        boot_epoch: u32,
        edge_seq: u64,
        subject: (Option<WorkspaceId>, Option<OffsetDateTime>),
        published_at: OffsetDateTime,
    ) -> Self {
        let (workspace_id, occurred_at) = subject;
        let at = event::nanos(occurred_at.unwrap_or(published_at));
        let (at_ns, _) = time_rule::bucketed(at, event::nanos(published_at));
        let at = OffsetDateTime::UNIX_EPOCH + Duration::nanoseconds(at_ns);
        let to = at + Duration::MILLISECOND;
        let gap = Self::of(edge_id, boot_epoch, (edge_seq, edge_seq), Reason::DeadLetter, to);
        Self { workspace_id, from: Some(at), ..gap }
    }

    fn of(edge_id: &str, boot_epoch: u32, interval: Interval, reason: Reason, to: OffsetDateTime) -> Self {
        Self { edge_id: edge_id.to_owned(), boot_epoch, interval, reason, workspace_id: None, from: None, to }
    }

    fn is_erased_by(&self, erased: &Erased) -> bool {
        let began = self.from.unwrap_or(self.to);
        self.workspace_id.is_some_and(|workspace_id| erased.covers(workspace_id, event::nanos(began)))
    }
}

/// The gaps without what they tell of erased workspaces, and neighbours of one kind as one.
#[must_use]
pub fn settled(gaps: Vec<Gap>, erased: &Erased) -> Vec<Gap> {
    let mut settled: Vec<Gap> = Vec::with_capacity(gaps.len());
    for gap in gaps {
        let gap = if gap.is_erased_by(erased) {
            Gap::erased(&gap.edge_id, gap.boot_epoch, gap.interval.0)
        } else {
            gap
        };
        match settled.last_mut() {
            Some(last) if gap.reason == Reason::Erased && is_followed_by(last, &gap) => {
                last.interval.1 = gap.interval.1;
            }
            _ => settled.push(gap),
        }
    }
    settled
}

fn is_followed_by(gap: &Gap, next: &Gap) -> bool {
    gap.reason == next.reason
        && gap.edge_id == next.edge_id
        && gap.boot_epoch == next.boot_epoch
        && gap.interval.1 + 1 == next.interval.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example;

    #[test]
    fn nothing_is_told_of_erased_workspaces() {
        let event = example::event("edge_a", 1);
        let mut erased = Erased::default();
        erased.insert(event.workspace_id, event.occurred_at + Duration::HOUR);
        let subject = (Some(event.workspace_id), Some(event.occurred_at));
        let unreadable = |seq| Gap::dead_letter("edge_a", 1, seq, subject, event.occurred_at);
        let all = vec![unreadable(4), Gap::erased("edge_a", 1, 5), Gap::erased("edge_a", 1, 7)];
        assert_eq!(settled(all.clone(), &Erased::default()), all);
        let settled = settled(all, &erased);
        let shape: Vec<_> = settled.iter().map(|gap| (gap.interval, gap.reason, gap.workspace_id)).collect();
        assert_eq!(shape, [((4, 5), Reason::Erased, None), ((7, 7), Reason::Erased, None)]);
    }
}
