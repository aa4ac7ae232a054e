//! A client of the API behind the edge, and what it remembers of its calls.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};

/// Calls the edge with one secret.
#[derive(Clone)]
pub(crate) struct Client {
    http: HttpClient<HttpConnector, Full<Bytes>>,
    edge: String,
    secret: String,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// What the edge calls this call.
    pub(crate) fn request_id(&self) -> String {
        self.headers["x-request-id"].to_str().unwrap().to_owned()
    }

    /// The body as a problem document.
    pub(crate) fn problem(&self) -> serde_json::Value {
        assert_eq!(self.headers["content-type"], "application/problem+json");
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Client {
    pub(crate) fn new(edge: &str, secret: &str) -> Self {
        let http = HttpClient::builder(TokioExecutor::new()).build_http();
        Self { http, edge: edge.to_owned(), secret: secret.to_owned() }
    }

    /// Makes one call and reads the whole answer; an error if the edge cut it short.
    pub(crate) async fn call(&self, method: Method, path: &str) -> Result<Answer, String> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.edge))
            .header("authorization", format!("Bearer {}", self.secret))
            .body(Full::default())
            .unwrap();
        let response = self.http.request(request).await.map_err(|error| error.to_string())?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    /// As [`Self::call`], for a call that must be answered.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path).await.unwrap()
    }
}
