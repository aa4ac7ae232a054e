//! An engine with the schema, the views as analysts have them, and rows of made-up workspaces (`deploy/clickhouse/rows.sql`).
//! Never the same data folder for two tests.

use clap::Parser as _;
use domain::WorkspaceId;
use ingest::{config::Config, schema, store::Store};
use parts::ClickHouse;

use super::users::{self, Rights};

const ROWS: &str = include_str!("../../../../../deploy/clickhouse/rows.sql");
/// Long past any expiry of the rows' own, which is never.
const DAY: &str = "2026-11-21";

/// A made-up workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tenant {
    pub(super) uuid: &'static str,
    /// All its rows say it.
    pub(super) marker: &'static str,
    /// Half of its rows.
    pub(super) calls: u32,
    pub(super) pass: u32,
}

/// Sorts before the other one.
pub(super) const SMALL: Tenant =
    Tenant { uuid: "00000000-0000-7000-8000-0000000000aa", marker: "marker_small", calls: 1_009, pass: 1 };
pub(super) const LARGE: Tenant =
    Tenant { uuid: "ffffffff-0000-7000-8000-ffffffffffff", marker: "marker_large", calls: 7_919, pass: 2 };

impl Tenant {
    pub(super) fn workspace(self) -> WorkspaceId {
        WorkspaceId::from_uuid(self.uuid.parse().expect("a UUID"))
    }

    fn rows(self) -> String {
        ROWS.replace("{workspace}", self.uuid)
            .replace("{marker}", self.marker)
            .replace("{calls}", &self.calls.to_string())
            .replace("{pass}", &self.pass.to_string())
            .replace("{at}", DAY)
    }
}

/// The engine with the schema and its views, and no policy; whoever asks may do all.
pub(super) async fn prepared() -> ClickHouse {
    let mut clickhouse = ClickHouse::start().await;
    let store = Store::new(&Config::parse_from(["ingest", "--clickhouse-url", &clickhouse.url()]))
        .expect("there is no identity");
    store.prepare().await.expect("the schema is made");
    clickhouse.restart_with_users(&users::file(SMALL.workspace(), Rights::Owner)).await;
    for sql in users::statements(SMALL.workspace()).iter().filter(|sql| sql.starts_with("alter table ")) {
        clickhouse.query(sql).await;
    }
    clickhouse
}

/// With the rows of these: in one part for all of them, and in parts of each.
pub(super) async fn filled(tenants: &[Tenant]) -> ClickHouse {
    let clickhouse = prepared().await;
    let statements = schema::statements(ROWS).count();
    for at in 0..statements {
        for tenant in tenants {
            let sql = tenant.rows();
            let sql = schema::statements(&sql).nth(at).expect("as many for each");
            clickhouse.query(sql).await;
        }
        if at == 0 {
            clickhouse.query("optimize table keymeter.request_events final").await;
        }
    }
    clickhouse
}
