//! The meters of the keys of one shard, one after the other, so that whoever knows the place of a key's meters looks at
//! one place in memory. Who does not know it, or knows an old one, looks it up. Pure.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use proto::events as pb;
use smallvec::SmallVec;

use super::{
    meter::{Meter, Tick},
    rule::{KeyLimits, LIMITS_MAX, Limit, Place, Rate},
    standing::Standing,
};

/// Keys in a shard, two million in all; the one with the least use gives way to one more.
pub(super) const SHARD_KEYS_MAX: usize = 2048;

/// The keys of a shard and their meters.
#[derive(Debug, Default)]
pub(super) struct Keys {
    entries: Vec<Entry>,
    /// Where a key is among them.
    places: HashMap<u128, u32, BuildHasherDefault<Fold>>,
    /// Keys with uses that the other edges were not told.
    untold: Vec<u128>,
    /// Keys with uses that are not on the disk.
    unsaved: Vec<u128>,
    /// Counts the series of this shard's meters.
    series: u64,
}

/// Two lines of the cache.
#[derive(Debug)]
#[repr(align(64))]
struct Entry {
    key: u128,
    /// First those of the key's limits, in their order. The one that most keys have lies here itself: with a million keys
    /// each other place in memory that a call looks at costs as much as all the rest.
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

impl Keys {
    /// Admits a call if all limits do, and charges all of them then; says how each stands.
    pub(super) fn admit(&mut self, key: u128, limits: &KeyLimits, now: Tick) -> Standing {
        let at = self.find_or_add(key, &limits.place, now);
        let Self { entries, untold, unsaved, series, .. } = self;
        let (entry, limits) = (&mut entries[at], &*limits.limits);
        entry.align(limits, series, now);
        let meters = &mut entry.meters[..limits.len()];
        let waits = meters.iter().enumerate().map(|(nth, meter)| (meter.wait(now), nth));
        let refusing =
            waits.max_by_key(|(wait, nth)| (*wait, LIMITS_MAX - nth)).filter(|(wait, _)| *wait > 0);
        if refusing.is_none() {
            meters.iter_mut().for_each(|meter| meter.charge(now));
            mark(&mut entry.is_untold, untold, key);
            mark(&mut entry.is_unsaved, unsaved, key);
        }
        Standing::of(meters, refusing, now)
    }

    /// Whether there are uses that the other edges were not told.
    pub(super) fn is_untold(&self) -> bool {
        !self.untold.is_empty()
    }

    /// Whether there are uses that are not on the disk.
    pub(super) fn is_unsaved(&self) -> bool {
        !self.unsaved.is_empty()
    }

    /// Takes what the others were not told, until `uses` has about `uses_max`.
    pub(super) fn tell(&mut self, uses: &mut Vec<pb::LimitUse>, uses_max: usize, now: Tick) {
        while uses.len() < uses_max
            && let Some(key) = self.untold.pop()
        {
            let Some(entry) = self.entry(key) else { continue };
            entry.is_untold = false;
            let meters = entry.meters.iter_mut().filter(|meter| meter.count != meter.told);
            uses.extend(meters.map(|meter| tell(key, meter, now)));
        }
    }

    /// Everything that is used.
    pub(super) fn all(&mut self, now: Tick) -> Vec<pb::LimitUse> {
        let used = |meter: &&mut Meter| meter.used(now) > 0 || meter.count != meter.told;
        let uses = self
            .entries
            .iter_mut()
            .flat_map(|entry| entry.meters.iter_mut().filter(used).map(|meter| tell(entry.key, meter, now)));
        uses.collect()
    }

    /// The meter of a limit, made if there is room.
    pub(super) fn meter(&mut self, of: &Saved) -> Option<&mut Meter> {
        let at = match self.places.get(&of.key) {
            Some(at) => *at as usize,
            None if self.entries.len() >= SHARD_KEYS_MAX => return None,
            None => self.add(of.key),
        };
        let meters = &mut self.entries[at].meters;
        let nth = match meters.iter().position(|meter| meter.limit == of.limit) {
            Some(nth) => nth,
            // What was used of limits that the key has no more stays until it is empty.
            None if meters.len() >= 2 * LIMITS_MAX => return None,
            None => {
                self.series += 1;
                meters.push(Meter::new(of.limit, of.rate, self.series));
                meters.len() - 1
            }
        };
        Some(&mut meters[nth])
    }

    /// A key's use is not on the disk.
    pub(super) fn note_unsaved(&mut self, key: u128) {
        if let Some(at) = self.places.get(&key) {
            mark(&mut self.entries[*at as usize].is_unsaved, &mut self.unsaved, key);
        }
    }

    /// Takes what is not on the disk.
    pub(super) fn take_unsaved(&mut self, saved: &mut Vec<Saved>) {
        while let Some(key) = self.unsaved.pop() {
            let Some(entry) = self.entry(key) else { continue };
            entry.is_unsaved = false;
            saved.extend(entry.meters.iter().map(|meter| save(key, meter)));
        }
    }

    /// Everything.
    pub(super) fn saved(&self, saved: &mut Vec<Saved>) {
        saved.extend(
            self.entries.iter().flat_map(|entry| entry.meters.iter().map(|meter| save(entry.key, meter))),
        );
    }

    /// Drops the keys that use nothing up and have nothing to tell.
    pub(super) fn sweep(&mut self, now: Tick) {
        let mut at = 0;
        while let Some(entry) = self.entries.get(at) {
            if entry.is_untold || entry.empty_at() > now {
                at += 1;
            } else {
                self.remove(at);
            }
        }
    }

    /// Gives back memory of which most is not used.
    pub(super) fn shrink(&mut self) {
        if self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to_fit();
            self.places.shrink_to_fit();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Where a key is; there is always room for one that calls.
    fn find_or_add(&mut self, key: u128, place: &Place, now: Tick) -> usize {
        let at = place.get();
        if self.entries.get(at).is_some_and(|entry| entry.key == key) {
            return at;
        }
        let at = match self.places.get(&key) {
            Some(at) => *at as usize,
            None => {
                if self.entries.len() >= SHARD_KEYS_MAX {
                    self.make_room(now);
                }
                self.add(key)
            }
        };
        place.set(at);
        at
    }

    fn entry(&mut self, key: u128) -> Option<&mut Entry> {
        self.places.get(&key).map(|at| &mut self.entries[*at as usize])
    }

    fn add(&mut self, key: u128) -> usize {
        let at = self.entries.len();
        self.entries.push(Entry { key, meters: SmallVec::new(), is_untold: false, is_unsaved: false });
        self.places.insert(key, at as u32);
        at
    }

    /// The last one takes its place.
    fn remove(&mut self, at: usize) {
        self.places.remove(&self.entries.swap_remove(at).key);
        if let Some(moved) = self.entries.get(at) {
            self.places.insert(moved.key, at as u32);
        }
    }

    /// What is empty goes, else the key with the least use.
    fn make_room(&mut self, now: Tick) {
        self.sweep(now);
        let least = self.entries.iter().enumerate().min_by_key(|(_, entry)| entry.empty_at());
        if let Some((at, _)) = least.filter(|_| self.entries.len() >= SHARD_KEYS_MAX) {
            self.remove(at);
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

fn mark(is_marked: &mut bool, list: &mut Vec<u128>, key: u128) {
    if !*is_marked {
        *is_marked = true;
        list.push(key);
    }
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
    use super::*;

    #[test]
    fn an_entry_is_two_lines() {
        assert_eq!(size_of::<Entry>(), 128);
    }
}
