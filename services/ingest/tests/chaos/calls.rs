//! ClickHouse is killed at every call by which one insert changes files: each creation, write, rename, fsync and removal
//! below the table's folder. The insert has rows in two months, so it writes two parts, which are not atomic together.
//!
//! The calls are read from a trace of such an insert. In what thread one is made is left to chance, and strace counts by
//! thread; therefore each is named by its file, and so by its part, and counted there. What follows the last call is a
//! lost reply. Calls in other folders (the fence was raised before, the audit writes its own) are not stopped at.

use std::collections::BTreeMap;

use parts::{asked, eventually, say, seed};
use time::{Duration, OffsetDateTime};

use crate::{
    crowd::Crowd,
    strace::{Call, Strace},
    support::{Chance, Stage},
};

const EVENTS: u64 = 40;
/// So that half of them are in another month, and not too old.
const AGE: Duration = Duration::days(32);
/// How often an insert is tried that did not come to its end.
const TRIES: u64 = 3;
/// More than a server writes before it is killed.
const PARTS_MAX: u64 = 40;

/// A call of an insert.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    call: String,
    /// The month of the part; `None` for a file of the table.
    part: Option<String>,
    /// Below the part or the table.
    file: String,
    /// Which such call for that file.
    nth: usize,
}

#[tokio::test]
async fn clickhouse_killed_at_each_call_of_an_insert() {
    let most = asked("KEYMETER_CHAOS_CALLS", 4) as usize;
    let mut chance = Chance::new(seed());
    let mut stage = Stage::start().await;
    let mut crowd = Crowd::new(&stage, chance.below(u64::MAX)).await;
    // The first insert makes what later ones find.
    insert(&stage, &mut crowd).await;
    crowd.settle().await;
    let table = table_folder(&stage).await;
    let points = points(&mut stage, &mut crowd, &table).await;
    let renames = points.iter().filter(|point| point.call.starts_with("rename")).count();
    let syncs = points.iter().filter(|point| point.call.ends_with("sync")).count();
    assert!(renames >= 2 && syncs >= 2, "two parts are written, made durable and put in place: {points:?}");

    // Spread over the insert if there are more than asked for.
    let first = chance.below((points.len() as u64).div_ceil(most as u64)) as usize;
    let chosen: Vec<_> = points.iter().skip(first).step_by(points.len().div_ceil(most)).collect();
    for (number, point) in chosen.iter().enumerate() {
        kill_at(&mut stage, &mut crowd, &table, point).await;
        if number % 20 == 19 {
            crowd.assert_exact(&stage).await;
            say(&format!("killed at {} of {} calls", number + 1, chosen.len()));
        }
    }
    crowd.assert_exact(&stage).await;
    say(&format!(
        "killed at {} of the {} calls of an insert ({renames} renames, {syncs} fsyncs), each event one row",
        chosen.len(),
        points.len()
    ));
}

/// One message, so one insert, with events of two months.
async fn insert(stage: &Stage, crowd: &mut Crowd) {
    // Merges would write as well.
    stage.clickhouse.query("system stop merges keymeter.request_events").await;
    let earlier = proto::timestamp::to_proto(OffsetDateTime::now_utc() - AGE);
    crowd
        .send(EVENTS, |message| {
            message.events.iter_mut().step_by(2).for_each(|event| event.occurred_at = Some(earlier));
        })
        .await;
}

/// Where the rows are, as the server names it.
async fn table_folder(stage: &Stage) -> String {
    let sql =
        "select data_paths[1] from system.tables where database = 'keymeter' and name = 'request_events'";
    let path = stage.clickhouse.query(sql).await;
    // Below its data, of which it may say no more than the last part.
    let below = path.trim().rsplit_once("store/").expect("a table's rows are in the store").1;
    format!("{}/store/{}", stage.clickhouse.data().display(), below.trim_end_matches('/'))
}

/// The number of the last part that was written.
async fn last_block(stage: &Stage) -> u64 {
    let sql = "select max(max_block_number) from system.parts where database = 'keymeter' and table = 'request_events'";
    stage.clickhouse.query(sql).await.trim().parse().expect("a number of a block")
}

/// Every call of an insert.
async fn points(stage: &mut Stage, crowd: &mut Crowd, table: &str) -> Vec<Point> {
    let folder = tempfile::tempdir().expect("the system's temporary folder can be written");
    let strace = Strace::watch(stage.clickhouse.pid(), folder.path()).await;
    insert(stage, crowd).await;
    crowd.settle().await;
    let mut times = BTreeMap::new();
    let mut points = Vec::new();
    for Call { name, path } in strace.calls(table).await {
        let below = path[table.len()..].trim_start_matches('/');
        let (first, rest) = below.split_once('/').unwrap_or((below, ""));
        let (part, file) = month(first).map_or((None, below), |month| (Some(month), rest));
        let mut point = Point { call: name, part, file: file.to_owned(), nth: 0 };
        let times = times.entry(point.clone()).or_insert(0);
        *times += 1;
        point.nth = *times;
        points.push(point);
    }
    points
}

/// The month in the name of a part, finished (`202611_7_7_0`) or not (`tmp_insert_202611_7_7_0`).
fn month(name: &str) -> Option<String> {
    let mut words = name.trim_start_matches("tmp_insert_").split('_');
    let (month, block) = (words.next()?, words.next()?);
    [month, block].iter().all(|word| word.parse::<u64>().is_ok()).then(|| month.to_owned())
}

async fn kill_at(stage: &mut Stage, crowd: &mut Crowd, table: &str, point: &Point) {
    for _ in 0..TRIES {
        let folder = tempfile::tempdir().expect("the system's temporary folder can be written");
        let paths = paths(table, point, last_block(stage).await);
        let pid = stage.clickhouse.pid();
        let strace = Strace::kill_at(pid, folder.path(), &point.call, point.nth, &paths).await;
        insert(stage, crowd).await;
        eventually("ClickHouse was killed, or the insert is done", async || {
            !stage.clickhouse.is_running() || crowd.free().await == 0
        })
        .await;
        drop(strace);
        if stage.clickhouse.is_running() {
            continue;
        }
        stage.clickhouse.restart().await;
        stage.wait_ready().await;
        crowd.settle().await;
        return;
    }
    panic!("{TRIES} inserts did not come to {point:?}");
}

/// What the file may be called: a part has one number until it is put in place, counted from the server's start, and then
/// another.
fn paths(table: &str, point: &Point, last_block: u64) -> Vec<String> {
    let Some(month) = &point.part else { return vec![format!("{table}/{}", point.file)] };
    let unfinished = (1..=PARTS_MAX).map(|number| format!("tmp_insert_{month}_{number}_{number}_0"));
    let finished = (last_block + 1..=last_block + 2).map(|number| format!("{month}_{number}_{number}_0"));
    let part = unfinished.chain(finished).map(|part| format!("{table}/{part}/{}", point.file));
    // A folder may be named with a slash at its end.
    part.flat_map(|path| [path.trim_end_matches('/').to_owned(), path]).collect()
}
