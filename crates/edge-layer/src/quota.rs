//! How many calls a second of a workspace go the common way to the counts. What is beyond goes another way, through a stream
//! of its own, so that one loud workspace keeps nobody else waiting. Nothing is refused or lost by it.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Instant,
};

use domain::WorkspaceId;

/// Calls a second of a workspace that most edges have as its quota.
pub const CALLS_PER_S: u32 = 10_000;
/// Places for workspaces. Two that share one share a quota, which costs them no more than some delay.
const PLACES: usize = 1 << 14;
/// Most workspaces that the log names.
const NAMED_MAX: usize = 1000;

/// The calls of each workspace in this second.
#[derive(Debug)]
pub struct Quota {
    per_second: u32,
    began: Instant,
    places: Box<[Place]>,
    /// How many places the log has named a workspace of.
    named: AtomicUsize,
}

#[derive(Debug, Default)]
struct Place {
    /// The second since `began` in the upper half, its calls in the lower one.
    second: AtomicU64,
    /// Calls beyond, of all seconds.
    beyond: AtomicU64,
}

impl Quota {
    /// So many calls a second of each workspace.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        let places = std::iter::repeat_with(Place::default).take(PLACES).collect();
        Self { per_second, began: Instant::now(), places, named: AtomicUsize::default() }
    }

    /// Counts a call, and says whether it is within the quota of its workspace.
    pub fn admits(&self, workspace_id: &WorkspaceId, at: Instant) -> bool {
        let second = at.saturating_duration_since(self.began).as_secs() << 32;
        // The last bits of a UUIDv7 are random.
        let number = workspace_id.as_uuid().as_u128() as usize % PLACES;
        let place = &self.places[number];
        let calls = if place.second.load(Relaxed) >> 32 == second >> 32 {
            place.second.fetch_add(1, Relaxed) & u64::from(u32::MAX)
        } else {
            // Calls of the same moment may be missed: the quota is no count.
            place.second.store(second + 1, Relaxed);
            0
        };
        let is_within = calls < u64::from(self.per_second);
        if !is_within && place.beyond.fetch_add(1, Relaxed) == 0 {
            self.name(workspace_id);
        }
        is_within
    }

    fn name(&self, workspace_id: &WorkspaceId) {
        if self.named.fetch_add(1, Relaxed) < NAMED_MAX {
            let per_second = self.per_second;
            tracing::warn!(workspace.id = %workspace_id, per_second, "calls beyond the quota of a workspace are counted later");
        }
    }

    /// The calls that were beyond, of all workspaces.
    pub(crate) fn beyond(&self) -> u64 {
        self.places.iter().map(|place| place.beyond.load(Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_workspace_has_its_own_second() {
        let (quota, loud, other) = (Quota::new(3), WorkspaceId::generate(), WorkspaceId::generate());
        let at = quota.began + Duration::from_millis(1_200);
        let admitted = |workspace_id: &WorkspaceId, at, calls| {
            (0..calls).filter(|_| quota.admits(workspace_id, at)).count()
        };
        assert_eq!(admitted(&loud, at, 10), 3);
        assert_eq!(admitted(&other, at, 2), 2);
        assert_eq!(admitted(&loud, at + Duration::from_millis(700), 10), 0);
        assert_eq!(admitted(&loud, at + Duration::from_millis(800), 10), 3);
        assert_eq!(quota.beyond(), 24);
    }
}
