//! A small disk for one folder: a tmpfs, to be filled and emptied. It is unmounted with its value, and when the test's
//! process ends in whatever way, by a shell that waits for just that.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// A disk that is mounted at a folder. Drop it before the folder.
pub struct SmallDisk {
    folder: PathBuf,
    /// Unmounts once its input ends.
    janitor: Child,
}

impl SmallDisk {
    /// Mounts an empty disk of so many MiB at `folder`, which is made if need be, and puts there what was in it.
    ///
    /// # Panics
    /// If this user may not mount.
    #[must_use]
    pub fn mount(folder: &Path, mib: u32) -> Self {
        fs::create_dir_all(folder).expect("the folder can be made");
        let before = folder.with_extension("before");
        fs::rename(folder, &before)
            .and_then(|()| fs::create_dir(folder))
            .expect("a folder of the test's own");
        let size = format!("size={mib}m,mode=0700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder)
            .output()
            .expect("mount runs");
        assert!(
            mounted.status.success(),
            "a test fills a disk of its own and may not mount one: run it as root, in a container with \
             --cap-add SYS_ADMIN: {}",
            String::from_utf8_lossy(&mounted.stderr)
        );
        let janitor = Command::new("sh")
            .args(["-c", "cat; umount --lazy \"$0\""])
            .arg(folder)
            // Not ended together with the test.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell runs");
        let put = Command::new("cp").arg("-rT").arg(&before).arg(folder).status().expect("cp runs");
        assert!(put.success(), "{mib} MiB are too few for what was there");
        fs::remove_dir_all(before).expect("it can be removed");
        Self { folder: folder.to_owned(), janitor }
    }

    /// Leaves no byte free.
    ///
    /// # Panics
    /// If it can not be filled.
    pub fn fill(&self) {
        // Until the disk says no.
        let filled = Command::new("dd")
            .args(["if=/dev/zero", "bs=4k", "oflag=append", "conv=notrunc", "status=none"])
            .arg(format!("of={}", self.ballast().display()))
            .stderr(Stdio::null())
            .status()
            .expect("dd runs");
        assert!(!filled.success(), "the disk has no end");
    }

    /// Frees what [`Self::fill`] took.
    ///
    /// # Panics
    /// If it was not filled.
    pub fn empty(&self) {
        fs::remove_file(self.ballast()).expect("the disk was filled");
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(self.janitor.stdin.take());
        let _ = self.janitor.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_full_then_has_space_then_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("data");
        fs::create_dir(&place).unwrap();
        fs::write(place.join("old"), "here").unwrap();
        let disk = SmallDisk::mount(&place, 1);
        assert_eq!(fs::read_to_string(place.join("old")).unwrap(), "here");
        disk.fill();
        let refused = fs::write(place.join("new"), "there").unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::StorageFull);
        disk.empty();
        fs::write(place.join("new"), "there").unwrap();
        drop(disk);
        assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
    }
}
