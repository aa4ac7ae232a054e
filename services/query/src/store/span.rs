//! The span of one query, by its statement's name: neither the text nor a value is in it.

use http::Uri;
use trace::{
    KeyValue, Span, SpanBuilder, SpanKind,
    attribute::{
        DB_NAMESPACE, DB_OPERATION_NAME, DB_QUERY_SUMMARY, DB_RESPONSE_RETURNED_ROWS, DB_SYSTEM_NAME,
        SERVER_ADDRESS, SERVER_PORT,
    },
};

use crate::error::StoreError;

/// Where queries go.
#[derive(Debug, Clone)]
pub(super) struct Server {
    address: String,
    port: u16,
}

impl From<&Uri> for Server {
    fn from(url: &Uri) -> Self {
        let port = if url.scheme_str() == Some("https") { 8443 } else { 8123 };
        Self { address: url.host().unwrap_or_default().to_owned(), port: url.port_u16().unwrap_or(port) }
    }
}

impl Server {
    /// The span of asking it for what a statement says, if the call that needs it is sampled.
    pub(super) fn asked(&self, statement: &'static str) -> Option<Span> {
        Span::child(|| {
            SpanBuilder::from_name(statement).with_kind(SpanKind::Client).with_attributes([
                KeyValue::new(DB_SYSTEM_NAME, "clickhouse"),
                KeyValue::new(DB_NAMESPACE, "keymeter"),
                KeyValue::new(DB_OPERATION_NAME, "SELECT"),
                KeyValue::new(DB_QUERY_SUMMARY, statement),
                KeyValue::new(SERVER_ADDRESS, self.address.clone()),
                KeyValue::new(SERVER_PORT, i64::from(self.port)),
            ])
        })
    }
}

/// What came of it.
pub(super) fn answered<T>(span: Option<&Span>, answer: &Result<Vec<T>, StoreError>) {
    match (span, answer) {
        (Some(span), Ok(rows)) => {
            span.set(DB_RESPONSE_RETURNED_ROWS, i64::try_from(rows.len()).unwrap_or(i64::MAX));
        }
        (Some(span), Err(error)) => span.failed(error.label()),
        (None, _) => {}
    }
}
