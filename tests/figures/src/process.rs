//! What a process uses, as `/proc` tells.

use std::fs;

use anyhow::Context as _;

/// Clock ticks a second in `/proc`; the same on every Linux.
const TICKS_PER_S: f64 = 100.0;

/// Processor time that a process and its children used since they began, in seconds.
///
/// # Errors
/// If there is no such process.
pub fn cpu_s(pid: u32) -> anyhow::Result<f64> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let children = children.split_ascii_whitespace().map(str::to_owned);
    children.chain([pid.to_string()]).map(|pid| own_cpu_s(&pid)).sum()
}

fn own_cpu_s(pid: &str) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold spaces; user and system time are the 14th and 15th field.
    let fields = stat.rsplit(") ").next().context("a name in parentheses")?.split(' ');
    let ticks: Result<Vec<f64>, _> = fields.skip(11).take(2).map(str::parse).collect();
    Ok(ticks?.iter().sum::<f64>() / TICKS_PER_S)
}

/// Memory of a process in MiB: what it holds now (`VmRSS`), or the most that it ever held (`VmHWM`).
///
/// # Errors
/// If there is no such process or field.
pub fn memory_mib(pid: u32, field: &str) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib: f64 =
        line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).context("no such field")?;
    Ok(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let own = std::process::id();
        assert!(memory_mib(own, "VmRSS").unwrap() > 0.5);
        assert!(memory_mib(own, "VmHWM").unwrap() >= memory_mib(own, "VmRSS").unwrap() / 2.0);
        assert!(cpu_s(own).unwrap() >= 0.0);
        assert!(memory_mib(own, "VmNothing").is_err());
    }
}
