//! The ClickHouse engine in this process, through the C interface of libchdb. All unsafe code of the crate is here,
//! behind types that close what they open. Every call blocks: never call it on a runtime's worker thread.

#![expect(unsafe_code, reason = "the engine is a C library")]

use std::{
    ffi::{CStr, CString, OsStr, c_char, c_int, c_void},
    marker::PhantomData,
    os::unix::ffi::OsStrExt as _,
    path::Path,
    ptr::{self, NonNull},
    sync::{Arc, Mutex},
};

use anyhow::Context as _;

use crate::exception::Exception;

/// The engine, open on one data folder until [`Engine::close`].
pub(crate) struct Engine {
    api: Arc<Api>,
    folder: CString,
    /// Held so that the engine never sees its last connection close while it serves; no statement runs on it.
    keeper: Mutex<Connection>,
}

impl Engine {
    /// Loads `library` and opens the data folder `path`, which is created if missing.
    ///
    /// # Errors
    /// If the library can not be loaded, or the folder can not be opened (another process may have it).
    pub(crate) fn open(library: &Path, path: &Path, config_file: Option<&Path>) -> anyhow::Result<Self> {
        let api = Arc::new(Api::load(library)?);
        // SAFETY: the function takes a flag and may be called before the first connection.
        unsafe { (api.set_signal_handlers_enabled)(0) };
        // With a relative path, the engine looks for parts in the wrong folder when it syncs them.
        let path = std::fs::create_dir_all(path).and_then(|()| path.canonicalize());
        let path = path.context("the folder of the data can not be made")?;
        let folder = option("--path=", path.as_os_str())?;
        let mut options = vec![folder.clone()];
        if let Some(file) = config_file {
            options.push(option("--config-file=", file.as_os_str())?);
        }
        let keeper = Connection::open(&api, &options).with_context(|| {
            format!("the engine can not open {}; is another process using it?", path.display())
        })?;
        Ok(Self { api, folder, keeper: Mutex::new(keeper) })
    }

    /// A new connection, with these settings from its start. What a `set` or `use` changes ends with it.
    ///
    /// # Errors
    /// If the engine refuses: a setting has no such value, or the engine is closing.
    pub(crate) fn connect(&self, settings: &[(&str, &str)]) -> Result<Connection, Exception> {
        let options: Result<Vec<_>, _> =
            settings.iter().map(|(name, value)| option(&format!("--{name}="), OsStr::new(value))).collect();
        let mut options = options.map_err(|error| Exception::bad_arguments(error.to_string()))?;
        options.insert(0, self.folder.clone());
        Connection::open(&self.api, &options)
            .map_err(|_| Exception::bad_arguments("the engine refused the connection and its settings"))
    }

    /// Stops the engine. Every connection must be closed before; then the last one closes here, and tables with it.
    pub(crate) fn close(self) {
        let Self { api, keeper, .. } = self;
        drop(keeper);
        // Fails, harmlessly, if a thread of the engine is left: so it is whenever a MergeTree table was open.
        // SAFETY: takes nothing; it refuses by itself while a connection is open.
        let _ = unsafe { (api.shutdown)() };
    }
}

/// Ends this process at once, without exit handlers: those of the engine can crash.
pub fn exit(code: i32) -> ! {
    // SAFETY: never returns, touches no memory of ours.
    unsafe { libc::_exit(code) }
}

/// One connection: one statement at a time.
pub(crate) struct Connection {
    api: Arc<Api>,
    handle: NonNull<RawConnection>,
}

// SAFETY: the engine locks a connection for each call and keeps nothing of it in thread-local storage between calls.
unsafe impl Send for Connection {}

impl Connection {
    fn open(api: &Arc<Api>, options: &[CString]) -> anyhow::Result<Self> {
        let program = CString::from(c"clickhouse");
        let arguments: Vec<*const c_char> =
            std::iter::once(program.as_ptr()).chain(options.iter().map(|option| option.as_ptr())).collect();
        let count = c_int::try_from(arguments.len())?;
        // SAFETY: `arguments` holds `count` pointers to strings that live until the call returns; the engine copies them.
        let handle = unsafe { (api.connect)(count, arguments.as_ptr()) };
        let handle = NonNull::new(handle).context("no connection")?;
        Ok(Self { api: api.clone(), handle })
    }

    /// Runs one statement, or several divided by `;`, and returns what it printed in `format`.
    ///
    /// # Errors
    /// The engine's exception.
    pub(crate) fn query(
        &self,
        sql: &str,
        format: &str,
        params: &[(String, String)],
    ) -> Result<Output, Exception> {
        let params = Params::new(params);
        // SAFETY: all pointers come with their lengths and live until the call returns.
        let raw = unsafe {
            (self.api.query)(
                self.raw(),
                sql.as_ptr().cast(),
                sql.len(),
                format.as_ptr().cast(),
                format.len(),
                params.names.as_ptr(),
                params.name_lengths.as_ptr(),
                params.values.as_ptr(),
                params.value_lengths.as_ptr(),
                params.names.len(),
            )
        };
        Output::new(&self.api, raw)
    }

    /// What the engine's own parser says of `sql`, without running it.
    pub(crate) fn analyse(&self, sql: &str) -> Analysis {
        let mut raw = RawAnalysis {
            struct_size: size_of::<RawAnalysis>() as u32,
            statement_count: 0,
            flags: 0,
            query_class: QUERY_UNKNOWN,
        };
        // SAFETY: the text comes with its length; `raw` says its own size and is written only during the call.
        unsafe {
            (self.api.classify)(self.raw(), sql.as_ptr().cast(), sql.len(), ptr::null(), 0, &raw mut raw)
        };
        Analysis { statements: raw.statement_count, reads_only: raw.query_class == QUERY_READ_ONLY }
    }

    /// Starts an insert whose rows follow by [`Insert::append`]. `sql` names no format and holds no rows.
    ///
    /// # Errors
    /// The engine's exception: wrong statement, no such table, …
    pub(crate) fn insert(
        &mut self,
        sql: &str,
        format: &str,
        params: &[(String, String)],
    ) -> Result<Insert<'_>, Exception> {
        let params = Params::new(params);
        // SAFETY: as in `query`.
        let handle = unsafe {
            (self.api.insert)(
                self.raw(),
                sql.as_ptr().cast(),
                sql.len(),
                format.as_ptr().cast(),
                format.len(),
                params.names.as_ptr(),
                params.name_lengths.as_ptr(),
                params.values.as_ptr(),
                params.value_lengths.as_ptr(),
                params.names.len(),
            )
        };
        let insert = Insert { handle, api: self.api.clone(), connection: PhantomData };
        match insert.error() {
            Some(error) => Err(error),
            None => Ok(insert),
        }
    }

    fn raw(&self) -> *mut c_void {
        // SAFETY: the handle was given by `connect` and is valid until `close_connection`.
        unsafe { *self.handle.as_ptr() }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: opened once, closed once; an insert on it borrows it, so it is gone already.
        unsafe { (self.api.close_connection)(self.handle.as_ptr()) };
    }
}

/// A streaming insert. Dropped before [`Insert::finish`], it is cancelled: rows that the engine has not yet written
/// as a block are not written.
pub(crate) struct Insert<'connection> {
    api: Arc<Api>,
    handle: *mut c_void,
    connection: PhantomData<&'connection mut Connection>,
}

impl Insert<'_> {
    /// Hands over the next bytes; waits while the engine is behind.
    ///
    /// # Errors
    /// If the engine has ended the insert; [`Insert::finish`] has the cause.
    pub(crate) fn append(&mut self, data: &[u8]) -> Result<(), Exception> {
        // SAFETY: the bytes are copied during the call.
        let state = unsafe { (self.api.append)(self.handle, data.as_ptr().cast(), data.len()) };
        if state == SUCCESS {
            return Ok(());
        }
        Err(self.error().unwrap_or_else(|| Exception::new(QUERY_WAS_CANCELLED, "the insert has ended")))
    }

    /// Says that all bytes were handed over and waits until the rows are written.
    ///
    /// # Errors
    /// The engine's exception; blocks written before it stay.
    pub(crate) fn finish(self) -> Result<Output, Exception> {
        // SAFETY: the handle is valid; the result is owned by `Output`.
        let raw = unsafe { (self.api.done)(self.handle) };
        Output::new(&self.api, raw)
    }

    fn error(&self) -> Option<Exception> {
        // SAFETY: the text, if any, belongs to the stream, which outlives this call.
        unsafe { text((self.api.insert_error)(self.handle)) }.map(|text| Exception::parse(&text))
    }
}

impl Drop for Insert<'_> {
    fn drop(&mut self) {
        // SAFETY: destroyed once; cancels what was not finished.
        unsafe { (self.api.destroy_insert)(self.handle) };
    }
}

/// What a statement printed, and its counters.
pub(crate) struct Output {
    api: Arc<Api>,
    raw: *mut c_void,
}

impl Output {
    fn new(api: &Arc<Api>, raw: *mut c_void) -> Result<Self, Exception> {
        let output = Self { api: api.clone(), raw };
        // SAFETY: the text, if any, belongs to the result, which lives until the end of this function.
        match unsafe { text((api.result_error)(raw)) } {
            Some(text) => Err(Exception::parse(&text)),
            None => Ok(output),
        }
    }

    /// The bytes, in the format asked for.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: buffer and length belong to the result, which lives as long as `self`.
        unsafe {
            let (data, length) = ((self.api.result_buffer)(self.raw), (self.api.result_length)(self.raw));
            if data.is_null() || length == 0 { &[] } else { std::slice::from_raw_parts(data.cast(), length) }
        }
    }

    /// Counts and time of the statement.
    pub(crate) fn counters(&self) -> Counters {
        // SAFETY: getters on a live result.
        unsafe {
            Counters {
                read_rows: (self.api.storage_rows_read)(self.raw),
                read_bytes: (self.api.storage_bytes_read)(self.raw),
                written_rows: (self.api.rows_written)(self.raw),
                written_bytes: (self.api.bytes_written)(self.raw),
                elapsed_s: (self.api.elapsed)(self.raw),
            }
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // SAFETY: destroyed once.
        unsafe { (self.api.destroy_result)(self.raw) };
    }
}

/// What a statement read and wrote.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    /// From tables.
    pub(crate) read_rows: u64,
    pub(crate) read_bytes: u64,
    /// Those of materialized views included.
    pub(crate) written_rows: u64,
    pub(crate) written_bytes: u64,
    /// Seconds.
    pub(crate) elapsed_s: f64,
}

/// What [`Connection::analyse`] found.
pub(crate) struct Analysis {
    /// Number of statements; 0 if the text did not parse.
    pub(crate) statements: u32,
    /// Leaves no trace: `select`, `show`, `describe`, `explain`, …
    pub(crate) reads_only: bool,
}

const SUCCESS: c_int = 0;
const QUERY_READ_ONLY: u32 = 0;
const QUERY_UNKNOWN: u32 = 4;
const QUERY_WAS_CANCELLED: u32 = 394;

type RawConnection = *mut c_void;

#[repr(C)]
struct RawAnalysis {
    struct_size: u32,
    statement_count: u32,
    flags: u32,
    query_class: u32,
}

/// Parameters as the engine wants them: four parallel arrays that borrow the pairs.
struct Params<'pairs> {
    names: Vec<*const c_char>,
    name_lengths: Vec<usize>,
    values: Vec<*const c_char>,
    value_lengths: Vec<usize>,
    pairs: PhantomData<&'pairs [(String, String)]>,
}

impl<'pairs> Params<'pairs> {
    fn new(pairs: &'pairs [(String, String)]) -> Self {
        Self {
            names: pairs.iter().map(|(name, _)| name.as_ptr().cast()).collect(),
            name_lengths: pairs.iter().map(|(name, _)| name.len()).collect(),
            values: pairs.iter().map(|(_, value)| value.as_ptr().cast()).collect(),
            value_lengths: pairs.iter().map(|(_, value)| value.len()).collect(),
            pairs: PhantomData,
        }
    }
}

type Text = *const c_char;
type Getter<T> = unsafe extern "C" fn(*mut c_void) -> T;
/// connection, statement, format, parameters (names, lengths, values, lengths, count)
type WithParams = unsafe extern "C" fn(
    *mut c_void,
    Text,
    usize,
    Text,
    usize,
    *const Text,
    *const usize,
    *const Text,
    *const usize,
    usize,
) -> *mut c_void;

/// The functions of libchdb that are used. The library stays loaded until the process ends: its threads may run on.
struct Api {
    set_signal_handlers_enabled: unsafe extern "C" fn(c_int),
    connect: unsafe extern "C" fn(c_int, *const Text) -> *mut RawConnection,
    close_connection: unsafe extern "C" fn(*mut RawConnection),
    shutdown: unsafe extern "C" fn() -> c_int,
    query: WithParams,
    classify: unsafe extern "C" fn(*mut c_void, Text, usize, Text, usize, *mut RawAnalysis) -> c_int,
    insert: WithParams,
    append: unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> c_int,
    done: Getter<*mut c_void>,
    insert_error: Getter<Text>,
    destroy_insert: Getter<()>,
    result_buffer: Getter<*const c_char>,
    result_length: Getter<usize>,
    result_error: Getter<Text>,
    elapsed: Getter<f64>,
    storage_rows_read: Getter<u64>,
    storage_bytes_read: Getter<u64>,
    rows_written: Getter<u64>,
    bytes_written: Getter<u64>,
    destroy_result: Getter<()>,
}

impl Api {
    fn load(path: &Path) -> anyhow::Result<Self> {
        // SAFETY: the operator names the engine's library; its constructors run here, before any other thread uses it.
        let library = unsafe { libloading::Library::new(path) }
            .with_context(|| format!("can not load the engine from {}", path.display()))?;
        let library: &'static libloading::Library = Box::leak(Box::new(library));
        // SAFETY: each name is declared in the library's header with exactly the type of its field.
        unsafe {
            Ok(Self {
                set_signal_handlers_enabled: symbol(library, "chdb_set_signal_handlers_enabled")?,
                connect: symbol(library, "chdb_connect")?,
                close_connection: symbol(library, "chdb_close_conn")?,
                shutdown: symbol(library, "chdb_shutdown")?,
                query: symbol(library, "chdb_query_with_params_n")?,
                classify: symbol(library, "chdb_classify_query_n")?,
                insert: symbol(library, "chdb_stream_insert_with_params_n")?,
                append: symbol(library, "chdb_stream_append")?,
                done: symbol(library, "chdb_stream_done")?,
                insert_error: symbol(library, "chdb_stream_insert_error")?,
                destroy_insert: symbol(library, "chdb_destroy_insert_stream")?,
                result_buffer: symbol(library, "chdb_result_buffer")?,
                result_length: symbol(library, "chdb_result_length")?,
                result_error: symbol(library, "chdb_result_error")?,
                elapsed: symbol(library, "chdb_result_elapsed")?,
                storage_rows_read: symbol(library, "chdb_result_storage_rows_read")?,
                storage_bytes_read: symbol(library, "chdb_result_storage_bytes_read")?,
                rows_written: symbol(library, "chdb_result_rows_written")?,
                bytes_written: symbol(library, "chdb_result_bytes_written")?,
                destroy_result: symbol(library, "chdb_destroy_query_result")?,
            })
        }
    }
}

/// # Safety
/// `T` must be the type of the function `name`.
unsafe fn symbol<T: Copy>(library: &'static libloading::Library, name: &str) -> anyhow::Result<T> {
    // SAFETY: the caller vouches for the type; the library is never unloaded.
    let symbol = unsafe { library.get::<T>(name.as_bytes()) }
        .with_context(|| format!("the engine's library has no function {name}; it is too old"))?;
    Ok(*symbol)
}

/// # Safety
/// `text` is null or a string that ends in a null byte and lives during the call.
unsafe fn text(text: Text) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: by the caller's promise.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    (!text.is_empty()).then_some(text)
}

fn option(name: &str, value: &OsStr) -> anyhow::Result<CString> {
    CString::new([name.as_bytes(), value.as_bytes()].concat())
        .context("a null byte in an option of the engine")
}
