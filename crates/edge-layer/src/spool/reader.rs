//! Reads the spool's files in order and joins the two records of each call. Its memory grows with the calls
//! that run at once, not with what is in the spool.

use std::{collections::HashMap, fs::File, io, os::unix::fs::FileExt as _, path::Path};

use proto::event_bytes;

use super::{
    Spool,
    calls::Calls,
    intervals::Intervals,
    record::{Closed, Frame, HEADER_BYTES, PAYLOAD_BYTES_MAX, Record, StreamId, decode},
    segment,
};

/// Bytes of a segment taken into memory at once; holds any record whole.
const CHUNK_BYTES: usize = 256 * 1024;
/// Room for the ending of an event, in bytes.
const ENDING_BYTES: usize = 48;
const _: () = assert!(CHUNK_BYTES >= HEADER_BYTES + PAYLOAD_BYTES_MAX);

/// Something to be sent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Item {
    /// An event with its number.
    Event {
        /// What numbered it.
        stream: StreamId,
        /// Its number.
        seq: u64,
        /// The event, complete, a `RequestEvent` encoded.
        event: Vec<u8>,
    },
    /// Events that will never come.
    Lost {
        /// What numbered them.
        stream: StreamId,
        /// The first number.
        first_seq: u64,
        /// The last number.
        last_seq: u64,
    },
}

/// A place in the spool, and the calls that were opened before it.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    at: Option<At>,
    opened: Calls<Vec<u8>>,
    chunk: Vec<u8>,
}

#[derive(Debug)]
struct At {
    segment: u64,
    offset: u64,
    file: File,
}

impl Reader {
    /// Begins again from the oldest segment.
    pub(crate) fn restart(&mut self) {
        self.at = None;
        self.opened.clear();
    }

    /// The next items that are not published, at least `items_wanted` of them unless the end is reached: then
    /// the second value is true.
    ///
    /// # Errors
    /// If a segment cannot be read; the next call tries it again.
    pub(crate) fn read(&mut self, spool: &Spool, items_wanted: usize) -> io::Result<(Vec<Item>, bool)> {
        let mut items = Vec::new();
        while items.len() < items_wanted {
            let (segments, published) = spool.view();
            let Some((segment, bytes)) = self.settle(&spool.path, &segments)? else {
                return Ok((items, true));
            };
            self.read_chunk(segment, bytes, &published, &mut items)?;
        }
        Ok((items, false))
    }

    /// Moves to where the next bytes are; says their segment and its length. `None` at the end.
    fn settle(&mut self, folder: &Path, segments: &[(u64, u64)]) -> io::Result<Option<(u64, u64)>> {
        if let Some(at) = &self.at {
            match segments.iter().find(|(number, _)| *number == at.segment) {
                Some((_, bytes)) if at.offset < *bytes => return Ok(Some((at.segment, *bytes))),
                Some(_) => {}
                // It went, and with it all before it: each call opened there is done with or written again.
                None => self.opened.clear(),
            }
        }
        let here = self.at.as_ref().map_or(0, |at| at.segment);
        let Some(&(segment, bytes)) = segments.iter().find(|(number, bytes)| *number > here && *bytes > 0)
        else {
            return Ok(None);
        };
        match File::open(segment::path(folder, segment)) {
            Ok(file) => {
                self.at = Some(At { segment, offset: 0, file });
                Ok(Some((segment, bytes)))
            }
            // Removed since the list was made: the next list is without it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.settle(folder, &without(segments, segment))
            }
            Err(error) => Err(error),
        }
    }

    fn read_chunk(
        &mut self,
        segment: u64,
        bytes: u64,
        published: &HashMap<StreamId, Intervals>,
        items: &mut Vec<Item>,
    ) -> io::Result<()> {
        let Some(at) = &mut self.at else { return Ok(()) };
        let length = usize::try_from(bytes - at.offset).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        self.chunk.resize(length, 0);
        at.file.read_exact_at(&mut self.chunk, at.offset)?;
        let mut used = 0;
        let opened = &mut self.opened;
        loop {
            match decode(&self.chunk[used..]) {
                Frame::Record(record, length) => {
                    items.extend(take(opened, &record, published));
                    used += length;
                }
                Frame::Incomplete if used > 0 => break,
                _ => {
                    tracing::error!(
                        spool.segment = segment,
                        offset = at.offset,
                        "a segment is damaged, the rest of it is skipped"
                    );
                    used = usize::try_from(bytes - at.offset).unwrap_or(usize::MAX);
                    break;
                }
            }
        }
        at.offset += used as u64;
        Ok(())
    }
}

fn without(segments: &[(u64, u64)], gone: u64) -> Vec<(u64, u64)> {
    segments.iter().copied().filter(|(number, _)| *number > gone).collect()
}

fn take(
    opened: &mut Calls<Vec<u8>>,
    record: &Record<'_>,
    published: &HashMap<StreamId, Intervals>,
) -> Option<Item> {
    let is_published = |stream, seq| published.get(&stream).is_some_and(|seqs| seqs.contains(seq));
    match *record {
        Record::Opened { call, event, .. } => {
            let mut bytes = Vec::with_capacity(event.len() + ENDING_BYTES);
            bytes.extend_from_slice(event);
            opened.insert(call, bytes);
            None
        }
        Record::Closed(ref closed) => {
            let event = opened.remove(&closed.call);
            (!is_published(closed.stream, closed.seq)).then(|| join(event, closed))
        }
        Record::Lost { stream, first_seq, last_seq } => {
            let known = published
                .get(&stream)
                .is_some_and(|seqs| seqs.covers(&Intervals::from_iter([(first_seq, last_seq)])));
            (!known).then_some(Item::Lost { stream, first_seq, last_seq })
        }
    }
}

/// The whole event; a call whose beginning is not there is lost, by its number.
fn join(event: Option<Vec<u8>>, closed: &Closed) -> Item {
    let Closed { stream, seq, .. } = *closed;
    let Some(mut event) = event else { return Item::Lost { stream, first_seq: seq, last_seq: seq } };
    let ending = event_bytes::Ending {
        status_code: closed.status_code,
        latency_us: closed.latency_us,
        request_bytes: closed.request_bytes,
        response_bytes: closed.response_bytes,
        interrupted: closed.interrupted,
    };
    event_bytes::end(&mut event, &ending);
    Item::Event { stream, seq, event }
}
