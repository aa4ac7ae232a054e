//! A collector of OpenTelemetry for tests: takes spans over gRPC as a real one does, and keeps them to be looked at.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::{
    Request, Response, Status,
    codec::CompressionEncoding,
    transport::{Certificate, Identity, Server, ServerTlsConfig, server::TcpIncoming},
};

use crate::Authority;

/// A running collector; it ends with this value.
pub struct Collector {
    addr: SocketAddr,
    received: Received,
    task: JoinHandle<()>,
}

/// A span as it was received; ids in hexadecimal digits, values as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenSpan {
    /// Of the process that sent it.
    pub resource: BTreeMap<String, String>,
    /// Metadata of the call that brought it.
    pub metadata: BTreeMap<String, String>,
    /// Its name.
    pub name: String,
    /// `Server`, `Client`, `Producer`, `Consumer` or `Internal`.
    pub kind: String,
    /// Its trace.
    pub trace_id: String,
    /// Its own id.
    pub span_id: String,
    /// The span in which it is; empty if there is none.
    pub parent_id: String,
    /// Trace and span of each link.
    pub links: Vec<(String, String)>,
    /// What it says of itself.
    pub attributes: BTreeMap<String, String>,
    /// Whether it went wrong.
    pub is_error: bool,
}

impl SeenSpan {
    /// The service that sent it.
    #[must_use]
    pub fn service(&self) -> &str {
        self.resource.get("service.name").map_or("", String::as_str)
    }

    /// An attribute; empty if there is none.
    #[must_use]
    pub fn attribute(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }
}

impl Collector {
    /// One without encryption.
    ///
    /// # Panics
    /// If it cannot be started.
    pub async fn start() -> Self {
        Self::serve(Server::builder()).await
    }

    /// One behind TLS that wants a certificate of `authority` and shows one.
    ///
    /// # Panics
    /// If it cannot be started.
    pub async fn start_tls(authority: &Authority) -> Self {
        let read = |path| std::fs::read(path).expect("it was just written");
        let (certificate, key) = authority.certify("collector");
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(read(certificate), read(key)))
            .client_ca_root(Certificate::from_pem(read(authority.ca())));
        Self::serve(Server::builder().tls_config(tls).expect("the certificate can be used")).await
    }

    async fn serve(mut server: Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let addr = listener.local_addr().expect("a listener has an address");
        let received = Received::default();
        let service = TraceServiceServer::new(received.clone()).accept_compressed(CompressionEncoding::Gzip);
        let serving = server.add_service(service).serve_with_incoming(TcpIncoming::from(listener));
        let task = tokio::spawn(async move { serving.await.expect("the collector serves") });
        Self { addr, received, task }
    }

    /// What `OTEL_EXPORTER_OTLP_ENDPOINT` is to be.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.addr.port()
    }

    /// All that it has received.
    #[must_use]
    pub fn spans(&self) -> Vec<SeenSpan> {
        self.received.spans().clone()
    }

    /// How many spans it has received.
    #[must_use]
    pub fn count(&self) -> usize {
        self.received.spans().len()
    }

    /// The first span that is one such, once it is there.
    ///
    /// # Panics
    /// If it does not come.
    pub async fn span(&self, what: &str, is_it: impl Fn(&SeenSpan) -> bool) -> SeenSpan {
        crate::eventually(what, async || self.received.spans().iter().find(|span| is_it(span)).cloned()).await
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone, Default)]
struct Received(Arc<Mutex<Vec<SeenSpan>>>);

impl Received {
    fn spans(&self) -> MutexGuard<'_, Vec<SeenSpan>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tonic::async_trait]
impl TraceService for Received {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let metadata = request.metadata().clone().into_headers();
        let metadata: BTreeMap<_, _> = metadata
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        for of_resource in request.into_inner().resource_spans {
            let resource = text(of_resource.resource.map(|resource| resource.attributes).unwrap_or_default());
            let spans = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.spans().extend(spans.map(|span| seen(span, resource.clone(), metadata.clone())));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn seen(span: Span, resource: BTreeMap<String, String>, metadata: BTreeMap<String, String>) -> SeenSpan {
    SeenSpan {
        resource,
        metadata,
        kind: format!("{:?}", SpanKind::try_from(span.kind).unwrap_or_default()),
        trace_id: hex(&span.trace_id),
        span_id: hex(&span.span_id),
        parent_id: hex(&span.parent_span_id),
        links: span.links.iter().map(|link| (hex(&link.trace_id), hex(&link.span_id))).collect(),
        attributes: text(span.attributes),
        is_error: span.status.is_some_and(|status| status.code() == StatusCode::Error),
        name: span.name,
    }
}

fn text(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let value = |of: KeyValue| match of.value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    attributes.into_iter().map(|of| (of.key.clone(), value(of))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
