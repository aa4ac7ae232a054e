//! The meters of all keys, in shards with a lock each. A call takes one lock for as long as some additions last, and
//! allocates nothing but when a key is new here. Keys that use nothing up are dropped. Pure but for its locks: time
//! is an argument.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use domain::KeyId;
use proto::events as pb;

pub(crate) use super::keys::Saved;
use super::{
    keys::Keys,
    meter::{Tick, Told},
    rule::{KeyLimits, Rate, WINDOW_S_MAX},
    standing::Standing,
};

/// Shards; a power of two.
pub(crate) const SHARDS: usize = 1024;

/// What is used of every limit of every key.
#[derive(Debug)]
pub(crate) struct Table {
    shards: Box<[Shard]>,
    /// Shards with uses that the other edges were not told.
    untold: Bits,
    /// Shards with uses that are not on the disk.
    unsaved: Bits,
}

/// A lock to a line of the cache.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(Mutex<Keys>);

/// A bit for each shard, changed under the shard's lock.
#[derive(Debug)]
struct Bits([AtomicU64; SHARDS / 64]);

impl Default for Table {
    fn default() -> Self {
        let bits = || Bits(std::array::from_fn(|_| AtomicU64::new(0)));
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect(), untold: bits(), unsaved: bits() }
    }
}

impl Table {
    /// Admits a call if all limits do, and charges all of them then; says how each stands.
    pub(crate) fn admit(&self, key_id: &KeyId, limits: &KeyLimits, now: Tick) -> Standing {
        let key = u128::from_be_bytes(*key_id.as_bytes());
        let at = shard_of(key);
        let mut keys = self.keys(at);
        let standing = keys.admit(key, limits, now);
        self.note(at, &keys);
        standing
    }

    /// Whether there are uses that the other edges were not told.
    pub(crate) fn is_untold(&self) -> bool {
        self.untold.0.iter().any(|word| word.load(Relaxed) != 0)
    }

    /// Takes up to about `uses_max` uses that the others were not told, from shard `cursor` on, which is moved.
    pub(crate) fn untold(&self, cursor: &mut usize, uses_max: usize, now: Tick) -> Vec<pb::LimitUse> {
        let mut uses = Vec::new();
        for _ in 0..SHARDS {
            if uses.len() >= uses_max {
                break;
            }
            let at = *cursor % SHARDS;
            if self.untold.0[at / 64].load(Relaxed) == 0 {
                *cursor = (at / 64 + 1) * 64;
                continue;
            }
            if self.untold.has(at) {
                let mut keys = self.keys(at);
                keys.tell(&mut uses, uses_max, now);
                if keys.is_untold() {
                    break;
                }
                self.untold.clear(at);
            }
            *cursor = at + 1;
        }
        uses
    }

    /// Everything that is used of one shard.
    pub(crate) fn all(&self, shard: usize, now: Tick) -> Vec<pb::LimitUse> {
        self.keys(shard).all(now)
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
        keys.note_unsaved(key);
        self.note(at, &keys);
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
        if self.unsaved.has(shard) {
            let mut keys = self.keys(shard);
            keys.take_unsaved(saved);
            self.unsaved.clear(shard);
        }
    }

    /// Everything of a shard, for a new file; empties `saved` first.
    pub(crate) fn saved(&self, shard: usize, saved: &mut Vec<Saved>) {
        saved.clear();
        self.keys(shard).saved(saved);
    }

    /// Drops the keys of a shard that use nothing up and have nothing to tell.
    pub(crate) fn sweep(&self, shard: usize, now: Tick) {
        let mut keys = self.keys(shard);
        keys.sweep(now);
        keys.shrink();
    }

    /// How many keys are metered.
    pub(crate) fn len(&self) -> usize {
        (0..SHARDS).map(|shard| self.keys(shard).len()).sum()
    }

    fn keys(&self, shard: usize) -> MutexGuard<'_, Keys> {
        // A panic under the lock leaves at worst a call that is counted for some limits only.
        self.shards[shard].0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, at: usize, keys: &Keys) {
        if keys.is_untold() {
            self.untold.set(at);
        }
        if keys.is_unsaved() {
            self.unsaved.set(at);
        }
    }
}

impl Bits {
    fn has(&self, at: usize) -> bool {
        self.0[at / 64].load(Relaxed) & (1 << (at % 64)) != 0
    }

    /// Most often it is set already, and then the line stays with every core that reads it.
    fn set(&self, at: usize) {
        if !self.has(at) {
            self.0[at / 64].fetch_or(1 << (at % 64), Relaxed);
        }
    }

    fn clear(&self, at: usize) {
        self.0[at / 64].fetch_and(!(1 << (at % 64)), Relaxed);
    }
}

/// The last bits of a key's id are random.
fn shard_of(key: u128) -> usize {
    (key as usize) % SHARDS
}

#[cfg(test)]
mod tests {
    use domain::Id;
    use proptest::prelude::*;

    use super::*;
    use crate::limit::{keys::SHARD_KEYS_MAX, meter::TICKS_PER_S, rule::limit};

    const NOW: Tick = 1_000 * TICKS_PER_S;

    fn limits(limits: &[(&str, u64, u32)]) -> KeyLimits {
        let limits: Vec<_> =
            limits.iter().map(|(name, requests, window_s)| limit(name, *requests, *window_s)).collect();
        KeyLimits::read(&limits).unwrap()
    }

    fn admitted(table: &Table, key: &KeyId, limits: &KeyLimits, calls: u64, now: Tick) -> u64 {
        (0..calls).filter(|_| table.admit(key, limits, now).is_admitted()).count() as u64
    }

    /// All of them in one shard.
    fn key(nth: usize) -> KeyId {
        KeyId::from_slice(&(((nth * SHARDS) as u128) << 64 | 5).to_be_bytes()).unwrap()
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
        for nth in 0..SHARD_KEYS_MAX {
            assert_eq!(
                admitted(&table, &key(nth), &limits, if nth == 77 { 1 } else { 2 }, NOW),
                if nth == 77 { 1 } else { 2 }
            );
        }
        let told = |nth: usize| pb::LimitUse {
            key_id: key(nth).as_bytes().to_vec(),
            limit: limits.limits[0].id,
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
        let mut meters = Vec::new();
        table.saved(shard_of(u128::from_be_bytes([1; 16])), &mut meters);
        assert_eq!((table.len(), meters.len()), (1, 20));
    }

    proptest! {
        /// Keys come and go, and others get their places; each stands as it would with a table of its own.
        #[test]
        fn keys_of_one_shard_do_not_mix(
            calls in prop::collection::vec((0usize..12, 0..TICKS_PER_S, any::<bool>()), 1..100),
        ) {
            let (table, mut now) = (Table::default(), NOW);
            let alone: Vec<_> = (0..12)
                .map(|nth| (Table::default(), limits(&[("a", 3, 1 + nth)]), limits(&[("a", 3, 1 + nth)])))
                .collect();
            for (nth, rest, is_swept) in calls {
                now += rest;
                if is_swept {
                    table.untold(&mut 0, usize::MAX, now);
                    table.sweep(shard_of(u128::from_be_bytes(*key(nth).as_bytes())), now);
                }
                let (own_table, here, there) = &alone[nth];
                let [standing, own] =
                    [table.admit(&key(nth), here, now), own_table.admit(&key(nth), there, now)];
                prop_assert_eq!((standing.is_admitted(), standing.left(0)), (own.is_admitted(), own.left(0)));
            }
        }
    }
}
