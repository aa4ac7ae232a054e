//! What ClickHouse loses or doubles behind ingest's back is found by its id and made good, but never what was erased.

use proto::nats;
use time::{Duration, OffsetDateTime};

use crate::{
    erasure::{erase, rows_of},
    support::{Edge, Stage, example},
};

/// A hundred rows that an audit can judge, and nobody at work.
async fn at_rest() -> (Stage, [Edge; 1]) {
    let mut stage = Stage::start().await;
    let mut edges = [Edge::new("edge_a", stage.jetstream().await)];
    let baselines = "select count() from keymeter.audit_baselines where shard = 1";
    parts::eventually("there is something to look back to", async || {
        stage.clickhouse.query(baselines).await == "1\n"
    })
    .await;
    for _ in 0..4 {
        let message = edges[0].spool(25);
        assert!(edges[0].publish(&message).await);
    }
    stage.settle(&mut edges).await;
    let audited = stage.command(&["audit"]).await;
    assert!(audited.ok && audited.out.contains("No row is missing or doubled."), "{audited:?}");
    assert!(stage.ingest.sigterm().await.success());
    (stage, edges)
}

async fn delete_row(stage: &Stage, edge_seq: u64) {
    let sql = format!(
        "alter table keymeter.request_events delete where edge_seq = {edge_seq} settings mutations_sync = 1"
    );
    stage.clickhouse.query(&sql).await;
    stage.wait_for_rows(99).await;
}

async fn work_until_audited(stage: &mut Stage, result: &str) {
    stage.ingest.restart();
    stage.wait_ready().await;
    let line = format!("keymeter_ingest_audits_total{{result=\"{result}\",shard=\"1\"");
    parts::eventually(&format!("an audit ends {result}"), async || stage.metric(&line).await >= 1).await;
}

#[tokio::test]
async fn a_missing_row_is_named_and_restored() {
    let (mut stage, edges) = at_rest().await;
    delete_row(&stage, 7).await;
    let audited = stage.command(&["audit"]).await;
    assert!(
        !audited.ok && audited.out.contains("missing: shard 1: edge_a boot 1 sequence 7\n"),
        "{audited:?}"
    );
    assert!(
        audited.err.contains("1 rows are missing and 0 are doubled; `ingest audit --repair`"),
        "{audited:?}"
    );
    work_until_audited(&mut stage, "found").await;
    stage.assert_exact(&edges).await;
    let log = stage.ingest.log();
    assert!(log.contains("edge_a boot 1 sequence 7") && log.contains("\"restored\":1"), "{log}");
    let audited = stage.command(&["audit", "--json"]).await;
    let report: serde_json::Value = serde_json::from_str(&audited.out).unwrap();
    assert_eq!((audited.ok, &report["found"]), (true, &serde_json::json!([])));
    let hours = report["hours"].as_array().unwrap();
    let sum = |name: &str, shard: serde_json::Value| {
        hours.iter().filter(|hour| hour["shard"] == shard).filter_map(|hour| hour[name].as_u64()).sum::<u64>()
    };
    assert_eq!([sum("stream", 1.into()), sum("rows", 1.into()), sum("events", 1.into())], [100; 3]);
    assert_eq!([sum("rows", serde_json::Value::Null), sum("projection", serde_json::Value::Null)], [100; 2]);
}

#[tokio::test]
async fn a_row_that_nothing_is_left_of_becomes_a_known_gap() {
    let (mut stage, _) = at_rest().await;
    delete_row(&stage, 7).await;
    let stream = nats::request_events_stream(example::SHARD);
    stage.jetstream().await.get_stream(stream).await.unwrap().purge().await.unwrap();
    work_until_audited(&mut stage, "found").await;
    let gaps =
        "select edge_id, boot_epoch, first_seq, last_seq, reason, to_at > from_at from keymeter.gaps final";
    assert_eq!(stage.clickhouse.query(gaps).await, "edge_a\t1\t7\t7\tmissing\t1\n");
    assert!(stage.command(&["audit"]).await.ok, "it is known now");
    assert_eq!(stage.rows().await, Ok(99));
}

#[tokio::test]
async fn a_doubled_row_is_made_one() {
    let (mut stage, edges) = at_rest().await;
    let copy =
        "insert into keymeter.request_events select * from keymeter.request_events where edge_seq in (9, 10)";
    stage.clickhouse.query(copy).await;
    let audited = stage.command(&["audit"]).await;
    assert!(
        !audited.ok && audited.out.contains("doubled: shard 1: edge_a boot 1 sequence 9 to 10\n"),
        "{audited:?}"
    );
    let audited = stage.command(&["audit", "--repair"]).await;
    assert!(audited.ok && audited.out.contains("2 made one"), "{audited:?}");
    stage.assert_exact(&edges).await;
    stage.clickhouse.query(copy).await;
    work_until_audited(&mut stage, "found").await;
    stage.assert_exact(&edges).await;
}

#[tokio::test]
async fn what_was_erased_is_not_missing() {
    let (mut stage, _) = at_rest().await;
    let (gone, stays) = (example::event("edge_a", 1).workspace_id, example::event("edge_a", 2).workspace_id);
    erase(&stage, gone, OffsetDateTime::now_utc() + Duration::DAY).await;
    work_until_audited(&mut stage, "clean").await;
    assert_eq!((rows_of(&stage, gone).await, rows_of(&stage, stays).await), ("0".into(), "50".into()));
    let audited = stage.command(&["audit", "--repair"]).await;
    assert!(audited.ok, "{audited:?}");
    assert_eq!(rows_of(&stage, gone).await, "0");
}

#[tokio::test]
async fn of_days_in_the_archive_nothing_is_counted_again_or_taken_away() {
    let (mut stage, _) = at_rest().await;
    let pass = "insert into keymeter.archive_passes (shard, writer_epoch, pass, closed_day, through)
                select 1, 1000000, 1, today() + 1, now64(3)";
    stage.clickhouse.query(pass).await;
    delete_row(&stage, 7).await;
    let copy =
        "insert into keymeter.request_events select * from keymeter.request_events where edge_seq in (9, 10)";
    stage.clickhouse.query(copy).await;
    let audited = stage.command(&["audit", "--repair"]).await;
    assert!(
        !audited.ok
            && audited.out.contains("0 restored, 1 gone and noted as a gap, 0 made one, 2 left as they are"),
        "{audited:?}"
    );
    assert!(audited.err.contains("2 doubled rows are of days that are in the archive"), "{audited:?}");
    assert_eq!(stage.rows().await, Ok(101));
    let gaps = "select first_seq, last_seq, reason from keymeter.gaps final";
    assert_eq!(stage.clickhouse.query(gaps).await, "7\t7\tmissing\n");
    work_until_audited(&mut stage, "found").await;
    assert_eq!(stage.rows().await, Ok(101));
}
