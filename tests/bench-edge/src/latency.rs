//! How long calls take at half of what nginx can do: what each proxy adds to a call of the API itself.

use std::time::Duration;

use figures::{Figures, median, say};

use crate::{
    servers::{Server, Servers},
    steady,
};

const ROUNDS: usize = 5;
const DURATION: Duration = Duration::from_secs(3);

pub(crate) fn measure(servers: &Servers, figures: &Figures, per_second: f64) -> anyhow::Result<()> {
    say(&format!(
        "latency at {per_second:.0} requests a second, half of nginx's rate, {ROUNDS} rounds of {} s; each timed from when it was due",
        DURATION.as_secs()
    ));
    let under_test: Vec<&Server> = [&servers.api].into_iter().chain(&servers.proxies).collect();
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        let mut times = vec![[0.0; 2]; under_test.len()];
        for place in 0..under_test.len() {
            let index = (place + round) % under_test.len();
            let sorted = tokio::task::block_in_place(|| {
                steady::latencies(&under_test[index].addr, &servers.authorization, per_second, DURATION)
            })?;
            times[index] = [50, 99].map(|percent| micros(sorted[sorted.len() * percent / 100]));
        }
        rounds.push(times);
    }
    for (index, server) in under_test.iter().enumerate() {
        for (which, percent) in [(0, 50), (1, 99)] {
            let value = median(rounds.iter().map(|times| times[index][which]).collect());
            figures.note(&format!("{}_p{percent}_us", server.name), value);
        }
    }
    let added = |index: usize, over: usize| {
        median(rounds.iter().map(|times| times[index][1] - times[over][1]).collect())
    };
    figures.note("nginx_added_p99_us", added(1, 0));
    figures.note("proxy_added_p99_us", added(2, 0));
    figures.note("edge_over_nginx_p99_us", added(3, 1));
    figures.note("added_p99_us", added(3, 0));
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a figure to be read")]
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}
