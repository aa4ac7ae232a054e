//! One process after the other is replaced while calls go on, forth and back. The versions are this one, and the one
//! whose binaries `tests/upgrade` puts into a folder; without that they are the same.

use std::{env, path::PathBuf};

use crate::{load::Load, stack::Stack};

/// Ends each service, starts the binary that is chosen now, and waits until it does its work.
async fn replace(stack: &mut Stack, load: &Load, services: [&str; 5]) {
    for name in services {
        let service = match name {
            "keys" => &mut stack.keys,
            "edge" => &mut stack.edge,
            "ingest" => &mut stack.ingest,
            "query" => &mut stack.query,
            _ => &mut stack.ui,
        };
        assert!(service.sigterm().await.success(), "{name}: {}", service.log());
        service.replace();
        service.restart();
        stack.ready().await;
        load.go_on().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_service_is_replaced_under_load_and_no_call_is_lost_or_doubled() {
    let other = env::var_os("KEYMETER_OTHER_BINARIES").map(PathBuf::from);
    parts::use_binaries(other.as_deref());
    let mut stack = Stack::start().await;
    let key = stack.make_key("Steady").await;
    let doomed = stack.make_key("Doomed").await;
    let load = Load::start(&stack.client(&key.secret));
    load.go_on().await;

    // Forth: the older ingest reads what the newer edge writes.
    parts::use_binaries(None);
    stack.migrate().await;
    replace(&mut stack, &load, ["edge", "keys", "ingest", "query", "ui"]).await;
    stack.delete_key(&doomed).await;
    let made = stack.make_key("Made by this version").await;

    // Back: the older ones read what the newer ones wrote.
    parts::use_binaries(other.as_deref());
    replace(&mut stack, &load, ["ingest", "query", "ui", "keys", "edge"]).await;
    let calls = load.assert_counted_once(&stack).await;
    parts::say(&format!("{calls} answered calls, each once"));
    assert_eq!(stack.client(&made.secret).get("/v1/orders").await.status, 200);
    assert_eq!(stack.client(&doomed.secret).get("/v1/orders").await.status, 401);
}
