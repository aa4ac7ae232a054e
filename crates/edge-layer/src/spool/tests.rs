//! What the spool promises, case by case.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::Instant,
};

use prost::Message as _;
use proto::events as pb;

use super::{
    Draft, Ending, Item, Limits, Reader, Spool, Ticket, intervals::Intervals, record::StreamId, segment,
};

pub(super) const ROOMY: Limits = Limits { bytes_max: 1 << 30, segment_bytes_max: 600 };

pub(super) fn event(number: u64) -> Draft {
    let event = pb::RequestEvent { path: number.to_string(), status_code: 200, ..Default::default() };
    Draft::new(|out| event.encode(out).unwrap())
}

pub(super) fn ending(number: u64) -> Ending {
    Ending {
        started: Instant::now(),
        status_code: 201,
        request_bytes: number,
        response_bytes: 0,
        interrupted: false,
    }
}

impl Spool {
    /// A call that is on the disk.
    pub(super) fn written(&self, shard: u16, event: Draft) -> Ticket {
        let (ticket, turn) = self.opened(shard, event);
        self.write_down(turn);
        ticket
    }
}

pub(super) fn newest(folder: &Path) -> (u64, u64) {
    let number = segment::list(folder).unwrap().pop().unwrap_or(0);
    (number, fs::metadata(segment::path(folder, number)).map_or(0, |file| file.len()))
}

#[test]
fn calls_that_run_may_be_more_than_the_spool_holds() {
    const LIMITS: Limits = Limits { bytes_max: 8 * 600, segment_bytes_max: 600 };
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), LIMITS).unwrap();
    let mut ended = 0;
    let mut end = |ticket: &Ticket| {
        ended += 1;
        spool.closed(ticket, &ending(0));
        let (events, lost) = read_all(&spool);
        assert_eq!(lost.first(), None);
        spool.commit(StreamId { boot_epoch: 1, shard: 0 }, &Intervals::from_iter([(1, ended)]));
        events[&ended].clone()
    };
    let mut running = Vec::new();
    for number in 1..=300 {
        running.push((number, spool.written(0, event(number))));
        end(&spool.written(0, event(0)));
    }
    let (bytes, open_bytes) = (spool.stats().bytes, 300 * 31);
    assert!(bytes > LIMITS.bytes_max && bytes < 3 * open_bytes, "{bytes}");
    for (number, ticket) in &running {
        assert_eq!(end(ticket), number.to_string());
    }
    assert!(spool.is_committed());
    assert_eq!(segment::list(folder.path()).unwrap().len(), 1);
}

/// All items, and the numbers of each kind for the only stream.
fn read_all(spool: &Spool) -> (BTreeMap<u64, String>, Intervals) {
    let (mut events, mut lost) = (BTreeMap::new(), Intervals::default());
    for item in Reader::default().read(spool, usize::MAX).unwrap().0 {
        match item {
            Item::Event { seq, event, .. } => {
                events.insert(seq, pb::RequestEvent::decode(event.as_slice()).unwrap().path);
            }
            Item::Lost { first_seq, last_seq, .. } => lost.insert(first_seq, last_seq),
        }
    }
    (events, lost)
}

#[test]
fn a_full_spool_loses_the_oldest_by_number() {
    const LIMITS: Limits = Limits { bytes_max: 8 * 600, segment_bytes_max: 600 };
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), LIMITS).unwrap();
    let long = spool.written(0, event(1_000_000));
    for number in 1..=500 {
        spool.closed(&spool.written(0, event(number)), &ending(number));
        assert!(spool.stats().bytes <= LIMITS.bytes_max + LIMITS.segment_bytes_max);
    }
    spool.closed(&long, &ending(0));
    let check = |spool: &Spool| {
        let (events, lost) = read_all(spool);
        let gone: u64 = lost.runs().map(|(first, last)| last - first + 1).sum();
        assert!(gone > 400 && events.len() > 10, "{gone} {}", events.len());
        let all: Intervals = events.keys().map(|seq| (*seq, *seq)).chain(lost.runs()).collect();
        assert_eq!(all.runs().collect::<Vec<_>>(), [(1, 501)], "each number has a fate");
        assert_eq!(gone + events.len() as u64, 501, "and only one");
        assert_eq!(events[&501], "1000000", "the long call was carried along");
        assert_eq!(events[&500], "500");
        gone
    };
    assert_eq!(check(&spool), spool.stats().lost_events);
    drop(spool);
    // The losses outlive the process; they are committed like events.
    let spool = Spool::open(folder.path(), LIMITS).unwrap();
    check(&spool);
    assert!(!spool.is_committed());
    spool.commit(StreamId { boot_epoch: 1, shard: 0 }, &Intervals::from_iter([(1, 501)]));
    assert!(spool.is_committed());
}

#[test]
fn a_disk_that_fails_costs_numbers_and_never_the_call() {
    // Each record needs a new file, and there is no folder for it.
    const LIMITS: Limits = Limits { bytes_max: 1 << 20, segment_bytes_max: 1 };
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), LIMITS).unwrap();
    let aside = folder.path().with_extension("aside");
    spool.closed(&spool.written(0, event(1)), &ending(1));
    let half = spool.written(0, event(2));
    fs::rename(folder.path(), &aside).unwrap();
    spool.closed(&half, &ending(2));
    let late = spool.written(0, event(3));
    spool.closed(&spool.written(0, event(4)), &ending(4));
    spool.flush();
    assert!(spool.stats().failing.is_some());
    assert_eq!(spool.stats().lost_events, 2);
    let before = spool.clearance();
    fs::rename(&aside, folder.path()).unwrap();
    // A call whose first record failed is whole if its last one does not.
    spool.closed(&late, &ending(3));
    spool.flush();
    assert_eq!(spool.stats().failing, None);
    let (events, lost) = read_all(&spool);
    assert_eq!(events.into_iter().collect::<Vec<_>>(), [(1, "1".to_owned()), (4, "3".to_owned())]);
    assert_eq!(lost.runs().collect::<Vec<_>>(), [(2, 3)]);
    assert_eq!(before, None, "nothing was published");
}

#[test]
fn a_statement_is_made_only_when_it_is_true() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), ROOMY).unwrap();
    let stream = StreamId { boot_epoch: 1, shard: 0 };
    let idle = spool.clearance().unwrap();
    assert_eq!(idle.positions, []);
    let running = spool.written(0, event(1));
    assert!(spool.clearance().unwrap().until > idle.until, "a running call has not ended");
    spool.closed(&running, &ending(1));
    let first = spool.clearance().unwrap();
    assert_eq!(first.positions, [], "an older statement stays true");
    spool.closed(&spool.written(0, event(2)), &ending(2));
    spool.publish(stream, 2, 2);
    assert_eq!(spool.clearance().unwrap(), first, "1 is still missing");
    spool.closed(&spool.written(0, event(3)), &ending(3));
    spool.publish(stream, 1, 1);
    let second = spool.clearance().unwrap();
    assert!(second.until > first.until, "under load too it moves on");
    assert_eq!(second.positions, [(stream, 1)], "as of when 1 had ended");
    spool.publish(stream, 3, 3);
    assert_eq!(spool.clearance().unwrap().positions, [(stream, 3)]);
    spool.forget_published();
    assert_eq!(spool.clearance().unwrap().positions, [(stream, 3)], "what was true stays true");
}

#[test]
fn an_end_is_written_with_the_next_call_or_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), ROOMY).unwrap();
    let first = spool.written(0, event(1));
    let opened = newest(folder.path());
    spool.closed(&first, &ending(1));
    assert_eq!(newest(folder.path()), opened, "it waits");
    let second = spool.written(0, event(2));
    let both = newest(folder.path());
    assert!(both.1 > 2 * opened.1, "one write for both");
    spool.closed(&second, &ending(2));
    assert_eq!(read_all(&spool).0.len(), 2, "whoever reads sees all that ended");
    assert!(newest(folder.path()).1 > both.1);
    spool.closed(&spool.written(0, event(3)), &ending(3));
    drop(spool);
    let events = read_all(&Spool::open(folder.path(), ROOMY).unwrap()).0;
    assert_eq!(events.len(), 3, "a spool that is put down forgets nothing");
}

#[test]
fn calls_of_a_turn_are_written_together() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), ROOMY).unwrap();
    let [(first, turn), (second, other), (third, _)] = [1, 2, 3].map(|number| spool.opened(0, event(number)));
    assert_eq!(newest(folder.path()), (0, 0), "they wait for their turn");
    spool.write_down(other);
    let all = newest(folder.path());
    assert!(all.1 > 0);
    spool.write_down(turn);
    assert_eq!(newest(folder.path()), all, "the first has nothing left to write");
    [first, second, third].iter().for_each(|call| spool.closed(call, &ending(1)));
    spool.write_down(turn);
    assert_eq!(newest(folder.path()), all, "a turn that is over writes nothing of a later one");
    assert_eq!(read_all(&spool).0.into_values().collect::<Vec<_>>(), ["1", "2", "3"]);
}

#[tokio::test]
async fn an_end_does_not_wait_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), ROOMY).unwrap();
    let call = spool.written(0, event(1));
    let opened = newest(folder.path());
    spool.closed(&call, &ending(1));
    let is_written = async {
        while newest(folder.path()) == opened {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = spool.flush_for_ever() => {}
        () = is_written => {}
    }
}

#[test]
fn a_hole_in_the_files_is_a_known_loss() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), ROOMY).unwrap();
    for number in 1..=60 {
        spool.closed(&spool.written(0, event(number)), &ending(number));
    }
    drop(spool);
    let numbers = segment::list(folder.path()).unwrap();
    let middle = segment::path(folder.path(), numbers[numbers.len() / 2]);
    let mut bytes = fs::read(&middle).unwrap();
    bytes[20] ^= 1;
    fs::write(&middle, bytes).unwrap();
    let (events, lost) = read_all(&Spool::open(folder.path(), ROOMY).unwrap());
    assert!(lost.first().is_some() && events.len() > 40);
    let all: Intervals = events.keys().map(|seq| (*seq, *seq)).chain(lost.runs()).collect();
    assert_eq!(all.runs().collect::<Vec<_>>(), [(1, 60)]);
}

#[test]
fn segments_of_which_nothing_can_be_read_go() {
    let folder = tempfile::tempdir().unwrap();
    for (number, bytes) in [(1, ""), (2, "torn")] {
        fs::write(segment::path(folder.path(), number), bytes).unwrap();
    }
    let spool = Spool::open(folder.path(), ROOMY).unwrap();
    assert_eq!(segment::list(folder.path()).unwrap(), [0; 0]);
    spool.closed(&spool.written(0, event(7)), &ending(7));
    assert_eq!(read_all(&spool).0, BTreeMap::from([(1, "7".to_owned())]));
}

#[test]
fn what_damage_made_unreadable_is_still_lost_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), ROOMY).unwrap();
    let long = spool.written(0, event(0));
    for number in 1..40 {
        let ticket = spool.written(0, event(number));
        spool.closed(&ticket, &ending(number));
    }
    // Opened in the first segment, closed in the last one.
    spool.closed(&long, &ending(0));
    drop(spool);
    let first = segment::path(folder.path(), 1);
    let mut bytes = fs::read(&first).unwrap();
    bytes[9] ^= 1;
    fs::write(&first, bytes).unwrap();
    let lost = || -> BTreeSet<u64> {
        let spool = Spool::open(folder.path(), ROOMY).unwrap();
        let (items, _) = Reader::default().read(&spool, usize::MAX).unwrap();
        let lost = items.iter().filter_map(|item| match item {
            Item::Event { .. } => None,
            Item::Lost { first_seq, last_seq, .. } => Some(*first_seq..=*last_seq),
        });
        lost.flatten().collect()
    };
    let at_first = lost();
    assert!(at_first.contains(&40), "{at_first:?}");
    assert_eq!(lost(), at_first, "nothing was sent meanwhile");
}
