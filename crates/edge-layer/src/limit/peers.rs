//! The other edges, as far as their gossip tells: which start of each, and whether one of its messages is missing.
//! Pure: time is an argument.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use domain::EdgeId;

/// An edge that is silent for longer is not among those that use up limits now.
const LIVE_FOR: Duration = Duration::from_secs(5);
/// An edge that is silent for longer is a stranger when it comes back.
const KNOWN_FOR: Duration = Duration::from_secs(3600);
/// Most edges that are known at once; what more of them tell is not taken.
const PEERS_MAX: usize = 1024;

/// All edges that were heard of.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    known: HashMap<EdgeId, Peer>,
    /// Never given twice.
    next: u32,
}

#[derive(Debug)]
struct Peer {
    number: u32,
    boot_epoch: u32,
    sequence: u64,
    heard_at: Instant,
}

/// A message's sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sender {
    /// Our number for it, and its start.
    pub(crate) peer: (u32, u32),
    /// Something that it told before did not arrive.
    pub(crate) has_gap: bool,
}

impl Peers {
    /// Notes a message. `None` if it is of a start that is over, or of one edge too many.
    pub(crate) fn heard(
        &mut self,
        edge_id: EdgeId,
        boot_epoch: u32,
        sequence: u64,
        now: Instant,
    ) -> Option<Sender> {
        if let Some(known) = self.known.get_mut(&edge_id) {
            if boot_epoch < known.boot_epoch {
                return None;
            }
            let before = if boot_epoch == known.boot_epoch { known.sequence } else { 0 };
            let has_gap = sequence > before + 1;
            (known.boot_epoch, known.sequence, known.heard_at) = (boot_epoch, before.max(sequence), now);
            return Some(Sender { peer: (known.number, boot_epoch), has_gap });
        }
        if self.known.len() >= PEERS_MAX {
            self.forget(now);
        }
        if self.known.len() >= PEERS_MAX {
            return None;
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.known.insert(edge_id, Peer { number, boot_epoch, sequence, heard_at: now });
        // Whoever hears of an edge for the first time has asked it for everything, or is about to be told.
        Some(Sender { peer: (number, boot_epoch), has_gap: false })
    }

    /// How many edges tell something just now.
    pub(crate) fn live(&self, now: Instant) -> usize {
        let age = |peer: &&Peer| now.saturating_duration_since(peer.heard_at) < LIVE_FOR;
        self.known.values().filter(age).count()
    }

    /// Forgets edges that are silent for long.
    pub(crate) fn forget(&mut self, now: Instant) {
        self.known.retain(|_, peer| now.saturating_duration_since(peer.heard_at) < KNOWN_FOR);
    }
}

#[cfg(test)]
mod tests {
    use domain::Id;

    use super::*;

    #[test]
    fn a_missing_message_is_noticed() {
        let (mut peers, now) = (Peers::default(), Instant::now());
        let (a, b) = (Id::generate(), Id::generate());
        let mut heard = |edge, boot, sequence| {
            peers.heard(edge, boot, sequence, now).map(|sender| (sender.peer, sender.has_gap))
        };
        assert_eq!(heard(a, 1, 7), Some(((0, 1), false)), "a stranger");
        assert_eq!(heard(a, 1, 8), Some(((0, 1), false)));
        assert_eq!(heard(b, 1, 1), Some(((1, 1), false)));
        assert_eq!(heard(a, 1, 10), Some(((0, 1), true)));
        assert_eq!(heard(a, 1, 9), Some(((0, 1), false)), "late");
        assert_eq!(heard(a, 1, 11), Some(((0, 1), false)));
        assert_eq!(heard(a, 2, 1), Some(((0, 2), false)), "started again");
        assert_eq!(heard(a, 1, 12), None, "of a start that is over");
        assert_eq!(heard(a, 3, 2), Some(((0, 3), true)));
    }

    #[test]
    fn the_silent_are_forgotten_in_the_end() {
        let (mut peers, start) = (Peers::default(), Instant::now());
        for _ in 0..PEERS_MAX {
            assert!(peers.heard(Id::generate(), 1, 1, start).is_some());
        }
        assert_eq!(peers.live(start), PEERS_MAX);
        let later = start + KNOWN_FOR - Duration::from_secs(1);
        assert!(peers.heard(Id::generate(), 1, 1, later).is_none());
        assert_eq!(peers.live(later), 0);
        let later = start + KNOWN_FOR;
        let sender = peers.heard(Id::generate(), 1, 1, later).unwrap();
        assert_eq!(sender.peer.0 as usize, PEERS_MAX, "a number stands for one edge for ever");
        assert_eq!(peers.live(later), 1);
    }
}
