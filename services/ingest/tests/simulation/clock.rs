//! Runs futures one at a time on a clock that jumps to the next thing to do: the same seed, the same run.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Who a task is; a later one has a higher number.
pub(crate) type TaskId = u64;

/// What tasks share with their executor.
#[derive(Clone)]
pub(crate) struct Clock(Arc<Mutex<Shared>>);

struct Shared {
    start: Instant,
    now: Duration,
    next_id: u64,
    born: Vec<(TaskId, Task)>,
    killed: BTreeSet<TaskId>,
    /// By time and order of asking.
    timers: BTreeMap<(Duration, u64), Waker>,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Shared {
            start: Instant::now(),
            now: Duration::ZERO,
            next_id: 0,
            born: Vec::new(),
            killed: BTreeSet::new(),
            timers: BTreeMap::new(),
        })))
    }

    /// Since the start.
    pub(crate) fn now(&self) -> Duration {
        self.0.lock().unwrap().now
    }

    pub(crate) fn instant(&self) -> Instant {
        let shared = self.0.lock().unwrap();
        shared.start + shared.now
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> TaskId {
        let mut shared = self.0.lock().unwrap();
        shared.next_id += 1;
        let id = shared.next_id;
        shared.born.push((id, Box::pin(task)));
        id
    }

    /// Drops a task where it stands, as `kill -9` would.
    pub(crate) fn kill(&self, task: TaskId) {
        self.0.lock().unwrap().killed.insert(task);
    }

    pub(crate) async fn sleep(&self, duration: Duration) {
        let until = self.now() + duration;
        self.sleep_until_since_start(until).await;
    }

    pub(crate) async fn sleep_until(&self, at: Instant) {
        let until = at.saturating_duration_since(self.0.lock().unwrap().start);
        self.sleep_until_since_start(until).await;
    }

    fn sleep_until_since_start(&self, until: Duration) -> impl Future<Output = ()> + Send + 'static {
        let mut timer = Timer { clock: self.clone(), at: (until, 0) };
        poll_fn(move |context| timer.poll(context))
    }

    /// Runs everything until `main` has ended, or nothing can happen any more: then `None`.
    pub(crate) fn run<T>(&self, main: impl Future<Output = T> + Send + 'static) -> Option<T>
    where
        T: Send + 'static,
    {
        let result = Arc::new(Mutex::new(None));
        let told = result.clone();
        self.spawn(async move {
            let value = main.await;
            *told.lock().unwrap() = Some(value);
        });
        // In the order of ids: tokio's channels wake their readers in an order of chance.
        let ready = Arc::new(Mutex::new(BTreeSet::new()));
        let tasks = Rc::new(RefCell::new(BTreeMap::<TaskId, (Task, Waker)>::new()));
        loop {
            self.admit(&mut tasks.borrow_mut(), &ready);
            let next = ready.lock().unwrap().pop_first();
            if let Some(id) = next {
                let Some((mut task, waker)) = tasks.borrow_mut().remove(&id) else { continue };
                if task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                    tasks.borrow_mut().insert(id, (task, waker));
                }
                if let Some(value) = result.lock().unwrap().take() {
                    return Some(value);
                }
            } else if !self.jump() {
                return None;
            }
        }
    }

    /// Takes in new tasks and throws out killed ones.
    fn admit(&self, tasks: &mut BTreeMap<TaskId, (Task, Waker)>, ready: &Arc<Mutex<BTreeSet<TaskId>>>) {
        loop {
            let (born, killed) = {
                let mut shared = self.0.lock().unwrap();
                (std::mem::take(&mut shared.born), std::mem::take(&mut shared.killed))
            };
            if born.is_empty() && killed.is_empty() {
                return;
            }
            for (id, task) in born {
                let waker = Waker::from(Arc::new(Bell { id, ready: ready.clone() }));
                tasks.insert(id, (task, waker));
                ready.lock().unwrap().insert(id);
            }
            for id in killed {
                // Outside of the lock: what it held may wake others.
                drop(tasks.remove(&id));
            }
        }
    }

    /// To the next timer; false if there is none.
    fn jump(&self) -> bool {
        let mut shared = self.0.lock().unwrap();
        let Some(((at, _), waker)) = shared.timers.pop_first() else { return false };
        shared.now = shared.now.max(at);
        drop(shared);
        waker.wake();
        true
    }
}

/// One sleeper; its place in the list goes with it.
struct Timer {
    clock: Clock,
    /// When, and the place among those of that time; 0 before the first poll.
    at: (Duration, u64),
}

impl Timer {
    fn poll(&mut self, context: &Context<'_>) -> Poll<()> {
        let mut shared = self.clock.0.lock().unwrap();
        if shared.now >= self.at.0 {
            return Poll::Ready(());
        }
        if self.at.1 == 0 {
            shared.next_id += 1;
            self.at.1 = shared.next_id;
        }
        shared.timers.insert(self.at, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.clock.0.lock().unwrap().timers.remove(&self.at);
    }
}

struct Bell {
    id: TaskId,
    ready: Arc<Mutex<BTreeSet<TaskId>>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ready.lock().unwrap().insert(self.id);
    }
}
