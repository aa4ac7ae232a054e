//! `keys bootstrap`, as a program.

use std::os::unix::fs::PermissionsExt as _;

use parts::{Postgres, Service};

use crate::harness::{PASSWORD, ROLE, migrate};

/// Runs the program to its end: whether it succeeded, and what it wrote.
async fn bootstrap(
    postgres: &Postgres,
    folder: &tempfile::TempDir,
    changes: &[(&str, &str)],
) -> (bool, String) {
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (kek, password, token, url) = (path("kek"), path("password"), path("token"), postgres.url_as(ROLE));
    let mut environment = vec![
        ("KEYMETER_KEYS_DATABASE_URL", url.as_str()),
        ("KEYMETER_KEYS_KEK_FILE", &kek),
        ("KEYMETER_KEYS_EMAIL", "Ada@example.org"),
        ("KEYMETER_KEYS_PASSWORD_FILE", &password),
        ("KEYMETER_KEYS_WORKSPACE_NAME", "Analytical Engines"),
        ("KEYMETER_KEYS_SERVICE_TOKEN_FILE", &token),
    ];
    for (name, value) in changes {
        environment.retain(|(known, _)| known != name);
        environment.push((name, value));
    }
    let mut program = Service::spawn_with("keys", &["bootstrap"], &environment);
    (program.wait().await.success(), program.log())
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("kek"), "5a".repeat(32)).unwrap();
    std::fs::write(folder.path().join("password"), PASSWORD).unwrap();
    folder
}

#[tokio::test]
async fn it_makes_what_is_missing_and_nothing_twice() {
    let postgres = Postgres::start().await;
    let folder = folder();
    let (good, said) =
        bootstrap(&postgres, &folder, &[("KEYMETER_KEYS_DATABASE_URL", &postgres.url())]).await;
    assert!(!good && said.contains("run `keys migrate`"), "{said}");
    migrate(&postgres).await;
    let (good, first) = bootstrap(&postgres, &folder, &[]).await;
    assert!(good, "{first}");
    let json: serde_json::Value = serde_json::from_str(&first).unwrap();
    assert_eq!(json["email"], "ada@example.org");
    assert!(json["workspace_id"].as_str().unwrap().parse::<domain::WorkspaceId>().is_ok());
    assert_eq!(first.lines().count(), 1);
    let token = folder.path().join("token");
    assert_eq!(std::fs::metadata(&token).unwrap().permissions().mode() & 0o777, 0o600);
    let service_token = std::fs::read_to_string(&token).unwrap();

    assert_eq!(bootstrap(&postgres, &folder, &[]).await, (true, first.clone()));
    let counts = "select (select count(*) from accounts), (select count(*) from workspaces),
                  (select count(*) from memberships), (select count(*) from service_tokens)";
    assert_eq!(postgres.query(counts), "1\t1\t1\t1\n");
    assert_eq!(std::fs::read_to_string(&token).unwrap(), service_token);
    assert!(!first.contains(PASSWORD) && !first.contains(&service_token));

    // What edges need, anew each time.
    let [feed_keys, edge_token] = ["feed-keys", "edge-token"].map(|name| folder.path().join(name));
    for file in [&feed_keys, &edge_token] {
        std::fs::write(file, "old").unwrap();
    }
    let for_edges = [
        ("KEYMETER_KEYS_FEED_KEYS_FILE", feed_keys.to_str().unwrap()),
        ("KEYMETER_KEYS_EDGE_TOKEN_FILE", edge_token.to_str().unwrap()),
    ];
    assert!(bootstrap(&postgres, &folder, &for_edges).await.0);
    let (url, kek) = (postgres.url_as(ROLE), folder.path().join("kek"));
    let settings =
        [("KEYMETER_KEYS_DATABASE_URL", url.as_str()), ("KEYMETER_KEYS_KEK_FILE", kek.to_str().unwrap())];
    let mut printed = Service::spawn_with("keys", &["feed-keys"], &settings);
    assert!(printed.wait().await.success());
    assert_eq!(std::fs::read_to_string(&feed_keys).unwrap(), printed.log());
    assert_eq!(std::fs::read_to_string(&edge_token).unwrap().trim_end().split('.').count(), 3, "a JWT");
    assert_eq!(std::fs::metadata(&edge_token).unwrap().permissions().mode() & 0o777, 0o600);

    // A file that outlives its database is registered again.
    let _ = postgres.query("delete from service_tokens");
    assert!(bootstrap(&postgres, &folder, &[]).await.0);
    assert_eq!(postgres.query(counts), "1\t1\t1\t1\n");
    let (good, _) = bootstrap(&postgres, &folder, &[("KEYMETER_KEYS_WORKSPACE_NAME", "Second")]).await;
    assert!(!good, "the token in the file is of another workspace");
    assert_eq!(postgres.query(counts), "1\t1\t1\t1\n", "all or nothing");
}

#[tokio::test]
async fn it_names_what_is_wrong() {
    let postgres = Postgres::start().await;
    let folder = folder();
    let path = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_string_lossy().into_owned()
    };
    let (short, junk, other_kek) = (path("short", "x"), path("junk", "x"), path("other", &"77".repeat(32)));
    migrate(&postgres).await;
    assert!(bootstrap(&postgres, &folder, &[]).await.0);
    for (name, value, said) in [
        ("KEYMETER_KEYS_EMAIL", "ada", "--email"),
        ("KEYMETER_KEYS_WORKSPACE_NAME", " ", "--workspace-name"),
        ("KEYMETER_KEYS_PASSWORD_FILE", "/nowhere", "--password-file"),
        ("KEYMETER_KEYS_PASSWORD_FILE", &short, "8 characters"),
        ("KEYMETER_KEYS_SERVICE_TOKEN_FILE", &junk, "--service-token-file"),
        ("KEYMETER_KEYS_KEK_FILE", "/nowhere", "key-encryption key"),
        ("KEYMETER_KEYS_KEK_FILE", &junk, "64 hexadecimal characters"),
        ("KEYMETER_KEYS_KEK_FILE", &other_kek, "does not open what Postgres holds"),
        ("KEYMETER_KEYS_DATABASE_URL", "mysql://x", "--database-url"),
        ("KEYMETER_KEYS_PASWORD_FILE", "x", "KEYMETER_KEYS_PASWORD_FILE"),
    ] {
        let (good, log) = bootstrap(&postgres, &folder, &[(name, value)]).await;
        assert!(!good && log.contains(said), "{name}={value}: {log}");
    }
}
