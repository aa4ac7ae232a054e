//! Totals of days outlive their rows, and count each call once, whatever comes late, is repeated or erased.

use async_nats::jetstream::kv;
use clap::Parser as _;
use domain::WorkspaceId;
use ingest::{
    archive::Archive,
    config::Config,
    erasures::Erased,
    store::{Store, StoreError},
};
use parts::{ClickHouse, eventually};
use prost::Message as _;
use proto::{events as pb, nats, timestamp};
use time::{Duration, OffsetDateTime};

use crate::support::{Edge, Stage, example};

/// What all of the questions below count: the archive, and the rows that are not in it.
const TOTALS: &str = "
    select sum(calls), sum(latency_us), sum(request_bytes) from (
        select calls, latency_us, request_bytes from keymeter.daily_totals
        union all
        select toInt64(1), toInt64(latency_us), toInt64(request_bytes) from keymeter.request_events as e
        left join (select shard, max(closed_day) as closed_day, max(through) as through
                   from keymeter.archive_passes group by shard) as p on e.shard = p.shard
        where toDate(e.occurred_at) > p.closed_day or e.ingested_at > p.through
    )";

struct Past {
    clickhouse: ClickHouse,
    store: Store,
    now: OffsetDateTime,
}

impl Past {
    async fn start() -> Self {
        let clickhouse = ClickHouse::start().await;
        let store = Store::new(&Config::parse_from(["ingest", "--clickhouse-url", &clickhouse.url()]))
            .expect("there is no identity");
        store.prepare().await.expect("the schema is made");
        Self { clickhouse, store, now: OffsetDateTime::now_utc() }
    }

    /// Ten calls of each of three workspaces on each of so many days, the first of them so many days ago.
    async fn insert(&self, days_ago: u32, days: u32, ingested_at_ms: i64) {
        insert(&self.clickhouse, days_ago, days, ingested_at_ms).await;
    }

    async fn totals(&self) -> String {
        let readme = include_str!("../../README.md");
        let told = readme.split("```sql\n").nth(1).and_then(|rest| rest.split("```").next());
        let told = told.expect("it has the question");
        let totals = self.clickhouse.query(TOTALS).await;
        assert_eq!(
            self.clickhouse.query(told).await.trim_end(),
            totals.split('\t').next().unwrap_or_default(),
            "as the README says"
        );
        totals
    }

    async fn number(&self, sql: &str) -> u64 {
        self.clickhouse.query(sql).await.trim().parse().expect("a number")
    }

    /// Deletes what has expired, at once.
    async fn let_expire(&self) {
        self.clickhouse.query("optimize table keymeter.request_events final").await;
    }
}

async fn insert(clickhouse: &ClickHouse, days_ago: u32, days: u32, ingested_at_ms: i64) {
    let sql = format!(
        "insert into keymeter.request_events (workspace_id, key_id, request_id, occurred_at, ingested_at, method,
             route, status_code, outcome, latency_us, request_bytes, shard, writer_epoch, edge_id, boot_epoch, edge_seq)
         select toUUID('00000000-0000-7000-8000-00000000000' || toString(number % 3)),
             toUUID('00000000-0000-7000-8000-0000000000a' || toString(number % 5)), generateUUIDv7(),
             toStartOfDay(now64(3, 'UTC')) - toIntervalDay({days_ago} - intDiv(number, 30)) + toIntervalHour(number % 24),
             fromUnixTimestamp64Milli(toInt64({ingested_at_ms}), 'UTC'), 'GET', '/v1/orders/{{id}}',
             if(number % 7 = 0, 500, 200), if(number % 7 = 0, 'failed', 'completed'), number, number % 13,
             {}, 4000000000, 'edge_past', 1, number + 1
         from numbers({days} * 30)",
        example::SHARD
    );
    clickhouse.query(&sql).await;
}

fn workspace(number: u8) -> WorkspaceId {
    let id = format!("00000000-0000-7000-8000-00000000000{number}");
    WorkspaceId::from_uuid(id.parse().expect("a UUID"))
}

#[tokio::test]
async fn rows_expire_by_workspace_and_totals_stay() {
    let past = Past::start().await;
    past.insert(120, 120, 1_000).await;
    let sum: u64 = (0..3_600).sum();
    let expected = format!("3600\t{sum}\t{}\n", (0..3_600).map(|n| n % 13).sum::<u64>());
    assert_eq!(past.totals().await, expected);
    for (days, workspace_id) in [(37, workspace(1)), (400, workspace(2))] {
        let chosen_at = past.now;
        let retention = ingest::retentions::Retention { workspace_id, days, chosen_at };
        past.store.keep_for(retention).await.unwrap();
        // What was chosen before and comes late changes nothing.
        let earlier =
            ingest::retentions::Retention { days: 50, chosen_at: chosen_at - Duration::DAY, ..retention };
        past.store.keep_for(earlier).await.unwrap();
    }
    assert!(!past.store.expire().await.unwrap());
    past.let_expire().await;
    assert_eq!(past.number("select count() from keymeter.request_events").await, 3_600, "no day is archived");

    let mut archive = Archive::new(example::SHARD, u32::MAX, None);
    let rows = "select countIf(workspace_id = '00000000-0000-7000-8000-000000000000') as zero,
        countIf(workspace_id = '00000000-0000-7000-8000-000000000001') as one,
        countIf(workspace_id = '00000000-0000-7000-8000-000000000002') as two from keymeter.request_events";
    // Ingest was away since 70 days ago: then the days 106 to 120 ago were closed.
    past.store.archive(archive.begin(1_000, past.now - Duration::days(70)).unwrap()).await.unwrap();
    archive.noted();
    assert!(past.store.expire().await.unwrap());
    eventually("only rows that are archived expire", async || {
        past.let_expire().await;
        past.clickhouse.query(rows).await == "1050\t1050\t1200\n"
    })
    .await;
    let pass = archive.begin(1_000, past.now).unwrap();
    past.store.archive(pass).await.unwrap();
    archive.noted();
    assert_eq!(past.store.archived(example::SHARD).await.unwrap(), Some(pass.to));
    assert_eq!(
        past.number("select sum(calls) from keymeter.daily_totals").await,
        85 * 30,
        "those 36 days ago and before"
    );
    assert_eq!(past.totals().await, expected);

    // Not while the time before is still being worked on.
    eventually("rows get their end", async || past.store.expire().await.unwrap()).await;
    eventually("rows expire", async || {
        past.let_expire().await;
        // A row goes when the days that were chosen have passed after its own: 120 to 1 days ago there were ten a day.
        past.clickhouse.query(rows).await == "900\t370\t1200\n"
    })
    .await;
    assert_eq!(past.totals().await, expected, "the archive stands for them");
    assert!(!past.store.expire().await.unwrap(), "nothing is left to do");

    // The same days later: more of them are closed, and what was closed is not counted from rows again.
    let later = past.now + Duration::days(20);
    let pass = archive.begin(1_000, later).unwrap();
    past.store.archive(pass).await.unwrap();
    archive.noted();
    assert_eq!(past.number("select sum(calls) from keymeter.daily_totals").await, 105 * 30);
    assert_eq!(past.totals().await, expected);
}

#[tokio::test]
async fn late_rows_are_rows_of_their_own_and_what_was_not_noted_counts_for_nothing() {
    let past = Past::start().await;
    past.insert(50, 50, 1_000).await;
    let mut archive = Archive::new(example::SHARD, 4_000_000_000, None);
    let first = archive.begin(1_000, past.now).unwrap();
    past.store.archive(first).await.unwrap();
    archive.noted();
    let closed = 15 * 30;
    let totals = "select sum(calls) from keymeter.daily_totals";
    assert_eq!(past.number(totals).await, closed);

    // Three late days, two of them closed. The owner dies in the pass, after some of its totals.
    past.insert(37, 3, 2_000).await;
    archive.inserting(past.now - Duration::days(37));
    let late = archive.begin(2_000, past.now).unwrap();
    let some = format!(
        "insert into keymeter.daily_archive select * replace({} as pass) from keymeter.daily_archive limit 3",
        late.number
    );
    past.clickhouse.query(&some).await;
    assert_eq!(past.number(totals).await, closed, "the pass is not noted");

    // The next owner does it again under its own epoch; the one before is refused from then on.
    past.store.raise_fence(example::SHARD, 4_000_000_001).await.unwrap();
    let noted = past.store.archived(example::SHARD).await.unwrap();
    assert_eq!(noted, Some(first.to));
    let mut archive = Archive::new(example::SHARD, 4_000_000_001, noted);
    let again = archive.begin(2_000, past.now).unwrap();
    past.store.archive(again).await.unwrap();
    archive.noted();
    assert_eq!(past.number(totals).await, closed + 60);
    assert!(matches!(past.store.archive(late).await, Err(StoreError::Fenced)));
    assert_eq!(past.number(totals).await, closed + 60);
    assert_eq!(past.totals().await.split('\t').next(), Some("1590"));

    // A pass with nothing late adds nothing.
    let mut archive =
        Archive::new(example::SHARD, 4_000_000_001, past.store.archived(example::SHARD).await.unwrap());
    let nothing = archive.begin(3_000, past.now).unwrap();
    past.store.archive(nothing).await.unwrap();
    assert_eq!(past.number("select count() from keymeter.archive_passes").await, 2);
    assert_eq!(past.number(totals).await, closed + 60);
}

#[tokio::test]
async fn an_erased_workspace_vanishes_from_the_archive() {
    let past = Past::start().await;
    past.insert(50, 50, 1_000).await;
    let mut archive = Archive::new(example::SHARD, u32::MAX, None);
    past.store.archive(archive.begin(1_000, past.now).unwrap()).await.unwrap();
    // So that its rows are gone and only the archive has it.
    past.clickhouse
        .query("alter table keymeter.request_events delete where 1 settings mutations_sync = 1")
        .await;
    let of = async |number: u8| {
        let id = workspace(number).as_uuid();
        past.number(&format!("select sum(calls) from keymeter.daily_archive where workspace_id = '{id}'"))
            .await
    };
    assert_eq!((of(1).await, of(2).await), (150, 150));
    let mut erased = Erased::default();
    erased.insert(workspace(1), past.now + Duration::days(36_500));
    // Of the other one, days that began 40 days ago or before.
    erased.insert(workspace(2), past.now.replace_time(time::Time::MIDNIGHT) - Duration::days(39));
    past.store.erase(0, &erased).await.unwrap();
    assert_eq!((of(1).await, of(2).await), (150, 150), "another shard's are its owner's");
    past.store.erase(example::SHARD, &erased).await.unwrap();
    assert_eq!((of(0).await, of(1).await, of(2).await), (150, 0, 40));
}

#[tokio::test]
async fn the_owner_of_a_shard_keeps_its_archive_by_itself() {
    let mut stage = Stage::start().await;
    assert!(stage.ingest.sigterm().await.success());
    // As if it had run in those days.
    insert(&stage.clickhouse, 120, 120, 1_000).await;
    let jetstream = stage.jetstream().await;
    let workspaces = async |bucket: &str| {
        let bucket = bucket.to_owned();
        let config = kv::Config { bucket, history: 1, ..kv::Config::default() };
        jetstream.create_or_update_key_value(config).await.unwrap()
    };
    let retention = pb::Retention {
        workspace_id: workspace(1).as_bytes().to_vec(),
        days: 60,
        chosen_at: Some(timestamp::to_proto(OffsetDateTime::now_utc())),
    };
    let bucket = workspaces(nats::RETENTIONS_BUCKET).await;
    bucket.put(workspace(1).to_string(), retention.encode_to_vec().into()).await.unwrap();
    stage.ingest.restart();
    stage.wait_ready().await;
    let text = async |stage: &Stage, sql: &str| stage.clickhouse.query(sql).await.trim().to_owned();
    eventually("days are archived", async || {
        text(&stage, "select sum(calls) from keymeter.daily_totals").await == (85 * 30).to_string()
    })
    .await;
    eventually("the choice is kept", async || {
        text(&stage, "select days from keymeter.retentions final").await == "60"
    })
    .await;
    assert!(stage.ingest.sigterm().await.success());
    stage.ingest.restart();
    stage.wait_ready().await;
    // Once a day, and at the start; the first time may have been before the archive.
    eventually("rows expire", async || {
        stage.clickhouse.query("optimize table keymeter.request_events final").await;
        text(&stage, "select countIf(workspace_id = '00000000-0000-7000-8000-000000000000'), count() from keymeter.request_events")
            .await
            == "900\t2400"
    })
    .await;
    let erasure = pb::Erasure {
        workspace_id: workspace(2).as_bytes().to_vec(),
        up_to: Some(timestamp::to_proto(OffsetDateTime::now_utc() + Duration::DAY)),
    };
    let bucket = workspaces(nats::ERASURES_BUCKET).await;
    bucket.put(workspace(2).to_string(), erasure.encode_to_vec().into()).await.unwrap();
    eventually("an erased workspace is in no total", async || {
        text(&stage, "select sum(calls) from keymeter.daily_archive").await == (85 * 20).to_string()
    })
    .await;
}

#[tokio::test]
async fn no_row_has_a_time_that_is_archived_already() {
    let mut stage = Stage::start().await;
    assert!(stage.ingest.sigterm().await.success());
    // A clock that was ahead, and a NATS that forgot.
    let pass = "insert into keymeter.archive_passes (shard, writer_epoch, pass, closed_day, through)
                select 1, 4000000000, 1, today() - 40, now64(3) + toIntervalHour(5)";
    stage.clickhouse.query(pass).await;
    stage.ingest.restart();
    stage.wait_ready().await;
    let mut edges = [Edge::new("edge_a", stage.jetstream().await)];
    let message = edges[0].spool(10);
    assert!(edges[0].publish(&message).await);
    stage.settle(&mut edges).await;
    let later = "select count() from keymeter.request_events
                 where ingested_at > (select min(through) from keymeter.archive_passes)";
    assert_eq!(stage.clickhouse.query(later).await, "10\n");
}
