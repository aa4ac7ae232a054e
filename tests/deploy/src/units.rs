//! `deploy/systemd`: what systemd itself says of the units, and that they agree with the services.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use parts::Service;
use tempfile::TempDir;

/// A tenth each: 10 is what systemd calls "OK" at best for a service on the network.
const EXPOSURE_MAX: &str = "--threshold=15";

/// The units with our binaries where they are here, since systemd looks whether what it shall start is there.
fn units() -> (TempDir, Vec<PathBuf>) {
    let folder = tempfile::tempdir().unwrap();
    let from = parts::root().join("deploy/systemd");
    let copied = Command::new("cp").arg("-rT").arg(&from).arg(folder.path()).status().unwrap();
    assert!(copied.success());
    let binaries = parts::binary("keys").parent().unwrap().display().to_string();
    let mut units: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path()).collect();
    units.retain(|path| path.extension().is_some_and(|extension| extension == "service"));
    for unit in &units {
        let text = fs::read_to_string(unit).unwrap();
        fs::write(unit, text.replace("/usr/local/lib/keymeter", &binaries)).unwrap();
    }
    units.sort();
    assert_eq!(units.len(), 6);
    (folder, units)
}

fn analyze(arguments: &[&str], unit: &Path) -> Output {
    Command::new("systemd-analyze").args(arguments).arg(unit).output().unwrap()
}

/// The values of a key, in order.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

#[test]
fn systemd_takes_the_units_and_finds_them_contained() {
    let (_folder, units) = units();
    for unit in &units {
        let verified = analyze(&["verify"], unit);
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        assert!(verified.status.success() && said.is_empty(), "{}: {said}", unit.display());
        let exposed = analyze(&["security", "--offline=true", EXPOSURE_MAX], unit);
        assert!(exposed.status.success(), "{}", String::from_utf8_lossy(&exposed.stdout));
    }
    // Neither would find anything in anything otherwise.
    let text = fs::read_to_string(&units[0]).unwrap();
    fs::write(&units[0], text.replace("StateDirectory=", "StateDirectories=")).unwrap();
    assert!(String::from_utf8_lossy(&analyze(&["verify"], &units[0]).stderr).contains("StateDirectories"));
    fs::remove_dir_all(units[0].with_file_name("keymeter-.service.d")).unwrap();
    assert!(!analyze(&["security", "--offline=true", EXPOSURE_MAX], &units[0]).status.success());
}

#[tokio::test]
async fn services_know_every_setting_and_find_every_credential() {
    let (_folder, units) = units();
    for unit in &units {
        let text = fs::read_to_string(unit).unwrap();
        let settings: Vec<_> =
            values(&text, "Environment").iter().map(|line| line.split_once('=').unwrap()).collect();
        let loaded: BTreeSet<_> =
            values(&text, "LoadCredential").iter().map(|line| line.split_once(':').unwrap().0).collect();
        let named: BTreeSet<_> = settings.iter().filter_map(|(_, value)| value.strip_prefix("%d/")).collect();
        assert_eq!(loaded, named, "{}", unit.display());
        // A health check reads no setting but one, and like all else refuses one that nobody knows.
        let binary = values(&text, "ExecStart")[0].rsplit('/').next().unwrap().split(' ').next().unwrap();
        let mut check = Service::spawn_with(binary, &["healthcheck"], &settings);
        assert!(!check.wait().await.success());
        assert!(check.log().contains("nothing answers at KEYMETER_"), "{}: {}", unit.display(), check.log());
    }
}
