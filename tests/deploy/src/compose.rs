//! `deploy/compose.yaml`, as Docker's own Compose reads it.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use serde_json::Value;

use crate::site::{Container, Site, Stores};

const OURS: [&str; 7] = ["keys", "ingest", "query", "edge", "ui", "migrate", "bootstrap"];

/// `deploy/make-secrets` into a folder.
pub(crate) fn make_secrets(folder: &Path) {
    let made = Command::new(parts::root().join("deploy/make-secrets")).arg(folder).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// What `docker compose` makes of our file with the settings of the example.
fn compose(arguments: &[&str], secrets: &Path) -> String {
    let deploy = parts::root().join("deploy");
    let output = Command::new(parts::checker("docker-compose"))
        .arg("--env-file")
        .arg(deploy.join(".env.example"))
        .arg("--file")
        .arg(deploy.join("compose.yaml"))
        .args(arguments)
        .env_clear()
        .env("KEYMETER_SECRETS", secrets)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn resolved(secrets: &Path) -> Value {
    serde_json::from_str(&compose(&["config", "--format", "json"], secrets)).unwrap()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// A service of the file.
pub(crate) fn container(file: &Value, name: &str) -> Container {
    let service = &file["services"][name];
    let environment = service["environment"].as_object().unwrap();
    Container {
        binary: service["build"]["args"]["SERVICE"].as_str().unwrap().to_owned(),
        arguments: strings(&service["command"]),
        environment: environment
            .iter()
            .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
            .collect(),
    }
}

/// A place for the file's services, with these secrets, and the file.
pub(crate) async fn place(secrets: &Path) -> (Site, Value) {
    make_secrets(secrets);
    let file = resolved(secrets);
    let secret = |name: &str| secrets.join(name);
    let mut site = Site::start(Stores {
        nats: file["configs"]["nats"]["content"].as_str().unwrap().to_owned(),
        nats_users: fs::read_to_string(secret("nats-users.conf")).unwrap(),
        users: fs::read_to_string(secret("clickhouse-users.xml")).unwrap(),
    })
    .await;
    for url in ["database-url", "owner-database-url", "nats-keys-url", "nats-ingest-url", "nats-edge-url"] {
        let here = site.here(&fs::read_to_string(secret(url)).unwrap());
        fs::write(secret(url), here).unwrap();
    }
    site.move_to("/run/secrets", secrets.to_str().unwrap());
    let data = site.folder().join("data");
    for folder in ["spool", "shared"] {
        fs::create_dir_all(data.join(folder)).unwrap();
    }
    site.move_to("/var/lib/keymeter", data.to_str().unwrap());
    for (host, port) in [("keys", 50051), ("query", 50052), ("edge", 8081), ("ui", 8080), ("api", 8082)] {
        site.move_port(host, port);
    }
    for port in 9101..=9105 {
        site.move_port("health", port);
    }
    (site, file)
}

/// Every service just as the file says, on real parts: from nothing to a call that is counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_service_runs_as_the_file_says() {
    let secrets = tempfile::tempdir().unwrap();
    let (mut site, file) = place(secrets.path()).await;
    let of = |name: &str| container(&file, name);
    let query = of("query");
    let (healthy, said) = site.health(&query).await;
    assert!(!healthy && said.contains("nothing answers at KEYMETER_QUERY_HEALTH_ADDR"), "{said}");
    let mut early = site.start_container(&query);
    parts::eventually("query says what it misses", async || {
        let (healthy, said) = site.health(&query).await;
        assert!(!healthy);
        said.contains(r#""missing":{"#) && said.contains("keys")
    })
    .await;
    assert!(early.sigterm().await.success());
    site.run(&of("migrate")).await;
    site.run(&of("bootstrap")).await;
    // At the next start they find everything made.
    site.run(&of("migrate")).await;
    site.run(&of("bootstrap")).await;
    site.keep(&["api", "keys", "ingest", "query", "edge", "ui"].map(of)).await;
    let service_token = fs::read_to_string(site.here("/var/lib/keymeter/shared/service-token")).unwrap();
    let urls = ["http://keys:50051", "http://query:50052", "http://edge:8081"];
    site.a_call_is_counted(service_token.trim(), urls).await;
    let password =
        |name: &str| fs::read_to_string(secrets.path().join(format!("clickhouse-{name}-password"))).unwrap();
    let users = ["ingest", "query"].map(|name| (format!("keymeter_{name}"), password(name)));
    assert_eq!(site.users.seen(), BTreeSet::from(users));
    let ui = site.here("http://ui:8080");
    let page = parts::get(ui.trim_start_matches("http://"), "/sign-in").await.unwrap();
    assert_eq!(page.status, 200);
}

#[test]
fn nothing_runs_with_more_rights_than_it_needs() {
    let secrets = tempfile::tempdir().unwrap();
    make_secrets(secrets.path());
    let file = resolved(secrets.path());
    for (name, service) in file["services"].as_object().unwrap() {
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(strings(&service["cap_drop"]), ["ALL"], "{name}");
        assert_eq!(strings(&service["security_opt"]), ["no-new-privileges:true"], "{name}");
        assert!(service["healthcheck"].is_object() && service["restart"].is_string(), "{name}");
        let image = service["image"].as_str().unwrap();
        let (_, tag) = image.split_once(':').unwrap();
        assert!(tag.starts_with(|first: char| first.is_ascii_digit()), "{image} is pinned");
        if OURS.contains(&name.as_str()) {
            assert_eq!(service["user"], "65532:65532", "{name}");
        }
        // No secret in the environment, and no secret's file that is not mounted.
        let mounted: BTreeSet<_> = service["secrets"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|one| one["target"].as_str())
            .collect();
        for (setting, value) in service["environment"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap();
            assert!(!value.contains("://keymeter:"), "{name} {setting}");
            let hidden =
                setting.contains("PASSWORD") || setting.contains("_NATS_URL") || setting.contains("DATABASE");
            assert!(!hidden || setting.ends_with("_FILE"), "{name} {setting}");
            assert!(!value.starts_with("/run/secrets") || mounted.contains(value), "{name} {setting}");
        }
    }
    let published: Vec<_> = file["services"].as_object().unwrap().values().collect();
    for port in published.iter().filter_map(|service| service["ports"].as_array()).flatten() {
        assert_eq!(port["host_ip"], "127.0.0.1", "nothing is open to others unless somebody says so");
    }
    assert_eq!(file["networks"]["backend"]["internal"], true);
}

#[test]
fn every_variable_of_the_file_is_explained() {
    let secrets = tempfile::tempdir().unwrap();
    make_secrets(secrets.path());
    let named = compose(&["config", "--variables", "--format", "json"], secrets.path());
    let named: Value = serde_json::from_str(&named).unwrap();
    let mut used: BTreeSet<_> = named.as_object().unwrap().keys().map(String::as_str).collect();
    used.insert("COMPOSE_PROFILES");
    let example = fs::read_to_string(parts::root().join("deploy/.env.example")).unwrap();
    let explained: BTreeSet<_> = example
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| Some(line.split_once('=')?.0))
        .collect();
    assert_eq!(used, explained);
}

#[test]
fn secrets_are_made_once_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let read = || {
        let mut files: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|file| file.unwrap().path())
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect();
        files.sort();
        files
    };
    make_secrets(folder.path());
    let first = read();
    fs::remove_file(folder.path().join("kek")).unwrap();
    make_secrets(folder.path());
    let second = read();
    let differ: Vec<_> = first.iter().zip(&second).filter(|(a, b)| a != b).map(|(a, _)| &a.0).collect();
    assert_eq!(differ, [&folder.path().join("kek")]);
    assert_eq!(fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777, 0o700);
    // Each right of the file that administrators apply is in the users' file.
    let grants = fs::read_to_string(parts::root().join("deploy/clickhouse/services.sql")).unwrap();
    let grants: String = grants.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
    let users = fs::read_to_string(folder.path().join("clickhouse-users.xml")).unwrap();
    for name in ["ingest", "query"] {
        let sum =
            Command::new("sha256sum").arg(folder.path().join(format!("clickhouse-{name}-password"))).output();
        let sum = String::from_utf8(sum.unwrap().stdout).unwrap();
        let hash = format!("<password_sha256_hex>{}</password_sha256_hex>", sum.split(' ').next().unwrap());
        assert!(users.contains(&hash), "{name}");
    }
    assert_eq!(grants.matches("grant ").count() - 1, users.matches("<query>grant ").count(), "{users}");
}
