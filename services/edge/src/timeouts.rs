//! How long each part of a call may take, and the watch that is kept over one call.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use crate::clock::Alarm;

/// How long the parts of a call may take; zero is no limit.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Until there is a connection to the API.
    pub connect: Duration,
    /// Until the API's answer begins, from when the request's last piece went to it.
    pub answer: Duration,
    /// Between two pieces of a body, either way.
    pub idle: Duration,
    /// The whole call.
    pub total: Duration,
    /// An upgraded connection on which nothing moves.
    pub tunnel_idle: Duration,
}

/// The watch over one call.
#[derive(Debug)]
pub(crate) struct Watch {
    silence: Alarm,
    total: Option<Alarm>,
    /// Something is waited for, since the alarm was set.
    is_waiting: bool,
}

impl Watch {
    /// A call that begins now.
    pub(crate) fn new(timeouts: &Timeouts) -> Self {
        let total = (!timeouts.total.is_zero()).then(|| Alarm::after(timeouts.total));
        Self { silence: Alarm::new(), total, is_waiting: false }
    }

    /// Waits anew, for at most `limit`.
    pub(crate) fn expect_within(&mut self, limit: Duration) {
        self.is_waiting = true;
        if limit.is_zero() { self.silence.clear() } else { self.silence.set(limit) }
    }

    /// Waits, since before if it did so already. Time in which nobody asked does not count: a slow reader is not a
    /// silent API.
    pub(crate) fn wait(&mut self, limit: Duration) {
        if !self.is_waiting {
            self.expect_within(limit);
        }
    }

    /// Waits no more.
    pub(crate) fn rest(&mut self) {
        self.is_waiting = false;
    }

    /// Nothing can be late any more.
    pub(crate) fn clear(&mut self) {
        self.rest();
        self.silence.clear();
        self.total = None;
    }

    /// Ready once the call, or what is waited for, is late.
    pub(crate) fn poll_due(&self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(total) = &self.total
            && total.poll_due(cx).is_ready()
        {
            return Poll::Ready(());
        }
        if self.is_waiting { self.silence.poll_due(cx) } else { Poll::Pending }
    }
}
