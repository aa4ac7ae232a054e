//! The sending half of a call over HTTP/1.1: head, body, trailers, in as few writes as they fit.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame};
use tokio::io::AsyncWrite;

use super::{chunked, head::Length};
use crate::{gather, guard::GuardError};

/// Why a request could not be sent to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    /// Its body.
    #[error(transparent)]
    Body(#[from] GuardError),
    /// Its body is not as long as it said.
    #[error("the body of the request is not as long as it said")]
    Length,
    /// The connection.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A request that is being sent.
#[derive(Debug)]
pub(crate) struct Upload<B> {
    /// `None` once all of it was taken.
    body: Option<B>,
    length: Length,
    /// What stands before the piece: the head, a chunk's size, trailers.
    before: Vec<u8>,
    before_sent: usize,
    piece: Bytes,
    after: &'static [u8],
    /// The body waits until the API asks for it.
    is_held: bool,
}

impl<B> Upload<B> {
    /// A request whose head is `head`; a `length` of none has no body.
    pub(crate) fn new(head: Vec<u8>, body: Option<B>, length: Length, is_held: bool) -> Self {
        Self { body, length, before: head, before_sent: 0, piece: Bytes::new(), after: b"", is_held }
    }

    /// Lets the body go.
    pub(crate) fn release(&mut self) {
        self.is_held = false;
    }

    /// Whether everything was sent.
    pub(crate) fn is_done(&self) -> bool {
        self.body.is_none() && !self.has_unsent()
    }

    /// Takes its memory back.
    pub(crate) fn take_buffer(&mut self) -> Vec<u8> {
        self.before_sent = 0;
        let mut buffer = std::mem::take(&mut self.before);
        buffer.clear();
        buffer
    }

    fn has_unsent(&self) -> bool {
        self.before_sent < self.before.len() || self.has_piece()
    }

    fn has_piece(&self) -> bool {
        !self.piece.is_empty() || !self.after.is_empty()
    }
}

impl<B: Body<Data = Bytes, Error = GuardError> + Unpin> Upload<B> {
    /// Sends what can be sent; ready once that is all.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<(), UploadError>> {
        loop {
            // Before the first write, so that a small body goes out with its head.
            self.fill(cx)?;
            if !self.has_unsent() {
                ready!(Pin::new(io).poll_flush(cx))?;
                return if self.body.is_none() { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            let slices = [&self.before[self.before_sent..], &self.piece, self.after].map(IoSlice::new);
            let sent = ready!(gather::poll_write(Pin::new(&mut *io), cx, &slices))?;
            if sent == 0 {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into()));
            }
            self.advance(sent);
        }
    }

    /// Takes the next piece of the body, if there is room for it.
    fn fill(&mut self, cx: &mut Context<'_>) -> Result<(), UploadError> {
        while !self.is_held
            && !self.has_piece()
            && let Some(body) = &mut self.body
        {
            let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else { break };
            match frame.transpose()?.map(Frame::into_data) {
                Some(Ok(data)) => self.take_piece(data)?,
                Some(Err(frame)) => self.end(frame.into_trailers().ok().as_ref())?,
                None => self.end(None)?,
            }
        }
        Ok(())
    }

    fn take_piece(&mut self, data: Bytes) -> Result<(), UploadError> {
        if data.is_empty() {
            // As a chunk it would be the end.
            return Ok(());
        }
        let is_last = self.body.as_ref().is_some_and(Body::is_end_stream);
        match &mut self.length {
            Length::Known(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(UploadError::Length)?;
                if is_last {
                    self.end(None)?;
                }
            }
            _ => {
                self.make_room();
                chunked::write_size(&mut self.before, data.len());
                self.after = if is_last { b"\r\n0\r\n\r\n" } else { b"\r\n" };
                if is_last {
                    self.body = None;
                }
            }
        }
        self.piece = data;
        Ok(())
    }

    fn end(&mut self, trailers: Option<&http::HeaderMap>) -> Result<(), UploadError> {
        self.body = None;
        match self.length {
            Length::Known(0) | Length::None => {}
            Length::Known(_) | Length::UntilClose => return Err(UploadError::Length),
            Length::Chunked => {
                self.make_room();
                chunked::write_end(&mut self.before, trailers);
            }
        }
        Ok(())
    }

    fn make_room(&mut self) {
        if self.before_sent == self.before.len() {
            self.before.clear();
            self.before_sent = 0;
        }
    }

    fn advance(&mut self, sent: usize) {
        let before = sent.min(self.before.len() - self.before_sent);
        self.before_sent += before;
        let piece = (sent - before).min(self.piece.len());
        self.piece.advance(piece);
        self.after = &self.after[sent - before - piece..];
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http::HeaderMap;
    use http_body_util::StreamBody;
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::guard::Guarded;

    /// What arrives of a body that comes in `pieces`, over a connection that takes `room` bytes at a time.
    async fn send(
        pieces: Vec<Vec<u8>>,
        trailers: Option<HeaderMap>,
        length: Length,
        room: usize,
    ) -> Result<Vec<u8>, UploadError> {
        let frames = pieces.into_iter().map(|piece| Frame::data(Bytes::from(piece)));
        let frames = frames.chain(trailers.map(Frame::trailers)).map(Ok::<_, io::Error>);
        let body = Guarded::new(StreamBody::new(stream::iter(frames)), 0).unwrap();
        let mut upload = Upload::new(b"HEAD\r\n\r\n".to_vec(), Some(body), length, false);
        let (mut near, mut far) = tokio::io::duplex(room);
        let sent = async move {
            std::future::poll_fn(|cx| upload.poll(cx, &mut near)).await?;
            assert!(upload.is_done());
            Ok(())
        };
        let mut arrived = Vec::new();
        let (sent, _) = tokio::join!(sent, far.read_to_end(&mut arrived));
        sent.map(|()| arrived)
    }

    #[tokio::test]
    async fn a_body_of_another_length_than_it_said_is_an_error() {
        let pieces = || vec![b"123".to_vec(), b"45".to_vec()];
        assert_eq!(send(pieces(), None, Length::Known(5), 64).await.unwrap(), b"HEAD\r\n\r\n12345");
        for length in [4, 6] {
            let sent = send(pieces(), None, Length::Known(length), 64).await;
            assert!(matches!(sent, Err(UploadError::Length)), "{sent:?}");
        }
    }

    #[tokio::test]
    async fn a_held_body_goes_once_it_is_released() {
        let body = Guarded::new(http_body_util::Full::from("12345"), 0).unwrap();
        let mut upload = Upload::new(b"HEAD\r\n\r\n".to_vec(), Some(body), Length::Known(5), true);
        let (mut near, mut far) = tokio::io::duplex(64);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(upload.poll(&mut cx, &mut near).is_pending());
        let mut arrived = [0; 8];
        far.read_exact(&mut arrived).await.unwrap();
        upload.release();
        assert!(upload.poll(&mut cx, &mut near).is_ready());
        drop(near);
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
        assert_eq!((&arrived, rest.as_slice()), (b"HEAD\r\n\r\n", b"12345".as_slice()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn chunks_arrive_whole(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..6),
            has_trailers in any::<bool>(),
            room in 1..64_usize,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let trailers = has_trailers
                .then(|| HeaderMap::from_iter([("x-sum".parse().unwrap(), "1".parse().unwrap())]));
            let sent = send(pieces.clone(), trailers.clone(), Length::Chunked, room);
            let arrived = runtime.block_on(sent).unwrap();
            let mut buffer = bytes::BytesMut::from(&arrived[8..]);
            let (mut decoder, mut body, mut read) = (chunked::Decoder::default(), Vec::new(), None);
            loop {
                match decoder.next(&mut buffer).unwrap() {
                    chunked::Piece::Data(data) => body.extend_from_slice(&data),
                    chunked::Piece::Trailers(trailers) => read = Some(trailers),
                    chunked::Piece::End => break,
                    chunked::Piece::Missing => panic!("cut"),
                }
            }
            prop_assert_eq!((body, read), (pieces.concat(), trailers));
        }
    }
}
