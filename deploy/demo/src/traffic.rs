//! A trickle of calls through the edge, from several keys at once, until it is asked to stop. A caller whose key
//! was deleted goes on calling, as real ones do.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client, connect::Connect},
    rt::TokioExecutor,
};
use tokio::time::{sleep, timeout};

use crate::{
    callers::{CALLERS, Call, Caller},
    dice::Dice,
    keyring::{self, HeldKey},
    stop_signal,
};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Wait after a call that found no edge.
const PAUSE_WITHOUT_EDGE: Duration = Duration::from_secs(2);

/// Settings of the trickle.
#[derive(Debug, clap::Args)]
pub struct Config {
    /// Where the edge is.
    #[arg(long, env = "KEYMETER_DEMO_EDGE_URL", default_value = "http://127.0.0.1:8081")]
    edge_url: String,
    /// File with the keys of the callers, made by `setup`.
    #[arg(long, env = "KEYMETER_DEMO_KEYS_FILE")]
    keys_file: PathBuf,
    /// Mean time between two calls, over all callers, in milliseconds.
    #[arg(long, env = "KEYMETER_DEMO_PAUSE_MS", default_value_t = 400)]
    pause_ms: u64,
    /// Where chance starts; the same seed makes the same calls.
    #[arg(long, env = "KEYMETER_DEMO_SEED", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    identity: tls::Settings,
}

/// Calls until SIGTERM or SIGINT.
///
/// # Errors
/// If the keys are missing.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let held = keyring::read(&config.keys_file)?;
    let callers: Vec<_> = active(&held).collect();
    if callers.is_empty() {
        bail!("no keys in {}; run `demo setup` first", config.keys_file.display());
    }
    let (pause_ms, dice, url) = (config.pause_ms, Dice::new(config.seed), config.edge_url);
    let calling = async {
        match config.identity.identity()? {
            Some(identity) => {
                let client = identity.http_client("KEYMETER_DEMO_EDGE_URL", &url)?;
                trickle(&Edge { client, url }, &callers, pause_ms, dice).await
            }
            None => {
                let client = Client::builder(TokioExecutor::new()).build_http();
                trickle(&Edge { client, url }, &callers, pause_ms, dice).await
            }
        }
    };
    tokio::select! {
        ended = calling => ended,
        signal = stop_signal() => Ok(signal?),
    }
}

/// The callers that still call, with their keys and how often they do.
fn active(held: &[HeldKey]) -> impl Iterator<Item = ((&'static Caller, &HeldKey), u32)> {
    CALLERS.iter().filter(|caller| caller.silent_days == 0).filter_map(|caller| {
        let key = held.iter().find(|key| key.display_name == caller.display_name)?;
        Some(((caller, key), caller.calls_per_day))
    })
}

async fn trickle<C: Connect + Clone + Send + Sync + 'static>(
    edge: &Edge<C>,
    callers: &[((&'static Caller, &HeldKey), u32)],
    pause_ms: u64,
    mut dice: Dice,
) -> anyhow::Result<()> {
    loop {
        sleep(Duration::from_millis(dice.below(2 * pause_ms.max(1)))).await;
        let (caller, key) = *dice.choose(callers);
        let call = caller.call(&mut dice);
        let answers = join_all((0..call.burst).map(|_| edge.send(caller, key, &call))).await;
        if let Some(error) = answers.into_iter().find_map(Result::err) {
            tracing::warn!("the edge does not answer: {error:#}");
            sleep(PAUSE_WITHOUT_EDGE).await;
        }
    }
}

struct Edge<C> {
    client: Client<C, Full<Bytes>>,
    url: String,
}

impl<C: Connect + Clone + Send + Sync + 'static> Edge<C> {
    /// Sends one call and reads its answer, whatever it is.
    async fn send(&self, caller: &Caller, key: &HeldKey, call: &Call) -> anyhow::Result<()> {
        let request = Request::builder()
            .method(call.method)
            .uri(format!("{}{}", self.url, call.path_and_query))
            .header(header::AUTHORIZATION, format!("Bearer {}", key.secret))
            .header(header::USER_AGENT, caller.user_agent)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(call.body.clone()))?;
        let answer = async { anyhow::Ok(self.client.request(request).await?.into_body().collect().await?) };
        timeout(PATIENCE, answer).await.context("no answer in time")??;
        Ok(())
    }
}
