//! What a Keymeter needs for 10,000 to 1,000,000 calls a second, from costs that were measured on one machine, and how
//! fresh its rows would be: the plan is played as a queue. It measures nothing, and knows no network, no disk and no
//! replicas of ClickHouse. The last line is one JSON object.

mod costs;
mod queue;
mod sizes;

use std::io::Write as _;

use figures::{Figures, say};

use queue::Queue;
use sizes::Plan;

/// Calls a second that a plan is made for.
const RATES: [f64; 5] = [10_000.0, 50_000.0, 100_000.0, 300_000.0, 1_000_000.0];

fn main() -> anyhow::Result<()> {
    let figures = Figures::new(&[]);
    for rate in RATES {
        let plan = Plan::of(rate);
        say(&format!("{rate} calls a second: {plan}"));
        let name = |what: &str| format!("{what}_at_{}k", (rate / 1e3).round());
        for (what, cores) in plan.cores() {
            figures.note(&name(&format!("{what}_cores")), cores);
        }
        figures.note(&name("network_mb_per_s_of_a_nats_server"), plan.nats_network_mb_per_s());
        figures.note(&name("clickhouse_gb_per_day"), plan.clickhouse_gb_per_day());
        figures.note(&name("spools_gb_per_hour_of_outage"), plan.spool_gb_per_hour());
        let steady = Queue::of(&plan).play(None);
        figures.note(&name("played_rows_an_insert"), steady.rows_an_insert);
        figures.note(&name("played_clickhouse_busy_percent"), 100.0 * steady.busy);
        figures.note(&name("played_merges_behind_s"), steady.merges_behind_s);
        figures.note(&name("played_freshness_p50_ms"), steady.late_ms(50));
        figures.note(&name("played_freshness_p99_ms"), steady.late_ms(99));
        let killed = Queue::of(&plan).play(Some(queue::KILLED_AT_MS));
        figures.note(&name("played_freshness_worst_ms_if_an_ingest_dies"), killed.late_ms(100));
        figures.note(&name("played_caught_up_after_ms"), killed.caught_up_after_ms());
    }
    Ok(writeln!(std::io::stdout(), "{}", figures.json())?)
}
