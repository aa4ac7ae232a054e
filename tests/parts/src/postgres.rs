//! A Postgres cluster per test, copied from a template that is initialised once. It keeps what it acknowledged over
//! a kill, but not over a power cut: fsync is off.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;

use crate::{free_port, install::component, process::Process};

/// Whom it runs as if the tests run as root, which Postgres refuses: nobody.
const NOBODY: u32 = 65534;
/// Starts until the remains of a killed one are gone.
const START_ATTEMPTS: usize = 100;

/// A running Postgres with one empty database.
pub struct Postgres {
    process: Process,
    port: u16,
}

impl Postgres {
    /// Starts one and waits until it takes connections.
    ///
    /// # Panics
    /// If it does not get there.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// As [`Self::start`], with settings (`name=value`) that win over those for tests.
    ///
    /// # Panics
    /// If it does not get there.
    pub async fn start_with(settings: &[&str]) -> Self {
        let port = free_port();
        let mut process =
            Process::new("postgres", component("postgres/bin/postgres")).drop_signal(Signal::QUIT);
        let uid = fs::metadata("/proc/self").expect("Linux has /proc").uid();
        let other_user = (uid == 0).then_some(NOBODY);
        if let Some(nobody) = other_user {
            process = process.user(nobody);
        }
        let data = process.folder().join("data");
        copy(&template(other_user), &data, other_user);
        let mut process = process.arg("-D").arg(data);
        for setting in [
            format!("port={port}"),
            "listen_addresses=127.0.0.1".into(),
            "unix_socket_directories=".into(),
            "fsync=off".into(),
            "full_page_writes=off".into(),
            "shared_buffers=32MB".into(),
        ] {
            process = process.arg("-c").arg(setting);
        }
        for setting in settings {
            process = process.arg("-c").arg(setting);
        }
        let mut postgres = Self { process, port };
        postgres.restart().await;
        postgres
    }

    /// `postgres://…` of the empty database as its owner, the same over restarts.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_as("postgres")
    }

    /// The same database as another role, who needs no password.
    #[must_use]
    pub fn url_as(&self, role: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/postgres", self.port)
    }

    /// Its folder, with all that it stores.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.process.folder()
    }

    /// Ends it as a crash does.
    pub async fn kill(&mut self) {
        self.process.end(Signal::KILL).await;
    }

    /// Ends it and its connections, and waits.
    pub async fn stop(&mut self) {
        // INT is Postgres's "fast" shutdown; TERM would wait for every client to leave.
        self.process.end(Signal::INT).await;
    }

    /// Starts it again, on the same port and data, after [`Self::kill`] or [`Self::stop`].
    ///
    /// # Panics
    /// If it does not start.
    pub async fn restart(&mut self) {
        // Children of a killed server keep its shared memory for a moment, and it refuses to start beside them.
        for _ in 0..START_ATTEMPTS {
            self.process.start();
            while self.process.is_running() {
                if self.answers() {
                    return;
                }
                Process::pause().await;
            }
            Process::pause().await;
        }
        panic!("Postgres ends as soon as it starts");
    }

    /// What `psql` prints for `sql`: one line a row, columns parted by tabs.
    ///
    /// # Panics
    /// If Postgres refuses it.
    #[must_use]
    pub fn query(&self, sql: &str) -> String {
        self.try_query_as("postgres", sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// As [`Self::query`], as another role.
    ///
    /// # Errors
    /// What Postgres says.
    pub fn try_query_as(&self, role: &str, sql: &str) -> Result<String, String> {
        let output = self.psql(role, sql);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Where `pg_dump` and the other programs of this version are.
    ///
    /// # Panics
    /// If they are not installed.
    #[must_use]
    pub fn programs() -> PathBuf {
        component("postgres/bin")
    }

    fn answers(&self) -> bool {
        self.psql("postgres", "select 1").status.success()
    }

    fn psql(&self, role: &str, sql: &str) -> std::process::Output {
        Command::new(component("postgres/bin/psql"))
            .args(["--no-psqlrc", "--tuples-only", "--no-align", "--field-separator=\t", "--command", sql])
            .arg(self.url_as(role))
            .output()
            .expect("psql runs")
    }
}

/// An initialised cluster that never runs. Two processes may make it at once: the second finds the first one's.
fn template(uid: Option<u32>) -> PathBuf {
    let owner = uid.unwrap_or_else(|| fs::metadata("/proc/self").expect("Linux has /proc").uid());
    let home = component("postgres/bin").canonicalize().expect("it exists");
    // Named by the installation's folder, so that an upgrade makes its own.
    let id = home
        .to_string_lossy()
        .bytes()
        .fold(0_u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
    let folder = std::env::temp_dir().join(format!("keymeter-postgres-{owner}-{id:016x}"));
    if folder.join("PG_VERSION").exists() {
        return folder;
    }
    let building = tempfile::Builder::new().prefix("keymeter-initdb-").tempdir().expect("a temporary folder");
    if let Some(uid) = uid {
        std::os::unix::fs::chown(building.path(), Some(uid), Some(uid)).expect("root may give a folder away");
    }
    let data = building.path().join("data");
    let initdb = home.join("initdb");
    run(
        uid,
        &[
            &initdb.to_string_lossy(),
            "--pgdata",
            &data.to_string_lossy(),
            "--username=postgres",
            "--auth=trust",
            "--locale=C.UTF-8",
            "--encoding=UTF8",
            "--wal-segsize=1",
            "--no-sync",
            "--no-instructions",
        ],
    );
    // Fails if another process was quicker, whose folder is as good.
    let _ = fs::rename(&data, &folder);
    assert!(folder.join("PG_VERSION").exists(), "cannot make {}", folder.display());
    folder
}

fn copy(from: &Path, to: &Path, uid: Option<u32>) {
    run(uid, &["cp", "--archive", "--reflink=auto", &from.to_string_lossy(), &to.to_string_lossy()]);
}

/// Runs a command to its end, as `uid` if given.
fn run(uid: Option<u32>, command: &[&str]) {
    let mut whole = vec![];
    if let Some(uid) = uid {
        whole = vec![
            "setpriv".into(),
            format!("--reuid={uid}"),
            format!("--regid={uid}"),
            "--clear-groups".into(),
        ];
    }
    whole.extend(command.iter().map(|&word| word.to_owned()));
    let output = Command::new(&whole[0]).args(&whole[1..]).output().expect("the program runs");
    assert!(output.status.success(), "{whole:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keeps_its_data_over_a_crash_and_a_stop() {
        let mut postgres = Postgres::start().await;
        let _ = postgres.query("create table t as select 7 as a, 'x' as b");
        postgres.kill().await;
        postgres.restart().await;
        assert_eq!(postgres.query("select * from t"), "7\tx\n");
        postgres.stop().await;
        postgres.restart().await;
        assert_eq!(postgres.query("select * from t"), "7\tx\n");
    }

    #[tokio::test]
    async fn two_share_nothing() {
        let (one, other) = (Postgres::start().await, Postgres::start().await);
        let _ = one.query("create table t (a int)");
        assert_eq!(other.query("select to_regclass('t') is null"), "t\n");
    }
}
