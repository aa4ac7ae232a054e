//! The spool against a model: whatever happens in between, every call that was opened comes out once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::Instant,
};

use proptest::{prelude::*, sample::Index};
use prost::Message as _;
use proto::events as pb;

use super::{
    Draft, Ending, Item, Limits, Reader, Spool, Ticket, Turn, intervals::Intervals, record::StreamId, segment,
};

const ROOMY: Limits = Limits { bytes_max: 1 << 30, segment_bytes_max: 600 };

fn event(number: u64) -> Draft {
    let event = pb::RequestEvent { path: number.to_string(), status_code: 200, ..Default::default() };
    Draft::new(|out| event.encode(out).unwrap())
}

fn ending(number: u64) -> Ending {
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
    fn written(&self, shard: u16, event: Draft) -> Ticket {
        let (ticket, turn) = self.opened(shard, event);
        self.write_down(turn);
        ticket
    }
}

fn newest(folder: &Path) -> (u64, u64) {
    let number = segment::list(folder).unwrap().pop().unwrap_or(0);
    (number, fs::metadata(segment::path(folder, number)).map_or(0, |file| file.len()))
}

/// What may happen. Numbers choose among the calls that are running.
#[derive(Debug, Clone)]
enum Step {
    Open(u16),
    Close(Index),
    /// Several calls that are answered at once.
    OpenTogether(u16, usize),
    /// A call that is killed before its turn.
    KilledOpen(u16),
    /// Killed somewhere in the write of an `opened`.
    TornOpen(u16, Index),
    /// Killed somewhere in the write of a `closed`.
    TornClose(Index, Index),
    Kill,
    Deliver(usize),
    Commit,
    /// NATS was away: what was acknowledged counts no more.
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0u16..2).prop_map(Step::Open),
        2 => (0u16..2, 1usize..9).prop_map(|(shard, calls)| Step::OpenTogether(shard, calls)),
        1 => (0u16..2).prop_map(Step::KilledOpen),
        12 => any::<Index>().prop_map(Step::Close),
        1 => (0u16..2, any::<Index>()).prop_map(|(shard, cut)| Step::TornOpen(shard, cut)),
        1 => (any::<Index>(), any::<Index>()).prop_map(|(call, cut)| Step::TornClose(call, cut)),
        1 => Just(Step::Kill),
        4 => (1usize..20).prop_map(Step::Deliver),
        2 => Just(Step::Commit),
        1 => Just(Step::Reconnect),
    ]
}

struct Model {
    folder: tempfile::TempDir,
    /// `None` only while it is killed.
    spool: Option<Spool>,
    reader: Reader,
    running: Vec<(u64, Ticket)>,
    /// Every call whose `opened` is on the disk, and whether it ended by itself.
    opened: BTreeMap<u64, bool>,
    next: u64,
    /// In the order in which they ended.
    ended: Vec<u64>,
    /// What the stream has: by identity, which call.
    delivered: BTreeMap<(StreamId, u64), pb::RequestEvent>,
}

impl Model {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let spool = Some(Spool::open(folder.path(), ROOMY).unwrap());
        Self {
            folder,
            spool,
            reader: Reader::default(),
            running: Vec::new(),
            opened: BTreeMap::new(),
            next: 0,
            ended: Vec::new(),
            delivered: BTreeMap::new(),
        }
    }

    fn spool(&self) -> &Spool {
        self.spool.as_ref().unwrap()
    }

    fn open(&mut self, shard: u16) -> u64 {
        let (number, turn) = self.begin(shard);
        self.spool().write_down(turn);
        self.opened.insert(number, false);
        number
    }

    fn begin(&mut self, shard: u16) -> (u64, Turn) {
        let number = self.next;
        self.next += 1;
        let (ticket, turn) = self.spool().opened(shard, event(number));
        self.running.push((number, ticket));
        (number, turn)
    }

    fn close(&mut self, call: &Index) -> Option<u64> {
        if self.running.is_empty() {
            return None;
        }
        let (number, ticket) = self.running.swap_remove(call.index(self.running.len()));
        self.spool().closed(&ticket, &ending(number));
        self.opened.insert(number, true);
        self.ended.push(number);
        Some(number)
    }

    /// What was not written yet is gone.
    fn kill(&mut self) {
        if let Some(spool) = self.spool.take() {
            let forgotten = spool.store().forget_waiting();
            for number in self.ended.split_off(self.ended.len() - forgotten) {
                self.opened.insert(number, false);
            }
        }
        self.running.clear();
        self.reader = Reader::default();
        self.spool = Some(Spool::open(self.folder.path(), ROOMY).unwrap());
    }

    /// Does `write`, then cuts its bytes off from some point on. True if anything was cut.
    fn torn(&mut self, cut: &Index, write: impl FnOnce(&mut Self)) -> bool {
        self.spool().flush();
        let before = newest(self.folder.path());
        write(self);
        self.spool().flush();
        let after = newest(self.folder.path());
        let from = if before.0 == after.0 { before.1 } else { 0 };
        let keep = from + cut.index(usize::try_from(after.1 - from + 1).unwrap()) as u64;
        self.spool = None;
        segment::cut(self.folder.path(), after.0, keep).unwrap();
        keep < after.1
    }

    fn deliver(&mut self, wanted: usize) {
        let (items, _) = self.reader.read(self.spool.as_ref().unwrap(), wanted).unwrap();
        for item in items {
            let Item::Event { stream, seq, event } = item else { panic!("nothing is lost: {item:?}") };
            self.spool().publish(stream, seq, seq);
            let event = pb::RequestEvent::decode(event.as_slice()).unwrap();
            if let Some(other) = self.delivered.insert((stream, seq), event.clone()) {
                assert_eq!(other, event, "{stream:?} {seq} names two events");
            }
        }
    }

    fn commit(&self) {
        let mut committed = BTreeMap::<StreamId, Intervals>::new();
        for (stream, seq) in self.delivered.keys() {
            committed.entry(*stream).or_default().insert(*seq, *seq);
        }
        for (stream, seqs) in committed {
            self.spool().commit(stream, &seqs);
        }
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Open(shard) => {
                self.open(*shard);
            }
            Step::OpenTogether(shard, calls) => {
                let begun: Vec<_> = (0..*calls).map(|_| self.begin(*shard)).collect();
                for (number, turn) in begun {
                    self.spool().write_down(turn);
                    self.opened.insert(number, false);
                }
            }
            Step::KilledOpen(shard) => {
                self.begin(*shard);
                self.kill();
            }
            Step::Close(call) => {
                self.close(call);
            }
            Step::TornOpen(shard, cut) => {
                let is_cut = self.torn(cut, |model| {
                    model.open(*shard);
                });
                if is_cut {
                    self.opened.remove(&(self.next - 1));
                }
                self.kill();
            }
            Step::TornClose(call, cut) => {
                let mut closed = None;
                let is_cut = !self.running.is_empty() && self.torn(cut, |model| closed = model.close(call));
                if let Some(number) = closed.filter(|_| is_cut) {
                    self.opened.insert(number, false);
                }
                self.kill();
            }
            Step::Kill => self.kill(),
            Step::Deliver(wanted) => self.deliver(*wanted),
            Step::Commit => self.commit(),
            Step::Reconnect => {
                self.spool().forget_published();
                self.reader.restart();
            }
        }
    }

    /// Whatever is still in the spool is delivered; then each opened call must be there once.
    fn check(mut self) {
        self.kill();
        self.deliver(usize::MAX);
        assert!(self.spool().is_published());
        let mut seen = BTreeSet::new();
        for (identity, event) in &self.delivered {
            let number: u64 = event.path.parse().unwrap();
            assert!(seen.insert(number), "{number} was delivered twice, the second time as {identity:?}");
            let ended = self.opened.get(&number).unwrap_or_else(|| panic!("{number} was never answered"));
            assert_eq!(event.interrupted, !ended, "call {number}");
            let wanted = if *ended { (201, number) } else { (200, 0) };
            assert_eq!((event.status_code, event.request_bytes), wanted, "call {number}");
        }
        assert_eq!(seen, self.opened.keys().copied().collect::<BTreeSet<_>>());
        self.commit();
        assert!(self.spool().is_committed());
        assert!(segment::list(self.folder.path()).unwrap().len() <= 1, "what is committed goes");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn every_opened_call_comes_out_once(steps in prop::collection::vec(step(), 0..120)) {
        let mut model = Model::new();
        for step in &steps {
            model.apply(step);
        }
        model.check();
    }
}

#[test]
fn a_long_call_pins_nothing() {
    let mut model = Model::new();
    let long = model.open(0);
    for _ in 0..200 {
        let call = model.open(1);
        let (number, ticket) = model.running.pop().unwrap();
        assert_eq!(number, call);
        model.spool().closed(&ticket, &ending(call));
        model.opened.insert(call, true);
        model.ended.push(call);
        model.deliver(usize::MAX);
        model.commit();
        assert!(segment::list(model.folder.path()).unwrap().len() <= 2);
    }
    let (number, ticket) = model.running.pop().unwrap();
    assert_eq!(number, long);
    model.spool().closed(&ticket, &ending(long));
    model.opened.insert(long, true);
    model.ended.push(long);
    model.spool().flush();
    model.check();
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
