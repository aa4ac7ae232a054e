//! `strace` on a running server: which calls it makes to change its files, and its end at one of them. Counts by thread, as
//! strace does, so a call is named by its file.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use parts::eventually;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{Child, Command},
};

/// Calls that change what is on a disk or when it is there; those that a platform lacks are left out.
const CHANGES: &str = "?open,?creat,openat,write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,?sync_file_range,syncfs,\
    ?rename,?renameat,renameat2,?link,linkat,?symlink,symlinkat,?unlink,unlinkat,?mkdir,mkdirat,?rmdir,ftruncate,\
    truncate,fallocate,copy_file_range";

/// A call that changes a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Call {
    /// Its name.
    pub(crate) name: String,
    /// The file, or the first of two.
    pub(crate) path: String,
}

/// A strace that has attached to every thread of a process.
pub(crate) struct Strace {
    child: Child,
    output: PathBuf,
}

impl Strace {
    /// Notes all calls of `pid` that change files.
    pub(crate) async fn watch(pid: u32, folder: &Path) -> Self {
        Self::attach(pid, folder, &["-y".to_owned()]).await
    }

    /// Kills `pid` when a thread is about to make its `nth` call `name` for one of `paths`.
    pub(crate) async fn kill_at(pid: u32, folder: &Path, name: &str, nth: usize, paths: &[String]) -> Self {
        let mut arguments = vec!["-e".to_owned(), format!("inject={name}:signal=KILL:when={nth}")];
        arguments.extend(paths.iter().map(|path| format!("--trace-path={path}")));
        Self::attach(pid, folder, &arguments).await
    }

    async fn attach(pid: u32, folder: &Path, arguments: &[String]) -> Self {
        let output = folder.join("strace");
        let child = Command::new("strace")
            .args(["-f", "-s", "0", "-p", &pid.to_string(), "-e", &format!("trace={CHANGES}"), "-o"])
            .arg(&output)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("strace is missing, which ends a server at a call of its choice: apt-get install strace");
        let mut strace = Self { child, output };
        strace.attached().await;
        strace
    }

    async fn attached(&mut self) {
        let mut said = BufReader::new(self.child.stderr.take().expect("it is a pipe"));
        let mut line = String::new();
        said.read_line(&mut line).await.expect("it is text");
        if !line.contains("attached") {
            panic!(
                "strace cannot attach to a process of the test: run the test as root, in a container with \
                 --cap-add SYS_PTRACE: {line}"
            );
        }
        // So that it never waits for a reader.
        tokio::spawn(async move { said.read_to_end(&mut Vec::new()).await });
    }

    /// Lets the process go, and says which calls for files below `folder` there were, in their order.
    pub(crate) async fn calls(mut self, folder: &str) -> Vec<Call> {
        let pid = self.child.id().expect("it runs").to_string();
        let ended = Command::new("kill").args(["-TERM", &pid]).status().await.expect("kill runs");
        assert!(ended.success(), "strace runs until it is told to end");
        eventually("strace ends", async || self.child.try_wait().expect("a child can be waited for")).await;
        let text = fs::read_to_string(&self.output).expect("it wrote what it saw");
        text.lines().filter_map(|line| call(line, folder)).collect()
    }
}

/// The call in a line of strace such as `17 openat(AT_FDCWD</>, "/a/b", O_WRONLY|O_CREAT) = 3` if it changes a file
/// below `folder`.
fn call(line: &str, folder: &str) -> Option<Call> {
    let (_, call) = line.split_once(' ')?;
    let (name, _) = call.trim_start().split_once('(')?;
    let at = line.find(folder)?;
    let path = line[at..].split(['"', '>']).next()?.trim_end_matches('/').to_owned();
    let reads = name.starts_with("open") && !line.contains("O_CREAT");
    // The second line of a call that was interrupted has no parenthesis of its own, and is none more.
    let is_resumed = name.contains('<');
    (!reads && !is_resumed).then(|| Call { name: name.to_owned(), path })
}
