//! The body of a request as something that a waiting thread can read. Never holds more than a few pieces, and never
//! takes a broken body for a whole one.

use std::io::{self, Read};

use bytes::{Buf as _, Bytes};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Pieces between the network and the reader.
const PIECES_MAX: usize = 8;
/// What is still read, and thrown away, of a body whose statement has failed: so that the client, busy sending,
/// gets to read the answer.
const REST_BYTES_MAX: usize = 64 << 20;

enum Piece {
    Data(Bytes),
    End,
    Broken(io::ErrorKind),
}

/// The reading end.
pub(crate) struct BodyReader {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    ended: bool,
}

/// Starts to forward `body`; ends when the reader is dropped, too.
pub(crate) fn forward(body: Incoming, cancelled: CancellationToken) -> BodyReader {
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    tokio::spawn(async move {
        if cancelled.run_until_cancelled(pump(body, &sender)).await.is_none() {
            let _ = sender.send(Piece::Broken(io::ErrorKind::TimedOut)).await;
        }
    });
    BodyReader { pieces, current: Bytes::new(), ended: false }
}

async fn pump(mut body: Incoming, sender: &mpsc::Sender<Piece>) {
    let mut rest = REST_BYTES_MAX;
    loop {
        let piece = match body.frame().await {
            None => Piece::End,
            Some(Err(_)) => Piece::Broken(io::ErrorKind::ConnectionAborted),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => Piece::Data(data),
                Err(_trailers) => continue,
            },
        };
        let size = match &piece {
            Piece::Data(data) => Some(data.len()),
            Piece::End | Piece::Broken(_) => None,
        };
        let unread = sender.send(piece).await.is_err();
        match size {
            None => return,
            Some(size) if unread => match rest.checked_sub(size) {
                Some(left) => rest = left,
                None => return,
            },
            Some(_) => {}
        }
    }
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Piece::Data(data)) => self.current = data,
                Some(Piece::End) => self.ended = true,
                Some(Piece::Broken(kind)) => return Err(kind.into()),
                None => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        let count = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}
