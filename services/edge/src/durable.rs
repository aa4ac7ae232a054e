//! Whether the spool's folder outlives the process. In memory, or in the layer that a container writes to, events that
//! are not yet in ClickHouse would be gone with the next restart, and nobody would notice before that.

use std::path::{Path, absolute};

use anyhow::{Context as _, bail};
use rustix::fs::{FsWord, StatFs, statfs};

/// File systems that do not outlive a machine or a container, by the number that statfs(2) tells.
const EPHEMERAL: [(FsWord, &str); 3] =
    [(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs"), (0x794c_7630, "overlayfs")];

/// Checks the file system of `folder`, or of where it will be made.
///
/// # Errors
/// If it is ephemeral, with what to do; or if it can not be looked at.
pub(crate) fn check(folder: &Path) -> anyhow::Result<()> {
    let path = absolute(folder).with_context(|| format!("KEYMETER_EDGE_SPOOL_DIR {}", folder.display()))?;
    let found = path.ancestors().find_map(|place| statfs(place).ok());
    if let Some(name) = found.and_then(|found| ephemeral(&found)) {
        bail!(
            "KEYMETER_EDGE_SPOOL_DIR {} is on {name}, which does not outlive the machine or the container, and with it \
             events that are not yet in ClickHouse would be lost: mount a volume there, or accept the loss with \
             KEYMETER_EDGE_SPOOL_EPHEMERAL=true",
            folder.display()
        );
    }
    Ok(())
}

fn ephemeral(found: &StatFs) -> Option<&'static str> {
    EPHEMERAL.iter().find(|(number, _)| *number == found.f_type).map(|&(_, name)| name)
}
