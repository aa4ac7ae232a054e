//! Asking the provider: one HTTP request, with a limit on its answer, its time and how many run at once. Follows no
//! redirects.

use bytes::Bytes;
use data_encoding::BASE64;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use tokio::{sync::Semaphore, time::timeout};

/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Longest time for one answer, with the wait for a turn. A sign-in asks at most four times, and most often once.
const ANSWER_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(3);
/// How many requests run at once: what strangers can make us send is bounded.
const AT_ONCE: usize = 16;

/// Speaks HTTPS, and HTTP where the address says so.
pub(super) struct Web {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    turns: Semaphore,
}

/// The provider gave no answer that can be read.
#[derive(Debug, thiserror::Error)]
#[error("the OpenID Connect provider is of no use: {0}")]
pub struct Away(String);

impl Away {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl Web {
    pub(super) fn new() -> anyhow::Result<Self> {
        let connector =
            HttpsConnectorBuilder::new().with_native_roots()?.https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { client, turns: Semaphore::new(AT_ONCE) })
    }

    /// What JSON is at an address.
    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        address: &Uri,
        bearer: Option<&SecretString>,
    ) -> Result<T, Away> {
        let mut request = super::request(Method::GET, address);
        if let Some(token) = bearer {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.expose_secret()));
        }
        let request = request.body(Full::default()).map_err(|_| Away::new("no such request"))?;
        let (status, body) = self.send(request).await?;
        if status != StatusCode::OK {
            return Err(Away::new(format!("{address} answers {}", status.as_u16())));
        }
        serde_json::from_slice(&body).map_err(|error| Away::new(format!("{address}: {error}")))
    }

    /// The answer to one request, whole.
    pub(super) async fn send(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), Away> {
        let address = request.uri().clone();
        let answered = async {
            let _turn = self.turns.acquire().await.map_err(|error| error.to_string())?;
            let response = self.client.request(request).await.map_err(|error| innermost(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            Ok::<_, String>((status, body.map_err(|error| innermost(error.as_ref()))?.to_bytes()))
        };
        match timeout(ANSWER_TIMEOUT, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(why)) => Err(Away(format!("{address}: {why}"))),
            Err(_) => Err(Away(format!("{address}: no answer in {ANSWER_TIMEOUT:?}"))),
        }
    }
}

/// What a client proves itself with (RFC 6749, 2.3.1).
pub(super) fn basic(id: &str, secret: &str) -> String {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    format!("Basic {}", BASE64.encode(format!("{}:{}", encoded(id), encoded(secret)).as_bytes()))
}

/// Says more than `client error (Connect)`.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_proves_itself_whatever_is_in_its_secret() {
        // base64 of `a+b:p%3Aw%25`
        assert_eq!(basic("a b", "p:w%"), "Basic YStiOnAlM0F3JTI1");
    }
}
