//! The one place where calls are let in: looks up the RPC's row in the table, checks the access token, and puts
//! [`Claims`] into the request's extensions. Knows no service behind it.

use std::task::{Context, Poll};

use futures_util::future::{Either, Ready, ready};
use http::{Request, Response};
use time::OffsetDateTime;
use tonic::{Status, metadata::MetadataMap};
use tower::{Layer, Service};

use crate::{
    Claims, Verifier,
    table::{Who, who},
};

/// Puts a [`Gate`] before every service of a server.
#[derive(Clone)]
pub struct GateLayer {
    verifier: Verifier,
}

/// Lets in what the table allows.
#[derive(Clone)]
pub struct Gate<S> {
    inner: S,
    verifier: Verifier,
}

impl GateLayer {
    /// Checks tokens with `verifier`.
    #[must_use]
    pub const fn new(verifier: Verifier) -> Self {
        Self { verifier }
    }
}

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Gate<S> {
        Gate { inner, verifier: self.verifier.clone() }
    }
}

impl<S, B, R> Service<Request<B>> for Gate<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match admit(&self.verifier, &request, OffsetDateTime::now_utc()) {
            Ok(claims) => {
                request.extensions_mut().extend(extensions(claims));
                Either::Left(self.inner.call(request))
            }
            Err(status) => Either::Right(ready(Ok(status.into_http()))),
        }
    }
}

fn extensions(claims: Option<Claims>) -> http::Extensions {
    let mut extensions = http::Extensions::new();
    if let Some(claims) = claims {
        extensions.insert(claims);
    }
    extensions
}

/// Who calls; `None` where everybody may, or an edge does, which has no workspace.
fn admit<B>(
    verifier: &Verifier,
    request: &Request<B>,
    now: OffsetDateTime,
) -> Result<Option<Claims>, Status> {
    let who = who(request.uri().path())?;
    if who == Who::Public {
        return Ok(None);
    }
    let metadata = MetadataMap::from_headers(request.headers().clone());
    if who == Who::Edges {
        verifier.authenticate_edge_at(&metadata, now)?;
        return Ok(None);
    }
    let claims = verifier.authenticate_at(&metadata, now)?;
    who.admit(&claims, now)?;
    Ok(Some(claims))
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use tonic::{Code, body::Body};
    use tower::{ServiceExt as _, service_fn};

    use super::*;
    use crate::{
        Role,
        verifier::tests::{key, taught},
    };

    /// Calls a gate before a service that answers everything with who it was told calls.
    async fn call(
        path: &str,
        token: Option<&str>,
        verifier: Verifier,
    ) -> (Result<Option<Role>, Code>, usize) {
        let reached = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&reached);
        let behind = service_fn(move |request: Request<Body>| {
            count.fetch_add(1, Ordering::Relaxed);
            let mut response = Response::new(Body::default());
            if let Some(claims) = request.extensions().get::<Claims>() {
                response.extensions_mut().insert(claims.role);
            }
            ready(Ok::<_, Infallible>(response))
        });
        let mut request = Request::builder().uri(format!("http://host{path}"));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Body::default()).unwrap();
        let response = GateLayer::new(verifier).layer(behind).oneshot(request).await.unwrap();
        let answer = match Status::from_header_map(response.headers()) {
            Some(status) => Err(status.code()),
            None => Ok(response.extensions().get::<Role>().copied()),
        };
        (answer, reached.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn only_what_the_table_allows_reaches_the_service() {
        let (verifier, sign) = taught();
        let (owner, viewer) = (sign(Role::Owner), sign(Role::Viewer));
        let keys = "/keymeter.keys.v1.KeysService";
        for (path, token, expected) in [
            (format!("{keys}/CreateKey"), Some(&owner), Ok(Some(Role::Owner))),
            (format!("{keys}/CreateKey"), Some(&viewer), Err(Code::PermissionDenied)),
            (format!("{keys}/ListKeys"), Some(&viewer), Ok(Some(Role::Viewer))),
            (format!("{keys}/WatchKeys"), Some(&owner), Err(Code::PermissionDenied)),
            (format!("{keys}/WatchKeys"), None, Err(Code::Unauthenticated)),
            (format!("{keys}/ListKeys"), None, Err(Code::Unauthenticated)),
            (format!("{keys}/ListKeys"), Some(&"x".to_owned()), Err(Code::Unauthenticated)),
            // Served or not: an RPC without a row is not reached, by nobody.
            (format!("{keys}/DropEverything"), Some(&owner), Err(Code::Unimplemented)),
            ("/keymeter.keys.v1.SessionsService/SignIn".to_owned(), None, Ok(None)),
            ("/grpc.health.v1.Health/Check".to_owned(), None, Ok(None)),
        ] {
            let (answer, reached) = call(&path, token.map(String::as_str), verifier.clone()).await;
            assert_eq!((answer, reached), (expected, usize::from(expected.is_ok())), "{path}");
        }
    }

    #[tokio::test]
    async fn an_edge_reaches_what_is_for_edges_and_nothing_else() {
        let (signer, public) = key("a");
        let now = OffsetDateTime::now_utc();
        let edge = signer.sign_edge_token(now + crate::LIFETIME, now);
        let verifier = Verifier::default();
        verifier.replace(&[public]);
        for row in crate::table::TABLE.iter().filter(|row| row.who != Who::Public) {
            let (answer, reached) = call(&format!("/{}", row.rpc), Some(&edge), verifier.clone()).await;
            let is_for_edges = row.who == Who::Edges;
            let expected = if is_for_edges { Ok(None) } else { Err(Code::Unauthenticated) };
            assert_eq!((answer, reached), (expected, usize::from(is_for_edges)), "{}", row.rpc);
        }
    }
}
