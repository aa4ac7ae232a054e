//! A stream of a service as a file: passed on as it comes, never held as a whole.

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

use crate::{metrics, problem::Service, visit::Reference};

/// The kind of a file of JSON objects, one a line.
pub(crate) const NDJSON: &str = "application/x-ndjson; charset=utf-8";

/// The answer that saves `chunks` under `name`, which must be plain. A failure on the way cuts the answer off, so that
/// no browser takes half of it for the whole.
pub(crate) fn file(
    service: Service,
    (name, kind): (&str, &'static str),
    chunks: impl Stream<Item = Result<Bytes, Status>> + Send + 'static,
    reference: Reference,
) -> Response {
    let chunks = chunks.map(move |chunk| {
        chunk.inspect_err(|status| {
            let service = service.name();
            metrics::call_failed(service, status.code());
            let (code, message) = (status.code(), status.message());
            tracing::warn!(service, rpc.code = ?code, rpc.message = message, request.reference = %reference, "a download was cut off");
        })
    });
    let disposition = HeaderValue::try_from(format!("attachment; filename=\"{name}\""));
    let disposition = disposition.unwrap_or(HeaderValue::from_static("attachment"));
    let head =
        [(header::CONTENT_TYPE, HeaderValue::from_static(kind)), (header::CONTENT_DISPOSITION, disposition)];
    (head, Body::from_stream(chunks)).into_response()
}
