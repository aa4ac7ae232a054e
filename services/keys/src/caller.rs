//! Who asks, for records: audit entries and key events.

use std::net::IpAddr;

/// Who asks, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// `acc_…`, `svc_…`, or the name of a command.
    pub actor: String,
    /// The connection's other end; `None` if there is no connection.
    pub address: Option<IpAddr>,
}
