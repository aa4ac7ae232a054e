//! What a cluster is told, as far as one engine without users can judge it: it parses every statement, makes every table
//! in a Keeper of its own, and takes rows by the same schema without replicas. Not run on a real cluster.

use clap::Parser as _;
use ingest::{
    config::Config,
    layout::Layout,
    schema::{self, MIGRATIONS, Migration, Refusal},
    store::{Store, StoreError},
};
use parts::ClickHouse;

#[tokio::test]
async fn the_engine_parses_every_statement_of_both() {
    let clickhouse = ClickHouse::start().await;
    for layout in [Layout::default(), Layout::new(Some("main".to_owned()))] {
        let all = MIGRATIONS.iter().flat_map(Migration::statements).chain(schema::statements(schema::NOTES));
        let access = ingest::analyst::statements(
            "analyst_0193a1b2-0000-7000-8000-0000000000ff",
            &"0".repeat(64),
            &layout,
        );
        let others = [
            format!("kill query{} where {} = 'x' async", layout.on_cluster(), layout.query_id_column()),
            format!("{} delete where 1", layout.alter("request_events")),
            format!("select count() from {}", layout.system("processes")),
        ];
        for sql in all.flat_map(|sql| layout.render(sql)).chain(access).chain(others) {
            clickhouse.query(&format!("explain ast {sql}")).await;
        }
        for (name, value) in layout.settings() {
            clickhouse.query(&format!("select 1 settings {name} = '{value}'")).await;
        }
    }
    assert!(clickhouse.try_query("explain ast create tabel x").await.is_err(), "it does judge");
}

/// The engine has no Keeper, so it gets as far as that a cluster's tables have an engine that wants one.
#[tokio::test]
async fn the_engine_knows_a_clusters_engines() {
    let clickhouse = ClickHouse::start().await;
    clickhouse.query("create database keymeter").await;
    let layout = Layout::new(Some("main".to_owned()));
    let mut tables = 0;
    for sql in MIGRATIONS.iter().flat_map(Migration::statements).flat_map(|sql| layout.render(sql)) {
        if sql.contains("engine = Replicated") {
            tables += 1;
            let error = clickhouse.try_query(&sql.replace(" on cluster 'main'", "")).await.unwrap_err();
            let wants_keeper = ["acro", "ZooKeeper", "Keeper"].iter().any(|word| error.contains(word));
            assert!(wants_keeper, "{sql}: {error}");
        }
    }
    assert_eq!(tables, 8);
}

/// A cluster of this engine alone, and a Keeper in its memory.
const ALONE: &str = "<zookeeper><implementation>testkeeper</implementation></zookeeper>
    <macros><shard>01</shard><replica>one</replica></macros>
    <default_replica_path>/clickhouse/tables/{database}/{table}/{shard}</default_replica_path>
    <tcp_port>9000</tcp_port>
    <remote_servers><main><shard><replica><host>127.0.0.1</host><port>9000</port></replica></shard></main></remote_servers>";

/// Every statement of a cluster's schema in its order, without the `on cluster` that this engine does not carry out.
fn statements() -> Vec<String> {
    let layout = Layout::new(Some("main".to_owned()));
    let all = schema::statements(schema::NOTES).chain(MIGRATIONS.iter().flat_map(Migration::statements));
    all.flat_map(|sql| layout.render(sql)).map(|sql| sql.replace(" on cluster 'main'", "")).collect()
}

/// Its replicated tables take no rows, since no replica of this engine ever becomes active; they are made, though.
#[tokio::test]
async fn the_engine_makes_every_table_of_a_cluster_in_a_keeper() {
    let clickhouse = ClickHouse::start_configured(ALONE).await;
    for sql in statements() {
        match clickhouse.try_query(&sql).await {
            // Of a table that is read-only, or of what such an alter would have made.
            Err(_) if sql.starts_with("alter table ") => {}
            answer => assert_eq!(answer.as_deref(), Ok(""), "{sql}"),
        }
    }
    let paths =
        "select table, zookeeper_path from system.replicas where database = 'keymeter' order by table";
    let paths = clickhouse.query(paths).await;
    assert!(
        paths.contains("request_events_local\t/clickhouse/tables/keymeter/request_events_local/01\n"),
        "{paths}"
    );
    assert!(paths.contains("writer_fence\t/clickhouse/tables/keymeter/writer_fence\n"), "{paths}");
    assert_eq!(paths.lines().count(), 9, "{paths}");
}

/// With engines that are not replicated all else of a cluster's schema is as on a cluster: what is written by
/// `request_events` lies in `request_events_local`, with its projections, and every change of the schema reached both.
#[tokio::test]
async fn rows_written_to_a_clusters_schema_are_read_from_it() {
    let clickhouse = ClickHouse::start_configured(ALONE).await;
    for sql in statements() {
        let mut sql = sql
            .replace("engine = Replicated", "engine = ")
            .replace(" replicated_dedup", " non_replicated_dedup");
        // The path and the name of a replica, which lead the arguments of such an engine.
        if let Some((before, rest)) = sql.split_once("('/clickhouse/tables/") {
            let (_, rest) = rest.split_once("{shard}_{replica}'").unwrap();
            sql = format!("{before}({}", rest.trim_start_matches(", "));
        }
        clickhouse.query(&sql).await;
    }
    let columns = |table: &str| {
        format!(
            "select name, type from system.columns where database = 'keymeter' and table = '{table}' order by name"
        )
    };
    for table in ["request_events", "daily_archive"] {
        let all = clickhouse.query(&columns(table)).await;
        assert_eq!(all, clickhouse.query(&columns(&format!("{table}_local"))).await, "{table}");
        assert!(!all.is_empty());
    }
    let insert = "insert into keymeter.request_events (workspace_id, key_id, request_id, occurred_at, ingested_at, method, \
        status_code, edge_id, boot_epoch, shard, edge_seq, writer_epoch) select generateUUIDv4(), generateUUIDv4(), \
        generateUUIDv4(), now64(3), now64(3), 'GET', 200, 'edge_a', 1, 0, number, 1 from numbers(1000)";
    let settings = Layout::new(Some("main".to_owned()));
    let settings: Vec<_> =
        settings.settings().iter().map(|(name, value)| format!("{name} = '{value}'")).collect();
    let settings = settings.join(", ");
    clickhouse.query(&format!("{insert} settings {settings}")).await;
    for table in ["request_events", "request_events_local"] {
        let sql = format!("select count(), uniqExact(edge_seq) from keymeter.{table} settings {settings}");
        assert_eq!(clickhouse.query(&sql).await, "1000\t1000\n", "{table}");
    }
    let projected = "select sum(calls) from (select method, count() as calls from keymeter.request_events_local group by \
        method) settings optimize_use_projections = 1, force_optimize_projection = 1";
    assert_eq!(clickhouse.query(projected).await, "1000\n");
    let raise = "insert into keymeter.writer_fence (shard, epoch) values (0, 9)";
    clickhouse.query(raise).await;
    let refused = clickhouse.try_query(&format!("{insert} settings {settings}")).await.unwrap_err();
    assert!(refused.contains("VIOLATED_CONSTRAINT") || refused.contains("469"), "{refused}");
}

#[tokio::test]
async fn a_schema_of_the_other_kind_or_of_somebody_else_is_refused() {
    let clickhouse = ClickHouse::start().await;
    let store = |more: &[&str]| {
        let url = clickhouse.url();
        let given = ["ingest", "--clickhouse-url", &url].into_iter().chain(more.iter().copied());
        Store::new(&Config::parse_from(given)).unwrap()
    };
    store(&[]).prepare().await.unwrap();
    store(&[]).prepare().await.unwrap();
    clickhouse
        .query("insert into keymeter.schema_migrations (version, name) values (4, 'something else')")
        .await;
    let refused = store(&[]).prepare().await.unwrap_err();
    assert!(matches!(refused, StoreError::Refused(Refusal::UnknownSchema { version: 4, .. })), "{refused}");
    let refused = store(&["--clickhouse-cluster", "main"]).prepare().await.unwrap_err();
    assert!(refused.to_string().contains("made for one server"), "{refused}");
    assert!(Config::try_parse_from(["ingest", "--clickhouse-cluster", "a'b"]).is_err());
}

/// The engine's only user may make no others, so this is as far as it goes.
#[tokio::test]
async fn a_missing_right_is_named_and_no_password_is_told() {
    let clickhouse = ClickHouse::start().await;
    let url = clickhouse.url();
    let workspace = domain::WorkspaceId::generate().to_string();
    for asked in [&["create", &workspace][..], &["drop", &workspace], &["list"]] {
        let mut command = std::process::Command::new(parts::binary("ingest"));
        let output = command.args(["analyst", "--clickhouse-url", &url]).args(asked).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("access_management"), "{said}");
        assert!(output.stdout.is_empty());
    }
}
