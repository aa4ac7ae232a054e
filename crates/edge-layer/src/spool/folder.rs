//! The spool's folder: one process at a time, an id for as long as the folder lives, a number for each start.
//! The only place that forces anything to the disk.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use domain::EdgeId;

use super::OpenError;

/// A folder that this process alone holds.
#[derive(Debug)]
pub(crate) struct Folder {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// The edge's id, `edge_` and 26 characters.
    pub(crate) edge_id: EdgeId,
    /// The number of this start; the first is 1.
    pub(crate) boot_epoch: u32,
    /// Held until this is dropped; the system drops it with the process, however that ends.
    _lock: File,
}

impl Folder {
    /// Takes the folder, which is made if it is missing, and counts this start.
    ///
    /// # Errors
    /// If another process holds it, if it cannot be written, or if its files are not what this wrote.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(io)?;
        let lock = File::options().create(true).append(true).open(path.join("lock")).map_err(io)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => OpenError::Taken { path: path.to_owned() },
            TryLockError::Error(source) => io(source),
        })?;
        let edge_id = match read(&path.join("edge_id")).map_err(io)? {
            Some(text) => text.parse().map_err(|_| damaged(path, "edge_id"))?,
            None => EdgeId::generate(),
        };
        let last: u32 = match read(&path.join("boot_epoch")).map_err(io)? {
            Some(text) => text.parse().map_err(|_| damaged(path, "boot_epoch"))?,
            None => 0,
        };
        let boot_epoch = last.checked_add(1).ok_or_else(|| damaged(path, "boot_epoch"))?;
        replace(path, "edge_id", &edge_id.to_string()).map_err(io)?;
        replace(path, "boot_epoch", &boot_epoch.to_string()).map_err(io)?;
        Ok(Self { path: path.to_owned(), edge_id, boot_epoch, _lock: lock })
    }
}

fn damaged(path: &Path, file: &'static str) -> OpenError {
    OpenError::Damaged { path: path.to_owned(), file }
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replaces a file as a whole and forces it to the disk: a number that came back after a power cut would
/// number two events alike.
fn replace(folder: &Path, name: &str, text: &str) -> io::Result<()> {
    let fresh = folder.join(format!("{name}.new"));
    let mut file = File::create(&fresh)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    fs::rename(&fresh, folder.join(name))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_stays_and_each_start_counts() {
        let at = tempfile::tempdir().unwrap();
        let first = Folder::open(at.path()).unwrap();
        assert!(matches!(Folder::open(at.path()), Err(OpenError::Taken { .. })));
        assert_eq!(first.boot_epoch, 1);
        let id = first.edge_id;
        drop(first);
        let second = Folder::open(at.path()).unwrap();
        assert_eq!((second.edge_id, second.boot_epoch), (id, 2));
    }

    #[test]
    fn a_file_of_another_origin_is_refused() {
        for (file, text) in [("edge_id", "edge_nonsense"), ("boot_epoch", "-1"), ("boot_epoch", "4294967295")]
        {
            let at = tempfile::tempdir().unwrap();
            fs::write(at.path().join(file), text).unwrap();
            let error = Folder::open(at.path()).unwrap_err();
            assert!(error.to_string().contains(file), "{error}");
        }
    }
}
