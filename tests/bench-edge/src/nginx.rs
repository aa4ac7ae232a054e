//! nginx, as its users tune it: as the API behind all proxies, and as a plain proxy to compare with. Found on the
//! PATH, ends with the value that stands for it.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use anyhow::Context as _;
use parts::free_port;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const MISSING: &str = "nginx does not start; if it is missing: apt-get install nginx-light";

/// A running nginx.
pub(crate) struct Nginx {
    pub(crate) addr: String,
    child: Child,
    _folder: TempDir,
}

impl Nginx {
    /// Answers every request with a small body.
    pub(crate) fn api() -> anyhow::Result<Self> {
        let port = free_port();
        let http = format!(
            "access_log off;
             server {{
                 listen 127.0.0.1:{port};
                 default_type application/json;
                 location / {{ return 200 '{{\"answer\":\"from the API\"}}\\n'; }}
             }}"
        );
        Self::start(port, 1, &http)
    }

    /// A plain proxy to `upstream`: connections kept to the API, two workers, a buffered access log.
    pub(crate) fn proxy(upstream: &str) -> anyhow::Result<Self> {
        let port = free_port();
        let http = format!(
            "access_log access.log combined buffer=64k flush=1s;
             upstream api {{ server {upstream}; keepalive 256; keepalive_requests 1000000; }}
             server {{
                 listen 127.0.0.1:{port} reuseport;
                 location / {{
                     proxy_pass http://api;
                     proxy_http_version 1.1;
                     proxy_set_header Connection '';
                     proxy_set_header Host $host;
                     proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                     proxy_set_header X-Request-Id $request_id;
                 }}
             }}"
        );
        Self::start(port, 2, &http)
    }

    fn start(port: u16, workers: usize, http: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let configuration = format!(
            "daemon off; worker_processes {workers}; pid nginx.pid; error_log stderr error;
             events {{ worker_connections 4096; }}
             http {{
                 keepalive_requests 1000000;
                 client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
                 uwsgi_temp_path uwsgi; scgi_temp_path scgi;
                 {http}
             }}"
        );
        fs::write(folder.path().join("nginx.conf"), configuration)?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--", "nginx", "-e", "stderr", "-c", "nginx.conf", "-p"])
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context(MISSING)?;
        Ok(Self { addr: format!("127.0.0.1:{port}"), child, _folder: folder })
    }

    /// Its process id; workers are its children.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it answers.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<()> {
        parts::eventually("nginx answers, or ends", async || {
            self.child.try_wait().ok().flatten().is_some() || parts::get(&self.addr, "/").await.is_ok()
        })
        .await;
        anyhow::ensure!(self.child.try_wait()?.is_none(), MISSING);
        Ok(())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master ends its workers.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}
