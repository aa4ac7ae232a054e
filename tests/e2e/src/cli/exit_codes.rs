//! How commands that can not do their work end, and that they name what is wrong; 130 is in `export`.

use std::fs;

use domain::{KeyId, WorkspaceId};
use parts::free_port;

use super::Keymeter;
use crate::stack::{ADMIN_EMAIL, Stack};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_end_has_its_code_and_names_what_is_wrong() {
    let mut stack = Stack::start().await;
    let keymeter = Keymeter::program(&stack);
    let key = stack.make_key("Orders").await;

    let folder = keymeter.home.path().display().to_string();
    keymeter.run(&["keys", "list", "--token-file", "/nowhere"]).await.failed(1, "/nowhere");
    keymeter.run(&["export", "--file", "/nowhere/x.csv"]).await.failed(1, "/nowhere/x.csv.part");

    // 2: what the server finds wrong is named as in the protos.
    keymeter.run(&["keys", "create", ""]).await.failed(2, "key.display_name");
    keymeter.run(&["keys", "create", "x", "--network", "10.0.0.1/8"]).await.failed(2, "key.allowed_networks");
    keymeter.run(&["keys", "rotate", "Orders", "--overlap", "31d"]).await.failed(2, "overlap");
    keymeter.run(&["usage", "summary", "--since", "1h", "--until", "2h"]).await.failed(2, "filter.to");
    keymeter.run(&["tail", "--method", &"A".repeat(33)]).await.failed(2, "filter.methods");
    keymeter.run(&["export", "--file", "x.txt"]).await.failed(2, "--format");
    keymeter.run(&["keys", "edit", "Orders"]).await.failed(2, "nothing to change");
    keymeter.run(&["workspaces", "--ca-file", "/etc/hostname"]).await.failed(2, "--ca-file /etc/hostname");
    stack.make_key("Twin").await;
    stack.make_key("Twin").await;
    keymeter.run(&["keys", "show", "Twin"]).await.failed(2, "2 keys have the name \"Twin\"");

    // 3: neither the token nor a secret is told.
    let stranger = Keymeter::nobody(&stack).with("KEYMETER_TOKEN", "kmsvc_of_nobody");
    stranger.run(&["keys", "list"]).await.failed(3, "token");
    assert!(!stranger.run(&["keys", "list"]).await.stderr.contains("kmsvc_of_nobody"));
    let other = WorkspaceId::generate().to_string();
    keymeter.run(&["keys", "list", "--workspace", &other]).await.failed(3, &other);
    Keymeter::nobody(&stack)
        .with("KEYMETER_TOKEN", "")
        .run(&["keys", "list"])
        .await
        .failed(3, "KEYMETER_TOKEN");
    let file = keymeter.home.path().join("token");
    fs::write(&file, format!("{}\n", stack.service_token())).unwrap();
    let by_file = Keymeter::nobody(&stack).with("KEYMETER_TOKEN_FILE", file.display().to_string());
    assert_eq!(by_file.json(&["workspaces"]).await["workspaces"][0]["name"], stack.workspace);

    // 4
    let unknown = KeyId::generate().to_string();
    keymeter.run(&["keys", "show", &unknown]).await.failed(4, &unknown);
    keymeter.run(&["keys", "rotate", "Nobody's"]).await.failed(4, "Nobody's");
    keymeter.run(&["usage", "summary", "--key", "Nobody's"]).await.failed(4, "Nobody's");

    // 5
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    keymeter.run(&["keys", "list", "--keys-url", &nowhere]).await.failed(5, &nowhere);
    keymeter.run(&["usage", "summary", "--query-url", &nowhere]).await.failed(5, "--query-url");
    stack.keys.pause();
    let ran = keymeter.run(&["sign-in", "--email", ADMIN_EMAIL, "--password-file", "token"]).await;
    stack.keys.resume();
    ran.failed(5, "did not answer in time");

    // 6
    keymeter.good(&["keys", "delete", key.id(), "--yes"]).await;
    keymeter.run(&["keys", "edit", key.id(), "--name", "x"]).await.failed(6, "deleted");
    let create = ["keys", "create", "First", "--idempotency-key", "once"];
    let first = keymeter.good(&create).await;
    assert_eq!(keymeter.good(&create).await, first, "the same key, not a second one");
    keymeter.run(&["keys", "create", "Second", "--idempotency-key", "once"]).await.failed(6, "idempotency");

    // 7
    fs::write(keymeter.home.path().join("wrong"), "not the password").unwrap();
    let sign_in = ["sign-in", "--email", "someone@keymeter.local", "--password-file", "wrong"];
    let mut tried = keymeter.run(&sign_in).await;
    for _ in 0..100 {
        if tried.code != 3 {
            break;
        }
        tried = keymeter.run(&sign_in).await;
    }
    tried.failed(7, "try again in ");

    // 8: the edge hangs, so it says nothing; the key is deleted all the same.
    stack.edge.pause();
    let delete = ["keys", "delete", "First", "--yes", "--receipt-timeout", "1s"];
    let unconfirmed = keymeter.run(&delete).await;
    stack.edge.resume();
    assert_eq!(unconfirmed.code, 8, "{}", unconfirmed.stderr);
    assert!(unconfirmed.stdout.contains("refused by 0 of 1 edges within"), "{}", unconfirmed.stdout);
    assert!(unconfirmed.stdout.contains("gave no answer: last seen"), "{}", unconfirmed.stdout);
    keymeter.run(&["keys", "edit", "First", "--name", "x"]).await.failed(6, "deleted");

    // Nothing is left behind in the folder where it ran.
    let mut left: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["token", "wrong"]);
}
