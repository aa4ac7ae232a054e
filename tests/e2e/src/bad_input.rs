//! Bad input: each has a clear error, and nothing is lost.

use async_nats::jetstream;
use domain::{Environment, Secret};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{client::Client, stack::Stack, usage::last_day};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_secrets_are_refused_with_a_reason_and_counted_for_nobody() {
    let stack = Stack::start().await;
    for secret in [Secret::generate(Environment::Live).reveal(), "km_live_mistyped", "something else", ""] {
        let answer = stack.client(secret).get("/v1/orders").await;
        assert_eq!(answer.status, 401, "{secret}");
        assert!(!answer.problem()["detail"].as_str().unwrap().is_empty());
        assert!(answer.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
    }
    let key = stack.make_key("Good").await;
    assert_eq!(stack.client(&key.secret).get("/v1/orders").await.status, 200);
    stack.complete().await;
    assert_eq!(stack.number("select count() from keymeter.request_events").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_paths_and_a_missing_api_are_answered_and_counted() {
    let mut stack = Stack::start().await;
    let key = stack.make_key("Odd").await;
    let client = stack.client(&key.secret);
    assert_eq!(client.get(&format!("/v1/{}", "x".repeat(4_000))).await.status, 200);
    let raw = raw_path(&stack, &key.secret, b"/v1/\xff\xfe/orders").await;
    assert!(raw.starts_with("HTTP/1.1 "), "{raw}");

    // An address where nobody listens.
    stack.api = crate::api::Api::start().await;
    let answer = client.get("/v1/orders").await;
    assert_eq!(answer.status, 502);
    assert!(!answer.problem()["detail"].as_str().unwrap().is_empty());

    stack.complete().await;
    let log = stack.log(last_day(&[key.id()])).await;
    assert!(log.iter().all(|call| call.path.len() <= 1_024));
    assert_eq!((log[0].status_code, log[0].origin.as_str()), (502, "edge"));
    let (counts, _) = stack.summary(last_day(&[key.id()])).await;
    // hyper refuses bytes that no URI may have before the call reaches anybody; else it counts as any other.
    let answered_by_server = u64::from(raw.starts_with("HTTP/1.1 400"));
    assert_eq!(counts.total_count, 3 - answered_by_server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_garbled_message_is_set_aside_and_spares_the_others() {
    let stack = Stack::start().await;
    let key = stack.make_key("Good").await;
    let client = stack.client(&key.secret);
    let jetstream = jetstream::new(async_nats::connect(stack.nats.url()).await.unwrap());
    for shard in 0..4 {
        assert_eq!(client.get("/v1/orders").await.status, 200);
        let subject = proto::nats::request_events_subject(shard);
        jetstream.publish(subject, "\u{0}no protobuf".into()).await.unwrap().await.unwrap();
    }
    assert_eq!(client.get("/v1/orders").await.status, 200);
    let letters = jetstream.get_stream(proto::nats::DEAD_LETTERS_STREAM).await.unwrap();
    parts::eventually("the dead letters arrive", async || {
        letters.get_info().await.unwrap().state.messages == 4
    })
    .await;
    let letter = letters.get_raw_message(1).await.unwrap();
    assert_eq!(&letter.payload[..], b"\0no protobuf");
    assert!(letter.headers.get(proto::nats::DEAD_LETTER_REASON).is_some());
    assert!(letter.headers.get(proto::nats::DEAD_LETTER_POSITION).is_some());
    stack.complete().await;
    assert_eq!(stack.total(last_day(&[key.id()])).await, 5);
}

/// The first line of the answer to a request with these bytes as its path.
async fn raw_path(stack: &Stack, secret: &str, path: &[u8]) -> String {
    let mut connection = TcpStream::connect(("127.0.0.1", stack.ports.edge)).await.unwrap();
    let head = format!(" HTTP/1.1\r\nHost: edge\r\nX-API-Key: {secret}\r\nConnection: close\r\n\r\n");
    connection.write_all(&[b"GET ", path, head.as_bytes()].concat()).await.unwrap();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}

/// Both headers at once must agree, or nobody can say whose call it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_without_any_secret_says_which_headers_carry_one() {
    let stack = Stack::start().await;
    let mut connection = TcpStream::connect(("127.0.0.1", stack.ports.edge)).await.unwrap();
    connection.write_all(b"GET / HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert!(answer.contains("X-API-Key"), "{answer}");
    assert_eq!(Client::new(&stack.edge_url(), "x").get("/").await.status, 401);
}
