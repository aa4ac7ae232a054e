//! A spool's folder after a disk, a kernel or a person damaged it.

use bolero::check;
use prost::Message as _;
use proto::events as pb;

use super::INPUT_BYTES_MAX;
use crate::spool::{
    Limits, Reader, Spool,
    record::{CallId, Closed, Frame, Record, StreamId, decode},
    segment,
};

/// Fewer than of the others: each opens folders.
const ITERATIONS: usize = 200;
const LIMITS: Limits = Limits { bytes_max: 8 << 20, segment_bytes_max: 1 << 20 };
const SEGMENTS_MAX: usize = 4;

#[test]
fn record() {
    check!().with_iterations(super::ITERATIONS).with_max_len(INPUT_BYTES_MAX).for_each(|input: &[u8]| {
        let mut framed = u32::try_from(input.len()).expect("short").to_le_bytes().to_vec();
        framed.extend(crc32fast::hash(input).to_le_bytes());
        framed.extend(input);
        for bytes in [input, &framed] {
            if let Frame::Record(record, length) = decode(bytes) {
                let mut again = Vec::new();
                record.encode(&mut again);
                let whole = decode(&again) == Frame::Record(record, again.len());
                assert!(length <= bytes.len() && again.len() == length && whole);
            }
        }
    });
}

#[test]
fn folder() {
    let place = tempfile::tempdir().expect("a temporary folder");
    check!().with_iterations(ITERATIONS).with_max_len(INPUT_BYTES_MAX).for_each(|input: &[u8]| {
        let folder = place.path().join("spool");
        drop(std::fs::remove_dir_all(&folder));
        drop(Spool::open(&folder, LIMITS).expect("an empty folder can be used"));
        for (number, bytes) in (1..).zip(segments(input)) {
            std::fs::write(segment::path(&folder, number), bytes).expect("a temporary folder");
        }
        // Twice: the next start finds what the first one left.
        for _ in 0..2 {
            let spool = Spool::open(&folder, LIMITS).expect("damage does not keep an edge from starting");
            let (items, is_end) = Reader::default().read(&spool, usize::MAX).expect("the folder is there");
            assert!(is_end, "a damaged folder has an end");
            let _ = (items, spool.stats(), spool.clearance(), spool.is_published());
        }
    });
}

/// Segments with good records, torn ones and nonsense, as the input says.
fn segments(input: &[u8]) -> Vec<Vec<u8>> {
    let mut segments = vec![Vec::new()];
    let mut rest = input.iter().copied();
    while let (Some(kind), Some(a), Some(b), Some(c)) = (rest.next(), rest.next(), rest.next(), rest.next()) {
        let count = segments.len();
        let bytes = segments.last_mut().expect("one at least");
        let call = CallId { boot_epoch: u32::from(a % 3), ordinal: u64::from(b % 16) };
        let stream = StreamId { boot_epoch: u32::from(a % 3), shard: u16::from(a / 128) };
        // Mostly small, sometimes at the end of all numbers.
        let seq = |number: u8| {
            if number > 250 { u64::MAX / 2 + 2 - u64::from(255 - number) } else { u64::from(number % 32) }
        };
        match kind % 7 {
            0 => {
                let event = pb::RequestEvent { path: b.to_string(), ..Default::default() }.encode_to_vec();
                Record::Opened { call, shard: u16::from(c % 3), event: &event }.encode(bytes);
            }
            1 => {
                let closed = Closed {
                    call,
                    stream,
                    seq: seq(c),
                    status_code: u16::from(b),
                    latency_us: 1,
                    request_bytes: 0,
                    response_bytes: 0,
                    interrupted: c % 2 == 0,
                };
                Record::Closed(closed).encode(bytes);
            }
            2 => {
                let (first_seq, last_seq) = (seq(b).min(seq(c)), seq(b).max(seq(c)));
                Record::Lost { stream, first_seq, last_seq }.encode(bytes);
            }
            3 => bytes.extend([a, b, c]),
            4 => bytes.truncate(bytes.len().saturating_sub(usize::from(a))),
            5 if count < SEGMENTS_MAX => segments.push(Vec::new()),
            _ => {
                let at = usize::from(a) * 256 + usize::from(b);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= c;
                }
            }
        }
    }
    segments
}
