//! What a start finds in the folder, and how it finishes it: the torn tail is cut, calls that were running end
//! as interrupted, numbers that are missing are lost. A crash in the middle of it changes nothing, since each
//! step only appends what the next start would append otherwise.

use std::{collections::HashMap, io, path::Path};

use super::{
    Limits,
    folder::Folder,
    intervals::Intervals,
    ledger::{Ledger, Place},
    record::{CallId, Frame, Record, StreamId, decode},
    segment,
    store::Store,
};

/// Reads all segments and finishes them.
pub(crate) fn recover(folder: Folder, limits: Limits) -> io::Result<Store> {
    let numbers = segment::list(&folder.path)?;
    let mut found = Found::default();
    for number in &numbers {
        found.read(&folder.path, *number, Some(number) == numbers.last())?;
    }
    found.settle();
    let headless = found.unread();
    let Found { ledger, shards, .. } = found;
    let running = ledger.running();
    let gaps = gaps(&ledger);
    let next_segment = numbers.last().map_or(1, |last| last + 1);
    let mut store = Store::new(folder, limits, ledger, next_segment);
    for (stream, lost) in gaps.into_iter().chain(headless) {
        tracing::error!(
            boot_epoch = stream.boot_epoch,
            shard = stream.shard,
            ?lost,
            "events are missing in the spool"
        );
        store.lose(stream, &lost)?;
    }
    for (call, _) in &running {
        store.interrupt(*call, shards.get(call).copied().unwrap_or(0))?;
    }
    if !running.is_empty() {
        tracing::warn!(
            calls = running.len(),
            "calls that were running when the edge stopped are marked interrupted"
        );
    }
    Ok(store)
}

#[derive(Default)]
struct Found {
    ledger: Ledger,
    shards: HashMap<CallId, u16>,
    /// Ended calls without their `Opened` record.
    headless: Vec<(StreamId, u64)>,
    lost: HashMap<StreamId, Intervals>,
    damaged: bool,
}

impl Found {
    fn read(&mut self, folder: &Path, number: u64, is_last: bool) -> io::Result<()> {
        let length = std::fs::metadata(segment::path(folder, number))?.len();
        let bytes = segment::read(folder, number, 0, usize::try_from(length).map_err(io::Error::other)?)?;
        let mut at = 0;
        while let Frame::Record(record, length) = decode(&bytes[at..]) {
            self.take(number, at, length, &record);
            at += length;
        }
        if at < bytes.len() {
            let cut_bytes = bytes.len() - at;
            if is_last {
                tracing::info!(spool.segment = number, cut_bytes, "an unfinished record is cut off");
            } else {
                // A crash can leave only the newest segment unfinished, so this one was damaged later.
                self.damaged = true;
                tracing::error!(
                    spool.segment = number,
                    cut_bytes,
                    "a segment is damaged; what cannot be read is cut off"
                );
            }
            segment::cut(folder, number, at as u64)?;
        }
        if at > 0 {
            self.ledger.resize(number, at as u64);
        } else {
            // As a start leaves it that is killed in its first write; no commit may ever come for it.
            segment::remove(folder, number);
        }
        Ok(())
    }

    fn take(&mut self, segment: u64, at: usize, length: usize, record: &Record<'_>) {
        match *record {
            Record::Opened { call, shard, .. } => {
                self.ledger.opened(call, Place { segment, offset: at as u64, length });
                self.shards.insert(call, shard);
            }
            Record::Closed(ref closed) => {
                self.shards.remove(&closed.call);
                if !self.ledger.closed(segment, closed) {
                    self.headless.push((closed.stream, closed.seq));
                }
            }
            Record::Lost { stream, first_seq, last_seq } => {
                self.ledger.lost(segment, stream, first_seq, last_seq);
                self.lost.entry(stream).or_default().insert(first_seq, last_seq);
            }
        }
    }

    /// What the absence of older segments tells: they went since ClickHouse has what they were needed for.
    fn settle(&mut self) {
        let mut committed = HashMap::<StreamId, Intervals>::new();
        for (stream, needs) in self.ledger.needs() {
            committed.entry(stream).or_default().insert(1, needs.first().unwrap_or(1) - 1);
        }
        if !self.damaged {
            for (stream, seq) in &self.headless {
                if !self.lost.get(stream).is_some_and(|lost| lost.contains(*seq)) {
                    committed.entry(*stream).or_default().insert(*seq, *seq);
                }
            }
        }
        for (stream, runs) in &committed {
            self.ledger.commit(*stream, runs);
        }
    }
}

impl Found {
    /// After damage: ended calls whose beginning can not be read. They are written down as lost, since the next
    /// start finds the damage cut off, and would take them for calls that ClickHouse has.
    fn unread(&self) -> HashMap<StreamId, Intervals> {
        let mut unread = HashMap::<StreamId, Intervals>::new();
        for (stream, seq) in self.headless.iter().filter(|_| self.damaged) {
            if !self.lost.get(stream).is_some_and(|lost| lost.contains(*seq)) {
                unread.entry(*stream).or_default().insert(*seq, *seq);
            }
        }
        unread
    }
}

/// Numbers between the first and the last of a stream that no record has.
fn gaps(ledger: &Ledger) -> Vec<(StreamId, Intervals)> {
    let whole = |needs: &Intervals| {
        let last = needs.runs().last().map_or(0, |(_, last)| last);
        Intervals::from_iter([(needs.first().unwrap_or(1), last)])
    };
    let needs = ledger.needs().into_iter();
    needs
        .map(|(stream, needs)| (stream, needs.missing(&whole(&needs))))
        .filter(|(_, gap)| gap.first().is_some())
        .collect()
}
