//! Rows of one insert on their way to ClickHouse, by column: what repeats is kept once and numbered. Pure.

use std::hash::BuildHasher as _;

use domain::{Denial, KeyId, Origin, SecretId, WorkspaceId};
use hashbrown::{DefaultHashBuilder, HashTable};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{erasures::Erased, event::Event};

/// Distinct texts of a column, edges and boots that one batch may have, but for those of its last message; their
/// numbers take two bytes.
const DISTINCT_MAX: usize = 60_000;
/// Rows that there is room for at first.
const ROOM_LEAST: usize = 1_000;

/// Who calls: a key of a workspace with one of its secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Caller {
    /// The tenant.
    pub workspace_id: WorkspaceId,
    /// Its key.
    pub key_id: KeyId,
    /// The key's secret.
    pub secret_id: SecretId,
}

/// Which edge numbered an event.
#[derive(Debug, Clone, Copy)]
pub struct Number<'a> {
    /// The edge.
    pub edge_id: &'a str,
    /// Its start.
    pub boot_epoch: u32,
    /// Its number.
    pub edge_seq: u64,
}

/// Rows by column. Numbers in `caller` and in a [`Dictionary`] stand for what is kept once.
#[derive(Debug, Default)]
pub struct Rows {
    pub(crate) callers: Numbered<Caller>,
    pub(crate) sources: Numbered<(Box<str>, u32)>,
    pub(crate) caller: Vec<u32>,
    pub(crate) source: Vec<u16>,
    pub(crate) edge_seq: Vec<u64>,
    pub(crate) request_id: Vec<Uuid>,
    pub(crate) client_request_id: Texts,
    pub(crate) occurred_at_ms: Vec<i64>,
    pub(crate) clock_skewed: Vec<bool>,
    pub(crate) interrupted: Vec<bool>,
    pub(crate) method: Dictionary,
    pub(crate) route: Dictionary,
    pub(crate) path: Texts,
    pub(crate) resource_id: Texts,
    pub(crate) status_code: Vec<u16>,
    pub(crate) origin: Vec<Origin>,
    pub(crate) denial: Dictionary,
    pub(crate) limit_name: Dictionary,
    pub(crate) limit_window_s: Vec<u32>,
    pub(crate) limit_remaining: Vec<u64>,
    pub(crate) latency_us: Vec<u32>,
    pub(crate) request_bytes: Vec<u64>,
    pub(crate) response_bytes: Vec<u64>,
    pub(crate) client_ip: Vec<[u8; 16]>,
    pub(crate) user_agent: Dictionary,
    pub(crate) region: Dictionary,
    /// Ends with the last row that has one.
    pub(crate) trace_id: Vec<[u8; 16]>,
    pub(crate) unknown_fields: Rare,
    /// Rows that were taken back; ends with the last one.
    gone: Vec<bool>,
    gone_count: usize,
}

impl Rows {
    /// The number of a caller, new or not. Callers without rows do no harm.
    pub(crate) fn caller(&mut self, caller: Caller) -> u32 {
        self.callers.number(&caller, |known| *known == caller, || caller)
    }

    /// Adds a row of `caller`; `event.occurred_at_ns` is the time to count it under.
    pub(crate) fn push(&mut self, caller: u32, event: &Event<'_>, clock_skewed: bool, number: Number<'_>) {
        if self.caller.len() == self.caller.capacity() {
            self.grow();
        }
        let Number { edge_id, boot_epoch, edge_seq } = number;
        let source = self.sources.number(
            &(edge_id, boot_epoch),
            |(id, boot)| **id == *edge_id && *boot == boot_epoch,
            || (edge_id.into(), boot_epoch),
        );
        self.caller.push(caller);
        self.source.push(short(source));
        self.edge_seq.push(edge_seq);
        self.request_id.push(event.request_id.as_uuid());
        self.client_request_id.push(event.client_request_id);
        self.occurred_at_ms.push(event.occurred_at_ns.div_euclid(1_000_000));
        self.clock_skewed.push(clock_skewed);
        self.interrupted.push(event.interrupted);
        self.method.push(event.method);
        self.route.push(event.route);
        self.path.push(event.path);
        self.resource_id.push(event.resource_id);
        self.status_code.push(event.status_code);
        self.origin.push(event.origin);
        self.denial.push(event.denial.map_or("", Denial::as_str));
        self.limit_name.push(event.limit_name);
        self.limit_window_s.push(event.limit_window_s);
        self.limit_remaining.push(event.limit_remaining);
        self.latency_us.push(event.latency_us);
        self.request_bytes.push(event.request_bytes);
        self.response_bytes.push(event.response_bytes);
        self.client_ip.push(event.client_ip.octets());
        self.user_agent.push(event.user_agent);
        self.region.push(event.region);
        if event.trace_id != [0; 16] {
            self.trace_id.resize(self.caller.len() - 1, [0; 16]);
            self.trace_id.push(event.trace_id);
        }
        self.unknown_fields.push(self.caller.len() - 1, event.unknown_fields);
    }

    /// Makes room for a quarter more, since twice as much, as a vector would take, stays unused for the most part.
    fn grow(&mut self) {
        let more = (self.caller.len() / 4).max(ROOM_LEAST);
        self.caller.reserve_exact(more);
        self.source.reserve_exact(more);
        self.edge_seq.reserve_exact(more);
        self.request_id.reserve_exact(more);
        self.occurred_at_ms.reserve_exact(more);
        self.clock_skewed.reserve_exact(more);
        self.interrupted.reserve_exact(more);
        self.status_code.reserve_exact(more);
        self.origin.reserve_exact(more);
        self.limit_window_s.reserve_exact(more);
        self.limit_remaining.reserve_exact(more);
        self.latency_us.reserve_exact(more);
        self.request_bytes.reserve_exact(more);
        self.response_bytes.reserve_exact(more);
        self.client_ip.reserve_exact(more);
        for texts in [&mut self.client_request_id, &mut self.path, &mut self.resource_id] {
            texts.lengths.reserve_exact(more);
        }
        for dictionary in self.dictionaries_mut() {
            dictionary.numbers.reserve_exact(more);
        }
    }

    /// Takes all rows out; the memory stays for the next ones.
    pub(crate) fn clear(&mut self) {
        self.callers.clear();
        self.sources.clear();
        self.caller.clear();
        self.source.clear();
        self.edge_seq.clear();
        self.request_id.clear();
        self.occurred_at_ms.clear();
        self.clock_skewed.clear();
        self.interrupted.clear();
        self.status_code.clear();
        self.origin.clear();
        self.limit_window_s.clear();
        self.limit_remaining.clear();
        self.latency_us.clear();
        self.request_bytes.clear();
        self.response_bytes.clear();
        self.client_ip.clear();
        self.trace_id.clear();
        self.unknown_fields.bytes.clear();
        self.unknown_fields.ends.clear();
        self.gone.clear();
        self.gone_count = 0;
        for texts in [&mut self.client_request_id, &mut self.path, &mut self.resource_id] {
            texts.bytes.clear();
            texts.lengths.clear();
        }
        for dictionary in self.dictionaries_mut() {
            dictionary.texts.clear();
            dictionary.numbers.clear();
            dictionary.bytes = 0;
        }
    }

    /// How many rows there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.caller.len() - self.gone_count
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether texts or distinct values leave no room for another message.
    #[must_use]
    pub fn is_full(&self, text_bytes_max: usize) -> bool {
        let texts = [&self.client_request_id, &self.path, &self.resource_id];
        let dictionaries = self.dictionaries();
        let bytes = texts.into_iter().map(|texts| texts.bytes.len()).sum::<usize>()
            + dictionaries.into_iter().map(|dictionary| dictionary.bytes).sum::<usize>()
            + self.unknown_fields.bytes.len();
        bytes >= text_bytes_max
            || self.sources.values.len() >= DISTINCT_MAX
            || dictionaries.into_iter().any(|dictionary| dictionary.texts.values.len() >= DISTINCT_MAX)
    }

    fn dictionaries(&self) -> [&Dictionary; 6] {
        [&self.method, &self.route, &self.denial, &self.limit_name, &self.user_agent, &self.region]
    }

    fn dictionaries_mut(&mut self) -> [&mut Dictionary; 6] {
        let Self { method, route, denial, limit_name, user_agent, region, .. } = self;
        [method, route, denial, limit_name, user_agent, region]
    }

    /// Takes back the rows that are erased, and says which.
    pub(crate) fn forget(&mut self, erased: &Erased) -> Vec<usize> {
        let up_to: Vec<_> =
            self.callers.values.iter().map(|caller| erased.up_to_ns(caller.workspace_id)).collect();
        let is_erased = |row: &usize| {
            up_to[self.caller[*row] as usize]
                .is_some_and(|up_to| self.occurred_at_ms[*row].saturating_mul(1_000_000) < up_to)
        };
        let erased: Vec<usize> = self.kept().filter(is_erased).collect();
        self.take_back(&erased);
        erased
    }

    fn take_back(&mut self, rows: &[usize]) {
        self.gone.resize(self.caller.len(), false);
        self.gone_count += rows.len();
        rows.iter().for_each(|row| self.gone[*row] = true);
    }

    /// The rows that count, in the order in which they came.
    pub(crate) fn kept(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.caller.len()).filter(|row| !self.gone.get(*row).copied().unwrap_or(false))
    }

    /// Where each row was numbered.
    pub fn numbers(&self) -> impl Iterator<Item = Number<'_>> {
        self.kept().map(|row| self.number(row))
    }

    /// The time that each row is counted under, and where it was numbered.
    pub fn times(&self) -> impl Iterator<Item = (OffsetDateTime, Number<'_>)> {
        self.kept().map(|row| (self.time(row), self.number(row)))
    }

    /// The earliest of these times.
    pub(crate) fn oldest(&self) -> Option<OffsetDateTime> {
        self.kept().min_by_key(|row| self.occurred_at_ms[*row]).map(|row| self.time(row))
    }

    /// Takes back the rows that are not to be kept.
    pub(crate) fn retain(&mut self, is_kept: impl Fn(Number<'_>) -> bool) {
        let others: Vec<usize> = self.kept().filter(|row| !is_kept(self.number(*row))).collect();
        self.take_back(&others);
    }

    fn time(&self, row: usize) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + time::Duration::milliseconds(self.occurred_at_ms[row])
    }

    pub(crate) fn number(&self, row: usize) -> Number<'_> {
        let (edge_id, boot_epoch) = &self.sources.values[usize::from(self.source[row])];
        Number { edge_id, boot_epoch: *boot_epoch, edge_seq: self.edge_seq[row] }
    }
}

/// Distinct values and their numbers, in the order in which they came.
#[derive(Debug)]
pub(crate) struct Numbered<T> {
    pub(crate) values: Vec<T>,
    /// The hash of each, so that the table can grow.
    hashes: Vec<u64>,
    table: HashTable<u32>,
    /// With a seed of its own: callers choose some of the texts.
    hasher: DefaultHashBuilder,
    last: u32,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        let (values, hashes, table) = (Vec::new(), Vec::new(), HashTable::new());
        Self { values, hashes, table, hasher: DefaultHashBuilder::default(), last: 0 }
    }
}

impl<T> Numbered<T> {
    fn clear(&mut self) {
        self.values.clear();
        self.hashes.clear();
        self.table.clear();
        self.last = 0;
    }

    fn number(
        &mut self,
        key: &impl std::hash::Hash,
        is_it: impl Fn(&T) -> bool,
        new: impl FnOnce() -> T,
    ) -> u32 {
        if self.values.get(self.last as usize).is_some_and(&is_it) {
            return self.last;
        }
        let hash = self.hasher.hash_one(key);
        let found = self.table.find(hash, |number| is_it(&self.values[*number as usize]));
        self.last = if let Some(number) = found {
            *number
        } else {
            let number = u32::try_from(self.values.len()).expect("a batch has fewer rows than that");
            self.values.push(new());
            self.hashes.push(hash);
            let hashes = &self.hashes;
            self.table.insert_unique(hash, number, |number| hashes[*number as usize]);
            number
        };
        self.last
    }
}

/// A column of few distinct texts.
#[derive(Debug, Default)]
pub(crate) struct Dictionary {
    pub(crate) texts: Numbered<Box<str>>,
    pub(crate) numbers: Vec<u16>,
    bytes: usize,
}

impl Dictionary {
    fn push(&mut self, text: &str) {
        let bytes = &mut self.bytes;
        let number = self.texts.number(
            &text,
            |known| is_same(known, text),
            || {
                *bytes += text.len();
                text.into()
            },
        );
        self.numbers.push(short(number));
    }
}

/// Whether two texts are the same, word by word: for texts so short a call costs more than that.
fn is_same(known: &str, text: &str) -> bool {
    let (known, text) = (known.as_bytes(), text.as_bytes());
    let ((known_words, known_rest), (words, rest)) = (known.as_chunks::<8>(), text.as_chunks::<8>());
    let word = |bytes: &[u8; 8]| u64::from_ne_bytes(*bytes);
    known.len() == text.len()
        && known_words.iter().zip(words).all(|(known, new)| word(known) == word(new))
        && known_rest.iter().zip(rest).all(|(known, new)| known == new)
}

/// A column of any texts, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    pub(crate) bytes: Vec<u8>,
    /// The contract allows no more than 1,024.
    pub(crate) lengths: Vec<u16>,
}

impl Texts {
    fn push(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
        self.lengths.push(u16::try_from(text.len()).expect("texts of an event are short"));
    }
}

/// A column of bytes that most rows have none of, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Rare {
    bytes: Vec<u8>,
    /// Where those of each row end; the last one is that of the last row that has some.
    ends: Vec<usize>,
}

impl Rare {
    fn push(&mut self, row: usize, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.ends.resize(row, self.bytes.len());
            self.bytes.extend_from_slice(bytes);
            self.ends.push(self.bytes.len());
        }
    }

    /// Those of a row.
    pub(crate) fn of(&self, row: usize) -> &[u8] {
        let Some(end) = self.ends.get(row) else { return &[] };
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..*end]
    }

    /// All of them together.
    pub(crate) const fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// A batch is full before a number could be larger: a message adds at most 1,000.
fn short(number: u32) -> u16 {
    u16::try_from(number).expect("a full batch takes no more messages")
}
