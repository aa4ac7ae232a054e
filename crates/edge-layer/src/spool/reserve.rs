//! Space that is taken ahead: files without a byte, whose space on the disk is theirs already; the next segments are
//! made of them. A disk that somebody else fills then has room for the calls to come, and what ClickHouse has by then
//! gives its room to more of them.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::{
    fs::{FallocateFlags, fallocate, statvfs},
    io::Errno,
};
use tokio::{sync::Notify, time::timeout};

use super::Limits;

/// Most segments kept ahead, and the share of all segments that they are at most.
const SPARES_MAX: u64 = 8;
const SHARE: u64 = 8;
const EXTENSION: &str = "spare";
/// How often the disk is looked at, beside each time that something was taken or freed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The space ahead of one spool.
#[derive(Debug)]
pub(crate) struct Reserve {
    folder: PathBuf,
    segment_bytes: u64,
    spares_wanted: usize,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    spares: Vec<Spare>,
    /// How many were begun, which names the next one.
    begun: u64,
    /// Why there is less than wanted.
    short: Option<String>,
}

#[derive(Debug)]
struct Spare {
    path: PathBuf,
    file: File,
}

impl Reserve {
    /// Nothing yet; what an earlier start kept is given back.
    pub(crate) fn new(folder: &Path, limits: Limits) -> Self {
        let spares = (limits.bytes_max / limits.segment_bytes_max / SHARE).clamp(1, SPARES_MAX);
        let reserve = Self {
            folder: folder.to_owned(),
            segment_bytes: limits.segment_bytes_max,
            spares_wanted: usize::try_from(spares).unwrap_or(1),
            state: Mutex::default(),
            changed: Notify::new(),
        };
        reserve.give_back();
        reserve
    }

    /// A file for the next segment, moved to `path`; `None` if there is none left.
    pub(crate) fn take(&self, path: &Path) -> Option<File> {
        let mut state = self.state();
        let spare = state.spares.pop()?;
        self.changed.notify_one();
        match fs::rename(&spare.path, path) {
            Ok(()) => Some(spare.file),
            Err(_) => {
                state.spares.push(spare);
                None
            }
        }
    }

    /// Some space became free.
    pub(crate) fn freed(&self) {
        self.changed.notify_one();
    }

    /// Keeps what is wanted.
    pub(crate) async fn keep_for_ever(&self) {
        loop {
            let _ = timeout(LOOK_EVERY, self.changed.notified()).await;
            self.top_up();
        }
    }

    /// Why there is less room ahead than wanted.
    pub(crate) fn short(&self) -> Option<String> {
        self.state().short.clone()
    }

    /// Takes what is wanted and not there. Not from two threads at once.
    pub(crate) fn top_up(&self) {
        let short = self.fill().err().map(|error| {
            let room_bytes = self.state().spares.len() as u64 * self.segment_bytes;
            format!(
                "its disk is full, {room_bytes} bytes are kept for events to come; free some space: {error}"
            )
        });
        let before = std::mem::replace(&mut self.state().short, short.clone());
        match (before, short) {
            (None, Some(reason)) => tracing::error!(reason, "the disk of the spool is full"),
            (Some(_), None) => tracing::info!("the disk of the spool has space again"),
            _ => {}
        }
    }

    fn fill(&self) -> io::Result<()> {
        while self.state().spares.len() < self.spares_wanted {
            // The lock is not held: a file system may take its time.
            let spare = Spare::make(self.next_path(), self.segment_bytes)?;
            self.state().spares.push(spare);
        }
        let disk = statvfs(&self.folder)?;
        if disk.f_bavail.saturating_mul(disk.f_frsize) < self.segment_bytes {
            return Err(Errno::NOSPC.into());
        }
        Ok(())
    }

    fn give_back(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == EXTENSION) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn next_path(&self) -> PathBuf {
        let mut state = self.state();
        state.begun += 1;
        self.folder.join(state.begun.to_string()).with_extension(EXTENSION)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spare {
    fn make(path: PathBuf, bytes: u64) -> io::Result<Self> {
        let file = File::options().create(true).truncate(true).write(true).read(true).open(&path)?;
        match fallocate(&file, FallocateFlags::KEEP_SIZE, 0, bytes) {
            // A file system that cannot: its full disk costs what it costs.
            Ok(()) | Err(Errno::OPNOTSUPP) => Ok(Self { path, file }),
            Err(error) => {
                let _ = fs::remove_file(path);
                Err(error.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    const LIMITS: Limits = Limits { bytes_max: 16 << 20, segment_bytes_max: 1 << 20 };

    /// Files in the folder, and what they take of the disk.
    fn held(folder: &Path) -> (usize, u64) {
        let files: Vec<_> =
            fs::read_dir(folder).unwrap().map(|file| file.unwrap().metadata().unwrap()).collect();
        (files.len(), files.iter().map(|file| file.blocks() * 512).sum())
    }

    #[test]
    fn space_is_taken_ahead_and_goes_into_segments() {
        let folder = tempfile::tempdir().unwrap();
        let reserve = Reserve::new(folder.path(), LIMITS);
        reserve.top_up();
        let (files, bytes) = held(folder.path());
        assert!(files == 2 && bytes >= 2 << 20, "{files} files take {bytes}");
        let segment = folder.path().join("1.seg");
        let file = reserve.take(&segment).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 0, "whoever reads it finds what was written alone");
        assert!(file.metadata().unwrap().blocks() * 512 >= 1 << 20 && segment.exists());
        assert!(reserve.take(&folder.path().join("2.seg")).is_some());
        assert!(reserve.take(&folder.path().join("3.seg")).is_none(), "nothing is left");
        reserve.top_up();
        assert_eq!((held(folder.path()).0, reserve.short()), (4, None));
        drop(Reserve::new(folder.path(), LIMITS));
        assert_eq!(held(folder.path()).0, 2, "a start gives back what is no segment");
        reserve.take(&folder.path().join("4.seg"));
        fs::remove_dir_all(folder.path()).unwrap();
        reserve.top_up();
        assert!(reserve.short().is_some());
    }
}
