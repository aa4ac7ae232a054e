//! What passes through: versions, streams, trailers, upgrades, and what clients can do wrong.

use std::{collections::BTreeMap, net::SocketAddr};

use axum::{Router, body::Body, routing::post};
use bytes::Bytes;
use domain::Origin;
use futures_util::StreamExt as _;
use http::{HeaderMap, Request, Version};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::world::{EdgeProcess, Key, World, echo, get, send, serve};

#[tokio::test]
async fn http2_is_served_beside_http1() {
    let world = World::start().await;
    let key = world.key().await;
    let edge = EdgeProcess::start(&world, serve(echo()).await, &[]).await;
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Full<Bytes>>();
    for number in 0..20 {
        let response = client.request(get(&edge.url(&format!("/h2/{number}")), &key)).await.unwrap();
        assert_eq!((response.status().as_u16(), response.version()), (200, Version::HTTP_2));
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let seen: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(seen["headers"]["host"], edge.addr, "HTTP/2 has the host in the address");
    }
    let events = world.events_of(20).await;
    assert!(events.iter().all(|event| event.route == "/h2/{id}" && event.response_bytes > 0));
}

#[tokio::test]
async fn bodies_and_trailers_stream_both_ways() {
    let world = World::start().await;
    let key = world.key().await;
    // Answers each piece while the request still goes on, and ends with a trailer.
    let back = async |request: axum::extract::Request| {
        let pieces =
            request.into_body().into_data_stream().map(|piece| Ok::<_, axum::Error>(Frame::data(piece?)));
        let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "17".parse().unwrap())]);
        let end = futures_util::stream::once(std::future::ready(Ok(Frame::trailers(trailers))));
        let body = Body::new(StreamBody::new(pieces.chain(end)));
        ([("trailer", "x-sum")], body)
    };
    let edge = EdgeProcess::start(&world, serve(Router::new().route("/back", post(back))).await, &[]).await;
    const PIECE: usize = 64 * 1024;
    const PIECES: usize = 64;
    let (pieces, sent) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, std::io::Error>>(1);
    let body = StreamBody::new(futures_util::stream::unfold(sent, async |mut sent| {
        Some((sent.recv().await?, sent))
    }));
    let client = Client::builder(TokioExecutor::new()).build_http();
    let request =
        Request::post(edge.url("/back")).header("x-api-key", key.secret.reveal()).header("te", "trailers");
    let first = Frame::data(Bytes::from(vec![b'x'; PIECE]));
    pieces.send(Ok(first)).await.unwrap();
    let mut response = client.request(request.body(Box::pin(body)).unwrap()).await.unwrap().into_body();
    let (mut received, mut sent, mut trailers) = (0, 1, None);
    let mut pieces = Some(pieces);
    while let Some(frame) = response.frame().await {
        match frame.unwrap().into_data() {
            Ok(data) => received += data.len(),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
        // The next piece goes only when all before it has come back.
        if received == sent * PIECE {
            match &pieces {
                Some(open) if sent < PIECES => {
                    open.send(Ok(Frame::data(Bytes::from(vec![b'x'; PIECE])))).await.unwrap();
                    sent += 1;
                }
                _ => pieces = None,
            }
        }
    }
    assert_eq!((received, trailers.unwrap()["x-sum"].to_str().unwrap()), (PIECE * PIECES, "17"));
    let event = world.event().await;
    assert_eq!(
        (event.request_bytes, event.response_bytes),
        ((PIECE * PIECES) as u64, (PIECE * PIECES) as u64)
    );
}

/// Accepts one upgrade and sends every byte back.
async fn upgrading() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = read_head(&mut stream).await.to_ascii_lowercase();
        assert!(head.contains("upgrade: websocket") && head.contains("connection: upgrade"), "{head}");
        assert!(!head.contains("km_live_"), "the secret reached the API");
        stream
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            )
            .await
            .unwrap();
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    });
    addr
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

async fn upgrade(edge: &EdgeProcess, key: &Key) -> TcpStream {
    let mut stream = TcpStream::connect(&edge.addr).await.unwrap();
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-API-Key: {}\r\n\r\n",
        key.secret.reveal()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(head.to_ascii_lowercase().contains("upgrade: websocket"), "{head}");
    stream
}

#[tokio::test]
async fn an_upgraded_connection_is_one_call_that_ends_with_it() {
    let world = World::start().await;
    let key = world.key().await;
    let edge = EdgeProcess::start(&world, upgrading().await, &[]).await;
    let mut stream = upgrade(&edge, &key).await;
    let mut heard = [0; 5];
    for _ in 0..3 {
        stream.write_all(b"hello").await.unwrap();
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"hello");
    }
    // A refused call after it is published, so the open one is known not to be.
    world.feed(&key, 2, proto::events::KeyState::Deleted, None).await;
    parts::eventually("the deletion arrives", async || {
        send(get(&edge.url("/gone"), &key)).await.status() == 401
    })
    .await;
    let events = world.events_of(1).await;
    assert!(events.iter().all(|event| event.path != "/ws"), "{events:?}");
    drop(stream);
    let event = parts::eventually("the tunnel's event", async || {
        world.events().await.into_values().find(|event| event.path == "/ws")
    })
    .await;
    assert_eq!((event.status_code, event.origin, event.interrupted), (101, Origin::Upstream, false));
    assert_eq!((event.request_bytes, event.response_bytes), (15, 15));
}

#[tokio::test]
async fn a_tunnel_that_outlives_the_drain_is_cut_and_says_so() {
    let world = World::start().await;
    let key = world.key().await;
    let mut edge = EdgeProcess::start(&world, upgrading().await, &[("KEYMETER_EDGE_DRAIN_S", "1")]).await;
    let mut stream = upgrade(&edge, &key).await;
    assert!(edge.service.sigterm().await.success());
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0, "the connection is closed");
    let event = world.event().await;
    assert_eq!((event.status_code, event.interrupted), (101, true));
}

/// Sends raw bytes and returns the first line of the answer.
async fn raw(edge: &EdgeProcess, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(&edge.addr).await.unwrap();
    // The edge may answer and hang up before all is sent.
    let _ = stream.write_all(request).await;
    let head = read_head(&mut stream).await;
    head.lines().next().unwrap_or("").to_owned()
}

#[tokio::test]
async fn strange_requests_are_answered_and_bounded() {
    let world = World::start().await;
    let key = world.key().await;
    let edge = EdgeProcess::start(&world, serve(echo()).await, &[]).await;
    let secret = key.secret.reveal();
    let request = |path: &[u8], more: &str| {
        [b"GET ", path, format!(" HTTP/1.1\r\nHost: x\r\nX-API-Key: {secret}\r\n{more}\r\n").as_bytes()]
            .concat()
    };
    let long = format!("/long/{}?q", "é".repeat(20_000));
    assert_eq!(raw(&edge, &request(long.as_bytes(), "")).await, "HTTP/1.1 200 OK");
    assert_eq!(raw(&edge, &request(b"/escaped/%FF%00%2e", "")).await, "HTTP/1.1 200 OK");
    assert!(raw(&edge, &request(b"/raw/\xff\xfe", "")).await.starts_with("HTTP/1.1 400"), "no valid address");
    assert!(raw(&edge, &request(&[b'/'].repeat(70_000), "")).await.starts_with("HTTP/1.1 414"));
    let headers: String = (0..10_000).map(|number| format!("X-{number}: 1\r\n")).collect();
    assert!(raw(&edge, &request(b"/headers", &headers)).await.starts_with("HTTP/1.1 431"));
    let agent = format!("User-Agent: {}\r\nX-Request-Id: {}\r\n", "a".repeat(5000), "b".repeat(5000));
    assert_eq!(raw(&edge, &request(b"/agent", &agent)).await, "HTTP/1.1 200 OK");
    let connect = format!("CONNECT other:443 HTTP/1.1\r\nHost: other:443\r\nX-API-Key: {secret}\r\n\r\n");
    assert!(raw(&edge, connect.as_bytes()).await.starts_with("HTTP/1.1 405"));
    assert!(raw(&edge, b"nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400"));

    let events = world.events_of(4).await;
    let by_path: BTreeMap<_, _> = events.iter().map(|event| (event.path.as_str(), event)).collect();
    assert_eq!(by_path.len(), 4, "{:?}", by_path.keys());
    let cut = format!("/long/{}", "é".repeat(509));
    assert_eq!(by_path[cut.as_str()].route, cut);
    assert!(by_path.contains_key("/escaped/%FF%00%2e"));
    assert_eq!(by_path["/agent"].user_agent, "a".repeat(256));
    assert_eq!(by_path["/agent"].client_request_id, "b".repeat(256));
}

#[tokio::test]
async fn its_own_paths_need_no_key_and_leave_the_api_s_alone() {
    let world = World::start().await;
    let key = world.key().await;
    let edge = EdgeProcess::start(&world, serve(echo()).await, &[]).await;
    assert_eq!(parts::get(&edge.addr, "/.keymeter/healthz").await.unwrap().status, 200);
    assert_eq!(parts::get(&edge.addr, "/.keymeter/readyz").await.unwrap().status, 200);
    assert_eq!(parts::get(&edge.addr, "/.keymeter/else").await.unwrap().status, 404);
    assert_eq!(parts::get(&edge.addr, "/healthz").await.unwrap().status, 401);
    assert_eq!(send(get(&edge.url("/healthz"), &key)).await.status(), 200);
    assert_eq!(world.event().await.path, "/healthz");
}
