//! The disk of the edge's spool is full, a small one of its own. Calls are answered all the same, and the space that the
//! edge keeps ahead and gets back is enough while ClickHouse takes them. Without NATS it is used up: what is lost then is
//! known by number, so that each answered call is a row, or in a gap.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use parts::{ClickHouse, Nats, Postgres, SmallDisk, say};

use crate::{load::Load, stack::Stack, usage::last_day};

const SPOOL_MIB: u32 = 32;
/// The least that an edge takes; a segment is an eighth of it, and so is the space ahead.
const SPOOL_BYTES_MAX: u32 = 8 << 20;
/// More segments than the edge had space for when the disk was full.
const SEGMENTS: u64 = 3;
/// Of a client after each answer.
const PAUSE: Duration = Duration::from_millis(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spool_is_said_and_costs_no_call_that_nobody_knows_of() {
    let (nats, postgres, clickhouse) = tokio::join!(Nats::start(), Postgres::start(), ClickHouse::start());
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool");
    let disk = SmallDisk::mount(&spool, SPOOL_MIB);
    let settings = vec![
        ("KEYMETER_EDGE_SPOOL_DIR", spool.display().to_string()),
        ("KEYMETER_EDGE_SPOOL_BYTES_MAX", SPOOL_BYTES_MAX.to_string()),
    ];
    let mut stack = Stack::start_with_edge(nats, postgres, clickhouse, settings).await;
    let key = stack.make_key("Full").await;
    let load = Load::paced(&stack.client(&key.secret), PAUSE);
    load.go_on().await;

    disk.fill();
    let full = Instant::now();
    let health = format!("127.0.0.1:{}", stack.ports.edge_health);
    let said = parts::eventually("the edge says that its disk is full", async || {
        let answer = parts::get(&health, "/readyz").await.ok()?;
        (answer.status == 503 && answer.body.contains("spool") && answer.body.contains("No space"))
            .then_some(answer.body)
    })
    .await;
    say(&format!("after {:.1} s: {said}", full.elapsed().as_secs_f64()));
    assert!(stack.edge.log().contains("the disk of the spool is full"), "the log says so too");
    let last = newest(&spool) + SEGMENTS;
    parts::eventually("more is written than there was space for", async || newest(&spool) >= last).await;
    assert!(!stack.edge.log().contains("the spool cannot be written"), "nothing is lost");

    stack.nats.stop().await;
    parts::eventually("no space is left", async || stack.edge.log().contains("the spool cannot be written"))
        .await;
    load.go_on().await;
    disk.empty();
    stack.nats.restart().await;
    stack.ready().await;
    load.go_on().await;
    let (answered, cut_off) = load.end().await;
    assert_eq!(cut_off, 0, "every call was answered");
    let gaps = "select sum(last_seq - first_seq + 1) from keymeter.gaps final where reason = 'lost'";
    let rows = "select count() from keymeter.request_events";
    let known = parts::eventually("each call is a row or in a gap", async || {
        let known = (stack.number(rows).await, stack.number(gaps).await);
        (known.0 + known.1 >= answered.len() as u64).then_some(known)
    })
    .await;
    assert_eq!(known.0 + known.1, answered.len() as u64, "{known:?}");
    let logged: BTreeSet<_> = stack.log(last_day(&[])).await.iter().map(crate::usage::request_id).collect();
    assert!(logged.is_subset(&answered) && logged.len() as u64 == known.0, "each row is of another call");
    say(&format!("{} calls answered: {} rows, {} in known gaps", answered.len(), known.0, known.1));
}

/// The number of the newest segment.
fn newest(spool: &Path) -> u64 {
    let files = fs::read_dir(spool).unwrap().map(|file| file.unwrap().file_name());
    let number = |name: std::ffi::OsString| name.to_str()?.strip_suffix(".seg")?.parse().ok();
    files.filter_map(number).max().unwrap_or(0)
}
