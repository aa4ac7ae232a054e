//! The command line `keymeter` as a process, as a person at a terminal and a CI job run it.

use std::{
    ffi::OsStr,
    process::{Output, Stdio},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::stack::Stack;

mod exit_codes;
mod export;
mod life;
mod people;
mod tls;

/// No command of a test that ends by itself takes longer.
const END_MAX: Duration = Duration::from_secs(120);

/// The binary with a home of its own and nothing else in its environment.
pub(crate) struct Keymeter {
    environment: Vec<(&'static str, String)>,
    pub(crate) home: TempDir,
}

/// What came of a command.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Keymeter {
    /// As a program, with the workspace's service token.
    pub(crate) fn program(stack: &Stack) -> Self {
        Self::nobody(stack).with("KEYMETER_TOKEN", stack.service_token())
    }

    /// As nobody yet.
    pub(crate) fn nobody(stack: &Stack) -> Self {
        let environment = vec![
            ("KEYMETER_KEYS_URL", format!("http://127.0.0.1:{}", stack.ports.keys)),
            ("KEYMETER_QUERY_URL", format!("http://127.0.0.1:{}", stack.ports.query)),
        ];
        Self { environment, home: tempfile::tempdir().unwrap() }
    }

    /// With one more variable; the last one of a name counts.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// A command that is not started yet.
    pub(crate) fn command(&self, arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new(parts::binary("keymeter"));
        command.args(arguments);
        self.prepare(&mut command);
        command
    }

    fn prepare(&self, command: &mut Command) {
        command
            .env_clear()
            .env("HOME", self.home.path())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, arguments: &[impl AsRef<OsStr>]) -> Ran {
        let ended = tokio::time::timeout(END_MAX, self.command(arguments).output()).await;
        Ran::of(ended.expect("a command ends").unwrap())
    }

    /// Runs a command that must do its work; what it printed.
    pub(crate) async fn good(&self, arguments: &[impl AsRef<OsStr>]) -> String {
        let ran = self.run(arguments).await;
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran.stdout
    }

    /// As [`Self::good`], read as JSON.
    pub(crate) async fn json(&self, arguments: &[&str]) -> Value {
        let printed = self.good(&[arguments, &["--output", "json"]].concat()).await;
        serde_json::from_str(&printed).unwrap()
    }

    /// Runs a command at a terminal, where `typed` is typed; both outputs are one there.
    pub(crate) async fn at_terminal(&self, arguments: &str, typed: &str) -> Ran {
        let line = format!("{} {arguments}", parts::binary("keymeter").display());
        let mut command = Command::new("script");
        command.args(["--quiet", "--return", "--echo", "never", "--command", &line, "/dev/null"]);
        self.prepare(&mut command);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(typed.as_bytes()).await.unwrap();
        let output = child.wait_with_output().await.unwrap();
        drop(stdin);
        Ran::of(output)
    }
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        Self { code: output.status.code().unwrap_or(-1), stdout, stderr }
    }

    /// Asserts how it ended, and what the error names; nothing may be on standard output.
    #[track_caller]
    pub(crate) fn failed(&self, code: i32, named: &str) {
        assert_eq!((self.code, self.stdout.as_str()), (code, ""), "{}", self.stderr);
        assert!(self.stderr.starts_with("error: "), "{}", self.stderr);
        assert!(self.stderr.contains(named), "{named} is not in: {}", self.stderr);
    }
}
