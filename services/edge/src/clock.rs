//! Deadlines of one thread, kept in one table that is looked through a few times a second: setting one costs a
//! store, not a place in a timer. They fire up to two ticks late and never early. Knows nothing of what waits.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

/// How often the table is looked through.
pub(crate) const TICK: Duration = Duration::from_millis(100);

thread_local! {
    static CLOCK: RefCell<Clock> = RefCell::new(Clock::new(Instant::now()));
}

/// Drives the deadlines of this thread, for ever.
pub(crate) async fn run() {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let woken = CLOCK.with_borrow_mut(|clock| clock.advance(Instant::now()));
        woken.into_iter().for_each(Waker::wake);
    }
}

/// The time of the last tick.
pub(crate) fn now() -> Instant {
    CLOCK.with_borrow(|clock| clock.now)
}

/// Has everyone look who waits for a deadline of this thread, due or not.
pub(crate) fn wake_all() {
    let woken = CLOCK.with_borrow_mut(|clock| {
        clock.slots.iter_mut().filter_map(|slot| slot.waker.take()).collect::<Vec<_>>()
    });
    woken.into_iter().for_each(Waker::wake);
}

/// A deadline of this thread; belongs to the thread that made it.
#[derive(Debug)]
pub(crate) struct Alarm {
    slot: usize,
}

impl Alarm {
    /// A deadline that is not set.
    pub(crate) fn new() -> Self {
        Self { slot: CLOCK.with_borrow_mut(Clock::take) }
    }

    /// A deadline `limit` from now.
    pub(crate) fn after(limit: Duration) -> Self {
        let alarm = Self::new();
        alarm.set(limit);
        alarm
    }

    /// Fires once `limit` has passed from now.
    pub(crate) fn set(&self, limit: Duration) {
        CLOCK.with_borrow_mut(|clock| clock.slots[self.slot].due = Some(clock.now + limit + TICK));
    }

    /// Fires no more.
    pub(crate) fn clear(&self) {
        CLOCK.with_borrow_mut(|clock| clock.slots[self.slot].due = None);
    }

    /// Ready once the deadline has passed.
    pub(crate) fn poll_due(&self, cx: &mut Context<'_>) -> Poll<()> {
        CLOCK.with_borrow_mut(|clock| clock.poll(self.slot, cx.waker()))
    }

    /// Returns once the deadline has passed.
    pub(crate) async fn due(&self) {
        poll_fn(|cx| self.poll_due(cx)).await;
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // At the end of a thread the table may be gone already.
        let _ = CLOCK.try_with(|clock| {
            let waker = clock.borrow_mut().free(self.slot);
            drop(waker);
        });
    }
}

/// hyper's timer on these deadlines.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timer;

#[derive(Debug)]
struct Sleep(Alarm);

impl hyper::rt::Timer for Timer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Sleep(Alarm::after(duration)))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.sleep(deadline.saturating_duration_since(now()))
    }

    fn now(&self) -> Instant {
        now()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn hyper::rt::Sleep>>, deadline: Instant) {
        match sleep.as_mut().downcast_mut_pin::<Sleep>() {
            Some(sleep) => sleep.0.set(deadline.saturating_duration_since(now())),
            None => *sleep = self.sleep_until(deadline),
        }
    }
}

impl hyper::rt::Sleep for Sleep {}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_due(cx)
    }
}

/// The table.
#[derive(Debug)]
struct Clock {
    now: Instant,
    slots: Vec<Slot>,
    free: Vec<usize>,
}

#[derive(Debug, Default)]
struct Slot {
    due: Option<Instant>,
    waker: Option<Waker>,
}

impl Clock {
    fn new(now: Instant) -> Self {
        Self { now, slots: Vec::new(), free: Vec::new() }
    }

    fn take(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        })
    }

    fn free(&mut self, slot: usize) -> Option<Waker> {
        self.free.push(slot);
        std::mem::take(&mut self.slots[slot]).waker
    }

    fn poll(&mut self, slot: usize, waker: &Waker) -> Poll<()> {
        let now = self.now;
        let slot = &mut self.slots[slot];
        if slot.due.is_some_and(|due| due <= now) {
            return Poll::Ready(());
        }
        match &mut slot.waker {
            Some(known) => known.clone_from(waker),
            None => slot.waker = Some(waker.clone()),
        }
        Poll::Pending
    }

    /// Moves on; returns whom to wake.
    fn advance(&mut self, now: Instant) -> Vec<Waker> {
        self.now = now;
        let due = self.slots.iter_mut().filter(|slot| slot.due.is_some_and(|due| due <= now));
        due.filter_map(|slot| slot.waker.take()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_fires_once_its_time_has_come_and_never_before() {
        let start = Instant::now();
        let mut clock = Clock::new(start);
        let (early, late) = (clock.take(), clock.take());
        clock.slots[early].due = Some(start + TICK);
        clock.slots[late].due = Some(start + 5 * TICK);
        let waker = Waker::noop();
        assert!(clock.poll(early, waker).is_pending() && clock.poll(late, waker).is_pending());
        assert_eq!(clock.advance(start + TICK / 2).len(), 0);
        assert_eq!(clock.advance(start + TICK).len(), 1);
        assert!(clock.poll(early, waker).is_ready() && clock.poll(late, waker).is_pending());
        clock.slots[late].due = None;
        assert_eq!(clock.advance(start + 9 * TICK).len(), 0, "a cleared deadline wakes nobody");
    }

    #[test]
    fn places_are_used_again() {
        let mut clock = Clock::new(Instant::now());
        let (first, second) = (clock.take(), clock.take());
        clock.slots[first].due = Some(clock.now);
        clock.free(first);
        assert_eq!((clock.take(), clock.slots.len()), (first, 2));
        assert!(clock.poll(first, Waker::noop()).is_pending(), "nothing of the old deadline is left");
        assert_ne!(first, second);
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_wakes_who_waits() {
        let alarm = Alarm::after(Duration::ZERO);
        tokio::select! {
            () = run() => {}
            () = alarm.due() => {}
        }
    }
}
