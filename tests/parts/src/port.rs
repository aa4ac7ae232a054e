//! Ports that no other test takes: each is claimed by a locked file for as long as this process lives.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::MetadataExt,
    sync::Mutex,
    time::SystemTime,
};

/// Below the range that Linux gives to outgoing connections, so none of them is in the way.
pub(crate) const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// The claims of this process. Two tests at once ask the same kernel, but a port that was free when asked for may
/// be taken before its server binds it; a lock tells all test processes of this user.
static CLAIMED: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A free port on 127.0.0.1 that no other call, in this process or another, gets while this process lives.
///
/// # Panics
/// If there is none, or the folder of claims cannot be written.
#[must_use]
pub fn free_port() -> u16 {
    let user = fs::metadata("/proc/self").expect("Linux has /proc").uid();
    let claims = std::env::temp_dir().join(format!("keymeter-ports-{user}"));
    fs::create_dir_all(&claims).expect("the system's temporary folder can be written");
    let now =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    let start = u16::try_from(now % u32::from(COUNT)).unwrap_or(0);
    (0..COUNT)
        .map(|offset| FIRST + (start + offset) % COUNT)
        .find(|&port| {
            let Ok(claim) = File::create(claims.join(port.to_string())) else { return false };
            let free = claim.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
            if free {
                CLAIMED.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(claim);
            }
            free
        })
        .expect("one of 12,000 ports is free")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_call_gets_its_own_free_port() {
        let ports: Vec<_> = (0..100).map(|_| free_port()).collect();
        assert_eq!(ports.iter().collect::<HashSet<_>>().len(), ports.len());
        for port in ports {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("still free");
        }
    }
}
