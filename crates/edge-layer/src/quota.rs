//! How many calls a second of a workspace go the common way to the counts. What is beyond goes another way, through a stream
//! of its own, so that one loud workspace keeps nobody else waiting. Nothing is refused or lost by it.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use domain::WorkspaceId;

/// Places for workspaces. Two that share one share a quota, which costs them no more than some delay.
const PLACES: usize = 1 << 14;
/// Most workspaces that are counted by name.
const NAMED_MAX: usize = 1000;

/// The calls of each workspace in this second.
#[derive(Debug)]
pub struct Quota {
    per_second: u32,
    began: Instant,
    /// The second since `began` in the upper half, its calls in the lower one.
    places: Box<[AtomicU64]>,
    beyond: Mutex<BTreeMap<Option<WorkspaceId>, u64>>,
}

impl Quota {
    /// So many calls a second of each workspace.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        let places = std::iter::repeat_with(AtomicU64::default).take(PLACES).collect();
        Self { per_second, began: Instant::now(), places, beyond: Mutex::default() }
    }

    /// Counts a call, and says whether it is within the quota of its workspace.
    pub fn admits(&self, workspace_id: &WorkspaceId, at: Instant) -> bool {
        let second = at.saturating_duration_since(self.began).as_secs() << 32;
        let bits = workspace_id.as_uuid().as_u128();
        // The last bits of a UUIDv7 are random.
        let place = &self.places[bits as usize % PLACES];
        let calls = if place.load(Relaxed) >> 32 == second >> 32 {
            place.fetch_add(1, Relaxed) & u64::from(u32::MAX)
        } else {
            // Calls of the same moment may be missed: the quota is no count.
            place.store(second + 1, Relaxed);
            0
        };
        let is_within = calls < u64::from(self.per_second);
        if !is_within {
            self.note(*workspace_id);
        }
        is_within
    }

    fn note(&self, workspace_id: WorkspaceId) {
        let mut beyond = self.beyond.lock().unwrap_or_else(PoisonError::into_inner);
        let is_named = beyond.len() < NAMED_MAX || beyond.contains_key(&Some(workspace_id));
        let calls = beyond.entry(is_named.then_some(workspace_id)).or_insert_with(|| {
            let per_second = self.per_second;
            tracing::warn!(workspace.id = %workspace_id, per_second, "calls beyond the quota of a workspace are counted later");
            0
        });
        *calls += 1;
    }

    /// The calls that were beyond, by workspace; `None` for those that are one too many to be named.
    pub(crate) fn beyond(&self) -> Vec<(Option<WorkspaceId>, u64)> {
        let beyond = self.beyond.lock().unwrap_or_else(PoisonError::into_inner);
        beyond.iter().map(|(workspace_id, calls)| (*workspace_id, *calls)).collect()
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
        assert_eq!(quota.beyond(), [(Some(loud), 24)]);
    }

    #[test]
    fn names_have_a_limit_and_calls_none() {
        let quota = Quota::new(0);
        let at = quota.began;
        for _ in 0..NAMED_MAX + 5 {
            assert!(!quota.admits(&WorkspaceId::generate(), at));
        }
        let beyond = quota.beyond();
        assert_eq!(beyond.len(), NAMED_MAX + 1);
        assert_eq!(beyond[0], (None, 5));
    }
}
