//! The meters of all keys, in shards with a lock each. A call takes one lock for as long as some additions last, and
//! allocates nothing but when a key is new here. Keys that use nothing up are dropped. Pure but for its locks: time
//! is an argument.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use domain::KeyId;
use proto::events as pb;
use smallvec::SmallVec;

use super::{
    meter::{Meter, Tick, Told},
    rule::{LIMITS_MAX, Limit, Rate, WINDOW_S_MAX},
    standing::Standing,
};

/// Shards; a power of two.
pub(crate) const SHARDS: usize = 1024;
/// Keys in a shard, two million in all; the one with the least use gives way to one more.
const SHARD_KEYS_MAX: usize = 2048;
const WORDS: usize = SHARDS / 64;

/// What is used of every limit of every key.
#[derive(Debug)]
pub(crate) struct Table {
    shards: Box<[Shard]>,
    /// Shards with uses that the other edges were not told, a bit each.
    untold: [AtomicU64; WORDS],
    /// Shards with uses that are not on the disk.
    unsaved: [AtomicU64; WORDS],
}

/// A lock to a line of the cache.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(Mutex<Keys>);

#[derive(Debug, Default)]
struct Keys {
    entries: HashMap<u128, Entry, BuildHasherDefault<Fold>>,
    untold: Vec<u128>,
    unsaved: Vec<u128>,
    /// Counts the series of this shard's meters.
    series: u64,
}

#[derive(Debug, Default)]
struct Entry {
    /// First those of the key's limits, in their order. The one that most keys have lies in the table itself: with a
    /// million keys each other place in memory that a call looks at costs as much as all the rest.
    meters: SmallVec<[Meter; 1]>,
    is_untold: bool,
    is_unsaved: bool,
}

/// A meter as the disk keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Saved {
    pub(crate) key: u128,
    pub(crate) limit: u64,
    pub(crate) rate: Rate,
    pub(crate) empty_at: Tick,
}

impl Default for Table {
    fn default() -> Self {
        let bits = || std::array::from_fn(|_| AtomicU64::new(0));
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect(), untold: bits(), unsaved: bits() }
    }
}

impl Table {
    /// Admits a call if all limits do, and charges all of them then; says how each stands.
    pub(crate) fn admit(&self, key_id: &KeyId, limits: &[Limit], now: Tick) -> Standing {
        let key = u128::from_be_bytes(*key_id.as_bytes());
        let at = shard_of(key);
        let mut keys = self.keys(at);
        let Keys { entries, untold, unsaved, series } = &mut *keys;
        if entries.len() >= SHARD_KEYS_MAX {
            make_room(entries, key, now);
        }
        let entry = entries.entry(key).or_default();
        entry.align(limits, series, now);
        let meters = entry.meters.iter_mut().zip(limits);
        let waits = meters.enumerate().map(|(nth, (meter, _))| (meter.wait(now), nth));
        let refusing =
            waits.max_by_key(|(wait, nth)| (*wait, LIMITS_MAX - nth)).filter(|(wait, _)| *wait > 0);
        if refusing.is_none() {
            entry.meters.iter_mut().take(limits.len()).for_each(|meter| meter.charge(now));
            mark(&mut entry.is_untold, untold, key, at, &self.untold);
            mark(&mut entry.is_unsaved, unsaved, key, at, &self.unsaved);
        }
        Standing::of(&entry.meters[..limits.len().min(entry.meters.len())], refusing, now)
    }

    /// Whether there are uses that the other edges were not told.
    pub(crate) fn is_untold(&self) -> bool {
        self.untold.iter().any(|word| word.load(Relaxed) != 0)
    }

    /// Takes up to about `uses_max` uses that the others were not told, from shard `cursor` on, which is moved.
    pub(crate) fn untold(&self, cursor: &mut usize, uses_max: usize, now: Tick) -> Vec<pb::LimitUse> {
        let mut uses = Vec::new();
        for _ in 0..SHARDS {
            if uses.len() >= uses_max {
                break;
            }
            let at = *cursor % SHARDS;
            let (word, bit) = (&self.untold[at / 64], 1 << (at % 64));
            if word.load(Relaxed) == 0 {
                *cursor = (at / 64 + 1) * 64;
                continue;
            }
            if word.load(Relaxed) & bit != 0 {
                let mut keys = self.keys(at);
                let Keys { entries, untold, .. } = &mut *keys;
                while uses.len() < uses_max
                    && let Some(key) = untold.pop()
                {
                    let Some(entry) = entries.get_mut(&key) else { continue };
                    entry.is_untold = false;
                    let meters = entry.meters.iter_mut().filter(|meter| meter.count != meter.told);
                    uses.extend(meters.map(|meter| tell(key, meter, now)));
                }
                if !untold.is_empty() {
                    break;
                }
                word.fetch_and(!bit, Relaxed);
            }
            *cursor = at + 1;
        }
        uses
    }

    /// Everything that is used of one shard.
    pub(crate) fn all(&self, shard: usize, now: Tick) -> Vec<pb::LimitUse> {
        let mut keys = self.keys(shard);
        let used = |meter: &&mut Meter| meter.used(now) > 0 || meter.count != meter.told;
        let uses = keys.entries.iter_mut().flat_map(|(key, entry)| {
            entry.meters.iter_mut().filter(used).map(|meter| tell(*key, meter, now))
        });
        uses.collect()
    }

    /// Takes what another edge tells; `false` if it cannot be read, or if there is no room for one more key.
    pub(crate) fn hear(
        &self,
        (peer, boot_epoch): (u32, u32),
        told: &pb::LimitUse,
        debt_windows: u64,
        now: Tick,
    ) -> bool {
        let Ok(key) = <[u8; 16]>::try_from(told.key_id.as_slice()) else { return false };
        if told.requests == 0 || !(1..=WINDOW_S_MAX).contains(&told.window_s) {
            return false;
        }
        let (key, rate) = (u128::from_be_bytes(key), Rate::new(told.requests, told.window_s));
        let &pb::LimitUse { limit, series, count, fresh, used_milli, .. } = told;
        let at = shard_of(key);
        let mut keys = self.keys(at);
        let own = Saved { key, limit, rate, empty_at: 0 };
        let Some(meter) = keys.meter(&own) else { return false };
        meter.hear(&Told { peer, boot_epoch, series, count, fresh, used_milli }, debt_windows, now);
        keys.note_unsaved(key, at, &self.unsaved);
        true
    }

    /// Takes what the disk kept.
    pub(crate) fn restore(&self, saved: &Saved) {
        if let Some(meter) = self.keys(shard_of(saved.key)).meter(saved) {
            meter.empty_at = meter.empty_at.max(saved.empty_at);
        }
    }

    /// Takes what changed in a shard since the last time; empties `saved` first.
    pub(crate) fn unsaved(&self, shard: usize, saved: &mut Vec<Saved>) {
        saved.clear();
        let (word, bit) = (&self.unsaved[shard / 64], 1 << (shard % 64));
        if word.load(Relaxed) & bit == 0 {
            return;
        }
        let mut keys = self.keys(shard);
        let Keys { entries, unsaved, .. } = &mut *keys;
        for key in unsaved.drain(..) {
            let Some(entry) = entries.get_mut(&key) else { continue };
            entry.is_unsaved = false;
            saved.extend(entry.meters.iter().map(|meter| save(key, meter)));
        }
        word.fetch_and(!bit, Relaxed);
    }

    /// Everything of a shard, for a new file; empties `saved` first.
    pub(crate) fn saved(&self, shard: usize, saved: &mut Vec<Saved>) {
        saved.clear();
        let keys = self.keys(shard);
        let meters =
            keys.entries.iter().flat_map(|(key, entry)| entry.meters.iter().map(|meter| save(*key, meter)));
        saved.extend(meters);
    }

    /// Drops the keys of a shard that use nothing up and have nothing to tell.
    pub(crate) fn sweep(&self, shard: usize, now: Tick) {
        let mut keys = self.keys(shard);
        sweep(&mut keys.entries, now);
        if keys.entries.len() < keys.entries.capacity() / 4 {
            keys.entries.shrink_to_fit();
        }
    }

    /// How many keys are metered.
    pub(crate) fn len(&self) -> usize {
        (0..SHARDS).map(|shard| self.keys(shard).entries.len()).sum()
    }

    fn keys(&self, shard: usize) -> MutexGuard<'_, Keys> {
        // A panic under the lock leaves at worst a call that is counted for some limits only.
        self.shards[shard].0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keys {
    /// The meter of a limit, made if there is room.
    fn meter(&mut self, of: &Saved) -> Option<&mut Meter> {
        if self.entries.len() >= SHARD_KEYS_MAX && !self.entries.contains_key(&of.key) {
            return None;
        }
        let entry = self.entries.entry(of.key).or_default();
        let known = entry.meters.iter().position(|meter| meter.limit == of.limit);
        let nth = match known {
            Some(nth) => nth,
            // What was used of limits that the key has no more stays until it is empty.
            None if entry.meters.len() >= 2 * LIMITS_MAX => return None,
            None => {
                self.series += 1;
                entry.meters.push(Meter::new(of.limit, of.rate, self.series));
                entry.meters.len() - 1
            }
        };
        Some(&mut entry.meters[nth])
    }

    fn note_unsaved(&mut self, key: u128, at: usize, bits: &[AtomicU64; WORDS]) {
        if let Some(entry) = self.entries.get_mut(&key) {
            mark(&mut entry.is_unsaved, &mut self.unsaved, key, at, bits);
        }
    }
}

impl Entry {
    /// Puts the meters of the key's limits first, and follows a change of the limits.
    fn align(&mut self, limits: &[Limit], series: &mut u64, now: Tick) {
        let is_aligned = self.meters.len() >= limits.len()
            && self.meters.iter().zip(limits).all(|(meter, limit)| meter.is_of(limit));
        if is_aligned {
            return;
        }
        let mut known = std::mem::take(&mut self.meters);
        let mut meters = SmallVec::with_capacity(limits.len());
        for limit in limits {
            let at = known.iter().position(|meter| meter.limit == limit.id);
            let fresh = || {
                *series += 1;
                Meter::new(limit.id, limit.rate, *series)
            };
            let mut meter = at.map_or_else(fresh, |at| known.swap_remove(at));
            if !meter.is_of(limit) {
                meter.change(limit, now);
            }
            meters.push(meter);
        }
        meters.extend(known.into_iter().filter(|meter| meter.used(now) > 0).take(LIMITS_MAX));
        self.meters = meters;
    }

    fn empty_at(&self) -> Tick {
        self.meters.iter().map(|meter| meter.empty_at).max().unwrap_or(0)
    }
}

fn tell(key: u128, meter: &mut Meter, now: Tick) -> pb::LimitUse {
    let fresh = meter.count - meter.told;
    meter.told = meter.count;
    pb::LimitUse {
        key_id: key.to_be_bytes().to_vec(),
        limit: meter.limit,
        requests: meter.rate.requests,
        window_s: meter.rate.window_s,
        series: meter.series,
        count: meter.count,
        fresh,
        used_milli: meter.used_milli(now),
    }
}

fn save(key: u128, meter: &Meter) -> Saved {
    Saved { key, limit: meter.limit, rate: meter.rate, empty_at: meter.empty_at }
}

fn mark(is_marked: &mut bool, list: &mut Vec<u128>, key: u128, at: usize, bits: &[AtomicU64; WORDS]) {
    if !*is_marked {
        *is_marked = true;
        if list.is_empty() {
            bits[at / 64].fetch_or(1 << (at % 64), Relaxed);
        }
        list.push(key);
    }
}

fn sweep(entries: &mut HashMap<u128, Entry, BuildHasherDefault<Fold>>, now: Tick) {
    entries.retain(|_, entry| entry.is_untold || entry.empty_at() > now);
}

/// Makes room for a key in a full shard: what is empty goes, else the key with the least use.
fn make_room(entries: &mut HashMap<u128, Entry, BuildHasherDefault<Fold>>, key: u128, now: Tick) {
    if entries.contains_key(&key) {
        return;
    }
    sweep(entries, now);
    if entries.len() >= SHARD_KEYS_MAX
        && let Some(least) = entries.iter().min_by_key(|(_, entry)| entry.empty_at()).map(|(key, _)| *key)
    {
        entries.remove(&least);
    }
}

/// The last bits of a key's id are random.
fn shard_of(key: u128) -> usize {
    (key as usize) % SHARDS
}

/// Spreads the random half of a key's id; ids are given by keys, not by callers.
#[derive(Debug, Default)]
struct Fold(u64);

impl Hasher for Fold {
    fn write_u128(&mut self, key: u128) {
        self.0 = ((key >> 64) as u64 ^ (key as u64).rotate_right(10)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use domain::Id;

    use super::*;
    use crate::limit::{
        meter::TICKS_PER_S,
        rule::{KeyLimits, limit},
    };

    const NOW: Tick = 1_000 * TICKS_PER_S;

    fn limits(limits: &[(&str, u64, u32)]) -> SmallVec<[Limit; 1]> {
        let limits: Vec<_> =
            limits.iter().map(|(name, requests, window_s)| limit(name, *requests, *window_s)).collect();
        KeyLimits::read(&limits).unwrap().limits
    }

    fn admitted(table: &Table, key: &KeyId, limits: &[Limit], calls: u64, now: Tick) -> u64 {
        (0..calls).filter(|_| table.admit(key, limits, now).is_admitted()).count() as u64
    }

    #[test]
    fn all_limits_admit_or_none_is_charged() {
        let (table, key) = (Table::default(), Id::generate());
        let limits = limits(&[("burst", 2, 1), ("day", 3, 86_400)]);
        assert_eq!(admitted(&table, &key, &limits, 5, NOW), 2);
        let refused = table.admit(&key, &limits, NOW);
        assert_eq!((refused.is_admitted(), refused.nth(), refused.left(1)), (false, 0, 1));
        // The burst is back, and the day was charged for what was admitted alone.
        let later = NOW + TICKS_PER_S;
        assert_eq!(admitted(&table, &key, &limits, 5, later), 1);
        let refused = table.admit(&key, &limits, later);
        assert_eq!((refused.is_admitted(), refused.nth(), refused.left(0)), (false, 1, 1));
        assert_eq!(admitted(&table, &Id::generate(), &limits, 9, later), 2, "another key");
    }

    #[test]
    fn a_changed_list_of_limits_keeps_what_was_used() {
        let (table, key) = (Table::default(), Id::generate());
        assert_eq!(admitted(&table, &key, &limits(&[("a", 5, 60), ("b", 9, 60)]), 4, NOW), 4);
        let left = |list: &[(&str, u64, u32)]| {
            let standing = table.admit(&key, &limits(list), NOW);
            (0..list.len()).map(|nth| standing.left(nth)).collect::<Vec<_>>()
        };
        assert_eq!(left(&[("b", 9, 60), ("a", 5, 60)]), [4, 0], "another order");
        assert_eq!(left(&[("c", 3, 60), ("b", 9, 60)]), [2, 3], "one new, one gone");
        assert_eq!(left(&[("a", 50, 60)]), [44], "one that came back, and was raised");
    }

    #[test]
    fn what_uses_nothing_up_is_dropped() {
        let table = Table::default();
        let limits = limits(&[("a", 10, 10)]);
        let keys: Vec<KeyId> = (0..3_000).map(|_| Id::generate()).collect();
        for key in &keys {
            assert_eq!(admitted(&table, key, &limits, 2, NOW), 2);
        }
        let sweep = |now| (0..SHARDS).for_each(|shard| table.sweep(shard, now));
        let later = NOW + 3 * TICKS_PER_S;
        sweep(later);
        assert_eq!(table.len(), 3_000, "the others were not told");
        let mut cursor = 7;
        let mut told = 0;
        while table.is_untold() {
            let uses = table.untold(&mut cursor, 1_000, NOW);
            assert!(uses.len() <= 1_000 && uses.iter().all(|told| told.count == 2 && told.fresh == 2));
            told += uses.len();
        }
        assert_eq!(told, 3_000);
        sweep(NOW + TICKS_PER_S);
        assert_eq!(table.len(), 3_000, "they still use something up");
        sweep(later);
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn a_full_shard_gives_up_what_is_used_least() {
        let table = Table::default();
        let limits = limits(&[("a", 10, 10)]);
        let key =
            |nth: usize| KeyId::from_slice(&(((nth * SHARDS) as u128) << 64 | 5).to_be_bytes()).unwrap();
        for nth in 0..SHARD_KEYS_MAX {
            assert_eq!(
                admitted(&table, &key(nth), &limits, if nth == 77 { 1 } else { 2 }, NOW),
                if nth == 77 { 1 } else { 2 }
            );
        }
        let told = |nth: usize| pb::LimitUse {
            key_id: key(nth).as_bytes().to_vec(),
            limit: limits[0].id,
            requests: 10,
            window_s: 10,
            series: 1,
            count: 5,
            fresh: 5,
            used_milli: 5_000,
        };
        assert!(!table.hear((1, 1), &told(SHARD_KEYS_MAX), 1, NOW), "there is no room for what others tell");
        assert!(table.hear((1, 1), &told(3), 1, NOW));
        let used = |nth| 9 - table.admit(&key(nth), &limits, NOW).left(0);
        assert_eq!(used(SHARD_KEYS_MAX), 0, "a call always has room");
        assert_eq!(table.len(), SHARD_KEYS_MAX);
        assert_eq!((used(3), used(76)), (7, 2));
        assert_eq!(used(77), 0, "it was forgotten");
    }

    #[test]
    fn what_cannot_be_read_is_not_taken() {
        let table = Table::default();
        let good = pb::LimitUse { key_id: vec![1; 16], requests: 1, window_s: 1, ..pb::LimitUse::default() };
        assert!(table.hear((1, 1), &good, 1, NOW));
        for bad in [
            pb::LimitUse { key_id: vec![1; 15], ..good.clone() },
            pb::LimitUse { requests: 0, ..good.clone() },
            pb::LimitUse { window_s: 0, ..good.clone() },
            pb::LimitUse { window_s: WINDOW_S_MAX + 1, ..good.clone() },
        ] {
            assert!(!table.hear((1, 1), &bad, 1, NOW));
        }
        for limit in 0..99 {
            table.hear((1, 1), &pb::LimitUse { limit, ..good.clone() }, 1, NOW);
        }
        assert_eq!(
            (
                table.len(),
                table
                    .keys(shard_of(u128::from_be_bytes([1; 16])))
                    .entries
                    .values()
                    .next()
                    .unwrap()
                    .meters
                    .len()
            ),
            (1, 20)
        );
    }
}
