//! A file that an export grows into: its bytes in `FILE.part`, and in `FILE.part.json` what was asked and up to where
//! it is whole, so that the same command goes on after any end of the process.

use std::{
    ffi::OsString,
    fs,
    io::{ErrorKind, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use data_encoding::BASE64;
use prost::Message as _;
use proto::usage::{ExportFormat, ExportRequestsRequest, UsageFilter};
use serde::{Deserialize, Serialize};

use crate::{export::is_one_document, failure::Failure, filter::Period};

/// What was asked: the same in two commands means the same file. Times stand as they were typed, for `7d` means
/// another time each second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    workspace: String,
    format: i32,
    since: String,
    until: Option<String>,
    /// The filter without its times, encoded.
    which: String,
}

/// What `FILE.part.json` holds.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    asked: Asked,
    /// The filter with the times of the first start, encoded.
    filter: String,
    /// Where the next part begins; empty for the first.
    resume_token: String,
    /// Calls in the parts that are whole.
    row_count: u64,
    /// Their bytes in `FILE.part`.
    byte_count: u64,
    /// How many are whole.
    part: u32,
}

/// The file, open for the next part.
#[derive(Debug)]
pub(crate) struct File {
    path: PathBuf,
    format: ExportFormat,
    file: fs::File,
    saved: Saved,
}

impl Asked {
    pub(crate) fn new(request: &ExportRequestsRequest, period: &Period) -> Self {
        let which = UsageFilter { from: None, to: None, ..request.filter.clone().unwrap_or_default() };
        Self {
            workspace: request.parent.clone(),
            format: request.format,
            since: period.since.text.clone(),
            until: period.until.as_ref().map(|until| until.text.clone()),
            which: BASE64.encode(&which.encode_to_vec()),
        }
    }
}

impl File {
    /// Opens the file, or what is there of it: then `request` goes on where it broke off.
    pub(crate) fn open(
        path: &Path,
        asked: &Asked,
        request: &mut ExportRequestsRequest,
        force: bool,
    ) -> Result<Self, Failure> {
        if !force && path.exists() {
            let why =
                format!("--file {} is there already: choose another name, or give --force", path.display());
            return Err(Failure::usage(why));
        }
        let part = beside(path, ".part");
        let failed = |error| Failure::file("--file", &part, &error);
        let options = || fs::OpenOptions::new().create(true).truncate(false).write(true).to_owned();
        let file = options().open(&part).map_err(failed)?;
        file.try_lock().map_err(|_| {
            Failure::usage(format!(
                "another export writes {}: wait for it, or choose another name",
                part.display()
            ))
        })?;
        let begun = if force { None } else { saved(&beside(path, ".part.json"))? };
        let saved = match begun {
            Some(saved) if saved.asked != *asked => {
                let why = format!(
                    "{} is what another export left: run that one again, or give --force to begin anew",
                    part.display()
                );
                return Err(Failure::usage(why));
            }
            Some(saved) => {
                request.filter = decoded(&saved.filter);
                request.resume_token.clone_from(&saved.resume_token);
                saved
            }
            None => Saved {
                asked: asked.clone(),
                filter: BASE64.encode(&request.filter.clone().unwrap_or_default().encode_to_vec()),
                resume_token: String::new(),
                row_count: 0,
                byte_count: 0,
                part: 0,
            },
        };
        let mut file = Self { path: path.to_owned(), format: request.format(), file, saved };
        file.begin_part_again()?;
        file.save()?;
        Ok(file)
    }

    /// Calls in the parts that are whole.
    pub(crate) const fn row_count(&self) -> u64 {
        self.saved.row_count
    }

    pub(crate) fn write(&mut self, data: &[u8]) -> Result<(), Failure> {
        self.file.write_all(data).map_err(|error| self.failed(&error))
    }

    /// A part is whole, and others follow.
    pub(crate) fn end_part(&mut self, resume_token: &str, row_count: u64) -> Result<(), Failure> {
        if is_one_document(self.format) {
            self.file.sync_data().map_err(|error| self.failed(&error))?;
            self.saved.byte_count = self.file.stream_position().map_err(|error| self.failed(&error))?;
        } else {
            self.keep_part(&self.numbered(self.saved.part))?;
        }
        self.saved.part += 1;
        self.saved.row_count = row_count;
        resume_token.clone_into(&mut self.saved.resume_token);
        self.save()
    }

    /// Drops what is there of a part that is not whole.
    pub(crate) fn begin_part_again(&mut self) -> Result<(), Failure> {
        let whole = self.saved.byte_count;
        let cut = self.file.set_len(whole).and_then(|()| self.file.seek(SeekFrom::Start(whole)));
        cut.map(drop).map_err(|error| self.failed(&error))
    }

    /// Gives the file its name, now that it is whole; all the files that there are.
    pub(crate) fn finish(mut self) -> Result<Vec<PathBuf>, Failure> {
        let is_one = is_one_document(self.format) || self.saved.part == 0;
        let last = if is_one { self.path.clone() } else { self.numbered(self.saved.part) };
        self.keep_part(&last)?;
        let note = beside(&self.path, ".part.json");
        fs::remove_file(&note).map_err(|error| Failure::file("--file", &note, &error))?;
        let part = beside(&self.path, ".part");
        fs::remove_file(&part).map_err(|error| Failure::file("--file", &part, &error))?;
        Ok(if is_one { vec![last] } else { (0..=self.saved.part).map(|part| self.numbered(part)).collect() })
    }

    /// Gives the bytes the name `path`, and begins `FILE.part` anew, under its own lock.
    fn keep_part(&mut self, path: &Path) -> Result<(), Failure> {
        let part = beside(&self.path, ".part");
        self.file.sync_data().map_err(|error| self.failed(&error))?;
        fs::rename(&part, path).map_err(|error| self.failed(&error))?;
        let next = fs::OpenOptions::new().create(true).truncate(true).write(true).open(&part);
        self.file = next.map_err(|error| self.failed(&error))?;
        self.file.try_lock().map_err(|_| Failure::usage(format!("another export writes {}", part.display())))
    }

    /// `calls-0003.parquet` of `calls.parquet`.
    fn numbered(&self, part: u32) -> PathBuf {
        let mut name = self.path.file_stem().map(OsString::from).unwrap_or_default();
        name.push(format!("-{part:04}"));
        if let Some(ending) = self.path.extension() {
            name.push(".");
            name.push(ending);
        }
        self.path.with_file_name(name)
    }

    /// Notes up to where it is whole, whole or not at all.
    fn save(&self) -> Result<(), Failure> {
        let (path, new) = (beside(&self.path, ".part.json"), beside(&self.path, ".part.json.new"));
        let text = serde_json::to_vec(&self.saved).map_err(|error| self.failed(&error.into()))?;
        let write = || {
            let mut file = fs::File::create(&new)?;
            file.write_all(&text)?;
            file.sync_data()?;
            fs::rename(&new, &path)
        };
        write().map_err(|error| Failure::file("--file", &path, &error))
    }

    fn failed(&self, error: &std::io::Error) -> Failure {
        Failure::file("--file", &self.path, error)
    }
}

/// The path with more behind its name.
fn beside(path: &Path, more: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(more);
    name.into()
}

fn saved(path: &Path) -> Result<Option<Saved>, Failure> {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|_| {
            Failure::usage(format!("{} is damaged: give --force to begin anew", path.display()))
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::file("--file", path, &error)),
    }
}

fn decoded(filter: &str) -> Option<UsageFilter> {
    UsageFilter::decode(BASE64.decode(filter.as_bytes()).ok()?.as_slice()).ok()
}
