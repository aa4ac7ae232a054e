//! Some edges on a network that delays, loses and repeats what they tell each other, in simulated time, always the
//! same. Holds the bounds that the README promises.

use domain::{Id, KeyId};
use proto::events as pb;

use super::{
    meter::{TICKS_PER_S, Tick},
    rule::{KeyLimits, limit},
    table::{SHARDS, Table},
};

const MS: Tick = TICKS_PER_S / 1_000;
/// How often an edge tells, and how long a message takes at most: together what the README calls the interval.
const PAUSE: Tick = 20 * MS;
const DELAY_MAX: Tick = 10 * MS;

/// xorshift64*; the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % end
    }
}

struct Edge {
    table: Table,
    boot_epoch: u32,
    cursor: usize,
    /// It began on its own clock so much earlier.
    skew: Tick,
    admitted: Vec<Tick>,
    is_cut_off: bool,
}

/// Arrival, receiver, sender and its start, what it tells.
type Message = (Tick, usize, (u32, u32), Vec<pb::LimitUse>);

struct World {
    edges: Vec<Edge>,
    limits: KeyLimits,
    key: KeyId,
    dice: Dice,
    wire: Vec<Message>,
    /// Of a hundred messages.
    lost: u64,
    repeated: u64,
    now: Tick,
}

impl World {
    fn new(edges: usize, requests: u64, window_s: u32) -> Self {
        let edge = |nth: usize| Edge {
            table: Table::default(),
            boot_epoch: 1,
            cursor: 0,
            skew: nth as u64 * 1_234_567 * TICKS_PER_S / 10,
            admitted: Vec::new(),
            is_cut_off: false,
        };
        Self {
            edges: (0..edges).map(edge).collect(),
            limits: KeyLimits::read(&[limit("limit", requests, window_s)]).unwrap(),
            key: Id::generate(),
            dice: Dice(88_172_645_463_325_252),
            wire: Vec::new(),
            lost: 0,
            repeated: 0,
            now: TICKS_PER_S,
        }
    }

    /// Lets time pass, with so many calls a second in all, at random edges and moments.
    fn run(&mut self, duration: Tick, calls_per_s: u64) {
        let end = self.now + duration;
        let mut next_call = self.now;
        while self.now < end {
            self.now += MS;
            while next_call <= self.now && calls_per_s > 0 {
                let at = self.dice.below(self.edges.len() as u64) as usize;
                self.call(at, next_call);
                next_call += self.dice.below(2 * TICKS_PER_S / calls_per_s) + 1;
            }
            self.deliver();
            for from in 0..self.edges.len() {
                // Edges tell at moments of their own.
                if (self.now + from as u64 * 7 * MS).is_multiple_of(PAUSE) && !self.edges[from].is_cut_off {
                    let edge = &mut self.edges[from];
                    let uses = edge.table.untold(&mut edge.cursor, 1_000, self.now + edge.skew);
                    self.send(from, &uses);
                }
            }
        }
    }

    fn call(&mut self, at: usize, now: Tick) -> bool {
        let edge = &mut self.edges[at];
        let is_admitted = edge.table.admit(&self.key, &self.limits, now + edge.skew).is_admitted();
        if is_admitted {
            edge.admitted.push(now);
        }
        is_admitted
    }

    fn send(&mut self, from: usize, uses: &[pb::LimitUse]) {
        if uses.is_empty() {
            return;
        }
        for to in (0..self.edges.len()).filter(|to| *to != from) {
            let copies = match self.dice.below(100) {
                roll if roll < self.lost => 0,
                roll if roll < self.lost + self.repeated => 2,
                _ => 1,
            };
            for _ in 0..copies {
                let arrival = self.now + self.dice.below(DELAY_MAX);
                let sender = (from as u32, self.edges[from].boot_epoch);
                self.wire.push((arrival, to, sender, uses.to_vec()));
            }
        }
    }

    fn deliver(&mut self) {
        let now = self.now;
        let others = self.edges.len() as u64 - 1;
        let (due, later): (Vec<Message>, _) =
            std::mem::take(&mut self.wire).into_iter().partition(|(at, ..)| *at <= now);
        self.wire = later;
        for (_, to, sender, uses) in due {
            let edge = &self.edges[to];
            for told in uses.iter().filter(|_| !edge.is_cut_off) {
                assert!(edge.table.hear(sender, told, others, now + edge.skew));
            }
        }
    }

    /// An edge tells everything, as it does when it is asked, and after it was cut off.
    fn announce(&mut self, from: usize) {
        let edge = &self.edges[from];
        let all: Vec<_> = (0..SHARDS).flat_map(|shard| edge.table.all(shard, self.now + edge.skew)).collect();
        self.send(from, &all);
    }

    /// What each edge knows to be used, in thousandths of a call.
    fn views(&self) -> Vec<u64> {
        let view = |edge: &Edge| -> u64 {
            let uses = (0..SHARDS).flat_map(|shard| edge.table.all(shard, self.now + edge.skew));
            uses.map(|told| told.used_milli).sum()
        };
        self.edges.iter().map(view).collect()
    }

    fn admitted(&self, from: Tick, to: Tick) -> u64 {
        let within = |at: &&Tick| (from..to).contains(*at);
        self.edges.iter().map(|edge| edge.admitted.iter().filter(within).count() as u64).sum()
    }
}

/// Ten times the limit at three edges: after the first window no window is off by more than the bound, and all
/// together are not off by more than one of them may be.
fn check(requests: u64, window_s: u32, bound: f64, lost: u64, repeated: u64) {
    let mut world = World::new(3, requests, window_s);
    (world.lost, world.repeated) = (lost, repeated);
    let (start, window) = (world.now, u64::from(window_s) * TICKS_PER_S);
    let windows = 5;
    world.run(windows * window, 10 * requests / u64::from(window_s));
    let counts: Vec<u64> =
        (1..windows).map(|nth| world.admitted(start + nth * window, start + (nth + 1) * window)).collect();
    // Calls are whole: each edge may be ahead or behind by one.
    let most = bound * requests as f64 + 3.0;
    let off = |count: u64, wanted: u64| count.abs_diff(wanted) as f64;
    assert!(counts.iter().all(|count| off(*count, requests) <= most), "{counts:?} of {requests}");
    let sum = counts.iter().sum();
    assert!(off(sum, requests * (windows - 1)) <= most, "{sum} in all: {counts:?}");
    // None counts what the others do not: it would refuse its clients while they admit theirs.
    (world.lost, world.repeated) = (0, 0);
    (0..3).for_each(|edge| world.announce(edge));
    world.run(100 * MS, 0);
    let views = world.views();
    let apart = views.iter().max().unwrap() - views.iter().min().unwrap();
    assert!(apart as f64 <= most * 1_000.0, "{views:?}");
}

#[test]
fn ten_times_the_limit_at_three_edges() {
    let interval =
        |window_s: u32| 2.0 * (PAUSE + DELAY_MAX) as f64 / (f64::from(window_s) * TICKS_PER_S as f64);
    for (requests, window_s) in [(100, 1), (500, 1), (50, 2), (500, 5)] {
        check(requests, window_s, interval(window_s), 0, 0);
    }
    for (requests, window_s) in [(50, 10), (1_000, 10), (600, 60)] {
        check(requests, window_s, 0.05, 0, 0);
        check(requests, window_s, 0.05, 0, 30);
        check(requests, window_s, 0.05, 20, 20);
    }
}

#[test]
fn what_was_too_much_in_the_first_window_is_paid_back() {
    let mut world = World::new(3, 100, 10);
    let start = world.now;
    // All at once, before anybody could tell: each edge gives the whole limit.
    let at_once: usize = (0..600).filter(|nth| world.call(nth % 3, start)).count();
    assert_eq!(at_once, 300);
    world.run(20 * TICKS_PER_S - 500 * MS, 100);
    assert_eq!(world.admitted(start + 1, world.now), 0, "two windows are owed");
    world.run(500 * MS + 30 * TICKS_PER_S, 100);
    let admitted = world.admitted(start, world.now);
    assert!(admitted.abs_diff(100 + 500) <= 5, "{admitted} in 50 s");
}

#[test]
fn edges_that_were_cut_off_owe_what_they_gave() {
    let mut world = World::new(3, 100, 10);
    world.run(20 * TICKS_PER_S, 100);
    let (start, shared) = (world.now, world.admitted(0, world.now));
    assert!(shared.abs_diff(300) <= 5, "{shared}");
    world.edges.iter_mut().for_each(|edge| edge.is_cut_off = true);
    world.run(10 * TICKS_PER_S, 100);
    let alone = world.admitted(start, world.now);
    assert!(alone.abs_diff(300) <= 10, "each edge counts alone: {alone}");
    world.edges.iter_mut().for_each(|edge| edge.is_cut_off = false);
    (0..3).for_each(|edge| world.announce(edge));
    world.run(50 * TICKS_PER_S, 100);
    let all = world.admitted(start, world.now);
    assert!(all.abs_diff(600) <= 10, "{all} in 60 s");
}

#[test]
fn a_new_edge_learns_what_is_owed() {
    let mut world = World::new(4, 1_000, 86_400);
    world.edges[3].is_cut_off = true;
    for nth in 0..900 {
        assert!(world.call(nth % 3, world.now));
    }
    world.run(TICKS_PER_S, 0);
    world.edges[3].is_cut_off = false;
    (0..3).for_each(|edge| world.announce(edge));
    world.run(TICKS_PER_S, 0);
    let admitted = (0..1_000).filter(|_| world.call(3, world.now)).count();
    assert!(admitted.abs_diff(100) <= 1, "{admitted}");
}

#[test]
fn a_restart_charges_nothing_twice() {
    for remembers in [true, false] {
        let mut world = World::new(3, 1_000, 86_400);
        for nth in 0..600 {
            assert!(world.call(nth % 3, world.now));
        }
        world.run(TICKS_PER_S, 0);
        let mut saved = Vec::new();
        let fresh = Table::default();
        for shard in (0..SHARDS).filter(|_| remembers) {
            world.edges[0].table.saved(shard, &mut saved);
            saved.iter().for_each(|saved| fresh.restore(saved));
        }
        world.edges[0].table = fresh;
        world.edges[0].boot_epoch = 2;
        // It asks, is told, and tells.
        (0..3).for_each(|edge| world.announce(edge));
        world.run(TICKS_PER_S, 0);
        for _ in 0..100 {
            assert!(world.call(0, world.now));
        }
        world.run(TICKS_PER_S, 0);
        (0..3).for_each(|edge| world.announce(edge));
        world.run(TICKS_PER_S, 0);
        for edge in &world.edges {
            let standing = edge.table.admit(&world.key, &world.limits, world.now + edge.skew);
            assert!(standing.left(0).abs_diff(299) <= 1, "{} left, {remembers}", standing.left(0));
        }
    }
}
