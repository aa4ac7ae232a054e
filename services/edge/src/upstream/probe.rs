//! Asks each address of the API whether it is healthy, with a request of its own that no key has and nobody
//! records.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, header::HOST, uri::PathAndQuery};
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{address::Protocol, connect::Connector, health::Health};

/// How long the answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// What is asked, and how often.
#[derive(Debug, Clone)]
pub struct Probing {
    /// A path of the API, without its base, that is answered with 2xx or 3xx while all is well.
    pub path: PathAndQuery,
    /// From one request to the next.
    pub interval: Duration,
}

/// Asks for ever.
pub(crate) async fn run(probing: Probing, protocol: Protocol, all: Vec<(Connector, Arc<Health>)>) {
    let mut tasks = JoinSet::new();
    for (connector, health) in all {
        let probing = probing.clone();
        tasks.spawn(async move {
            let mut ticks = interval(probing.interval);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let asked = timeout(ANSWER_TIMEOUT, ask(&connector, protocol, &probing.path)).await;
                match asked {
                    Ok(Ok(())) => health.probed(Ok(())),
                    Ok(Err(error)) => health.probed(Err(&error.to_string())),
                    Err(_) => health.probed(Err("no answer in time")),
                }
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

async fn ask(connector: &Connector, protocol: Protocol, path: &PathAndQuery) -> anyhow::Result<()> {
    let address = &connector.address;
    let io = TokioIo::new(connector.connect().await?);
    let request = Request::get(path.as_str()).header("user-agent", "keymeter-edge");
    let status = match protocol {
        Protocol::Http1 => {
            let (mut sender, connection) = http1::handshake(io).await?;
            let request = request.header(HOST, address.authority()).body(Empty::<Bytes>::new())?;
            // It ends with the answer, since the sender is dropped then.
            let (answer, _) = tokio::join!(
                async move { sender.send_request(request).await.map(|answer| answer.status()) },
                connection
            );
            answer?
        }
        Protocol::Http2 => {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            let mut request = request.body(Empty::<Bytes>::new())?;
            *request.uri_mut() = address.uri(request.uri(), address.authority().as_bytes())?;
            let (answer, _) = tokio::join!(
                async move { sender.send_request(request).await.map(|answer| answer.status()) },
                connection
            );
            answer?
        }
    };
    anyhow::ensure!(status.is_success() || status.is_redirection(), "it answers {status}");
    Ok(())
}
