//! Segments as files, `NNNNNNNNNN.seg`, append-only.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use super::reserve::Reserve;

/// The newest segment, open for appending.
#[derive(Debug)]
pub(crate) struct Segment {
    /// Its number; a later one is higher.
    pub(crate) number: u64,
    /// Bytes of whole records.
    pub(crate) bytes: u64,
    /// A failed write left bytes behind the end; nothing may follow them.
    pub(crate) is_broken: bool,
    file: File,
}

impl Segment {
    /// Makes a new one, which must not exist: in the room that is kept ahead, or else where there is some.
    pub(crate) fn create(folder: &Path, number: u64, reserve: &Reserve) -> io::Result<Self> {
        let path = path(folder, number);
        let file = match reserve.take(&path) {
            Some(file) => file,
            None => File::options().create_new(true).write(true).read(true).open(path)?,
        };
        Ok(Self { number, bytes: 0, is_broken: false, file })
    }

    /// Appends whole records and says where they begin. After an error the segment ends where it did before.
    pub(crate) fn append(&mut self, records: &[u8]) -> io::Result<u64> {
        let offset = self.bytes;
        if let Err(error) = self.file.write_all_at(records, offset) {
            self.is_broken = self.file.set_len(offset).is_err();
            return Err(error);
        }
        self.bytes += records.len() as u64;
        Ok(offset)
    }
}

/// The file of a segment.
pub(crate) fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:010}.seg"))
}

/// Numbers of all segments in the folder, in order.
pub(crate) fn list(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        if let (Some(number), Some("seg")) =
            (number, path.extension().and_then(|extension| extension.to_str()))
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// `length` bytes of a segment from `offset` on.
pub(crate) fn read(folder: &Path, number: u64, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    File::open(path(folder, number))?.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

/// Ends a segment after `bytes`.
pub(crate) fn cut(folder: &Path, number: u64, bytes: u64) -> io::Result<()> {
    File::options().write(true).open(path(folder, number))?.set_len(bytes)
}

/// Removes a segment that is no longer needed; one that is gone already is fine.
pub(crate) fn remove(folder: &Path, number: u64) {
    match fs::remove_file(path(folder, number)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(spool.segment = number, %error, "a segment that is no longer needed cannot be removed");
        }
        _ => {}
    }
}
