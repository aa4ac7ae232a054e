//! Which crate may depend on which: `domain <- proto <- {access, edge-layer} <- services -> boot`, and no
//! service on another. Only normal dependencies count: tests, benches and the demo are free.

use std::{collections::BTreeMap, process::Command};

use serde_json::Value;

/// Every crate of `crates/` and `services/`, and what it may use of ours.
const ALLOWED: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("proto", &["domain"]),
    ("trace", &[]),
    ("telemetry", &["trace"]),
    ("tls", &[]),
    ("boot", &["telemetry", "tls"]),
    ("grpc-server", &["access", "boot", "tls", "trace"]),
    ("access", &["domain", "proto"]),
    ("nats-cluster", &["proto", "tls"]),
    ("edge-layer", &["domain", "proto", "tls", "trace", "nats-cluster"]),
    ("chdb-server", &["tls"]),
    ("keys", &["domain", "proto", "access", "boot", "grpc-server", "nats-cluster", "tls"]),
    ("edge", &["domain", "proto", "edge-layer", "boot", "tls"]),
    ("ingest", &["domain", "proto", "boot", "tls", "trace", "nats-cluster"]),
    ("query", &["domain", "proto", "access", "boot", "grpc-server", "tls", "trace"]),
    ("ui", &["domain", "proto", "boot", "tls", "trace"]),
    ("cli", &["domain", "proto"]),
];

/// What is no part of the product.
const FREE: &[&str] = &[
    "parts",
    "deploy",
    "e2e",
    "figures",
    "bench-edge",
    "bench-ingest",
    "bench-keys",
    "bench-plan",
    "bench-query",
    "tidy",
    "demo",
];

/// Who may name a driver.
const DRIVERS: &[(&str, &[&str])] = &[
    ("sqlx", &["keys"]),
    ("clickhouse", &["ingest", "query"]),
    ("async-nats", &["nats-cluster", "edge-layer", "ingest", "keys"]),
];

/// The crates of the workspace and the names of their normal dependencies.
fn normal_dependencies() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml"))
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let name = |value: &Value| value["name"].as_str().expect("everything has a name").to_owned();
    let array = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let normal = |package: &Value| {
        // A normal dependency is one of no other kind.
        array(&package["dependencies"]).iter().filter(|used| used["kind"].is_null()).map(name).collect()
    };
    array(&metadata["packages"]).iter().map(|package| (name(package), normal(package))).collect()
}

#[test]
fn crates_depend_one_way() {
    let dependencies = normal_dependencies();
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    for (name, uses) in &dependencies {
        if FREE.contains(&name.as_str()) {
            continue;
        }
        let allowed = allowed.get(name.as_str()).unwrap_or_else(|| panic!("{name} has no row in ALLOWED"));
        for used in uses.iter().filter(|used| dependencies.contains_key(*used)) {
            assert!(allowed.contains(&used.as_str()), "{name} must not depend on {used}");
        }
    }
    for (name, _) in ALLOWED {
        assert!(dependencies.contains_key(*name), "{name} is in ALLOWED but not in the workspace");
    }
}

#[test]
fn drivers_are_named_by_their_owners_only() {
    for (name, uses) in &normal_dependencies() {
        for (driver, owners) in DRIVERS {
            let named = uses.iter().any(|used| used == driver);
            let free = FREE.contains(&name.as_str()) || owners.contains(&name.as_str());
            assert!(!named || free, "{name} must not depend on {driver}");
        }
    }
}
