//! How many of what, for a rate of calls: arithmetic on the costs. A plan uses at most a part of every core, so that the
//! loss of one of several is borne by the others.

use std::fmt;

use crate::costs::{
    EDGE_US, EVENT_BYTES, INGEST_US, INSERT_US, MERGE_BASE, MERGE_US, NATS_US, PART_ROWS_MAX, REPLICAS,
    ROW_BYTES, ROW_US, SPOOL_BYTES,
};

/// How busy a core is meant to be.
const BUSY: f64 = 0.5;
/// Cores of one machine of each kind.
const EDGE_CORES: f64 = 8.0;
const INGEST_CORES: f64 = 2.0;
pub(crate) const CLICKHOUSE_CORES: f64 = 16.0;
/// Events a second of one shard: its stream has one leader, and its worker one insert at a time.
const SHARD_EVENTS_PER_S: f64 = 60_000.0;
/// Between two inserts of a process; under more load they come as fast as ClickHouse takes them.
const BATCH_S: f64 = 0.3;
const DAYS_OF_A_MONTH: f64 = 30.0;
const SECONDS_OF_A_DAY: f64 = 86_400.0;

/// A Keymeter for a rate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Calls a second.
    pub(crate) rate: f64,
    /// `KEYMETER_INGEST_SHARDS`.
    pub(crate) shards: f64,
    /// Processes, two at least.
    pub(crate) edges: f64,
    pub(crate) ingests: f64,
    /// Shards of ClickHouse, beside the replicas of each.
    pub(crate) clickhouses: f64,
}

impl Plan {
    pub(crate) fn of(rate: f64) -> Self {
        let machines = |cores: f64, of_one: f64| (cores / BUSY / of_one).ceil();
        let ingests = machines(rate * INGEST_US / 1e6, INGEST_CORES).max(2.0);
        let mut plan = Self {
            rate,
            shards: (rate / SHARD_EVENTS_PER_S).ceil().max(4.0).max(2.0 * ingests),
            edges: machines(rate * EDGE_US / 1e6, EDGE_CORES).max(2.0),
            ingests,
            clickhouses: 1.0,
        };
        // More servers mean smaller inserts on each, so that their number follows from itself.
        while plan.clickhouse_cores() > BUSY * CLICKHOUSE_CORES * plan.clickhouses {
            plan.clickhouses += 1.0;
        }
        plan
    }

    /// Cores that are busy, by part.
    pub(crate) fn cores(&self) -> [(&'static str, f64); 4] {
        [
            ("edge", self.rate * EDGE_US / 1e6),
            ("nats", self.rate * NATS_US * REPLICAS / 1e6),
            ("ingest", self.rate * INGEST_US / 1e6),
            ("clickhouse", self.clickhouse_cores()),
        ]
    }

    /// Rows of one insert on one server of ClickHouse, as long as that keeps up.
    fn rows_an_insert(&self) -> f64 {
        (self.rate / self.ingests * BATCH_S / self.clickhouses).max(1.0)
    }

    /// How often a row is merged before its part is as large as parts become, or its month is over.
    pub(crate) fn merges_a_row(&self, rows_an_insert: f64) -> f64 {
        let month = self.rate / self.clickhouses * SECONDS_OF_A_DAY * DAYS_OF_A_MONTH;
        (month.min(PART_ROWS_MAX) / rows_an_insert).log(MERGE_BASE).max(1.0)
    }

    fn clickhouse_cores(&self) -> f64 {
        let rows = self.rows_an_insert();
        // Each insert is a piece on every server.
        let a_row = ROW_US + INSERT_US / rows + MERGE_US * self.merges_a_row(rows);
        self.rate * a_row / 1e6
    }

    /// In and out of one server of NATS: publishers' and readers' part of a third of the streams, the copies that it
    /// makes of those and that it gets of others.
    pub(crate) fn nats_network_mb_per_s(&self) -> f64 {
        let all = self.rate * EVENT_BYTES / 1e6;
        let (of_clients, of_copies) = (2.0 * all / REPLICAS, 2.0 * all * (REPLICAS - 1.0) / REPLICAS);
        of_clients + of_copies
    }

    /// Of one replica.
    pub(crate) fn clickhouse_gb_per_day(&self) -> f64 {
        self.rate * SECONDS_OF_A_DAY * ROW_BYTES / 1e9
    }

    /// Of all edges, while NATS or ClickHouse is away.
    pub(crate) fn spool_gb_per_hour(&self) -> f64 {
        self.rate * 3_600.0 * SPOOL_BYTES / 1e9
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shards, edges, ingests, clickhouses, .. } = self;
        write!(
            f,
            "{shards} shards, {edges} edges of {EDGE_CORES} cores, {ingests} ingests of {INGEST_CORES}, {clickhouses} \
             ClickHouse shards of {CLICKHOUSE_CORES}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_leaves_room_and_grows_with_its_rate() {
        let plans = [10_000.0, 100_000.0, 1_000_000.0].map(Plan::of);
        for plan in plans {
            let [(_, edge), _, (_, ingest), (_, clickhouse)] = plan.cores();
            assert!(edge <= BUSY * EDGE_CORES * plan.edges && ingest <= BUSY * INGEST_CORES * plan.ingests);
            assert!(clickhouse <= BUSY * CLICKHOUSE_CORES * plan.clickhouses);
            assert!(plan.edges >= 2.0 && plan.ingests >= 2.0 && plan.shards >= plan.ingests);
            assert!(plan.rate / plan.shards <= SHARD_EVENTS_PER_S);
        }
        assert!(plans.windows(2).all(|pair| pair[0].cores()[3].1 < pair[1].cores()[3].1));
    }
}
