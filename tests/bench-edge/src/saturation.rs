//! As many requests as each server takes, at several numbers of connections; they take turns, so that whatever else
//! the machine does falls on all alike.

use figures::{Figures, median, process::cpu_s, say};

use crate::{servers::Servers, wrk};

const CONNECTIONS: [usize; 3] = [16, 64, 256];
const ROUNDS: usize = 3;
const SECONDS: u64 = 4;
/// Before anything counts, in seconds.
const WARM_UP_S: u64 = 2;

/// What one server did in one turn.
#[derive(Clone, Copy, Default)]
struct Turn {
    requests_per_s: f64,
    cpu_us: f64,
}

/// Returns the requests a second of nginx.
pub(crate) async fn measure(servers: &Servers, figures: &Figures) -> anyhow::Result<f64> {
    say(&format!("saturation, {ROUNDS} rounds of {SECONDS} s for each server and number of connections"));
    for index in 0..3 {
        turn(servers, index, CONNECTIONS[1], WARM_UP_S).await?;
    }
    say(&format!("  {:>11} {:>6} {:>12} {:>12} {:>12}", "connections", "", "nginx", "proxy", "edge"));
    let mut by_connections = Vec::new();
    for connections in CONNECTIONS {
        let mut rounds = Vec::new();
        for round in 0..ROUNDS {
            let mut turns = [Turn::default(); 3];
            for place in 0..3 {
                let index = (place + round) % 3;
                turns[index] = turn(servers, index, connections, SECONDS).await?;
            }
            rounds.push(turns);
        }
        let of = |index: usize, value: fn(&Turn) -> f64| {
            median(rounds.iter().map(|turns| value(&turns[index])).collect())
        };
        let rates = [0, 1, 2].map(|index| of(index, |turn| turn.requests_per_s));
        let cpu = [0, 1, 2].map(|index| of(index, |turn| turn.cpu_us));
        // Of servers in the same round, which the machine treated alike.
        let ratio =
            median(rounds.iter().map(|turns| turns[2].requests_per_s / turns[0].requests_per_s).collect());
        say(&format!(
            "  {connections:>11} {:>6} {:>12.0} {:>12.0} {:>12.0}",
            "req/s", rates[0], rates[1], rates[2]
        ));
        say(&format!("  {:>11} {:>6} {:>12.2} {:>12.2} {:>12.2}", "", "cpu us", cpu[0], cpu[1], cpu[2]));
        figures.note(&format!("ratio_to_nginx_at_{connections}"), ratio);
        by_connections.push((rates, cpu, ratio));
    }
    let best = |index: usize| by_connections.iter().map(|(rates, ..)| rates[index]).fold(0.0, f64::max);
    let cpu = |index: usize| median(by_connections.iter().map(|(_, cpu, _)| cpu[index]).collect());
    for (index, server) in servers.proxies.iter().enumerate() {
        figures.note(&format!("{}_rps", server.name), best(index));
    }
    figures.note("ratio_to_nginx", median(by_connections.iter().map(|(.., ratio)| *ratio).collect()));
    for (index, server) in servers.proxies.iter().enumerate() {
        figures.note(&format!("{}_cpu_us", server.name), cpu(index));
    }
    figures.note("edge_over_proxy_cpu_percent", (cpu(2) / cpu(1) - 1.0) * 100.0);
    Ok(best(0))
}

async fn turn(servers: &Servers, index: usize, connections: usize, seconds: u64) -> anyhow::Result<Turn> {
    let server = &servers.proxies[index];
    let url = format!("http://{}/v1/orders/17", server.addr);
    let before = cpu_s(server.pid)?;
    let requests_per_s = wrk::requests_per_second(&url, &servers.authorization, connections, seconds).await?;
    #[expect(clippy::cast_precision_loss, reason = "seconds are few")]
    let requests = requests_per_s * seconds as f64;
    Ok(Turn { requests_per_s, cpu_us: (cpu_s(server.pid)? - before) * 1e6 / requests })
}
