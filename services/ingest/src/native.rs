//! Rows as one block in ClickHouse's `Native` format, column by column. The layout is the one that the server
//! takes over HTTP, where the client states no protocol revision. Pure.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use domain::{Origin, Outcome};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    record::Record,
    rows::{Dictionary, Rare, Rows, Texts},
};

const COLUMNS: usize = 33;
const OUTCOME: &str = "Enum8('completed' = 1, 'failed' = 2, 'rate_limited' = 3)";
const ORIGIN: &str = "Enum8('edge' = 1, 'upstream' = 2)";
const TIME: &str = "DateTime64(3, 'UTC')";
const TEXT: &str = "LowCardinality(String)";

/// What all rows of an insert share.
#[derive(Debug, Clone, Copy)]
pub struct Common {
    /// Where the events came from.
    pub shard: u16,
    /// The ownership that writes them.
    pub writer_epoch: u32,
    /// `ingested_at`, in milliseconds since 1970.
    pub ingested_at_ms: i64,
}

impl Common {
    /// Of the next insert of a shard's owner: under an `ingested_at` later than every one before.
    #[must_use]
    pub fn next(shard: u16, record: &Record, now: OffsetDateTime) -> Self {
        let now_ms = i64::try_from(now.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
        let ingested_at_ms = now_ms.max(record.closed_through_ms + 1);
        Self { shard, writer_epoch: record.epoch, ingested_at_ms }
    }
}

/// The block in pieces, a column each, so that never more than a column is there twice.
pub struct Block {
    rows: Arc<Rows>,
    common: Common,
    /// Numbers of rows in the table's order, so that the server has nothing left to sort.
    order: Vec<u32>,
    next: usize,
    /// Columns by turns: one is written while the other is on its way, and is used again once that has gone.
    out: [BytesMut; 2],
}

impl Block {
    /// The block of these rows.
    #[must_use]
    pub fn new(rows: Arc<Rows>, common: Common) -> Self {
        let order = order(&rows);
        Self { rows, common, order, next: 0, out: Default::default() }
    }

    /// How many rows it has.
    pub(crate) const fn len(&self) -> usize {
        self.order.len()
    }
}

impl Iterator for Block {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.next == COLUMNS {
            return None;
        }
        let mut column = Column { order: &self.order, out: &mut self.out[self.next % 2] };
        if self.next == 0 {
            put_varint(column.out, COLUMNS);
            put_varint(column.out, self.order.len());
        }
        put(&mut column, self.next, &self.rows, self.common);
        self.next += 1;
        Some(column.out.split().freeze())
    }
}

fn put(column: &mut Column<'_>, number: usize, rows: &Rows, common: Common) {
    let caller = |row: usize| &rows.callers.values[rows.caller[row] as usize];
    match number {
        0 => column.fixed("workspace_id", "UUID", |row| uuid(caller(row).workspace_id.as_uuid())),
        1 => column.fixed("key_id", "UUID", |row| uuid(caller(row).key_id.as_uuid())),
        2 => column.fixed("secret_id", "UUID", |row| uuid(caller(row).secret_id.as_uuid())),
        3 => column.fixed("request_id", "UUID", |row| uuid(rows.request_id[row])),
        4 => column.texts("client_request_id", &rows.client_request_id),
        5 => column.fixed("occurred_at", TIME, |row| rows.occurred_at_ms[row].to_le_bytes()),
        6 => column.fixed("ingested_at", TIME, |_| common.ingested_at_ms.to_le_bytes()),
        7 => column.fixed("clock_skewed", "Bool", |row| [u8::from(rows.clock_skewed[row])]),
        8 => column.fixed("interrupted", "Bool", |row| [u8::from(rows.interrupted[row])]),
        9 => column.dictionary("method", &rows.method),
        10 => column.dictionary("route", &rows.route),
        11 => column.texts("path", &rows.path),
        12 => column.texts("resource_id", &rows.resource_id),
        13 => column.fixed("status_code", "UInt16", |row| rows.status_code[row].to_le_bytes()),
        14 => column.fixed("outcome", OUTCOME, |row| [outcome(rows.status_code[row])]),
        15 => column.fixed("origin", ORIGIN, |row| [origin(rows.origin[row])]),
        16 => column.dictionary("denial", &rows.denial),
        17 => column.dictionary("limit_name", &rows.limit_name),
        18 => column.fixed("limit_window_s", "UInt32", |row| rows.limit_window_s[row].to_le_bytes()),
        19 => column.fixed("limit_remaining", "UInt64", |row| rows.limit_remaining[row].to_le_bytes()),
        20 => column.fixed("latency_us", "UInt32", |row| rows.latency_us[row].to_le_bytes()),
        21 => column.fixed("request_bytes", "UInt64", |row| rows.request_bytes[row].to_le_bytes()),
        22 => column.fixed("response_bytes", "UInt64", |row| rows.response_bytes[row].to_le_bytes()),
        23 => column.fixed("client_ip", "IPv6", |row| rows.client_ip[row]),
        24 => column.dictionary("user_agent", &rows.user_agent),
        25 => column.dictionary("region", &rows.region),
        26 => column
            .fixed("trace_id", "FixedString(16)", |row| rows.trace_id.get(row).copied().unwrap_or_default()),
        27 => {
            let edges = rows.sources.values.iter().map(|(edge_id, _)| &**edge_id);
            column.numbered("edge_id", edges, &rows.source);
        }
        28 => column.fixed("boot_epoch", "UInt32", |row| {
            rows.sources.values[usize::from(rows.source[row])].1.to_le_bytes()
        }),
        29 => column.fixed("shard", "UInt16", |_| common.shard.to_le_bytes()),
        30 => column.fixed("edge_seq", "UInt64", |row| rows.edge_seq[row].to_le_bytes()),
        31 => column.fixed("writer_epoch", "UInt32", |_| common.writer_epoch.to_le_bytes()),
        _ => column.rare("unknown_fields", &rows.unknown_fields),
    }
}

/// Rows as the table sorts them: by workspace, key, time, request.
fn order(rows: &Rows) -> Vec<u32> {
    let mut callers: Vec<_> = rows.callers.values.iter().zip(0_usize..).collect();
    callers.sort_unstable_by_key(|(caller, _)| {
        [caller.workspace_id.as_uuid(), caller.key_id.as_uuid()].map(server_order)
    });
    let (mut ranks, mut rank) = (vec![0_u64; callers.len()], 0);
    for pair in callers.windows(2) {
        // Secrets are no part of the order.
        rank += u64::from(
            (pair[0].0.workspace_id, pair[0].0.key_id) != (pair[1].0.workspace_id, pair[1].0.key_id),
        );
        ranks[pair[1].1] = rank;
    }
    let first_ms = rows.occurred_at_ms.iter().copied().min().unwrap_or_default();
    let mut order: Vec<(u64, (u64, u64), u32)> = Vec::with_capacity(rows.len());
    for (row, number) in rows.kept().map(|row| (row, u32::try_from(row).expect("a batch has fewer rows"))) {
        // 41 bits are seventy years; should a batch have more, the server sorts again.
        let after_ms = rows.occurred_at_ms[row].abs_diff(first_ms).min((1 << 41) - 1);
        let place = ranks[rows.caller[row] as usize] << 41 | after_ms;
        order.push((place, server_order(rows.request_id[row]), number));
    }
    order.sort_unstable();
    order.into_iter().map(|(_, _, number)| number).collect()
}

fn outcome(status_code: u16) -> u8 {
    match Outcome::of(status_code) {
        Outcome::Completed => 1,
        Outcome::Failed => 2,
        Outcome::RateLimited => 3,
    }
}

fn origin(origin: Origin) -> u8 {
    match origin {
        Origin::Edge => 1,
        Origin::Upstream => 2,
    }
}

/// ClickHouse keeps a UUID as two little-endian halves, the high one first.
fn uuid(uuid: Uuid) -> [u8; 16] {
    let (high, low) = uuid.as_u64_pair();
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&high.to_le_bytes());
    bytes[8..].copy_from_slice(&low.to_le_bytes());
    bytes
}

/// ClickHouse sorts UUIDs by their second half first.
fn server_order(uuid: Uuid) -> (u64, u64) {
    let (high, low) = uuid.as_u64_pair();
    (low, high)
}

/// One column on its way out.
struct Column<'a> {
    order: &'a [u32],
    out: &'a mut BytesMut,
}

impl Column<'_> {
    fn fixed<const N: usize>(&mut self, name: &str, kind: &str, value: impl Fn(usize) -> [u8; N]) {
        self.head(name, kind, self.order.len() * N);
        for row in self.order {
            self.out.put_slice(&value(*row as usize));
        }
    }

    fn texts(&mut self, name: &str, texts: &Texts) {
        self.head(name, "String", texts.bytes.len() + self.order.len() * 2);
        let mut end = 0;
        let ends: Vec<u32> = texts
            .lengths
            .iter()
            .map(|length| {
                end += u32::from(*length);
                end
            })
            .collect();
        for row in self.order.iter().map(|row| *row as usize) {
            let (end, length) = (ends[row] as usize, usize::from(texts.lengths[row]));
            put_varint(self.out, length);
            self.out.put_slice(&texts.bytes[end - length..end]);
        }
    }

    fn rare(&mut self, name: &str, rare: &Rare) {
        self.head(name, "String", rare.len() + self.order.len());
        for row in self.order {
            put_string(self.out, rare.of(*row as usize));
        }
    }

    fn dictionary(&mut self, name: &str, dictionary: &Dictionary) {
        self.numbered(name, dictionary.texts.values.iter().map(|text| &**text), &dictionary.numbers);
    }

    /// A `LowCardinality(String)`: the distinct values, then for each row the number of its value.
    fn numbered<'t>(&mut self, name: &str, values: impl ExactSizeIterator<Item = &'t str>, numbers: &[u16]) {
        const VERSION: u64 = 1;
        const INDEX_OF_1_BYTE: u64 = 0;
        const INDEX_OF_2_BYTES: u64 = 1;
        const OWN_KEYS: u64 = 1 << 9;
        const NEW_DICTIONARY: u64 = 1 << 10;
        self.head(name, TEXT, self.order.len() * 2);
        let is_small = values.len() <= 256;
        let index = if is_small { INDEX_OF_1_BYTE } else { INDEX_OF_2_BYTES };
        self.out.put_u64_le(VERSION);
        self.out.put_u64_le(index | OWN_KEYS | NEW_DICTIONARY);
        self.out.put_u64_le(values.len() as u64);
        values.for_each(|value| put_string(self.out, value.as_bytes()));
        self.out.put_u64_le(self.order.len() as u64);
        for number in self.order.iter().map(|row| numbers[*row as usize]) {
            if is_small { self.out.put_u8(number as u8) } else { self.out.put_u16_le(number) }
        }
    }

    fn head(&mut self, name: &str, kind: &str, bytes: usize) {
        self.out.reserve(bytes + 128);
        put_string(self.out, name.as_bytes());
        put_string(self.out, kind.as_bytes());
    }
}

fn put_string(out: &mut BytesMut, text: &[u8]) {
    put_varint(out, text.len());
    out.put_slice(text);
}

fn put_varint(out: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}
