//! The proxy alone, without keys and records: what the whole edge is measured against. Not in the product.

use std::rc::Rc;

use clap::Parser;
use domain::Id;
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    client::Handler,
    config,
    headers::{Asker, Believed},
    proxy::{self, AnswerBody, Proxy},
    server::Server,
};

struct Plain(Proxy<Incoming>);

impl Handler for Plain {
    type Body = AnswerBody<Incoming>;

    async fn answer(self: Rc<Self>, request: Request<Incoming>, asker: Rc<Asker>) -> Response<Self::Body> {
        let passed = self.0.pass(request, &asker).await;
        passed.unwrap_or_else(|problem| proxy::refusal(problem, Id::generate()))
    }
}

/// The settings of the product, so that both run with the same.
#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    proxy: config::Proxy,
}

/// Passes everything on to the API at `upstream`, as [`crate::run`] does with what it admits, until `shutdown`.
///
/// # Errors
/// If `upstream` is no address of an API, or a thread cannot be started.
pub async fn run(upstream: &Uri, listener: TcpListener, shutdown: &CancellationToken) -> anyhow::Result<()> {
    let settings = Settings::try_parse_from(["plain", "--upstream-url", &upstream.to_string()])?;
    let server = Server::start(settings.proxy.settings(None, Believed::default())?, Plain)?;
    tokio::select! {
        ended = server.serve(&listener) => ended?,
        () = shutdown.cancelled() => {}
    }
    drop(listener);
    server.stop(|| {}).await;
    Ok(())
}
