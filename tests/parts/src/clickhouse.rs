//! ClickHouse for tests: `chdb-server` over the installed engine. Has no users and no replicas.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::process::Signal;

use crate::{binary, free_port, http, libchdb, process::Process, root};

/// A running ClickHouse engine behind its HTTP interface.
pub struct ClickHouse {
    process: Process,
    address: String,
    data: PathBuf,
}

impl ClickHouse {
    /// Starts one and waits until it answers.
    ///
    /// # Panics
    /// If it does not get there.
    pub async fn start() -> Self {
        let process = Process::new("clickhouse", binary("chdb-server"));
        let data = process.folder().join("data");
        Self::start_process(process, data).await
    }

    /// As [`Self::start`], over data in a folder that stays when it ends. Only one may run over it.
    ///
    /// # Panics
    /// If it does not get there.
    pub async fn start_over(data: &Path) -> Self {
        Self::start_process(Process::new("clickhouse", binary("chdb-server")), data.to_owned()).await
    }

    /// As [`Self::start`], allowed to keep copies of itself in `folder`, by `File('…')`.
    ///
    /// # Panics
    /// If it does not get there.
    pub async fn start_with_copies(folder: &Path) -> Self {
        let allowed = format!("<backups><allowed_path>{}</allowed_path></backups>", folder.display());
        Self::start_configured(&allowed).await
    }

    /// As [`Self::start`], with more of a configuration file: the inside of its `<clickhouse>`.
    ///
    /// # Panics
    /// If it does not get there.
    pub async fn start_configured(configuration: &str) -> Self {
        let process = Process::new("clickhouse", binary("chdb-server"));
        let (data, file) = (process.folder().join("data"), process.folder().join("config.xml"));
        fs::write(&file, format!("<clickhouse>{configuration}</clickhouse>")).expect("own folder");
        Self::start_process(process.env("CHDB_CONFIG_FILE", file), data).await
    }

    async fn start_process(process: Process, data: PathBuf) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let process = process
            .env("CHDB_LIBRARY", libchdb())
            .env("CHDB_PATH", data.as_path())
            .env("CHDB_LISTEN", address.as_str());
        let mut clickhouse = Self { process, address, data };
        clickhouse.restart().await;
        clickhouse
    }

    /// Makes the database and its tables as ingest does: from its own migration files, statement by statement.
    ///
    /// # Panics
    /// If a file can not be read, or ClickHouse refuses a statement.
    pub async fn create_tables(&self) {
        for file in migrations() {
            let text = fs::read_to_string(file).expect("a migration can be read");
            // A statement ends with a semicolon at the end of its line.
            for statement in text.split(";\n").filter(|statement| !statement.trim().is_empty()) {
                self.query(statement).await;
            }
        }
    }

    /// `http://127.0.0.1:<port>`, the same over restarts.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Where its data are.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.data.clone()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// The rows of `sql` as text, columns parted by tabs.
    ///
    /// # Panics
    /// If ClickHouse refuses it or is not there.
    pub async fn query(&self, sql: &str) -> String {
        self.try_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The rows of `sql` as text, columns parted by tabs.
    ///
    /// # Errors
    /// What ClickHouse says, or that it is not there.
    pub async fn try_query(&self, sql: &str) -> Result<String, String> {
        match http::request("POST", &self.address, "/", &[], sql).await {
            Ok(answer) if answer.status == 200 => Ok(answer.body),
            Ok(answer) => Err(answer.body),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Ends it as a crash does.
    pub async fn kill(&mut self) {
        self.process.end(Signal::KILL).await;
    }

    /// Asks it to end, and waits.
    pub async fn stop(&mut self) {
        self.process.end(Signal::TERM).await;
    }

    /// Starts it again, on the same port and data, after [`Self::kill`] or [`Self::stop`].
    pub async fn restart(&mut self) {
        self.process.start();
        let address = self.address.clone();
        self.process
            .ready(async || matches!(http::get(&address, "/ping").await, Ok(answer) if answer.status == 200))
            .await;
    }

    /// Stops it and starts it again on the same data with these contents of the engine's file of users: grants,
    /// profiles and policies of its one user `default`, say.
    ///
    /// # Panics
    /// If it does not get there.
    pub async fn restart_with_users(&mut self, users: &str) {
        self.stop().await;
        let (users_file, config_file) =
            (self.process.folder().join("users.xml"), self.process.folder().join("chdb.xml"));
        fs::write(&users_file, users).expect("own folder");
        let config =
            format!("<clickhouse><users_config>{}</users_config></clickhouse>", users_file.display());
        fs::write(&config_file, config).expect("own folder");
        self.process.set_env("CHDB_CONFIG_FILE", config_file);
        self.restart().await;
    }

    /// Freezes it: connections stay open and nothing answers.
    pub fn pause(&mut self) {
        self.process.freeze();
    }

    /// Lets it go on after [`Self::pause`].
    pub fn resume(&mut self) {
        self.process.thaw();
    }
}

/// Ingest's migration files, in their order.
///
/// # Panics
/// If there are none.
#[must_use]
pub fn migrations() -> Vec<PathBuf> {
    let folder = fs::read_dir(root().join("services/ingest/migrations")).expect("ingest has migrations");
    let mut files: Vec<_> = folder.map(|entry| entry.expect("the folder can be read").path()).collect();
    files.sort();
    assert!(!files.is_empty(), "ingest has migrations");
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keeps_its_data_over_a_crash_and_a_stop() {
        let mut clickhouse = ClickHouse::start().await;
        clickhouse.query("create database d").await;
        clickhouse.query("create table d.t (a UInt8, b String) engine = MergeTree order by a").await;
        clickhouse.query("insert into d.t values (7, 'x')").await;
        clickhouse.kill().await;
        clickhouse.restart().await;
        assert_eq!(clickhouse.query("select * from d.t").await, "7\tx\n");
        clickhouse.stop().await;
        clickhouse.restart().await;
        assert_eq!(clickhouse.query("select * from d.t").await, "7\tx\n");
        assert!(clickhouse.try_query("select nothing").await.unwrap_err().contains("nothing"));
    }
}
