//! The proxy alone, without keys and records: what the whole edge is measured against. Not in the product.

use std::rc::Rc;

use domain::Id;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    Serving,
    client::Handler,
    proxy::{self, AnswerBody, Asker, Proxy},
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

/// Passes everything on to the API, as [`crate::run`] does with what it admits, until `shutdown`.
///
/// # Errors
/// If a thread cannot be started.
pub async fn run(
    serving: Serving,
    listener: TcpListener,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let server = Server::start(serving, Plain)?;
    tokio::select! {
        ended = server.serve(&listener) => ended?,
        () = shutdown.cancelled() => {}
    }
    drop(listener);
    server.stop(|| {}).await;
    Ok(())
}
