//! Exports of several parts: broken off, ended by Ctrl-C and by `kill -9`, and gone on with to the same bytes.

use std::{
    fs, io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use domain::KeyId;
use parts::{Relay, Way};
use proto::resource::parse_workspace_name;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Keymeter, Ran, life};
use crate::stack::Stack;

/// Three parts.
const CALLS: u64 = 450_000;
/// What a relay carries at a time, in bytes.
const CHUNK: usize = 64 << 10;
/// Where a connection is cut, in bytes: in the first part.
const CUT_AFTER: u64 = 2 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_goes_on_where_it_ended_to_the_same_bytes() {
    let stack = Stack::start().await;
    let keymeter = Keymeter::program(&stack);
    let home = keymeter.home.path();
    write_calls(&stack).await;
    let whole = keymeter.good(&["export", "--format", "csv", "--since", "30d"]).await;
    assert_eq!(u64::try_from(whole.lines().count()).unwrap(), CALLS + 1);

    let query = format!("127.0.0.1:{}", stack.ports.query);
    let state = home.join("calls.csv.part.json");
    let watched = state.clone();
    let hold_at = Arc::new(AtomicU64::new(0));
    let limit = hold_at.clone();
    let holds = move || rows(&watched) >= limit.load(Ordering::SeqCst);
    let relay = Relay::start(&query, move |there, back| hold(there, back, holds.clone())).await;
    let through = format!("http://{}", relay.address());
    let export = ["export", "--since", "30d", "--file", "calls.csv"];
    let held_up = [&export[..], &["--query-url", &through]].concat();
    for (name, code, whole_parts) in [("INT", 130, 200_000), ("KILL", -1, 400_000)] {
        hold_at.store(whole_parts, Ordering::SeqCst);
        let child = keymeter.command(&held_up).spawn().unwrap();
        parts::eventually("another part is whole", async || rows(&state) >= whole_parts).await;
        life::signal(&child, name);
        let ended = Ran::of(child.wait_with_output().await.unwrap());
        assert_eq!(ended.code, code, "{}", ended.stderr);
        assert!(code != 130 || ended.stderr.contains("the same command goes on"), "{}", ended.stderr);
        assert!(!home.join("calls.csv").exists() && home.join("calls.csv.part").exists());
    }
    // Of another question it is not gone on with.
    let other = ["export", "--since", "29d", "--file", "calls.csv"];
    keymeter.run(&other).await.failed(2, "calls.csv.part is what another export left");
    let ended = keymeter.run(&export).await;
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("Going on behind 400,000 calls."), "{}", ended.stderr);
    assert!(ended.stderr.contains("Exported 450,000 calls"), "{}", ended.stderr);
    assert!(fs::read_to_string(home.join("calls.csv")).unwrap() == whole, "the file differs");
    assert_eq!(files(home), ["calls.csv"]);
    keymeter.run(&export).await.failed(2, "--force");

    // A connection that is cut in the middle of a part is no end.
    let cut = Arc::new(AtomicBool::new(true));
    let once = cut.clone();
    let relay = Relay::start(&query, move |there, back| carry(there, back, once.clone())).await;
    let through = format!("http://{}", relay.address());
    let again = keymeter.run(&[&export[..], &["--force", "--query-url", &through]].concat()).await;
    assert_eq!(again.code, 0, "{}", again.stderr);
    assert!(!cut.load(Ordering::SeqCst), "it was cut");
    assert!(fs::read_to_string(home.join("calls.csv")).unwrap() == whole, "the file differs");
    // Standard output takes nothing back.
    cut.store(true, Ordering::SeqCst);
    let broken = keymeter.run(&["export", "--since", "30d", "--query-url", &through]).await;
    assert_eq!(broken.code, 5, "{}", broken.stderr);
    assert!(broken.stderr.contains("give --file"), "{}", broken.stderr);

    parts_are_files_of_their_own(&stack, &keymeter).await;
}

/// Parquet and Arrow: a file for each part, readable by the engine, with all calls.
async fn parts_are_files_of_their_own(stack: &Stack, keymeter: &Keymeter) {
    for (ending, rows) in [("parquet", "Parquet"), ("arrow", "ArrowStream")] {
        let folder = stack.clickhouse.data().parent().unwrap().join("user_files").join(ending);
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join(format!("calls.{ending}")).display().to_string();
        let told = keymeter.json(&["export", "--since", "30d", "--file", &file]).await;
        assert_eq!(told["row_count"], CALLS);
        let expected: Vec<_> = (0..3).map(|part| format!("calls-{part:04}.{ending}")).collect();
        assert_eq!(files(&folder), expected);
        let count =
            |name: &str| format!("select count() from file('{}', '{rows}')", folder.join(name).display());
        let mut counted = 0;
        for name in &expected {
            counted += stack.number(&count(name)).await;
        }
        assert_eq!(counted, CALLS, "{ending}");
        // What fits into one part has the name that was asked for.
        let told = keymeter.json(&["export", "--since", "30d", "--status", "500", "--file", &file]).await;
        assert_eq!((&told["files"], &told["row_count"]), (&serde_json::json!([file]), &45_000.into()));
        assert_eq!(stack.number(&count(&format!("calls.{ending}"))).await, 45_000);
    }
    let broken = keymeter.run(&["export", "--since", "30d", "--format", "parquet"]).await;
    assert_eq!(broken.code, 1, "{}", broken.stderr);
    assert!(broken.stderr.contains("give --file"), "{}", broken.stderr);
}

/// Calls of two keys, as ingest would have written them.
async fn write_calls(stack: &Stack) {
    let at = time::OffsetDateTime::now_utc() - time::Duration::days(3);
    let insert = format!(
        "insert into keymeter.request_events (workspace_id, key_id, request_id, occurred_at, method, route, \
         status_code, outcome, writer_epoch) select '{}', if(number % 2 = 0, toUUID('{}'), toUUID('{}')), generateUUIDv4(), \
         fromUnixTimestamp64Milli({} + intDiv(number, 3)), 'GET', '/v1/orders', if(number % 10 = 0, 500, 200), \
         if(number % 10 = 0, 'failed', 'completed'), 1000000 from numbers({CALLS})",
        parse_workspace_name(&stack.workspace).unwrap().as_uuid(),
        KeyId::generate().as_uuid(),
        KeyId::generate().as_uuid(),
        at.unix_timestamp_nanos() / 1_000_000,
    );
    stack.clickhouse.query(&insert).await;
}

/// Carries both ways, until what comes back is to be held for ever.
async fn hold(there: Way, mut back: Way, holds: impl Fn() -> bool) -> io::Result<()> {
    let _there = tokio::spawn(there.bring());
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = back.from.read(&mut chunk).await?;
        if read == 0 {
            return Ok(());
        }
        if holds() {
            std::future::pending::<()>().await;
        }
        back.to.write_all(&chunk[..read]).await?;
    }
}

/// Carries both ways; if `cut` is set, hangs up after some megabytes, once.
async fn carry(there: Way, mut back: Way, cut: Arc<AtomicBool>) -> io::Result<()> {
    let there = tokio::spawn(there.bring());
    let mut first = (&mut back.from).take(CUT_AFTER);
    tokio::io::copy(&mut first, &mut back.to).await?;
    if cut.swap(false, Ordering::SeqCst) {
        there.abort();
        return Ok(());
    }
    back.bring().await
}

/// Calls in the parts that are whole; 0 before the first.
fn rows(state: &Path) -> u64 {
    let Ok(text) = fs::read(state) else { return 0 };
    serde_json::from_slice::<Value>(&text).unwrap()["row_count"].as_u64().unwrap()
}

fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
