//! The file of the demonstration's keys, for its owner only: a secret is shown once, so it is kept here.

use std::{
    fs,
    io::{ErrorKind, Write as _},
    path::Path,
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// A key and its secret.
#[derive(Clone, Serialize, Deserialize)]
pub struct HeldKey {
    /// The name that it was made with.
    pub display_name: String,
    /// `key_…`.
    pub key_id: String,
    /// What callers send.
    pub secret: String,
}

/// The keys in `file`; none if there is no such file.
///
/// # Errors
/// If it cannot be read or is damaged.
pub fn read(file: &Path) -> anyhow::Result<Vec<HeldKey>> {
    match fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", file.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

/// Puts any value in `file` as JSON, whole or not at all, readable by its owner only.
///
/// # Errors
/// If the folder cannot be written.
pub fn write(file: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let folder = file.parent().context("a file has a folder")?;
    // Made with mode 600.
    let mut new = tempfile::NamedTempFile::new_in(folder)
        .with_context(|| format!("cannot write to {}", folder.display()))?;
    new.write_all(&serde_json::to_vec_pretty(value)?)?;
    new.as_file().sync_all()?;
    new.persist(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_are_kept_for_their_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.json");
        assert!(read(&file).unwrap().is_empty());
        let key = HeldKey { display_name: "A".into(), key_id: "key_1".into(), secret: "km_live_x".into() };
        write(&file, &[key]).unwrap();
        assert_eq!(read(&file).unwrap()[0].secret, "km_live_x");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&file, "{").unwrap();
        assert!(read(&file).is_err());
    }
}
