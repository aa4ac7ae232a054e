//! The feed on the disk: the signed batches of watches as they came, so that an edge can start without NATS and keys, and
//! the highest version that this edge has told of. Nothing in it is believed for standing there: only signatures count.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use time::OffsetDateTime;
use tokio::time::Instant;

mod load;

pub(crate) use load::read_entry;

/// Begins every file, with the version of its form.
const MAGIC: [u8; 8] = *b"KMFEED\x00\x01";
/// Largest frame; a batch has half a mebibyte unless its only entry is larger.
const FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A log that is no larger than this is not renewed.
const RENEW_BYTES_MIN: u64 = 16 * 1024 * 1024;
/// Above it a log is renewed when it is so many times as large as it was when it was new.
const RENEW_FACTOR: u64 = 3;
/// After a failed write nothing is written for so long.
const FAILED_PAUSE: Duration = Duration::from_secs(600);
/// Between two writes of when the feed was current.
const NOW_PAUSE: Duration = Duration::from_millis(400);

/// The batches since the last renewal, oldest first.
const LOG: &str = "log";
/// The same while it is being made.
const LOG_NEW: &str = "log.new";
/// The newest batch that says up to when the feed was current.
const NOW: &str = "now";
/// The highest version that was told of.
const MARK: &str = "mark";

/// The folder of one edge.
#[derive(Debug)]
pub(crate) struct FeedLog {
    folder: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    mark: File,
    marked: u64,
    /// What is written to, and whether it still goes by its new name.
    file: Option<(File, bool)>,
    /// The version that the log under its own name goes up to; 0 if there is none to go on with.
    version: u64,
    bytes: u64,
    /// When it was new.
    first_bytes: u64,
    now_at: Option<Instant>,
    failed_at: Option<Instant>,
}

impl FeedLog {
    /// Opens the folder, which is made if it is missing. For one process at a time: the spool's lock sees to that.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut mark =
            File::options().create(true).truncate(false).read(true).write(true).open(folder.join(MARK))?;
        let mut content = Vec::new();
        Read::by_ref(&mut mark).take(64).read_to_end(&mut content)?;
        let marked = match read_mark(&content) {
            Some(marked) => marked,
            None if content.is_empty() => 0,
            None => {
                tracing::warn!("the mark of the highest known feed version is damaged: starting without it");
                0
            }
        };
        let inner = Inner {
            mark,
            marked,
            file: None,
            version: 0,
            bytes: 0,
            first_bytes: 0,
            now_at: None,
            failed_at: None,
        };
        Ok(Self { folder: folder.to_owned(), inner: Mutex::new(inner) })
    }

    /// The highest version that was told of; no source that has less is to be used.
    pub(crate) fn marked(&self) -> u64 {
        self.inner().marked
    }

    /// Notes that a version is about to be told of. Survives the end of the process, however that comes.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn mark(&self, version: u64) -> io::Result<()> {
        let mut inner = self.inner();
        if version > inner.marked {
            inner.mark.seek(SeekFrom::Start(0))?;
            inner.mark.write_all(&mark_bytes(version))?;
            inner.marked = version;
        }
        Ok(())
    }

    /// The version that a watch goes on after, so that the log goes on; 0 for a new log; `None` while it cannot be
    /// written.
    pub(crate) fn goes_on_after(&self) -> Option<u64> {
        let inner = self.inner();
        let is_usable = inner.failed_at.is_none_or(|at| at.elapsed() > FAILED_PAUSE);
        is_usable.then_some(inner.version)
    }

    /// Whether it has grown so much that a new one is due, or so many times that.
    pub(crate) fn is_large(&self, times: u64) -> bool {
        let inner = self.inner();
        let due = RENEW_BYTES_MIN.max(inner.first_bytes.saturating_mul(RENEW_FACTOR));
        inner.bytes > due.saturating_mul(times)
    }

    /// A watch begins: at 0 with a new log, which takes the place of the old one once it is whole.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn begin(&self, after: u64) -> io::Result<()> {
        let mut inner = self.inner();
        let begun = if after == 0 {
            self.create().map(|file| Some((file, true, MAGIC.len() as u64)))
        } else if inner.file.as_ref().is_some_and(|(_, is_new)| *is_new) {
            // A new one was not finished.
            self.reopen().map(|(file, bytes)| Some((file, false, bytes)))
        } else {
            Ok(None)
        };
        match begun {
            Ok(Some((file, is_new, bytes))) => (inner.file, inner.bytes) = (Some((file, is_new)), bytes),
            Ok(None) => {}
            Err(error) => {
                inner.fail();
                return Err(error);
            }
        }
        Ok(())
    }

    /// A batch came, which goes up to `version` if all before it is whole. After an error the log is as if it had
    /// never been.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn append(&self, batch: &[u8], version: u64, is_whole: bool) -> io::Result<()> {
        let mut inner = self.inner();
        let Some((file, is_new)) = &mut inner.file else { return Ok(()) };
        let becomes_whole = *is_new && is_whole;
        let written = file.write_all(&frame(batch)).and_then(|()| {
            if becomes_whole {
                *is_new = false;
                fs::rename(self.folder.join(LOG_NEW), self.folder.join(LOG))?;
            }
            Ok(())
        });
        if let Err(error) = written {
            inner.fail();
            // It may end in the middle and goes on no more.
            let _ = fs::remove_file(self.folder.join(LOG));
            return Err(error);
        }
        inner.bytes += frame_bytes(batch);
        if becomes_whole {
            inner.first_bytes = inner.bytes;
        }
        if is_whole {
            inner.version = version;
        }
        Ok(())
    }

    /// A batch says that the feed is current at this moment.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn is_current(&self, batch: &[u8], now: OffsetDateTime) -> io::Result<()> {
        {
            let mut inner = self.inner();
            let at = Instant::now();
            if inner.version == 0 || inner.now_at.is_some_and(|last| at - last < NOW_PAUSE) {
                return Ok(());
            }
            inner.now_at = Some(at);
        }
        let seconds = now.unix_timestamp().to_le_bytes();
        let content = [&MAGIC[..], &frame(&[&seconds[..], batch].concat())].concat();
        let fresh = self.folder.join("now.new");
        fs::write(&fresh, content)?;
        fs::rename(fresh, self.folder.join(NOW))
    }

    fn create(&self) -> io::Result<File> {
        let mut file = File::create(self.folder.join(LOG_NEW))?;
        file.write_all(&MAGIC)?;
        Ok(file)
    }

    fn reopen(&self) -> io::Result<(File, u64)> {
        let mut file = File::options().append(true).open(self.folder.join(LOG))?;
        let bytes = file.seek(SeekFrom::End(0))?;
        Ok((file, bytes))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn forget(&mut self) {
        (self.file, self.version, self.bytes, self.first_bytes) = (None, 0, 0, 0);
    }

    fn fail(&mut self) {
        self.forget();
        self.failed_at = Some(Instant::now());
    }
}

/// The length of a batch, its CRC-32, and itself.
fn frame(batch: &[u8]) -> Vec<u8> {
    let length = u32::try_from(batch.len()).unwrap_or(u32::MAX);
    [&length.to_le_bytes()[..], &crc32fast::hash(batch).to_le_bytes(), batch].concat()
}

const fn frame_bytes(batch: &[u8]) -> u64 {
    8 + batch.len() as u64
}

/// The next frame; `None` where the file ends, also in the middle of one or where one is damaged.
fn read_frame(file: &mut BufReader<File>) -> io::Result<Option<Vec<u8>>> {
    let mut head = [0; 8];
    if !read_all(file, &mut head)? {
        return Ok(None);
    }
    let [a, b, c, d, crc @ ..] = head;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    if length > FRAME_BYTES_MAX {
        return Ok(None);
    }
    let mut batch = vec![0; length];
    let is_good = read_all(file, &mut batch)? && crc32fast::hash(&batch) == u32::from_le_bytes(crc);
    Ok(is_good.then_some(batch))
}

/// Whether the file had so much.
fn read_all(file: &mut BufReader<File>, into: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(into) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Written at once, so that a process that ends leaves the old one or the new one.
fn mark_bytes(version: u64) -> Vec<u8> {
    [&MAGIC[..], &version.to_le_bytes(), &crc32fast::hash(&version.to_le_bytes()).to_le_bytes()].concat()
}

fn read_mark(content: &[u8]) -> Option<u64> {
    let version = content.strip_prefix(&MAGIC)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))?;
    (content == mark_bytes(version)).then_some(version)
}

#[cfg(test)]
mod tests;
