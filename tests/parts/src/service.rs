//! A binary of this workspace as a process: started with an environment, asked whether it is ready, ended.

use std::{path::Path, process::ExitStatus};

use rustix::process::Signal;

use crate::{binary, http, install::is_own, process::Process};

/// A running service.
pub struct Service {
    process: Process,
}

impl Service {
    /// Starts the binary `name` with these environment variables and no others of ours, in a temporary folder of
    /// its own. Does not wait for anything: see [`Self::wait_ready`].
    ///
    /// # Panics
    /// If it cannot be built or started.
    #[expect(clippy::unused_async, reason = "a test reads the same for every part")]
    pub async fn spawn(name: &str, environment: &[(&str, &str)]) -> Self {
        Self::spawn_with(name, &[], environment)
    }

    /// As [`Self::spawn`], with arguments.
    ///
    /// # Panics
    /// If it cannot be built or started.
    #[must_use]
    pub fn spawn_with(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut process = Process::new(name, binary(name));
        for &argument in arguments {
            process = process.arg(argument);
        }
        for &(variable, value) in environment {
            process = process.env(variable, value);
        }
        let mut service = Self { process };
        service.allow_memory();
        service.process.start();
        service
    }

    /// The temporary folders of tests may be in memory, which an edge refuses. What a test says counts; another version may
    /// not know the setting.
    fn allow_memory(&mut self) {
        let setting = "KEYMETER_EDGE_SPOOL_EPHEMERAL";
        match self.process.name() {
            "edge" if is_own() => self.process.default_env(setting, "true"),
            "edge" => self.process.unset_env(setting),
            _ => {}
        }
    }

    /// Waits until `GET /readyz` on `health_addr` (`host:port`) answers 200.
    ///
    /// # Panics
    /// If it does not, or the process ends before.
    pub async fn wait_ready(&mut self, health_addr: &str) {
        self.process
            .ready(async || matches!(http::get(health_addr, "/readyz").await, Ok(answer) if answer.status == 200))
            .await;
    }

    /// Waits until the process ends by itself.
    pub async fn wait(&mut self) -> ExitStatus {
        crate::eventually("the process ends", async || self.process.try_wait()).await
    }

    /// Asks it to end, and waits.
    pub async fn sigterm(&mut self) -> ExitStatus {
        self.process.end(Signal::TERM).await
    }

    /// Ends it as a crash does.
    pub async fn kill(&mut self) {
        self.process.end(Signal::KILL).await;
    }

    /// Starts it again with the same arguments, environment and folder, after it ended.
    pub fn restart(&mut self) {
        self.process.start();
    }

    /// The next start is of the binary that [`binary`] gives now.
    ///
    /// # Panics
    /// If it cannot be built.
    pub fn replace(&mut self) {
        self.process.replace(binary(self.process.name()));
        self.allow_memory();
    }

    /// Freezes it: connections stay open and nothing answers.
    pub fn pause(&mut self) {
        self.process.freeze();
    }

    /// Lets it go on after [`Self::pause`].
    pub fn resume(&mut self) {
        self.process.thaw();
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// All that it wrote to its standard output and error, over all starts.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Its temporary folder, where it runs.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.process.folder()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{eventually, free_port, get};

    #[tokio::test]
    async fn a_service_starts_ends_and_starts_again() {
        let addr = format!("127.0.0.1:{}", free_port());
        let mut api = Service::spawn_with("demo", &["api"], &[("KEYMETER_DEMO_ADDR", &addr)]);
        let answers = async || get(&addr, "/healthz").await.is_ok();
        eventually("it answers", answers).await;
        assert!(api.sigterm().await.success());
        assert!(!api.is_running() && !answers().await);
        api.restart();
        eventually("it answers again", answers).await;
        api.kill().await;
        assert!(!answers().await);
        assert_eq!(api.log().matches("the demonstrated API listens").count(), 2);
    }
}
