//! What a cluster is told, as far as one engine without Keeper and users can judge it: it parses every statement. Not
//! run on a real cluster.

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

#[tokio::test]
async fn a_schema_of_the_other_kind_or_of_somebody_else_is_refused() {
    let clickhouse = ClickHouse::start().await;
    let store = |more: &[&str]| {
        let url = clickhouse.url();
        let given = ["ingest", "--clickhouse-url", &url].into_iter().chain(more.iter().copied());
        Store::new(&Config::parse_from(given))
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
