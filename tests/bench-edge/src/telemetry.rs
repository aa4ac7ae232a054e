//! What telemetry costs the edge: three edges before one API, with all of it off, as it is by default (metrics and no
//! traces), and with one of a hundred calls traced, whose spans go to a collector on this machine. In turns.

use std::fs;

use figures::{Asked, Figures, median, process::cpu_s, say};
use parts::{Collector, Nats, free_port};

use crate::{api_key, nginx::Nginx, servers, wrk};

/// What is asked of figures.
pub(crate) const ASKED: &[(&str, Asked)] = &[
    ("edge_default_slower_percent", Asked::AtMost(5.0)),
    ("edge_traced_slower_percent", Asked::AtMost(5.0)),
];
const MODES: [&str; 3] = ["off", "default", "traced"];
const CONNECTIONS: usize = 64;
/// Before anything counts, in seconds.
const WARM_UP_S: u64 = 2;

/// Measures so many rounds of so many seconds.
pub(crate) async fn measure(figures: &Figures, seconds: u64, rounds: usize) -> anyhow::Result<()> {
    say(&format!(
        "telemetry: {rounds} rounds of {seconds} s, {CONNECTIONS} connections, one call of 100 traced"
    ));
    let mut api = Nginx::api()?;
    api.ready().await?;
    let (nats, collector) = (Nats::start().await, Collector::start().await);
    let authorization = format!("Bearer {}", api_key::make(&nats.url()).await?.reveal());
    let (upstream, collector_url) = (format!("http://{}", api.addr), collector.url());
    let traced = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector_url.as_str()),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.01"),
    ];
    let settings: [&[(&str, &str)]; 3] = [&[("OTEL_SDK_DISABLED", "true")], &[], &traced];
    let mut edges = Vec::new();
    for more in settings {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("feed-keys"), api_key::feed_keys())?;
        let [addr, health] = std::array::from_fn(|_| format!("127.0.0.1:{}", free_port()));
        let edge = servers::edge(&addr, &health, &upstream, &nats.url(), folder.path(), more).await;
        edges.push((format!("http://{addr}/v1/orders/17"), edge, folder));
    }
    let mut turns: [Vec<(f64, f64)>; 3] = Default::default();
    for round in 0..=rounds {
        for place in 0..MODES.len() {
            let mode = (place + round) % MODES.len();
            let (url, edge, _) = &edges[mode];
            let seconds = if round == 0 { WARM_UP_S } else { seconds };
            let before = cpu_s(edge.pid())?;
            let rate = wrk::requests_per_second(url, &authorization, CONNECTIONS, seconds).await?;
            #[expect(clippy::cast_precision_loss, reason = "seconds are few")]
            let cpu_us = (cpu_s(edge.pid())? - before) * 1e6 / (rate * seconds as f64);
            if round > 0 {
                turns[mode].push((rate, cpu_us));
            }
        }
    }
    let of = |mode: usize, value: fn(&(f64, f64)) -> f64| median(turns[mode].iter().map(value).collect());
    for (mode, name) in MODES.iter().enumerate() {
        figures.note(&format!("edge_{name}_rps"), of(mode, |turn| turn.0));
        figures.note(&format!("edge_{name}_cpu_us"), of(mode, |turn| turn.1));
    }
    for (mode, name) in MODES.iter().enumerate().skip(1) {
        let slower = (1.0 - of(mode, |turn| turn.0) / of(0, |turn| turn.0)) * 100.0;
        figures.note(&format!("edge_{name}_slower_percent"), slower);
    }
    #[expect(clippy::cast_precision_loss, reason = "a figure to be read")]
    figures.note("edge_spans_received", collector.count() as f64);
    Ok(())
}
