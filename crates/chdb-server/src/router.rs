//! Which request is what: probes, statements, or nothing. Reads a form; leaves every other body to the statement.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::{Method, Request as HttpRequest, Response, StatusCode, body::Incoming, header};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::{
    answer::{self, Body},
    exception::Exception,
    request::{self, Request, TEXT_BYTES_MAX},
    server::Server,
};

/// Answers one request.
///
/// # Errors
/// Never: every failure is an answer.
pub(crate) async fn answer(
    server: Arc<Server>,
    http: HttpRequest<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let probe = matches!(*http.method(), Method::GET | Method::HEAD) && http.uri().query().is_none();
    Ok(match (http.uri().path(), probe) {
        ("/" | "/ping" | "/replicas_status", true) => plain(StatusCode::OK, "Ok.\n"),
        ("/ping", false) => plain(StatusCode::OK, "Ok.\n"),
        ("/", false) => {
            let shared = server.clone();
            statement(server, http)
                .await
                .unwrap_or_else(|exception| answer::error(&exception, &shared.identity))
        }
        (path, _) => plain(
            StatusCode::NOT_FOUND,
            &format!(
                "There is no handle {path}\n\nUse / or /ping for health checks.\nSend queries from your client to POST method handler /\n"
            ),
        ),
    })
}

async fn statement(server: Arc<Server>, http: HttpRequest<Incoming>) -> Result<Response<Body>, Exception> {
    let (head, body) = http.into_parts();
    if !matches!(head.method, Method::GET | Method::POST) {
        return Err(Exception::not_implemented(format!(
            "method {} is not supported; use GET or POST",
            head.method
        )));
    }
    let mut request = Request::parse(&head.method, head.uri.query().unwrap_or_default(), &head.headers)?;
    let body = match request::boundary(&head.headers) {
        Some(boundary) => {
            request.add_form(&boundary, &form(body).await?)?;
            None
        }
        None => Some(body),
    };
    let id = request.query_id.clone().unwrap_or_else(|| Uuid::new_v4().to_string());
    let registration = server.register(&id)?;
    let (reply, answered) = oneshot::channel();
    // Its own task, so that it can end the statement when hyper drops this future because the client has gone.
    tokio::spawn(answer::run(registration, request, body, reply));
    answered.await.map_err(|_| Exception::new(1002, "the statement's task ended without an answer"))
}

async fn form(body: Incoming) -> Result<Bytes, Exception> {
    let body = Limited::new(body, TEXT_BYTES_MAX).collect().await;
    let collected = body.map_err(|error| {
        Exception::bad_arguments(format!(
            "the form can not be read ({error}); it may have {TEXT_BYTES_MAX} bytes"
        ))
    })?;
    Ok(collected.to_bytes())
}

fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(answer::full(text.to_owned().into_bytes()));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/html; charset=UTF-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
