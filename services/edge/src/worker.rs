//! One thread that serves: what its tasks share, and how they learn that it stops. All of it stays on the thread.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    rc::Rc,
    task::Poll,
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::clock::{self, Alarm};

/// How far a stop has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Calls are taken.
    Serving,
    /// Running calls may end, new ones are not taken.
    Draining,
    /// Everything ends at once.
    Cut,
}

/// What stops all threads.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    pub(crate) drain: CancellationToken,
    pub(crate) cut: CancellationToken,
}

/// One thread.
#[derive(Debug)]
pub(crate) struct Worker {
    phase: Cell<Phase>,
    tasks: TaskTracker,
}

impl Worker {
    /// The thread that this is called on, which stops when `stop` says so.
    pub(crate) fn new(stop: Stop) -> Rc<Self> {
        let worker = Rc::new(Self { phase: Cell::new(Phase::Serving), tasks: TaskTracker::new() });
        let told = worker.clone();
        tokio::task::spawn_local(clock::run());
        tokio::task::spawn_local(async move {
            stop.drain.cancelled().await;
            told.tell(Phase::Draining);
            stop.cut.cancelled().await;
            told.tell(Phase::Cut);
        });
        worker
    }

    /// How far its stop has come. Who waits for more must wait for an [`Alarm`] too, set or not: it wakes.
    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Returns once everything ends.
    pub(crate) async fn cut(&self) {
        let alarm = Alarm::new();
        poll_fn(|cx| {
            let _ = alarm.poll_due(cx);
            if self.phase() == Phase::Cut { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Runs a task that the thread's end waits for.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        tokio::task::spawn_local(self.tasks.track_future(task));
    }

    /// Returns once all tasks have ended.
    pub(crate) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn tell(&self, phase: Phase) {
        self.phase.set(phase);
        clock::wake_all();
    }
}
