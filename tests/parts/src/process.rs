//! A child process with a folder of its own and a log. It is killed when its value is dropped, and by the kernel
//! when the thread that started it ends, so start it from the test itself. Sends signals to nobody else.

use std::{
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::eventually;

/// How much of a log a failed test shows, in lines.
const LOG_LINES_SHOWN: usize = 200;
/// How long a dropped process may take to end by its own signal.
const DROP_LIMIT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(5);

/// How to start a process again and again with the same folder.
pub(crate) struct Process {
    name: String,
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(String, OsString)>,
    /// Uid to start as; `None` is the test's own.
    uid: Option<u32>,
    /// What ends it when dropped.
    drop_signal: Signal,
    folder: TempDir,
    child: Option<Child>,
}

impl Process {
    /// A process that is not started yet.
    pub(crate) fn new(name: &str, program: impl Into<OsString>) -> Self {
        let folder = tempfile::Builder::new()
            .prefix(&format!("keymeter-{name}-"))
            .tempdir()
            .expect("the system's temporary folder can be written");
        Self {
            name: name.to_owned(),
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            uid: None,
            drop_signal: Signal::KILL,
            folder,
            child: None,
        }
    }

    pub(crate) fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Of the next start.
    pub(crate) fn set_env(&mut self, name: &str, value: impl Into<OsString>) {
        self.unset_env(name);
        self.environment.push((name.to_owned(), value.into()));
    }

    /// Of the next start, unless it is set.
    pub(crate) fn default_env(&mut self, name: &str, value: impl Into<OsString>) {
        if !self.environment.iter().any(|(known, _)| known == name) {
            self.environment.push((name.to_owned(), value.into()));
        }
    }

    /// Of the next start.
    pub(crate) fn unset_env(&mut self, name: &str) {
        self.environment.retain(|(known, _)| known != name);
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What is started next.
    pub(crate) fn replace(&mut self, program: impl Into<OsString>) {
        self.program = program.into();
    }

    /// Starts as another user, who then owns the folder.
    pub(crate) fn user(mut self, uid: u32) -> Self {
        std::os::unix::fs::chown(self.folder.path(), Some(uid), Some(uid))
            .expect("root may give a folder away");
        self.uid = Some(uid);
        self
    }

    pub(crate) fn drop_signal(mut self, signal: Signal) -> Self {
        self.drop_signal = signal;
        self
    }

    /// The temporary folder, removed with this value.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// All that it wrote to its standard output and error, over all starts.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    /// Starts it; its environment is what was given and the few variables that any program needs.
    pub(crate) fn start(&mut self) {
        assert!(!self.is_running(), "{} is already running", self.name);
        let log = File::options().create(true).append(true).open(self.log_path()).expect("own folder");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let Some(uid) = self.uid {
            command.args([format!("--reuid={uid}"), format!("--regid={uid}"), "--clear-groups".into()]);
        }
        let kept = ["PATH", "HOME", "TMPDIR", "RUST_LOG", "RUST_BACKTRACE"];
        let kept = kept.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        let child = command
            .arg("--")
            .arg(&self.program)
            .args(&self.arguments)
            .env_clear()
            .envs(kept)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log)
            .spawn()
            .expect("setpriv of util-linux runs");
        self.child = Some(child);
    }

    /// Waits until `probe` settles.
    ///
    /// # Panics
    /// If the process ends before that; its log is shown.
    pub(crate) async fn ready(&mut self, mut probe: impl AsyncFnMut() -> bool) {
        let what = format!("{} is ready", self.name);
        let ended = eventually(&what, async || {
            if let Some(status) = self.try_wait() {
                return Some(Some(status));
            }
            probe().await.then_some(None)
        })
        .await;
        if let Some(status) = ended {
            panic!("{} ended before it was ready: {status}", self.name);
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("the process was started").id()
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        assert!(self.is_running(), "{} is not running", self.name);
        // Not waited for yet, so the number is still this child's.
        kill_process(self.raw_pid(), signal).expect("a child can be signalled");
    }

    /// Freezes it; when this returns, none of its threads runs any more.
    pub(crate) fn freeze(&mut self) {
        self.signal(Signal::STOP);
        let stopped = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(self.raw_pid()), stopped).expect("a child can be waited for");
    }

    /// Lets it go on after [`Self::freeze`].
    pub(crate) fn thaw(&mut self) {
        self.signal(Signal::CONT);
    }

    fn raw_pid(&self) -> Pid {
        i32::try_from(self.pid()).ok().and_then(Pid::from_raw).expect("a pid is a positive i32")
    }

    /// Sends `signal` and waits for the end.
    pub(crate) async fn end(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        let what = format!("{} ends after {signal:?}", self.name);
        let status = eventually(&what, async || self.try_wait()).await;
        self.child = None;
        status
    }

    /// How it ended; `None` while it runs.
    pub(crate) fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().expect("a child can be waited for"))
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.is_some() && self.try_wait().is_none()
    }

    /// Lets other tasks run for a moment.
    pub(crate) async fn pause() {
        sleep(PAUSE).await;
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Drop for Process {
    #[expect(clippy::disallowed_methods, reason = "a drop cannot await, and the folder goes right after it")]
    fn drop(&mut self) {
        if self.is_running() {
            self.signal(self.drop_signal);
            let deadline = Instant::now() + DROP_LIMIT;
            while self.is_running() && Instant::now() < deadline {
                std::thread::sleep(PAUSE);
            }
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            show(&self.name, &self.log());
        }
    }
}

#[expect(clippy::print_stderr, reason = "the test harness captures it and shows it for failed tests")]
fn show(name: &str, log: &str) {
    let lines: Vec<_> = log.lines().collect();
    let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
    eprintln!(
        "--- the log of {name}, last {} of {} lines\n{}\n---",
        shown.len(),
        lines.len(),
        shown.join("\n")
    );
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn sleeper() -> Process {
        Process::new("sleeper", "sh").arg("-c").arg("echo started; exec sleep 600")
    }

    fn exists(pid: u32) -> bool {
        Path::new(&format!("/proc/{pid}")).exists()
    }

    #[tokio::test]
    async fn a_dropped_process_and_its_folder_are_gone() {
        let mut process = sleeper();
        process.start();
        eventually("its first line", async || process.log() == "started\n").await;
        let (pid, folder) = (process.pid(), process.folder().to_owned());
        assert!(exists(pid) && folder.exists());
        drop(process);
        assert!(!exists(pid) && !folder.exists());
    }

    #[tokio::test]
    async fn a_frozen_process_stands_still() {
        let mut process = Process::new("busy", "sh").arg("-c").arg("while :; do :; done");
        process.start();
        let state = |process: &Process| {
            let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid())).unwrap();
            stat.rsplit(") ").next().and_then(|rest| rest.chars().next())
        };
        for _ in 0..100 {
            process.freeze();
            assert_eq!(state(&process), Some('T'));
            process.thaw();
            assert_ne!(state(&process), Some('T'));
        }
    }

    #[tokio::test]
    async fn a_process_ends_with_the_thread_that_started_it() {
        let (mut process, pid) = std::thread::spawn(|| {
            let mut process = sleeper();
            process.start();
            // Until the shell runs, the request to die with the parent may not have been made.
            while process.log().is_empty() {
                std::thread::yield_now();
            }
            let pid = process.pid();
            (process, pid)
        })
        .join()
        .unwrap();
        let status = eventually("the kernel kills it", async || process.try_wait()).await;
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()));
        drop(process);
        assert!(!exists(pid));
    }

    #[tokio::test]
    #[should_panic(expected = "broken ended before it was ready")]
    async fn an_early_end_is_told() {
        let mut process = Process::new("broken", "false");
        process.start();
        process.ready(async || false).await;
    }
}
