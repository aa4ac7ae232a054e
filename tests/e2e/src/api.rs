//! The API behind the edge in these tests: answers with the status that the query string asks for, so that a
//! test knows what each call must count as.

use std::{collections::HashMap, net::SocketAddr};

use axum::{Router, extract::Query, http::StatusCode, response::IntoResponse};
use tokio::{net::TcpListener, runtime};

/// A running API, on a runtime of its own: with this value all of its connections end, kept-alive ones too.
pub(crate) struct Api {
    address: SocketAddr,
    runtime: Option<runtime::Runtime>,
}

impl Api {
    pub(crate) async fn start() -> Self {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let serve = async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(axum::serve(listener, Router::new().fallback(answer)).into_future());
            address
        };
        let address = runtime.spawn(serve).await.unwrap();
        Self { address, runtime: Some(runtime) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn answer(Query(query): Query<HashMap<String, String>>) -> impl IntoResponse {
    let status = query.get("status").and_then(|code| code.parse().ok()).unwrap_or(200);
    let status = StatusCode::from_u16(status).unwrap();
    let body = if status == StatusCode::NO_CONTENT { "" } else { "{\"answer\":\"from the API\"}" };
    (status, body)
}
