//! Reads the feed from the disk at the start. Uses all of it or nothing: a batch is believed by the signature of the last
//! one of its watch, its age by a signed moment.

use std::{
    fs::File,
    io::{self, BufReader, Read as _, Seek as _, SeekFrom},
    time::Duration,
};

use domain::SecretHash;
use prost::Message as _;
use proto::{
    events::{FeedBatch, SignedFeedMessage},
    nats::FEED_WATCH_PURPOSE,
    timestamp::from_proto,
};
use time::OffsetDateTime;

use super::{FRAME_BYTES_MAX, FeedLog, LOG, MAGIC, NOW, read_frame};
use crate::{
    chain::Chain,
    feed_keys::FeedKeys,
    key_table::{KeyEntry, KeyTable},
};

/// Most entries that wait to be merged: a merge copies a part of the table.
const MERGE_ENTRIES: usize = 50_000;
/// What is not known to have been current is so old.
const UNKNOWN_AGE: Duration = Duration::from_secs(10 * 365 * 86_400);

/// What the disk knew.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// Every secret of the feed up to the version.
    pub(crate) table: KeyTable,
    /// Everything up to here is in the table.
    pub(crate) version: u64,
    /// How long ago that was all that there was.
    pub(crate) age: Duration,
}

/// Why the log is of no use.
#[derive(Debug, thiserror::Error)]
enum Useless {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("it is not of this form")]
    Form,
    #[error("a batch in it cannot be decoded")]
    Decode(#[from] prost::DecodeError),
    #[error("{0}")]
    Broken(#[from] crate::chain::Broken),
    #[error("keys did not sign it")]
    Unsigned,
    #[error("an entry in it cannot be read")]
    Entry,
    #[error("it holds no whole feed")]
    Partial,
    #[error("it ends at version {0}, before version {1} that this edge has told of")]
    Behind(u64, u64),
}

impl FeedLog {
    /// What the disk has, if it is whole, signed, and no older than what this edge has told of; the next watch then goes
    /// on after it. Whatever else is there is as if it had never been, and is told in the log.
    pub(crate) fn load(&self, keys: &FeedKeys, now: OffsetDateTime) -> Option<Loaded> {
        let file = match File::options().read(true).write(true).open(self.folder.join(LOG)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(%error, "the snapshot of the keys on the disk is not used");
                return None;
            }
        };
        match self.read(file, keys) {
            Ok((table, version)) => {
                let age = self.age(keys, version, now).unwrap_or(UNKNOWN_AGE);
                Some(Loaded { table, version, age })
            }
            Err(reason) => {
                tracing::warn!(%reason, "the snapshot of the keys on the disk is not used");
                self.inner().forget();
                None
            }
        }
    }

    fn read(&self, file: File, keys: &FeedKeys) -> Result<(KeyTable, u64), Useless> {
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let mut magic = [0; MAGIC.len()];
        reader.read_exact(&mut magic)?;
        if magic != MAGIC {
            return Err(Useless::Form);
        }
        let mut reading = Reading { keys, table: KeyTable::default(), waiting: Vec::new(), last: None };
        let mut bytes = MAGIC.len() as u64;
        let mut first_bytes = bytes;
        while let Some(value) = read_frame(&mut reader)? {
            bytes += super::frame_bytes(&value);
            let was_whole = reading.is_whole();
            reading.take(value)?;
            if !was_whole {
                first_bytes = bytes;
            }
        }
        let (table, version) = reading.end()?;
        let mut inner = self.inner();
        if version < inner.marked {
            return Err(Useless::Behind(version, inner.marked));
        }
        let mut file = reader.into_inner();
        // What a killed process did not write to its end.
        file.set_len(bytes)?;
        file.seek(SeekFrom::Start(bytes))?;
        (inner.file, inner.version) = (Some((file, false)), version);
        (inner.bytes, inner.first_bytes) = (bytes, first_bytes);
        Ok((table, version))
    }

    /// How long ago a signed batch said that no version is higher than one that the log has.
    fn age(&self, keys: &FeedKeys, version: u64, now: OffsetDateTime) -> Option<Duration> {
        let mut file = BufReader::new(File::open(self.folder.join(NOW)).ok()?);
        let mut magic = [0; MAGIC.len()];
        file.read_exact(&mut magic).ok()?;
        let content = read_frame(&mut file).ok().flatten().filter(|_| magic == MAGIC)?;
        let (seconds, value) = content.split_first_chunk()?;
        let batch: FeedBatch = keys.open(FEED_WATCH_PURPOSE, value)?;
        if !batch.is_current || batch.feed_version > version {
            return None;
        }
        // By the clock of keys, which signed it, and by our own, which may differ: the older of the two counts.
        let theirs = now - from_proto(batch.sent_at.as_ref()?)?;
        let ours = time::Duration::seconds(now.unix_timestamp().saturating_sub(i64::from_le_bytes(*seconds)));
        Some(theirs.max(ours).max(time::Duration::ZERO).unsigned_abs())
    }
}

/// The log up to a frame.
struct Reading<'a> {
    keys: &'a FeedKeys,
    table: KeyTable,
    waiting: Vec<(SecretHash, KeyEntry)>,
    /// The watch that is being read, and its last frame.
    last: Option<(Chain, Vec<u8>)>,
}

impl Reading<'_> {
    fn is_whole(&self) -> bool {
        self.last.as_ref().is_some_and(|(chain, _)| chain.is_whole())
    }

    fn take(&mut self, value: Vec<u8>) -> Result<(), Useless> {
        debug_assert!(value.len() <= FRAME_BYTES_MAX, "read_frame keeps to it");
        let message = SignedFeedMessage::decode(value.as_slice())?.message;
        let batch = FeedBatch::decode(message.as_slice())?;
        let mut chain = match self.last.take() {
            Some((chain, _)) if chain.watch() == batch.watch => chain,
            before => {
                let version = before.map_or(Ok(0), |before| self.ended(&before))?;
                Chain::begins(batch.watch.clone(), version)
            }
        };
        chain.follows(&batch, &message)?;
        for hashed in &batch.entries {
            self.waiting.push(read_entry(hashed).ok_or(Useless::Entry)?);
        }
        if self.waiting.len() >= MERGE_ENTRIES {
            self.table.merge(std::mem::take(&mut self.waiting));
        }
        self.last = Some((chain, value));
        Ok(())
    }

    /// All frames of a watch have been read: up to which version, if keys signed the last one.
    fn ended(&self, (chain, value): &(Chain, Vec<u8>)) -> Result<u64, Useless> {
        self.keys.open::<FeedBatch>(FEED_WATCH_PURPOSE, value).ok_or(Useless::Unsigned)?;
        if chain.is_whole() { Ok(chain.version()) } else { Err(Useless::Partial) }
    }

    fn end(self) -> Result<(KeyTable, u64), Useless> {
        let version = self.ended(self.last.as_ref().ok_or(Useless::Partial)?)?;
        self.table.merge(self.waiting);
        Ok((self.table, version))
    }
}

/// An entry of a batch; `None` if it cannot be read.
pub(crate) fn read_entry(hashed: &proto::events::HashedFeedEntry) -> Option<(SecretHash, KeyEntry)> {
    let hash = SecretHash::from_slice(&hashed.secret_hash)?;
    Some((hash, KeyEntry::try_from(hashed.entry.as_ref()?).ok()?))
}
