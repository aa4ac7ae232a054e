//! The meters beside the spool: a file of frames, each with a sum, to which changes are appended, and which is made
//! anew when it has grown. It survives the end of the process however that comes, but for what changed since the last
//! save; a power cut can take more. Never on the path of a call.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use super::{
    meter::{TICKS_PER_S, Tick},
    rule::Rate,
    table::{SHARDS, Saved, Table},
};

const NAME: &str = "limits";
const HEADER_BYTES: usize = 8;
const METER_BYTES: usize = 44;
/// Meters in a frame.
const FRAME_METERS: usize = 10_000;
/// The file is made anew when it has more than twice the bytes that it had then, and these.
const GROWTH_BYTES: u64 = 4 * 1024 * 1024;
/// What is not used any more by then is not written.
const SOON: Tick = TICKS_PER_S;
const US_TICKS: Tick = TICKS_PER_S / 1_000_000;

/// A moment by both clocks: the process's own, and the wall's, which outlives it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) tick: Tick,
    /// Microseconds since 1970.
    pub(crate) unix_us: u64,
}

/// The open file.
#[derive(Debug)]
pub(crate) struct Journal {
    folder: PathBuf,
    file: File,
    bytes: u64,
    fresh_bytes: u64,
}

impl Journal {
    /// Opens the file in the spool's folder, or makes it, and puts what it holds into `table`. What is damaged is
    /// passed over: at worst a limit is forgotten.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub(crate) fn open(folder: &Path, table: &Table, now: Moment) -> io::Result<Self> {
        let path = folder.join(NAME);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut rest = bytes.as_slice();
        while let Some((payload, after)) = frame(rest) {
            payload
                .chunks_exact(METER_BYTES)
                .filter_map(|meter| decode(meter, now))
                .for_each(|saved| table.restore(&saved));
            rest = after;
        }
        if !rest.is_empty() {
            tracing::warn!(
                bytes = rest.len(),
                "the end of the file of rate limits cannot be read; it is passed over"
            );
        }
        let file = File::options().create(true).append(true).open(&path)?;
        let mut journal = Self { folder: folder.to_owned(), file, bytes: 0, fresh_bytes: 0 };
        // So that nothing follows a torn end, and nothing old is kept.
        journal.renew(table, now)?;
        Ok(journal)
    }

    /// Appends what has changed.
    ///
    /// # Errors
    /// If the file cannot be written; what had changed is in the next new file.
    pub(crate) fn save(&mut self, table: &Table, now: Moment) -> io::Result<()> {
        if self.bytes > 2 * self.fresh_bytes + GROWTH_BYTES {
            return self.renew(table, now);
        }
        let appended = self.append(table, now);
        if appended.is_err() {
            // Makes the next save write everything into a new file.
            self.bytes = u64::MAX;
        }
        appended
    }

    fn append(&mut self, table: &Table, now: Moment) -> io::Result<()> {
        let mut frames = Frames::new(&mut self.file, now);
        let mut saved = Vec::new();
        for shard in 0..SHARDS {
            table.unsaved(shard, &mut saved);
            frames.put(&saved)?;
        }
        self.bytes += frames.end()?;
        Ok(())
    }

    /// Writes everything into a new file, which takes the place of the old one.
    fn renew(&mut self, table: &Table, now: Moment) -> io::Result<()> {
        let path = self.folder.join(NAME);
        let fresh_path = self.folder.join("limits.new");
        let mut file = File::create(&fresh_path)?;
        let mut frames = Frames::new(&mut file, now);
        let mut saved = Vec::new();
        for shard in 0..SHARDS {
            // What changes from here on is appended later, too; the later of two is the higher one.
            table.unsaved(shard, &mut saved);
            table.saved(shard, &mut saved);
            frames.put(&saved)?;
        }
        let bytes = frames.end()?;
        file.sync_all()?;
        fs::rename(&fresh_path, &path)?;
        (self.file, self.bytes, self.fresh_bytes) = (file, bytes, bytes);
        Ok(())
    }
}

/// Meters as frames.
struct Frames<'a> {
    file: &'a mut File,
    now: Moment,
    frame: Vec<u8>,
    bytes: u64,
}

impl<'a> Frames<'a> {
    fn new(file: &'a mut File, now: Moment) -> Self {
        Self { file, now, frame: vec![0; HEADER_BYTES], bytes: 0 }
    }

    fn put(&mut self, meters: &[Saved]) -> io::Result<()> {
        for meter in meters {
            let left = meter.empty_at.saturating_sub(self.now.tick);
            if left <= SOON {
                continue;
            }
            let empty_at_us = self.now.unix_us.saturating_add(left / US_TICKS);
            self.frame.extend_from_slice(&meter.key.to_le_bytes());
            self.frame.extend_from_slice(&meter.limit.to_le_bytes());
            self.frame.extend_from_slice(&meter.rate.requests.to_le_bytes());
            self.frame.extend_from_slice(&meter.rate.window_s.to_le_bytes());
            self.frame.extend_from_slice(&empty_at_us.to_le_bytes());
            if self.frame.len() >= HEADER_BYTES + FRAME_METERS * METER_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn end(mut self) -> io::Result<u64> {
        self.flush()?;
        Ok(self.bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        let payload = &self.frame[HEADER_BYTES..];
        if payload.is_empty() {
            return Ok(());
        }
        let length = u32::try_from(payload.len()).expect("a frame is small").to_le_bytes();
        let sum = crc32fast::hash(payload).to_le_bytes();
        self.frame[..4].copy_from_slice(&length);
        self.frame[4..HEADER_BYTES].copy_from_slice(&sum);
        self.file.write_all(&self.frame)?;
        self.bytes += self.frame.len() as u64;
        self.frame.truncate(HEADER_BYTES);
        Ok(())
    }
}

/// The payload of the frame at the start of `bytes`, and what follows it.
fn frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let (payload, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    (!payload.is_empty() && crc32fast::hash(payload) == u32::from_le_bytes(*sum)).then_some((payload, rest))
}

/// A meter that still uses something up. A debt of more than a window is cut to one, since the wall's clock may have
/// been set back.
fn decode(bytes: &[u8], now: Moment) -> Option<Saved> {
    let (key, rest) = bytes.split_first_chunk()?;
    let (limit, rest) = rest.split_first_chunk()?;
    let (requests, rest) = rest.split_first_chunk()?;
    let (window_s, rest) = rest.split_first_chunk()?;
    let rate = Rate::new(u64::from_le_bytes(*requests), u32::from_le_bytes(*window_s));
    let empty_at_us = u64::from_le_bytes(rest.try_into().ok()?);
    let left = empty_at_us.checked_sub(now.unix_us).filter(|left| *left > 0)?.saturating_mul(US_TICKS);
    let empty_at = now.tick + left.min(2 * rate.window());
    Some(Saved { key: u128::from_le_bytes(*key), limit: u64::from_le_bytes(*limit), rate, empty_at })
}

#[cfg(test)]
mod tests {
    use domain::{Id, KeyId};

    use super::*;
    use crate::limit::rule::{KeyLimits, limit};

    fn moment(s: u64) -> Moment {
        Moment { tick: s * TICKS_PER_S, unix_us: 1_790_000_000_000_000 + s * 1_000_000 }
    }

    fn month() -> KeyLimits {
        KeyLimits::read(&[limit("month", 1_000, 2_592_000)]).unwrap()
    }

    fn call(table: &Table, key: &KeyId, limits: &KeyLimits, calls: u64, now: Moment) {
        (0..calls).for_each(|_| assert!(table.admit(key, limits, now.tick).is_admitted()));
    }

    fn left(table: &Table, key: &KeyId, limits: &KeyLimits, now: Moment) -> u64 {
        table.admit(key, limits, now.tick).left(0) + 1
    }

    #[test]
    fn what_was_used_outlives_the_process() {
        let at = tempfile::tempdir().unwrap();
        let (key, month, burst) =
            (Id::generate(), month(), KeyLimits::read(&[limit("burst", 9, 1)]).unwrap());
        let table = Table::default();
        let mut journal = Journal::open(at.path(), &table, moment(5)).unwrap();
        call(&table, &key, &month, 10, moment(5));
        call(&table, &Id::generate(), &burst, 9, moment(5));
        journal.save(&table, moment(6)).unwrap();
        call(&table, &key, &month, 20, moment(6));
        journal.save(&table, moment(7)).unwrap();
        journal.save(&table, moment(8)).unwrap();
        call(&table, &key, &month, 40, moment(8));
        drop((journal, table));

        // The clock of the process begins anew, and the last calls were not saved.
        let (table, now) = (Table::default(), Moment { tick: 0, ..moment(9) });
        let journal = Journal::open(at.path(), &table, now).unwrap();
        assert_eq!(table.len(), 1, "a second is not worth a line");
        assert_eq!(left(&table, &key, &month, now), 970);
        drop(journal);
        // While nobody was there time went on: one call in 2592 s.
        let (table, now) = (Table::default(), Moment { tick: 0, ..moment(9 + 2 * 2_592) });
        let _journal = Journal::open(at.path(), &table, now).unwrap();
        assert_eq!(left(&table, &key, &month, now), 972);
    }

    #[test]
    fn a_torn_end_costs_what_was_in_it() {
        let at = tempfile::tempdir().unwrap();
        let (key, month, table) = (Id::generate(), month(), Table::default());
        let mut journal = Journal::open(at.path(), &table, moment(1)).unwrap();
        call(&table, &key, &month, 10, moment(1));
        journal.save(&table, moment(2)).unwrap();
        let whole = fs::read(at.path().join(NAME)).unwrap();
        call(&table, &key, &month, 10, moment(2));
        journal.save(&table, moment(3)).unwrap();
        let longer = fs::read(at.path().join(NAME)).unwrap();
        assert_eq!(&longer[..whole.len()], whole);
        for cut in 0..longer.len() {
            fs::write(at.path().join(NAME), &longer[..cut]).unwrap();
            let table = Table::default();
            let mut journal = Journal::open(at.path(), &table, moment(3)).unwrap();
            let wanted = if cut < whole.len() { 1_000 } else { 990 };
            assert_eq!(left(&table, &key, &month, moment(3)), wanted, "cut at {cut}");
            // What follows is whole again.
            journal.save(&table, moment(4)).unwrap();
            let table = Table::default();
            Journal::open(at.path(), &table, moment(4)).unwrap();
            assert_eq!(left(&table, &key, &month, moment(4)), wanted - 1);
        }
    }

    #[test]
    fn the_file_does_not_grow_for_ever() {
        let at = tempfile::tempdir().unwrap();
        let (month, table) = (month(), Table::default());
        let mut journal = Journal::open(at.path(), &table, moment(1)).unwrap();
        let keys: Vec<KeyId> = (0..10_000).map(|_| Id::generate()).collect();
        let mut largest = 0;
        for round in 0..40 {
            keys.iter().for_each(|key| call(&table, key, &month, 1, moment(round)));
            journal.save(&table, moment(round)).unwrap();
            largest = largest.max(fs::metadata(at.path().join(NAME)).unwrap().len());
        }
        let meters = keys.len() * METER_BYTES;
        assert!(largest < GROWTH_BYTES + 4 * meters as u64, "{largest} bytes");
        let table = Table::default();
        Journal::open(at.path(), &table, moment(40)).unwrap();
        assert!(keys.iter().all(|key| left(&table, key, &month, moment(40)) == 960));
    }

    #[test]
    fn a_clock_that_was_set_back_locks_nobody_out() {
        let at = tempfile::tempdir().unwrap();
        let (key, limits, table) =
            (Id::generate(), KeyLimits::read(&[limit("day", 10, 86_400)]).unwrap(), Table::default());
        let mut journal = Journal::open(at.path(), &table, moment(10_000_000)).unwrap();
        call(&table, &key, &limits, 10, moment(10_000_000));
        journal.save(&table, moment(10_000_000)).unwrap();
        let table = Table::default();
        Journal::open(at.path(), &table, moment(0)).unwrap();
        assert_eq!(left(&table, &key, &limits, moment(2 * 86_400)), 10, "after two windows all is back");
    }
}
