//! A person who signs in by command line, sees a secret again, and signs out.

use std::{fs, os::unix::fs::PermissionsExt as _};

use super::Keymeter;
use crate::stack::{ADMIN_EMAIL, ADMIN_PASSWORD, Stack};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_signs_in_reveals_a_secret_and_signs_out() {
    let stack = Stack::start().await;
    let key = stack.make_key("Orders").await;
    let person = Keymeter::nobody(&stack);
    fs::write(person.home.path().join("password"), format!("{ADMIN_PASSWORD}\n")).unwrap();
    fs::write(person.home.path().join("wrong"), "a wrong one").unwrap();
    let sign_in = ["sign-in", "--email", ADMIN_EMAIL, "--password-file"];
    person.run(&["keys", "list"]).await.failed(3, "not signed in at http://127.0.0.1:");
    person.run(&[&sign_in[..], &["wrong"]].concat()).await.failed(3, "password");
    let signed_in = person.run(&[&sign_in[..], &["password"]].concat()).await;
    assert_eq!((signed_in.code, signed_in.stdout.as_str()), (0, ""), "{}", signed_in.stderr);
    assert_eq!(signed_in.stderr, format!("Signed in as {ADMIN_EMAIL} in {}.\n", stack.workspace));

    let session = person.home.path().join(".config/keymeter/session.json");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&session), mode(session.parent().unwrap())), (0o600, 0o700));
    let workspaces = person.json(&["workspaces"]).await;
    assert_eq!(workspaces["workspaces"][0]["display_name"], "Acme");
    assert!(person.good(&["keys", "list"]).await.contains("Orders"));

    // A session goes nowhere but to where it was made.
    let elsewhere = ["keys", "list", "--keys-url", &format!("http://localhost:{}", stack.ports.keys)];
    person.run(&elsewhere).await.failed(3, "not signed in at http://localhost:");

    let revealed = person.run(&["keys", "reveal", "Orders", "--password-file", "password"]).await;
    assert_eq!(
        (revealed.code, revealed.stdout, revealed.stderr),
        (0, format!("{}\n", key.secret), String::new())
    );
    person.run(&["keys", "reveal", "Orders"]).await.failed(2, "--password-file");
    person.run(&["keys", "reveal", "Orders", "--password-file", "wrong"]).await.failed(3, "password");
    let typed = person.at_terminal("keys reveal Orders", &format!("{ADMIN_PASSWORD}\n")).await;
    assert_eq!(typed.code, 0, "{}", typed.stdout);
    assert!(typed.stdout.contains(&key.secret) && !typed.stdout.contains(ADMIN_PASSWORD), "{}", typed.stdout);
    // For people only, whatever a program may do.
    let program = Keymeter::program(&stack);
    program.run(&["keys", "reveal", "Orders", "--password-file", "x"]).await.failed(3, "only people");

    let token: serde_json::Value = serde_json::from_slice(&fs::read(&session).unwrap()).unwrap();
    person.good(&["sign-out"]).await;
    assert!(!session.exists());
    person.run(&["keys", "list"]).await.failed(3, "not signed in");
    // The session has ended at keys too, not only here.
    fs::write(&session, token.to_string()).unwrap();
    person.run(&["keys", "list"]).await.failed(3, "session");
    assert_eq!(person.run(&["sign-out"]).await.code, 0, "ending an ended session changes nothing");
}
