//! wrk, found on the PATH: as many requests as a server takes.

use anyhow::{Context as _, ensure};
use tokio::process::Command;

const MISSING: &str = "wrk does not start; if it is missing: apt-get install wrk";

/// Requests a second at `url` over so many connections. Answers that are no success are an error, since refusals
/// would be fast.
pub(crate) async fn requests_per_second(
    url: &str,
    authorization: &str,
    connections: usize,
    seconds: u64,
) -> anyhow::Result<f64> {
    let header = format!("Authorization: {authorization}");
    let (connections, seconds) = (connections.to_string(), format!("{seconds}s"));
    let output = Command::new("wrk")
        .args(["-t", "2", "-c", &connections, "-d", &seconds, "-H", &header, url])
        .kill_on_drop(true)
        .output()
        .await
        .context(MISSING)?;
    read(&String::from_utf8_lossy(&output.stdout))
}

fn read(report: &str) -> anyhow::Result<f64> {
    ensure!(!report.contains("Non-2xx"), "wrk was refused:\n{report}");
    ensure!(!report.contains("Socket errors"), "wrk lost connections:\n{report}");
    let line = report.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
    line.and_then(|rate| rate.trim().parse().ok()).with_context(|| format!("wrk says no rate:\n{report}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clean_report_counts() {
        let clean = "  1000 requests in 1.00s\nRequests/sec:   1234.56\nTransfer/sec: 1MB\n";
        assert!((read(clean).unwrap() - 1234.56).abs() < f64::EPSILON);
        assert!(read(&format!("{clean}  Non-2xx or 3xx responses: 3\n")).is_err());
        assert!(read(&format!("{clean}  Socket errors: connect 0, read 1, write 0, timeout 0\n")).is_err());
        assert!(read("unable to connect").is_err());
    }
}
