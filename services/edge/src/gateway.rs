//! What answers on a thread: our own paths under `/.keymeter/`, and behind Keymeter's layer the API.

use std::{convert::Infallible, rc::Rc};

use axum::Router;
use edge_layer::{Caller, EdgeLayer, Peer, RequestBody};
use http::{Request, Response, Uri};
use http_body_util::Either;
use hyper::body::Incoming;
use tower::ServiceExt as _;

use crate::{
    client::Handler,
    headers::Asker,
    proxy::{self, AnswerBody, Proxy},
};

/// Our own paths, `/.keymeter/healthz` and `/.keymeter/readyz`, so that all others are the API's.
const OWN_PATHS: &str = "/.keymeter";

/// The edge on one thread.
pub(crate) struct Gateway {
    pub(crate) layer: EdgeLayer,
    pub(crate) proxy: Proxy<RequestBody<Incoming>>,
    pub(crate) own: Router,
}

impl Handler for Gateway {
    type Body = Either<edge_layer::AnswerBody<AnswerBody<RequestBody<Incoming>>>, axum::body::Body>;

    async fn answer(
        self: Rc<Self>,
        mut request: Request<Incoming>,
        asker: Rc<Asker>,
    ) -> Response<Self::Body> {
        if let Some(path) = own_path(request.uri()) {
            *request.uri_mut() = path;
            return match Box::pin(self.own.clone().oneshot(request)).await {
                Ok(response) => response.map(Either::Right),
                Err(never) => match never {},
            };
        }
        request.extensions_mut().insert(Peer(asker.peer));
        let asker = &*asker;
        let proxy = &self.proxy;
        let pass = async |request: Request<RequestBody<Incoming>>| {
            let caller = request.extensions().get::<Caller>().copied();
            let request_id = caller.expect("the layer puts it there").request_id;
            let passed = proxy.pass(request, asker).await;
            Ok::<_, Infallible>(passed.unwrap_or_else(|problem| proxy::refusal(problem, request_id)))
        };
        self.layer.around(request, pass).await.map(Either::Left)
    }
}

/// What follows our own prefix.
fn own_path(uri: &Uri) -> Option<Uri> {
    let rest = uri.path().strip_prefix(OWN_PATHS)?;
    if rest.starts_with('/') { rest.parse().ok() } else { None }
}
