//! The spool's records as bytes: `[length u32][CRC-32 u32][payload]`, little-endian. Pure; never panics on
//! bytes that it did not write.

/// Longest payload, in bytes; a longer length is damage.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// Bytes before each payload.
pub(crate) const HEADER_BYTES: usize = 8;

/// Which call, for as long as it is in the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct CallId {
    /// The start of the edge that took it.
    pub(crate) boot_epoch: u32,
    /// Counts the calls of that start.
    pub(crate) ordinal: u64,
}

/// What numbers events: one start of the edge, one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct StreamId {
    /// The start that numbered them.
    pub(crate) boot_epoch: u32,
    /// The shard.
    pub(crate) shard: u16,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    /// A call is about to be answered; `event` is what was known of it by then, a `RequestEvent`.
    Opened {
        /// The call.
        call: CallId,
        /// The shard of its key.
        shard: u16,
        /// The event so far, encoded.
        event: &'a [u8],
    },
    /// The call has ended and has its number.
    Closed(Closed),
    /// Events that will never come.
    Lost {
        /// What numbered them.
        stream: StreamId,
        /// The first sequence.
        first_seq: u64,
        /// The last sequence.
        last_seq: u64,
    },
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed {
    /// The call, by its `Opened` record.
    pub(crate) call: CallId,
    /// What numbers its event; of a later start than the call if the edge stopped in between.
    pub(crate) stream: StreamId,
    /// Its number.
    pub(crate) seq: u64,
    /// Final status; 0 leaves the one of the `Opened` record.
    pub(crate) status_code: u16,
    /// In microseconds.
    pub(crate) latency_us: u32,
    /// Body bytes received.
    pub(crate) request_bytes: u64,
    /// Body bytes sent.
    pub(crate) response_bytes: u64,
    /// The edge stopped before the answer ended.
    pub(crate) interrupted: bool,
}

/// What the bytes at some place are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// A whole record of so many bytes, header included.
    Record(Record<'a>, usize),
    /// The start of a record, so far as can be told.
    Incomplete,
    /// No record.
    Damaged,
}

/// Bytes before the event of an `Opened` record.
const OPENED_HEAD_BYTES: usize = HEADER_BYTES + 1 + 12 + 2;

/// An event on its way into the spool: its bytes, with room before them for the rest of their record. So a call's
/// event is written once and copied never, and its checksum is made without the spool's lock.
#[derive(Debug)]
pub(crate) struct Draft(Vec<u8>);

impl Draft {
    /// A draft with what `write` appends, a `RequestEvent`.
    pub(crate) fn new(write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut bytes = Vec::with_capacity(512);
        bytes.resize(OPENED_HEAD_BYTES, 0);
        write(&mut bytes);
        Self(bytes)
    }

    /// Adds what `write` appends.
    pub(crate) fn add(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.0);
    }

    /// The whole `Opened` record.
    pub(crate) fn seal(mut self, call: CallId, shard: u16) -> Vec<u8> {
        let [kind, rest @ ..] = &mut self.0[HEADER_BYTES..] else { return self.0 };
        *kind = OPENED;
        rest[..4].copy_from_slice(&call.boot_epoch.to_le_bytes());
        rest[4..12].copy_from_slice(&call.ordinal.to_le_bytes());
        rest[12..14].copy_from_slice(&shard.to_le_bytes());
        put_header(&mut self.0);
        self.0
    }
}

const OPENED: u8 = 1;
const CLOSED: u8 = 2;
const LOST: u8 = 3;

impl Record<'_> {
    /// Appends the record to `out`, framed.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER_BYTES]);
        match self {
            Self::Opened { call, shard, event } => {
                out.push(OPENED);
                put_call(out, *call);
                out.extend_from_slice(&shard.to_le_bytes());
                out.extend_from_slice(event);
            }
            Self::Closed(closed) => {
                out.push(CLOSED);
                put_call(out, closed.call);
                put_stream(out, closed.stream);
                out.extend_from_slice(&closed.seq.to_le_bytes());
                out.extend_from_slice(&closed.status_code.to_le_bytes());
                out.extend_from_slice(&closed.latency_us.to_le_bytes());
                out.extend_from_slice(&closed.request_bytes.to_le_bytes());
                out.extend_from_slice(&closed.response_bytes.to_le_bytes());
                out.push(u8::from(closed.interrupted));
            }
            Self::Lost { stream, first_seq, last_seq } => {
                out.push(LOST);
                put_stream(out, *stream);
                out.extend_from_slice(&first_seq.to_le_bytes());
                out.extend_from_slice(&last_seq.to_le_bytes());
            }
        }
        put_header(&mut out[start..]);
    }
}

/// Fills the header before a payload.
fn put_header(frame: &mut [u8]) {
    let (header, payload) = frame.split_at_mut(HEADER_BYTES);
    debug_assert!(payload.len() <= PAYLOAD_BYTES_MAX, "events are bounded far below");
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes();
    header[..4].copy_from_slice(&length);
    header[4..].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
}

/// Reads the record at the start of `bytes`.
pub(crate) fn decode(bytes: &[u8]) -> Frame<'_> {
    let mut header = Rest(bytes);
    let Some((length, sum)) = header.u32().zip(header.u32()) else {
        return Frame::Incomplete;
    };
    let length = length as usize;
    if length == 0 || length > PAYLOAD_BYTES_MAX {
        return Frame::Damaged;
    }
    let Some(payload) = bytes.get(HEADER_BYTES..HEADER_BYTES + length) else {
        return Frame::Incomplete;
    };
    if crc32fast::hash(payload) != sum {
        return Frame::Damaged;
    }
    match read(payload) {
        Some(record) => Frame::Record(record, HEADER_BYTES + length),
        None => Frame::Damaged,
    }
}

fn read(payload: &[u8]) -> Option<Record<'_>> {
    let (kind, rest) = payload.split_first()?;
    let mut rest = Rest(rest);
    match *kind {
        OPENED => {
            let (call, shard) = (rest.call()?, rest.u16()?);
            Some(Record::Opened { call, shard, event: rest.0 })
        }
        CLOSED => {
            let closed = Closed {
                call: rest.call()?,
                stream: rest.stream()?,
                seq: rest.u64()?,
                status_code: rest.u16()?,
                latency_us: rest.u32()?,
                request_bytes: rest.u64()?,
                response_bytes: rest.u64()?,
                interrupted: rest.take::<1>()? == [1],
            };
            (rest.0.is_empty() && is_seq(closed.seq)).then_some(Record::Closed(closed))
        }
        LOST => {
            let (stream, first_seq, last_seq) = (rest.stream()?, rest.u64()?, rest.u64()?);
            let is_range = is_seq(first_seq) && is_seq(last_seq) && first_seq <= last_seq;
            (rest.0.is_empty() && is_range).then_some(Record::Lost { stream, first_seq, last_seq })
        }
        _ => None,
    }
}

/// Numbers begin at 1, and no edge counts so far that there is no room for more.
fn is_seq(seq: u64) -> bool {
    (1..=u64::MAX / 2).contains(&seq)
}

fn put_call(out: &mut Vec<u8>, call: CallId) {
    out.extend_from_slice(&call.boot_epoch.to_le_bytes());
    out.extend_from_slice(&call.ordinal.to_le_bytes());
}

fn put_stream(out: &mut Vec<u8>, stream: StreamId) {
    out.extend_from_slice(&stream.boot_epoch.to_le_bytes());
    out.extend_from_slice(&stream.shard.to_le_bytes());
}

/// What is still to be read of a payload.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn call(&mut self) -> Option<CallId> {
        Some(CallId { boot_epoch: self.u32()?, ordinal: self.u64()? })
    }

    fn stream(&mut self) -> Option<StreamId> {
        Some(StreamId { boot_epoch: self.u32()?, shard: self.u16()? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn records() -> [Record<'static>; 3] {
        let call = CallId { boot_epoch: 3, ordinal: 9 };
        let stream = StreamId { boot_epoch: 4, shard: 2 };
        [
            Record::Opened { call, shard: 2, event: b"event" },
            Record::Closed(Closed {
                call,
                stream,
                seq: 7,
                status_code: 200,
                latency_us: 1500,
                request_bytes: 1,
                response_bytes: 1 << 40,
                interrupted: true,
            }),
            Record::Lost { stream, first_seq: 8, last_seq: 11 },
        ]
    }

    #[test]
    fn records_come_back_one_after_the_other() {
        let mut bytes = Vec::new();
        for record in records() {
            record.encode(&mut bytes);
        }
        let mut rest = bytes.as_slice();
        for record in records() {
            let Frame::Record(found, length) = decode(rest) else {
                panic!("no record at {}", bytes.len() - rest.len())
            };
            assert_eq!(found, record);
            rest = &rest[length..];
        }
        assert_eq!(decode(rest), Frame::Incomplete);
    }

    #[test]
    fn a_draft_becomes_an_opened_record() {
        let [opened @ Record::Opened { call, shard, event }, ..] = records() else { unreachable!() };
        let mut bytes = Vec::new();
        opened.encode(&mut bytes);
        assert_eq!(Draft::new(|out| out.extend_from_slice(event)).seal(call, shard), bytes);
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_noticed() {
        for record in records() {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            for cut in 0..bytes.len() {
                assert_eq!(decode(&bytes[..cut]), Frame::Incomplete, "cut at {cut}");
            }
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(!matches!(decode(&flipped), Frame::Record(..)), "bit {bit}");
            }
        }
        assert_eq!(decode(&[0; 4096]), Frame::Damaged, "a tail of zeros");
    }

    proptest! {
        #[test]
        fn any_bytes_may_stand_there(bytes: Vec<u8>) {
            let _ = decode(&bytes);
            let mut framed = Vec::from(u32::try_from(bytes.len()).unwrap().to_le_bytes());
            framed.extend(crc32fast::hash(&bytes).to_le_bytes());
            framed.extend(&bytes);
            let _ = decode(&framed);
        }
    }
}
