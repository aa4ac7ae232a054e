//! Who may ask ClickHouse now. A workspace has a share of the turns, so that one with many callers does not make those of
//! others wait.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use domain::WorkspaceId;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

/// Turns for all, and for each workspace. Clones share them.
#[derive(Clone)]
pub(crate) struct Turns {
    all: Arc<Semaphore>,
    each_max: usize,
    /// Only workspaces that have or wait for a turn.
    workspaces: Arc<Mutex<HashMap<WorkspaceId, Arc<Semaphore>>>>,
}

/// A turn, until it is dropped.
pub(crate) struct Turn {
    turns: Turns,
    workspace_id: WorkspaceId,
    held: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
}

impl Turns {
    pub(crate) fn new(all_max: usize, each_max: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all_max)), each_max, workspaces: Arc::default() }
    }

    /// `None` if there is none until then.
    pub(crate) async fn take(&self, workspace_id: WorkspaceId, until: Instant) -> Option<Turn> {
        // Forgets the workspace again also if it waits in vain.
        let mut turn = Turn { turns: self.clone(), workspace_id, held: None };
        let own = {
            let mut workspaces = self.workspaces.lock().unwrap_or_else(PoisonError::into_inner);
            workspaces.entry(workspace_id).or_insert_with(|| Arc::new(Semaphore::new(self.each_max))).clone()
        };
        let own = timeout_at(until, own.acquire_owned()).await.ok()?.ok()?;
        let of_all = timeout_at(until, self.all.clone().acquire_owned()).await.ok()?.ok()?;
        turn.held = Some((own, of_all));
        Some(turn)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        drop(self.held.take());
        let mut workspaces = self.turns.workspaces.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever holds or waits for a turn of it has a clone.
        if workspaces.get(&self.workspace_id).is_some_and(|own| Arc::strong_count(own) == 1) {
            workspaces.remove(&self.workspace_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_workspace_has_its_share_and_the_others_theirs() {
        let turns = Turns::new(3, 2);
        let (loud, other) = (WorkspaceId::generate(), WorkspaceId::generate());
        let soon = || Instant::now() + Duration::from_millis(20);
        let first = turns.take(loud, soon()).await.unwrap();
        let _second = turns.take(loud, soon()).await.unwrap();
        assert!(turns.take(loud, soon()).await.is_none(), "its share is taken");
        let third = turns.take(other, soon()).await.unwrap();
        assert!(turns.take(WorkspaceId::generate(), soon()).await.is_none(), "all are taken");
        drop(first);
        let waiting = turns.take(loud, soon()).await;
        assert!(waiting.is_some());
        drop(third);
        assert_eq!(turns.workspaces.lock().unwrap().len(), 1, "who has no turn is forgotten");
    }
}
