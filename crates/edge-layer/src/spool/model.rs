//! The spool against a model: whatever happens in between, every call that was opened comes out once.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{prelude::*, sample::Index};
use prost::Message as _;
use proto::events as pb;

use super::{
    Item, Reader, Spool, Ticket, Turn,
    intervals::Intervals,
    record::StreamId,
    segment,
    tests::{ROOMY, ending, event, newest},
};

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
