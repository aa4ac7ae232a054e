//! A key from birth to deletion by command line, and its calls in every answer.

use std::{collections::BTreeSet, process::Stdio};

use domain::RequestId;
use hyper::Method;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Child,
};

use super::{Keymeter, Ran};
use crate::{
    stack::{MadeKey, Stack},
    usage::{last_day, request_id},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_lives_by_command_line_and_its_calls_are_counted() {
    let mut stack = Stack::start().await;
    let keymeter = Keymeter::program(&stack);
    let create = [
        "keys",
        "create",
        "Partner A",
        "--description",
        "By hand",
        "--expires",
        "90d",
        "--tag",
        "team=pay",
        "--scope",
        "read,write",
        "--network",
        "127.0.0.0/8",
        "--rate-limit",
        "burst=1000/1m",
    ];
    let made = keymeter.run(&create).await;
    assert_eq!(made.code, 0, "{}", made.stderr);
    let secret = made.stdout.trim_end();
    domain::Secret::parse(secret).expect("the secret alone is on standard output");
    assert!(!made.stderr.contains(secret) && made.stderr.contains("Partner A"), "{}", made.stderr);
    let shown = keymeter.json(&["keys", "show", "Partner A"]).await;
    assert_eq!((&shown["state"], &shown["environment"]), (&"active".into(), &"live".into()));
    assert_eq!(shown["tags"], serde_json::json!({"team": "pay"}));
    assert_eq!(shown["rate_limits"][0]["window"], 60.0);
    let key = MadeKey { name: shown["name"].as_str().unwrap().to_owned(), secret: secret.to_owned() };
    stack.applied(&key, 1).await;

    for (path, status) in
        [("/v1/orders/7", 200), ("/v1/orders/8?status=404", 404), ("/v1/pay?status=503", 503)]
    {
        assert_eq!(stack.client(secret).get(path).await.status, status);
    }
    assert_eq!(stack.client(secret).call(Method::POST, "/v1/pay?status=429").await.unwrap().status, 429);
    stack.complete().await;
    every_answer_agrees(&keymeter, &stack, &key).await;
    a_tail_shows_a_live_call(&keymeter, &mut stack, &key).await;
    it_is_changed_and_ends(&keymeter, &stack, &key).await;
}

async fn every_answer_agrees(keymeter: &Keymeter, stack: &Stack, key: &MadeKey) {
    let answer = keymeter.json(&["usage", "summary", "--key", "Partner A", "--since", "1d"]).await;
    let counts = &answer["summary"]["counts"];
    let numbers = ["total_count", "completed_count", "failed_count", "rate_limited_count"];
    assert_eq!(numbers.map(|name| counts[name].as_u64().unwrap()), [4, 1, 2, 1]);
    assert_eq!(answer["summary"]["previous_counts"]["total_count"], 0);
    assert_eq!(answer["latency"]["call_count"], 4);
    assert_eq!(answer["top_endpoints"]["rows"].as_array().unwrap().len(), 2);
    let table = keymeter.good(&["usage", "summary", "--key", key.id()]).await;
    assert!(
        table.lines().any(|line| line.split_whitespace().eq(["total", "4", "100.0", "%", "0"])),
        "{table}"
    );

    for (options, expected) in [
        (&["--status", "404"][..], 1),
        (&["--status", "404,429"][..], 2),
        (&["--status", "404", "--status", "2xx"][..], 2),
        (&["--outcome", "failed"][..], 2),
        (&["--method", "POST"][..], 1),
        (&["--route", "/v1/orders/{id}", "--resource-id", "7"][..], 1),
        (&["--until", "1h"][..], 0),
    ] {
        let answer = keymeter.json(&[&["usage", "summary", "--top", "0"], options].concat()).await;
        assert_eq!(answer["summary"]["counts"]["total_count"], expected, "{options:?}");
        assert_eq!(answer["top_endpoints"], Value::Null);
    }
    let by_key = keymeter.good(&["usage", "breakdown", "--by", "key"]).await;
    assert!(by_key.contains(key.id()) && by_key.contains("Partner A"), "{by_key}");
    let by_status = keymeter.json(&["usage", "breakdown", "--by", "status_code"]).await;
    let rows = by_status["rows"].as_array().unwrap();
    assert_eq!(
        rows.iter().map(|row| row["value"].as_str().unwrap()).collect::<Vec<_>>(),
        ["200", "404", "429", "503"]
    );

    // The log, the file and gRPC have the same calls.
    let log = keymeter.json(&["log", "--key", "Partner A"]).await;
    let ids = |requests: &Value| -> BTreeSet<String> {
        let id = |request: &Value| request["name"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        requests.as_array().unwrap().iter().map(id).collect()
    };
    let expected: BTreeSet<_> = stack.log(last_day(&[key.id()])).await.iter().map(request_id).collect();
    assert_eq!((ids(&log["requests"]), expected.len()), (expected.clone(), 4));
    let file = keymeter.good(&["export", "--format", "ndjson", "--key", "Partner A"]).await;
    // Files have ids as the columns of ClickHouse have them.
    let uuid = |id: &String| id.parse::<RequestId>().unwrap().as_uuid().to_string();
    let id_in =
        |line| serde_json::from_str::<Value>(line).unwrap()["request_id"].as_str().unwrap().to_owned();
    assert_eq!(file.lines().map(id_in).collect::<BTreeSet<_>>(), expected.iter().map(uuid).collect());
    assert_eq!(file.lines().count(), 4);
    let page = keymeter.run(&["log", "--limit", "3"]).await;
    assert_eq!((page.stdout.lines().count(), page.code), (1 + 3, 0));
    assert!(page.stdout.contains("/v1/pay") && page.stderr.starts_with("Complete up to"), "{page:?}");
}

async fn a_tail_shows_a_live_call(keymeter: &Keymeter, stack: &mut Stack, key: &MadeKey) {
    let mut tail = keymeter.command(&["tail", "--key", "Partner A", "--output", "json"]).spawn().unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    let mut called = BTreeSet::new();
    let first = loop {
        called.insert(stack.client(&key.secret).get("/v1/live/42").await.request_id());
        let wait = tokio::time::timeout(std::time::Duration::from_secs(1), lines.next_line());
        if let Ok(line) = wait.await {
            break line.unwrap().expect("a tail goes on until it is ended");
        }
        assert!(tail.try_wait().unwrap().is_none(), "the tail ended");
    };
    let call: Value = serde_json::from_str(&first).unwrap();
    assert!(called.contains(call["name"].as_str().unwrap().rsplit('/').next().unwrap()));
    assert_eq!((&call["resource_id"], &call["outcome"]), (&"42".into(), &"completed".into()));

    // It goes on behind a crash of query: what was called meanwhile comes too, and nothing twice.
    let id = |call: &Value| call["name"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    let mut seen = BTreeSet::from([id(&call)]);
    stack.query.kill().await;
    called.insert(stack.client(&key.secret).get("/v1/live/43").await.request_id());
    stack.query.restart();
    stack.ready().await;
    while seen != called {
        let line = lines.next_line().await.unwrap().expect("a tail goes on until it is ended");
        let call: Value = serde_json::from_str(&line).unwrap();
        assert!(called.contains(&id(&call)) && seen.insert(id(&call)), "not called, or twice: {call}");
    }
    interrupt(&tail);
    let ended = Ran::of(tail.wait_with_output().await.unwrap());
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
}

/// Ctrl-C.
pub(super) fn interrupt(child: &Child) {
    signal(child, "INT");
}

pub(super) fn signal(child: &Child, name: &str) {
    let pid = child.id().expect("it runs").to_string();
    let sent =
        std::process::Command::new("kill").args(["-s", name, &pid]).stdin(Stdio::null()).status().unwrap();
    assert!(sent.success());
}

async fn it_is_changed_and_ends(keymeter: &Keymeter, stack: &Stack, key: &MadeKey) {
    let status = async |secret: &str| stack.client(secret).get("/v1/orders").await.status.as_u16();
    let edit =
        ["keys", "edit", "Partner A", "--name", "Partner B", "--scope", "read", "--clear", "tags,expires"];
    let edited = keymeter.json(&edit).await;
    assert_eq!(
        (&edited["display_name"], &edited["scopes"]),
        (&"Partner B".into(), &serde_json::json!(["read"]))
    );
    assert_eq!((&edited["tags"], &edited["expire_time"]), (&serde_json::json!({}), &Value::Null));
    assert_eq!(edited["description"], "By hand");

    let rotate = ["keys", "rotate", "Partner B", "--overlap", "1h", "--idempotency-key", "once"];
    let rotated = keymeter.run(&rotate).await;
    assert_eq!(rotated.code, 0, "{}", rotated.stderr);
    assert_eq!(keymeter.good(&rotate).await, rotated.stdout, "the same rotation, not another one");
    let new = MadeKey { name: key.name.clone(), secret: rotated.stdout.trim_end().to_owned() };
    assert_ne!(new.secret, key.secret);
    stack.applied(&new, 3).await;
    assert_eq!((status(&key.secret).await, status(&new.secret).await), (200, 200));

    let disabled = keymeter.json(&["keys", "disable", "Partner B"]).await;
    assert_eq!(disabled["receipt"]["state"], "complete");
    assert_eq!(status(&new.secret).await, 401);
    let enabled = keymeter.json(&["keys", "enable", "Partner B"]).await;
    stack.applied(&new, enabled["version"].as_u64().unwrap()).await;
    assert_eq!(status(&new.secret).await, 200);

    keymeter.run(&["keys", "delete", "Partner B"]).await.failed(2, "--yes");
    let wrong = keymeter.at_terminal("keys delete 'Partner B'", "Partner A\n").await;
    assert_eq!(wrong.code, 2, "{}", wrong.stdout);
    assert!(wrong.stdout.contains("nothing was deleted"), "{}", wrong.stdout);
    assert_eq!(status(&new.secret).await, 200);
    let deleted = keymeter.at_terminal("keys delete 'Partner B'", "Partner B\n").await;
    assert_eq!(deleted.code, 0, "{}", deleted.stdout);
    let receipt = deleted.stdout.lines().find(|line| line.contains("Deleted Partner B")).unwrap_or_default();
    assert!(
        receipt.contains(&format!("({}): refused by 1 of 1 edges after ", key.id())),
        "{}",
        deleted.stdout
    );
    for secret in [&key.secret, &new.secret] {
        let refused = stack.client(secret).get("/v1/orders").await;
        assert_eq!((refused.status.as_u16(), &refused.problem()["denial"]), (401, &"deleted".into()));
    }
    let left = keymeter.json(&["keys", "list"]).await;
    assert_eq!(left, serde_json::json!({"keys": [], "has_more": false}));
    let all = keymeter.json(&["keys", "list", "--state", "deleted", "--search", "partner"]).await;
    assert_eq!(all["keys"][0]["display_name"], "Partner B");
    let again = keymeter.json(&["keys", "delete", key.id(), "--yes"]).await;
    assert_eq!(again["key"]["state"], "deleted", "deleting it twice changes nothing");
}
