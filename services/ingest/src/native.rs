//! Rows as one block in ClickHouse's `Native` format, column by column. The layout is the one that the server
//! takes over HTTP, where the client states no protocol revision. Pure.

use std::collections::HashMap;

use bytes::{BufMut as _, Bytes, BytesMut};
use domain::Origin;
use time::OffsetDateTime;

use crate::batch::Row;

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

/// The block, in the table's order so that the server has nothing left to sort.
#[must_use]
pub fn encode(mut rows: Vec<Row>, common: Common) -> Bytes {
    rows.sort_by_cached_key(|Row { event, .. }| {
        let [workspace, key, request] =
            [event.workspace_id.as_uuid(), event.key_id.as_uuid(), event.request_id.as_uuid()]
                .map(server_order);
        (workspace, key, millis(event.occurred_at), request)
    });
    let mut block = Block::new(&rows);
    columns(&mut block, common);
    block.finish()
}

fn columns(block: &mut Block<'_>, common: Common) {
    block.fixed("workspace_id", "UUID", |row| uuid(row.event.workspace_id.as_uuid()));
    block.fixed("key_id", "UUID", |row| uuid(row.event.key_id.as_uuid()));
    block.fixed("secret_id", "UUID", |row| uuid(row.event.secret_id.as_uuid()));
    block.fixed("request_id", "UUID", |row| uuid(row.event.request_id.as_uuid()));
    block.string("client_request_id", |row| &row.event.client_request_id);
    block.fixed("occurred_at", TIME, |row| millis(row.event.occurred_at).to_le_bytes());
    block.fixed("ingested_at", TIME, |_| common.ingested_at_ms.to_le_bytes());
    block.fixed("clock_skewed", "Bool", |row| [u8::from(row.clock_skewed)]);
    block.fixed("interrupted", "Bool", |row| [u8::from(row.event.interrupted)]);
    block.dictionary("method", |row| &row.event.method);
    block.dictionary("route", |row| &row.event.route);
    block.string("path", |row| &row.event.path);
    block.string("resource_id", |row| &row.event.resource_id);
    block.fixed("status_code", "UInt16", |row| row.event.status_code.to_le_bytes());
    block.fixed("outcome", OUTCOME, |row| [outcome(row.event.outcome())]);
    block.fixed("origin", ORIGIN, |row| [origin(row.event.origin)]);
    block.dictionary("denial", |row| row.event.denial.map_or("", domain::Denial::as_str));
    block.dictionary("limit_name", |row| &row.event.limit_name);
    block.fixed("limit_window_s", "UInt32", |row| row.event.limit_window_s.to_le_bytes());
    block.fixed("limit_remaining", "UInt64", |row| row.event.limit_remaining.to_le_bytes());
    block.fixed("latency_us", "UInt32", |row| row.event.latency_us.to_le_bytes());
    block.fixed("request_bytes", "UInt64", |row| row.event.request_bytes.to_le_bytes());
    block.fixed("response_bytes", "UInt64", |row| row.event.response_bytes.to_le_bytes());
    block.fixed("client_ip", "IPv6", |row| row.event.client_ip.octets());
    block.dictionary("user_agent", |row| &row.event.user_agent);
    block.dictionary("region", |row| &row.event.region);
    block.fixed("trace_id", "FixedString(16)", |row| row.event.trace_id);
    block.dictionary("edge_id", |row| &row.edge_id);
    block.fixed("boot_epoch", "UInt32", |row| row.boot_epoch.to_le_bytes());
    block.fixed("shard", "UInt16", |_| common.shard.to_le_bytes());
    block.fixed("edge_seq", "UInt64", |row| row.edge_seq.to_le_bytes());
    block.fixed("writer_epoch", "UInt32", |_| common.writer_epoch.to_le_bytes());
    block.string("unknown_fields", |row| &row.unknown_fields);
}

/// A time in the milliseconds that a row keeps; what does not fit the column's years is cut to them.
fn millis(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos().div_euclid(1_000_000)).unwrap_or(i64::MAX)
}

fn outcome(outcome: domain::Outcome) -> u8 {
    match outcome {
        domain::Outcome::Completed => 1,
        domain::Outcome::Failed => 2,
        domain::Outcome::RateLimited => 3,
    }
}

fn origin(origin: Origin) -> u8 {
    match origin {
        Origin::Edge => 1,
        Origin::Upstream => 2,
    }
}

/// ClickHouse keeps a UUID as two little-endian halves, the high one first.
fn uuid(uuid: uuid::Uuid) -> [u8; 16] {
    let (high, low) = uuid.as_u64_pair();
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&high.to_le_bytes());
    bytes[8..].copy_from_slice(&low.to_le_bytes());
    bytes
}

/// ClickHouse sorts UUIDs by their second half first.
fn server_order(uuid: uuid::Uuid) -> (u64, u64) {
    let (high, low) = uuid.as_u64_pair();
    (low, high)
}

struct Block<'a> {
    rows: &'a [Row],
    columns: usize,
    out: BytesMut,
}

impl<'a> Block<'a> {
    fn new(rows: &'a [Row]) -> Self {
        // About what a row takes; the buffer grows if paths are long.
        let mut out = BytesMut::with_capacity(rows.len() * 256 + 1_024);
        put_varint(&mut out, COLUMNS);
        put_varint(&mut out, rows.len());
        Self { rows, columns: 0, out }
    }

    fn finish(self) -> Bytes {
        assert_eq!(self.columns, COLUMNS, "the number of columns is said before them");
        self.out.freeze()
    }

    fn fixed<const N: usize>(&mut self, name: &str, kind: &str, value: impl Fn(&Row) -> [u8; N]) {
        self.head(name, kind);
        for row in self.rows {
            self.out.put_slice(&value(row));
        }
    }

    fn string<T: AsRef<[u8]> + ?Sized>(&mut self, name: &str, value: impl Fn(&Row) -> &T) {
        self.head(name, "String");
        for row in self.rows {
            put_string(&mut self.out, value(row).as_ref());
        }
    }

    /// A `LowCardinality(String)`: the distinct values, then for each row the number of its value.
    fn dictionary(&mut self, name: &str, value: impl Fn(&'a Row) -> &'a str) {
        const VERSION: u64 = 1;
        const INDEX_OF_4_BYTES: u64 = 2;
        const OWN_KEYS: u64 = 1 << 9;
        const NEW_DICTIONARY: u64 = 1 << 10;
        self.head(name, TEXT);
        let mut numbers: HashMap<&str, u32> = HashMap::new();
        let mut keys: Vec<&str> = Vec::new();
        let mut indexes = BytesMut::with_capacity(self.rows.len() * 4);
        for row in self.rows {
            let value = value(row);
            let number = *numbers.entry(value).or_insert_with(|| {
                keys.push(value);
                u32::try_from(keys.len() - 1).expect("a batch has fewer rows than that")
            });
            indexes.put_u32_le(number);
        }
        self.out.put_u64_le(VERSION);
        self.out.put_u64_le(INDEX_OF_4_BYTES | OWN_KEYS | NEW_DICTIONARY);
        self.out.put_u64_le(keys.len() as u64);
        keys.iter().for_each(|key| put_string(&mut self.out, key.as_bytes()));
        self.out.put_u64_le(self.rows.len() as u64);
        self.out.put_slice(&indexes);
    }

    fn head(&mut self, name: &str, kind: &str) {
        self.columns += 1;
        put_string(&mut self.out, name.as_bytes());
        put_string(&mut self.out, kind.as_bytes());
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
