//! gRPC through the edge: HTTP/2 on both sides, trailers, streams.

use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use parts::eventually;
use tonic::{Code, metadata::MetadataValue, transport::Server};
use tonic_health::{
    ServingStatus,
    pb::{HealthCheckRequest, health_client::HealthClient},
};

use crate::world::{EdgeProcess, World, get, serve};

const HTTP2: (&str, &str) = ("KEYMETER_EDGE_UPSTREAM_PROTOCOL", "http2");

#[tokio::test]
async fn calls_statuses_and_streams_of_grpc_pass() {
    let world = World::start().await;
    let key = world.key().await;
    let (reporter, health) = tonic_health::server::health_reporter();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = listener.local_addr().unwrap();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    tokio::spawn(Server::builder().add_service(health).serve_with_incoming(incoming));
    let edge = EdgeProcess::start(&world, api, &[HTTP2]).await;
    let channel = tonic::transport::Channel::from_shared(edge.url("")).unwrap().connect().await.unwrap();
    let secret: MetadataValue<_> = key.secret.reveal().parse().unwrap();
    let with_key = move |mut request: tonic::Request<()>| {
        request.metadata_mut().insert("x-api-key", secret.clone());
        Ok(request)
    };
    let mut client = HealthClient::with_interceptor(channel, with_key);
    reporter.set_service_status("orders", ServingStatus::Serving).await;
    let asked = |service: &str| HealthCheckRequest { service: service.to_owned() };
    assert_eq!(client.check(asked("orders")).await.unwrap().into_inner().status, 1);
    let error = client.check(asked("nothing")).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound, "the status is in the trailers");

    let mut watched = client.watch(asked("orders")).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status, 1);
    reporter.set_service_status("orders", ServingStatus::NotServing).await;
    assert_eq!(watched.message().await.unwrap().unwrap().status, 2, "the stream goes on");
    drop(watched);
    let events = eventually("the calls are on record", async || {
        let events: Vec<_> = world.events().await.into_values().collect();
        (events.len() == 3).then_some(events)
    })
    .await;
    assert!(events.iter().all(|event| event.path.starts_with("/grpc.health.v1.Health/")));
}

#[tokio::test]
async fn many_streams_share_few_connections_and_none_waits() {
    let world = World::start().await;
    let key = world.key().await;
    // Answers each piece while the request still goes on, and ends with a trailer.
    let back = async |request: axum::extract::Request| {
        let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "17".parse().unwrap())]);
        let pieces = request.into_body().into_data_stream();
        let pieces = futures_util::StreamExt::map(pieces, |piece| Ok::<_, axum::Error>(Frame::data(piece?)));
        let end = futures_util::stream::once(std::future::ready(Ok(Frame::trailers(trailers))));
        axum::response::Response::new(axum::body::Body::new(StreamBody::new(futures_util::StreamExt::chain(
            pieces, end,
        ))))
    };
    let api = serve(axum::Router::new().fallback(back)).await;
    let edge = EdgeProcess::start(&world, api, &[HTTP2, ("KEYMETER_EDGE_THREADS", "1")]).await;
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let mut calls = Vec::new();
    // More than the API takes on one connection.
    for number in 0..230 {
        let (pieces, sent) = tokio::sync::mpsc::channel::<Result<Frame<bytes::Bytes>, std::io::Error>>(1);
        let body = StreamBody::new(Box::pin(futures_util::stream::unfold(sent, async |mut sent| {
            Some((sent.recv().await?, sent))
        })));
        let request = Request::post(edge.url(&format!("/{number}"))).header("x-api-key", key.secret.reveal());
        pieces.send(Ok(Frame::data(number.to_string().into()))).await.unwrap();
        let mut answer = client.request(request.body(body).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 200);
        let first = answer.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(first.data_ref().unwrap(), &number.to_string());
        calls.push((pieces, answer));
    }
    for (pieces, answer) in calls {
        pieces.send(Ok(Frame::data("last".into()))).await.unwrap();
        drop(pieces);
        let rest = answer.into_body().collect().await.unwrap();
        assert_eq!(rest.trailers().unwrap()["x-sum"], "17");
        assert_eq!(rest.to_bytes(), "last");
    }
    assert_eq!(world.events_of(230).await.len(), 230);
}

#[tokio::test]
async fn http1_clients_reach_an_api_of_http2() {
    let world = World::start().await;
    let key = world.key().await;
    let edge = EdgeProcess::start(&world, serve(crate::world::echo()).await, &[HTTP2]).await;
    let response = crate::world::send(get(&edge.url("/x?y=z"), &key)).await;
    assert_eq!(response.status(), 200);
    let seen = crate::world::json(&response);
    let uri = seen["uri"].as_str().unwrap();
    assert!(uri.ends_with("/x?y=z") && uri.contains(&edge.addr), "the host stays the client's: {uri}");
    assert_eq!(seen["headers"]["x-forwarded-for"], "127.0.0.1");
}
