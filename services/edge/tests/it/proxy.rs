//! What a call goes through on its way: time limits, bounds, second tries, answers before the answer.

use axum::{Router, body::Body, routing::get as on_get};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    api::{Api, Reply, ok, until},
    world::{EdgeProcess, Key, World, get, json, send, serve, until_known},
};

/// A request with the key, as bytes.
fn raw(key: &Key, line: &str, more: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: a\r\nX-API-Key: {}\r\n{more}\r\n", key.secret.reveal())
}

async fn connect(edge: &EdgeProcess) -> TcpStream {
    TcpStream::connect(&edge.addr).await.unwrap()
}

#[tokio::test]
async fn an_api_that_says_nothing_is_a_504() {
    let world = World::start().await;
    let key = world.key().await;
    let api = Api::start(|_, _| Reply::Nothing).await;
    let edge = EdgeProcess::start(&world, api.addr, &[("KEYMETER_EDGE_ANSWER_TIMEOUT_S", "1")]).await;
    let response = send(get(&edge.url("/x"), &key)).await;
    assert_eq!(response.status(), 504);
    assert_eq!(json(&response)["type"], "urn:keymeter:problem:upstream_timeout");
    assert_eq!(world.event().await.status_code, 504);
}

#[tokio::test]
async fn a_client_that_stops_in_its_request_is_a_408() {
    let world = World::start().await;
    let key = world.key().await;
    let api = Api::start(|_, _| Reply::Send(ok())).await;
    let edge = EdgeProcess::start(&world, api.addr, &[("KEYMETER_EDGE_IDLE_TIMEOUT_S", "1")]).await;
    let mut stream = connect(&edge).await;
    stream.write_all(raw(&key, "POST /x", "Content-Length: 10\r\n").as_bytes()).await.unwrap();
    stream.write_all(b"half").await.unwrap();
    let head = until(&mut stream, b"\r\n\r\n").await.unwrap();
    assert!(head.starts_with("HTTP/1.1 408"), "{head}");
    assert_eq!(world.event().await.status_code, 408);
    assert_eq!(api.seen(), [], "half a request is none");
}

#[tokio::test]
async fn event_streams_live_as_long_as_they_speak() {
    let world = World::start().await;
    let key = world.key().await;
    let events = |count: usize| {
        let pings = stream::iter(0..count).then(async |number| {
            tokio::time::sleep(std::time::Duration::from_millis(400)).await;
            Ok::<_, std::io::Error>(Bytes::from(format!(": {number}\n\n")))
        });
        ([("content-type", "text/event-stream")], Body::from_stream(pings.chain(stream::pending())))
    };
    let api = Router::new()
        .route("/speaks", on_get(async move || events(6)))
        .route("/silent", on_get(async move || events(1)));
    let edge = EdgeProcess::start(&world, serve(api).await, &[("KEYMETER_EDGE_IDLE_TIMEOUT_S", "1")]).await;
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    for (path, pieces) in [("/speaks", 6), ("/silent", 1)] {
        let mut body = client.request(get(&edge.url(path), &key)).await.unwrap().into_body();
        let mut received = String::new();
        let end = loop {
            match body.frame().await {
                Some(Ok(frame)) => received.push_str(str::from_utf8(frame.data_ref().unwrap()).unwrap()),
                end => break end,
            }
        };
        // Each piece came when it was sent: together they take longer than silence may.
        assert_eq!(received.matches("\n\n").count(), pieces, "{received}");
        assert!(matches!(end, Some(Err(_))), "cut, not ended: a client must not take it for whole");
    }
}

#[tokio::test]
async fn a_call_ends_when_its_time_is_up() {
    let world = World::start().await;
    let key = world.key().await;
    let endless = async || {
        let pieces = stream::repeat(()).then(async |()| {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            Ok::<_, std::io::Error>(Bytes::from_static(b"x"))
        });
        Body::from_stream(pieces)
    };
    let api = Router::new().route("/endless", on_get(endless));
    let edge = EdgeProcess::start(&world, serve(api).await, &[("KEYMETER_EDGE_TOTAL_TIMEOUT_S", "1")]).await;
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let body = client.request(get(&edge.url("/endless"), &key)).await.unwrap().into_body();
    assert!(body.collect().await.is_err());
    let event = world.event().await;
    assert!(event.response_bytes > 0 && event.status_code == 200);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_a_413() {
    let world = World::start().await;
    let key = world.key().await;
    let api = Api::start(|_, _| Reply::Send(ok())).await;
    let edge = EdgeProcess::start(&world, api.addr, &[("KEYMETER_EDGE_REQUEST_BODY_BYTES_MAX", "10")]).await;
    let post = |framing: &str, body: &str| raw(&key, "POST /x", framing) + body;
    for (request, status) in [
        (post("Content-Length: 10\r\n", "0123456789"), "200"),
        (post("Content-Length: 11\r\n", "01234567890"), "413"),
        (post("Transfer-Encoding: chunked\r\n", "a\r\n0123456789\r\n0\r\n\r\n"), "200"),
        (post("Transfer-Encoding: chunked\r\n", "5\r\n01234\r\n6\r\n567890\r\n0\r\n\r\n"), "413"),
    ] {
        let mut stream = connect(&edge).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let head = until(&mut stream, b"\r\n\r\n").await.unwrap();
        assert_eq!(head.split(' ').nth(1), Some(status), "{request}: {head}");
    }
    assert_eq!(api.seen().len(), 2, "what is too large does not arrive whole");
    let mut statuses: Vec<_> = world.events_of(4).await.iter().map(|event| event.status_code).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 413, 413]);
}

#[tokio::test]
async fn only_what_may_happen_twice_is_sent_twice() {
    let world = World::start().await;
    let key = world.key().await;
    // Each connection has one good answer and is closed when a second request has come.
    let api =
        Api::start(|_, place| if place == 0 { Reply::Send(ok()) } else { Reply::Close(Vec::new()) }).await;
    let edge = EdgeProcess::start(&world, api.addr, &[("KEYMETER_EDGE_THREADS", "1")]).await;
    assert_eq!(send(get(&edge.url("/first"), &key)).await.status(), 200);
    assert_eq!(send(get(&edge.url("/second"), &key)).await.status(), 200, "sent again on a new connection");
    let paths = |api: &Api| -> Vec<_> {
        api.seen()
            .iter()
            .map(|seen| (seen.connection, seen.head.split(' ').nth(1).unwrap().to_owned()))
            .collect()
    };
    let expected =
        [(0, "/first"), (0, "/second"), (1, "/second")].map(|(number, path)| (number, path.to_owned()));
    assert_eq!(paths(&api), expected);
    for body in ["", "x"] {
        let post = Request::post(edge.url("/post")).header("x-api-key", key.secret.reveal());
        let response = send(post.body(Full::from(body)).unwrap()).await;
        assert_eq!(response.status(), 502, "it may have had its effect");
        assert_eq!(send(get(&edge.url("/again"), &key)).await.status(), 200);
    }
    assert_eq!(paths(&api).iter().filter(|(_, path)| path == "/post").count(), 2);
    let metrics = parts::get(&edge.health, "/metrics").await.unwrap().body;
    assert!(metrics.contains("keymeter_edge_upstream_retries_total"), "{metrics}");
    let events = world.events_of(6).await;
    assert_eq!(events.iter().filter(|event| event.path == "/second").count(), 1, "one call, one event");
}

#[tokio::test]
async fn an_api_that_fails_a_new_connection_is_not_asked_twice() {
    let world = World::start().await;
    let key = world.key().await;
    let api = Api::start(|_, _| Reply::Close(Vec::new())).await;
    let edge = EdgeProcess::start(&world, api.addr, &[]).await;
    assert_eq!(send(get(&edge.url("/x"), &key)).await.status(), 502);
    assert_eq!(api.seen().len(), 1);
}

#[tokio::test]
async fn what_comes_before_the_answer_is_understood() {
    let world = World::start().await;
    let key = world.key().await;
    let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".to_vec();
    let api = Api::start(move |head, _| {
        if head.contains("expect: 100-continue") {
            Reply::Before(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), ok())
        } else {
            Reply::Send([hints.clone(), ok()].concat())
        }
    })
    .await;
    let edge = EdgeProcess::start(&world, api.addr, &[]).await;
    assert_eq!(send(get(&edge.url("/hints"), &key)).await.body(), "ok");
    let mut stream = connect(&edge).await;
    let head = raw(&key, "POST /expects", "Content-Length: 4\r\nExpect: 100-continue\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let asked = until(&mut stream, b"\r\n\r\n").await.unwrap();
    assert_eq!(asked, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"body").await.unwrap();
    assert!(until(&mut stream, b"\r\n\r\n").await.unwrap().starts_with("HTTP/1.1 200"));
    assert_eq!(api.seen().last().unwrap().body, b"body");
}

#[tokio::test]
async fn an_api_that_refuses_a_body_is_heard_before_it_is_sent() {
    let world = World::start().await;
    let key = world.key().await;
    let refusal = b"HTTP/1.1 413 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec();
    let api = Api::start(move |_, _| Reply::Before(refusal.clone(), Vec::new())).await;
    let edge = EdgeProcess::start(&world, api.addr, &[]).await;
    let mut stream = connect(&edge).await;
    let head = raw(&key, "POST /x", "Content-Length: 4\r\nExpect: 100-continue\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    assert!(until(&mut stream, b"\r\n\r\n").await.unwrap().starts_with("HTTP/1.1 413"));
    assert_eq!(api.seen(), [], "the body never went");
}

#[tokio::test]
async fn answers_without_a_body_end_with_their_head() {
    let world = World::start().await;
    let key = world.key().await;
    let api = Api::start(|head, _| {
        Reply::Send(match head.split(' ').nth(1).unwrap() {
            "/204" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
            "/304" => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n".to_vec(),
            "/head" => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_vec(),
            _ => ok(),
        })
    })
    .await;
    let edge = EdgeProcess::start(&world, api.addr, &[("KEYMETER_EDGE_THREADS", "1")]).await;
    let mut stream = connect(&edge).await;
    for (line, status, length) in
        [("GET /204", "204", None), ("GET /304", "304", None), ("HEAD /head", "200", Some("5"))]
    {
        stream.write_all(raw(&key, line, "").as_bytes()).await.unwrap();
        let head = until(&mut stream, b"\r\n\r\n").await.unwrap().to_ascii_lowercase();
        assert_eq!(head.split(' ').nth(1), Some(status));
        let said = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        assert_eq!(said, length, "{head}");
    }
    // What follows on the same connections is not taken for a body.
    stream.write_all(raw(&key, "GET /last", "").as_bytes()).await.unwrap();
    assert!(until(&mut stream, b"\r\n\r\n").await.unwrap().starts_with("HTTP/1.1 200"));
    let mut body = [0; 2];
    stream.read_exact(&mut body).await.unwrap();
    assert_eq!((&body, api.seen().last().unwrap().connection), (b"ok", 0), "one connection serves them all");
}

#[tokio::test]
async fn an_answer_that_is_cut_is_cut_for_the_client_too() {
    let world = World::start().await;
    let key = world.key().await;
    let api = Api::start(|head, _| match head.split(' ').nth(1).unwrap() {
        "/length" => Reply::Close(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhal".to_vec()),
        "/chunks" => {
            Reply::Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n".to_vec())
        }
        "/bad" => {
            Reply::Send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nx\r\n".to_vec())
        }
        "/twice" => {
            Reply::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok?".to_vec())
        }
        _ => Reply::Close(b"HTTP/1.1 200 OK\r\n\r\nall of it".to_vec()),
    })
    .await;
    let edge = EdgeProcess::start(&world, api.addr, &[]).await;
    until_known(&edge, &key, "/close").await;
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    for path in ["/length", "/chunks", "/bad"] {
        // What came in one piece with the end of the connection may be lost with it, head and all.
        if let Ok(response) = client.request(get(&edge.url(path), &key)).await {
            assert!(response.into_body().collect().await.is_err(), "{path}");
        }
    }
    assert_eq!(send(get(&edge.url("/twice"), &key)).await.status(), 502);
    assert_eq!(send(get(&edge.url("/close"), &key)).await.body(), "all of it");
    let mut head = get(&edge.url("/close"), &key);
    *head.method_mut() = Method::HEAD;
    assert_eq!(send(head).await.status(), 200);
}

#[tokio::test]
async fn the_plain_proxy_passes_everything() {
    let api = Api::start(|_, _| Reply::Send(ok())).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let shutdown = tokio_util::sync::CancellationToken::new();
    let (stop, upstream) = (shutdown.clone(), format!("http://{}", api.addr).parse().unwrap());
    let served = tokio::spawn(async move { edge::plain::run(&upstream, listener, &stop).await });
    let request = Request::get(format!("http://{addr}/x")).header("authorization", "Basic dTpw");
    assert_eq!(send(request.body(Full::default()).unwrap()).await.body(), "ok");
    assert!(api.seen()[0].head.contains("authorization: Basic dTpw"));
    shutdown.cancel();
    served.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_side_waits_for_the_other_for_ever() {
    // More than all buffers between the two hold.
    const BYTES: usize = 48 << 20;
    let world = World::start().await;
    let key = world.key().await;
    // Answers at once and at length, and reads the request beside.
    let both = async |request: axum::extract::Request| {
        let reading = tokio::spawn(request.into_body().collect());
        let piece = Bytes::from(vec![b'y'; 1 << 16]);
        let pieces = stream::iter(0..BYTES >> 16).map(move |_| Ok::<_, std::io::Error>(piece.clone()));
        let read = stream::once(async move {
            let read = reading.await.unwrap().unwrap().to_bytes().len();
            Ok(Bytes::from(format!(" {read}")))
        });
        ([("connection", "close")], Body::from_stream(pieces.chain(read)))
    };
    let edge = EdgeProcess::start(&world, serve(Router::new().fallback(both)).await, &[]).await;
    let mut stream = connect(&edge).await;
    let more = format!("Connection: close\r\nContent-Length: {BYTES}\r\n");
    stream.write_all(raw(&key, "POST /x", &more).as_bytes()).await.unwrap();
    // Reads nothing before it has sent everything.
    for _ in 0..BYTES >> 16 {
        stream.write_all(&[b'x'; 1 << 16]).await.unwrap();
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = String::from_utf8_lossy(&answer[answer.len() - 40..]).into_owned();
    assert!(end.contains(&format!(" {BYTES}\r\n")), "{end}");
    assert_eq!(world.event().await.request_bytes, BYTES as u64);
}
