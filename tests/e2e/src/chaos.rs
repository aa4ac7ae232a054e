//! The edge is killed at random, and NATS goes away, answers nothing and forgets: ClickHouse has each call that a client
//! saw answered, once. A few kills and seconds here; `tests/chaos` does it 200 times and for minutes.

use std::time::Duration;

use domain::RequestId;
use parts::{ClickHouse, Nats, Postgres, asked, say};

use crate::{link::Link, load::Load, stack::Stack};

/// Longest time between the edge being ready and its end.
const LIFE_MAX_MS: u64 = 400;
/// Of a client after each answer, so that the load is steady and times can be compared.
const PAUSE: Duration = Duration::from_millis(10);

fn random_below(limit: u64) -> u64 {
    let id = RequestId::generate();
    let random = id.as_bytes().last_chunk().unwrap();
    u64::from_be_bytes(*random) % limit
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_killed_at_random_loses_no_answered_call() {
    let kills = asked("KEYMETER_CHAOS_KILLS", 10);
    let mut stack = Stack::start().await;
    let key = stack.make_key("Killed").await;
    let load = Load::start(&stack.client(&key.secret));
    for kill in 1..=kills {
        // At least one call of each life is answered, and then it may end at any moment.
        load.one_more().await;
        tokio::time::sleep(Duration::from_millis(random_below(LIFE_MAX_MS))).await;
        stack.edge.kill().await;
        stack.edge.restart();
        if kill % 20 == 0 {
            say(&format!("{kill} of {kills} kills"));
        }
    }
    stack.ready().await;
    load.go_on().await;
    let answered = load.assert_counted_once(&stack).await;
    let interrupted = stack.number("select countIf(interrupted) from keymeter.request_events").await;
    say(&format!(
        "{kills} kills, {answered} answered calls, each once; {interrupted} events flagged interrupted"
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nats_that_is_silent_away_and_forgetful_costs_no_call() {
    // The part that NATS forgets is a fifth of its absence, as 2 minutes are of 10.
    let outage = Duration::from_secs(asked("KEYMETER_CHAOS_OUTAGE_S", 5));
    let (nats, postgres, clickhouse) = tokio::join!(Nats::start(), Postgres::start(), ClickHouse::start());
    let link = Link::start(&nats.url()).await;
    let edge = vec![
        ("KEYMETER_EDGE_NATS_URL", link.url().to_owned()),
        ("KEYMETER_EDGE_FEED_LOST_AFTER_S", "3600".to_owned()),
    ];
    let mut stack = Stack::start_with_edge(nats, postgres, clickhouse, edge).await;
    let key = stack.make_key("Steady").await;
    let load = Load::paced(&stack.client(&key.secret), PAUSE);
    load.go_on().await;
    let _warm_up = load.times();
    tokio::time::sleep(outage / 2).await;
    say_times("before", &load);

    link.lose_acks(true);
    parts::eventually("an acknowledgement is lost", async || link.lost_acks() > 0).await;
    tokio::time::sleep(outage / 5).await;
    say_times("acks lost", &load);
    link.lose_acks(false);

    let earlier = stack.nats.copy();
    tokio::time::sleep(outage / 5).await;
    load.go_on().await;
    stack.nats.kill().await;
    let _between = load.times();
    tokio::time::sleep(outage).await;
    load.go_on().await;
    say_times("NATS away", &load);
    stack.nats.put_back(&earlier);
    stack.nats.restart().await;
    load.go_on().await;
    stack.ready().await;
    say_times("NATS back, older", &load);
    let answered = load.assert_counted_once(&stack).await;
    say(&format!("{answered} answered calls, each once; {} acknowledgements lost", link.lost_acks()));
}

fn say_times(phase: &str, load: &Load) {
    let times = load.times();
    assert!(!times.is_empty(), "{phase}: no call was answered");
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    say(&format!("{phase}: {} calls, p50 {:?}, p99 {:?}, worst {:?}", times.len(), at(50), at(99), at(100)));
}
