//! The body of a request on its way to the API: bounded, and watched, since a long upload is fine and a silent
//! client is not.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame, SizeHint};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GuardError {
    /// The client broke it off.
    #[error("the client broke off its request")]
    Client(#[source] BoxError),
    /// Its chunks are malformed.
    #[error("the body of the request is malformed")]
    Malformed,
    /// It is longer than allowed.
    #[error("the body of the request is too large")]
    TooLarge,
}

/// How a body moves; seen from outside of it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Pace(Rc<State>);

#[derive(Debug, Default)]
struct State {
    frames: Cell<u64>,
    is_starved: Cell<bool>,
    is_broken: Cell<bool>,
    is_malformed: Cell<bool>,
    is_too_large: Cell<bool>,
}

impl Pace {
    /// How many pieces came, and whether the next one is waited for.
    pub(crate) fn of(&self) -> (u64, bool) {
        (self.0.frames.get(), self.0.is_starved.get())
    }

    /// Why it ended early, if it did.
    pub(crate) fn fault(&self) -> Option<GuardError> {
        match (self.0.is_too_large.get(), self.0.is_malformed.get(), self.0.is_broken.get()) {
            (true, ..) => Some(GuardError::TooLarge),
            (_, true, _) => Some(GuardError::Malformed),
            (.., true) => Some(GuardError::Client("it ended early".into())),
            _ => None,
        }
    }
}

/// A bounded body.
#[derive(Debug)]
pub(crate) struct Guarded<B> {
    body: B,
    bytes_left: u64,
    pace: Pace,
}

impl<B: Body> Guarded<B> {
    /// `body`, if it does not say itself that it is too long; a `bytes_max` of 0 is none.
    pub(crate) fn new(body: B, bytes_max: u64) -> Result<Self, GuardError> {
        let bytes_left = if bytes_max == 0 { u64::MAX } else { bytes_max };
        if body.size_hint().lower() > bytes_left {
            return Err(GuardError::TooLarge);
        }
        Ok(Self { body, bytes_left, pace: Pace::default() })
    }

    /// How it moves.
    pub(crate) fn pace(&self) -> Pace {
        self.pace.clone()
    }
}

impl<B> Body for Guarded<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = GuardError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, GuardError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        self.pace.0.is_starved.set(frame.is_pending());
        let Poll::Ready(frame) = frame else { return Poll::Pending };
        self.pace.0.frames.update(|frames| frames + 1);
        let frame = match frame.transpose() {
            Ok(frame) => frame,
            Err(error) => {
                let error = error.into();
                if is_malformed(&*error) {
                    self.pace.0.is_malformed.set(true);
                    return Poll::Ready(Some(Err(GuardError::Malformed)));
                }
                self.pace.0.is_broken.set(true);
                return Poll::Ready(Some(Err(GuardError::Client(error))));
            }
        };
        let bytes = frame.as_ref().and_then(Frame::data_ref).map_or(0, |data| data.remaining() as u64);
        match self.bytes_left.checked_sub(bytes) {
            Some(left) => self.bytes_left = left,
            None => {
                self.pace.0.is_too_large.set(true);
                return Poll::Ready(Some(Err(GuardError::TooLarge)));
            }
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// hyper says so of chunks that are none.
fn is_malformed(error: &(dyn std::error::Error + 'static)) -> bool {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| matches!(cause.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData))
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Full, StreamBody};

    use super::*;

    #[test]
    fn a_length_that_is_told_is_judged_before_anything_is_read() {
        let body = |bytes: &'static [u8]| Full::new(Bytes::from_static(bytes));
        assert!(matches!(Guarded::new(body(b"12345"), 4), Err(GuardError::TooLarge)));
        assert!(Guarded::new(body(b"12345"), 5).is_ok());
        assert!(Guarded::new(body(b"12345"), 0).is_ok());
    }

    #[tokio::test]
    async fn a_length_that_is_not_told_is_judged_as_it_comes() {
        let pieces = || {
            let pieces = ["123", "45"].map(|piece| Ok::<_, io::Error>(Frame::data(Bytes::from(piece))));
            StreamBody::new(futures_util::stream::iter(pieces))
        };
        let within = Guarded::new(pieces(), 5).unwrap();
        let pace = within.pace();
        assert_eq!(within.collect().await.unwrap().to_bytes(), "12345");
        assert_eq!(pace.of(), (3, false));
        let error = Guarded::new(pieces(), 4).unwrap().collect().await.unwrap_err();
        assert!(matches!(error, GuardError::TooLarge));
    }
}
