//! Request smuggling: whatever is sent, the API sees no request that the edge did not verify and record, and
//! nothing that could be read in two ways.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    api::{Api, Reply, ok},
    world::{EdgeProcess, Key, World, until_known},
};

/// What must become of it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    /// 400, or the connection is closed without an answer; nothing arrives whole.
    Refused,
    /// One request arrives, with this body, framed anew; the connection is closed behind it.
    Once(&'static str),
    /// One request arrives with this body; what follows is a request of its own, which needs a key.
    Harmless(&'static str),
}

use Fate::{Harmless, Once, Refused};

/// Requests with `{key}` for a header with a good key. What follows in a body is a request that must not arrive.
const CORPUS: &[(&str, &str, Fate)] = &[
    // Two lengths.
    (
        "length and chunks",
        "POST /x HTTP/1.1\r\nHost: a\r\n{key}Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n{key}\r\n",
        Once(""),
    ),
    (
        "chunks and length",
        "POST /x HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n{key}\r\n",
        Once("hello"),
    ),
    (
        "lengths that differ",
        "POST /x HTTP/1.1\r\nHost: a\r\n{key}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        Refused,
    ),
    (
        "lengths that differ in a list",
        "POST /x HTTP/1.1\r\nHost: a\r\n{key}Content-Length: 5, 6\r\n\r\nhello!",
        Refused,
    ),
    (
        "the same length in a list",
        "POST /x HTTP/1.1\r\nHost: a\r\n{key}Content-Length: 5, 5\r\n\r\nhello",
        Refused,
    ),
    (
        "the same length twice",
        "POST /x HTTP/1.1\r\nHost: a\r\n{key}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        Harmless("hello"),
    ),
    // Lengths that are none.
    ("length with a sign", "POST /x HTTP/1.1\r\nHost: a\r\n{key}Content-Length: +5\r\n\r\nhello", Refused),
    ("negative length", "POST /x HTTP/1.1\r\nHost: a\r\n{key}Content-Length: -5\r\n\r\nhello", Refused),
    ("hexadecimal length", "POST /x HTTP/1.1\r\nHost: a\r\n{key}Content-Length: 0x5\r\n\r\nhello", Refused),
    (
        "length with a space in it",
        "POST /x HTTP/1.1\r\nHost: a\r\n{key}Content-Length: 5 0\r\n\r\nhello",
        Refused,
    ),
    ("empty length", "POST /x HTTP/1.1\r\nHost: a\r\n{key}Content-Length: \r\n\r\nhello", Refused),
    (
        "length beyond 64 bits",
        "POST /x HTTP/1.1\r\nHost: a\r\n{key}Content-Length: 18446744073709551621\r\n\r\nhello",
        Refused,
    ),
    (
        "length with spaces around",
        "POST /x HTTP/1.1\r\nHost: a\r\n{key}Content-Length:  5 \r\n\r\nhello",
        Harmless("hello"),
    ),
    (
        "length with zeros",
        "POST /x HTTP/1.1\r\nHost: a\r\n{key}Content-Length: 0005\r\n\r\nhello",
        Harmless("hello"),
    ),
    // Codings that hide.
    (
        "chunked, identity",
        "POST /x HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        Refused,
    ),
    (
        "identity, chunked",
        "POST /x HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
        Refused,
    ),
    (
        "identity",
        "POST /x HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
        Refused,
    ),
    ("xchunked", "POST /x HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", Refused),
    (
        "quoted",
        "POST /x HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
        Refused,
    ),
    (
        "vertical tab",
        "POST /x HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        Refused,
    ),
    ("tab", "POST /x HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n", Harmless("")),
    (
        "twice",
        "POST /x HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused,
    ),
    (
        "second one hides the first",
        "POST /x HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
        Refused,
    ),
    (
        "with a parameter",
        "POST /x HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
        Refused,
    ),
    (
        "in HTTP/1.0",
        "POST /x HTTP/1.0\r\nHost: a\r\n{key}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused,
    ),
    (
        "named by Connection",
        "POST /x HTTP/1.1\r\nHost: a\r\n{key}Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Harmless("hello"),
    ),
    (
        "length named by Connection",
        "POST /x HTTP/1.1\r\nHost: a\r\n{key}Connection: Content-Length\r\nContent-Length: 5\r\n\r\nhello",
        Harmless("hello"),
    ),
    // Heads that are none.
    (
        "space before the colon",
        "POST /x HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        Refused,
    ),
    ("tab before the colon", "POST /x HTTP/1.1\r\nHost: a\r\n{key}Content-Length\t: 5\r\n\r\nhello", Refused),
    (
        "folded",
        "POST /x HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        Refused,
    ),
    (
        "folded behind another",
        "GET /x HTTP/1.1\r\nHost: a\r\n{key}X: y\r\n Content-Length: 5\r\n\r\n",
        Refused,
    ),
    ("first header folded", "GET /x HTTP/1.1\r\n Host: a\r\n{key}\r\n", Refused),
    ("NUL in a value", "GET /x HTTP/1.1\r\nHost: a\r\n{key}X: a\0b\r\n\r\n", Refused),
    ("NUL in a name", "GET /x HTTP/1.1\r\nHost: a\r\n{key}X\0: a\r\n\r\n", Refused),
    ("CR in a value", "GET /x HTTP/1.1\r\nHost: a\r\n{key}X: a\rContent-Length: 5\r\n\r\n", Refused),
    ("no colon", "GET /x HTTP/1.1\r\nHost: a\r\n{key}Content-Length 5\r\n\r\nhello", Refused),
    ("empty name", "GET /x HTTP/1.1\r\nHost: a\r\n{key}: x\r\n\r\n", Refused),
    (
        "lines that end with LF",
        "POST /x HTTP/1.1\nHost: a\n{key}Content-Length: 5\n\nhello",
        Harmless("hello"),
    ),
    ("two spaces in the first line", "GET  /x HTTP/1.1\r\nHost: a\r\n{key}\r\n", Refused),
    ("another version", "GET /x HTTP/1.2\r\nHost: a\r\n{key}\r\n", Refused),
    ("no version", "GET /x\r\n{key}\r\n", Refused),
    // Chunks that are none.
    (
        "chunk lines that end with LF",
        "POST /x HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n",
        Refused,
    ),
    (
        "chunk line that ends with CR",
        "POST /x HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding: chunked\r\n\r\n5\rhello\r\n0\r\n\r\n",
        Refused,
    ),
    (
        "extension that ends with LF",
        "POST /x HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding: chunked\r\n\r\n5;x\nhello\r\n0\r\n\r\n",
        Refused,
    ),
    (
        "extension",
        "POST /x HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding: chunked\r\n\r\n5;x=\"y\"\r\nhello\r\n0\r\n\r\n",
        Harmless("hello"),
    ),
    (
        "size with a sign",
        "POST /x HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
        Refused,
    ),
    (
        "size with 0x",
        "POST /x HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
        Refused,
    ),
    (
        "size with a space before",
        "POST /x HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding: chunked\r\n\r\n 5\r\nhello\r\n0\r\n\r\n",
        Refused,
    ),
    (
        "size beyond 64 bits",
        "POST /x HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n",
        Refused,
    ),
    (
        "negative size",
        "POST /x HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
        Refused,
    ),
    (
        "chunk longer than it says",
        "POST /x HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n",
        Refused,
    ),
    (
        "chunk shorter than it says",
        "POST /x HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding: chunked\r\n\r\n6\r\nhello\r\n0\r\n\r\n",
        Refused,
    ),
    (
        "length among the trailers",
        "POST /x HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nContent-Length: 50\r\n\r\n",
        Harmless("hello"),
    ),
    // Targets and hosts.
    ("no host", "GET /x HTTP/1.1\r\n{key}\r\n", Refused),
    ("two hosts", "GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n{key}\r\n", Refused),
    ("another host than the target", "GET http://a/x HTTP/1.1\r\nHost: b\r\n{key}\r\n", Refused),
    ("the same host as the target", "GET http://a/x HTTP/1.1\r\nHost: a\r\n{key}\r\n", Harmless("")),
    ("path in the host", "GET /x HTTP/1.1\r\nHost: a/b?\r\n{key}\r\n", Refused),
    ("authority as the target", "GET a:80 HTTP/1.1\r\nHost: a:80\r\n{key}\r\n", Refused),
    ("space in the target", "GET /x y HTTP/1.1\r\nHost: a\r\n{key}\r\n", Refused),
    // Bodies where few expect them, and requests behind.
    (
        "body of a GET",
        "GET /x HTTP/1.1\r\nHost: a\r\n{key}Content-Length: 49\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\nX-API-Key: x\r\n\r\n",
        Harmless("GET /smuggled HTTP/1.1\r\nHost: a\r\nX-API-Key: x\r\n\r\n"),
    ),
    (
        "request behind without a key",
        "GET /x HTTP/1.1\r\nHost: a\r\n{key}\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        Harmless(""),
    ),
    (
        "upgrade to HTTP/2",
        "GET /x HTTP/1.1\r\nHost: a\r\n{key}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        Harmless(""),
    ),
];

#[tokio::test]
async fn no_request_is_smuggled() {
    let world = World::start().await;
    let key = world.key().await;
    let api = Api::start(|_, _| Reply::Send(ok())).await;
    let edge = EdgeProcess::start(&world, api.addr, &[]).await;
    until_known(&edge, &key, "/known").await;
    let mut failures = Vec::new();
    for (name, request, fate) in CORPUS {
        let before = api.seen().len();
        let answer = exchange(&edge, &request.replace("{key}", &header(&key))).await;
        let seen = api.seen().split_off(before);
        let is_refused = answer.text.is_empty() || answer.text.starts_with("HTTP/1.1 400");
        let is_good = match fate {
            Refused => is_refused && answer.is_closed && seen.is_empty(),
            Once(body) => seen.len() == 1 && seen[0].body == body.as_bytes() && answer.is_closed,
            Harmless(body) => seen.len() == 1 && seen[0].body == body.as_bytes(),
        };
        let is_clean =
            seen.iter().all(|seen| !seen.head.contains("/smuggled") && !seen.head.contains("upgrade"));
        if !(is_good && is_clean) {
            failures.push(format!("{name}, not {fate:?}: {answer:?} {seen:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn header(key: &Key) -> String {
    format!("X-API-Key: {}\r\n", key.secret.reveal())
}

/// What came back.
#[derive(Debug)]
struct Answer {
    text: String,
    is_closed: bool,
}

/// Sends bytes and reads until the connection is closed, or nothing comes for a while.
async fn exchange(edge: &EdgeProcess, request: &str) -> Answer {
    let mut stream = TcpStream::connect(&edge.addr).await.unwrap();
    let _ = stream.write_all(request.as_bytes()).await;
    let (mut read, mut is_closed) = (Vec::new(), false);
    let mut buffer = [0; 4096];
    // Only the end of a connection can be waited for without a limit; what stays open is harmless, and slower.
    while let Ok(count) = timeout(Duration::from_millis(700), stream.read(&mut buffer)).await {
        match count {
            Ok(count) if count > 0 => read.extend_from_slice(&buffer[..count]),
            _ => {
                is_closed = true;
                break;
            }
        }
    }
    Answer { text: String::from_utf8_lossy(&read).into_owned(), is_closed }
}

/// Names and values, in their order.
type Fields = &'static [(&'static str, &'static str)];

/// Fields of a request over HTTP/2 that must not get through, whatever the API speaks.
const DOWNGRADES: &[(&str, Fields, &[u8])] = &[
    ("length too long", &[("content-length", "10")], b"hello"),
    ("length too short", &[("content-length", "2")], b"hello"),
    ("lengths that differ", &[("content-length", "5"), ("content-length", "6")], b"hello"),
    ("length with a sign", &[("content-length", "+5")], b"hello"),
    ("chunked", &[("transfer-encoding", "chunked")], b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"),
    ("connection", &[("connection", "keep-alive")], b""),
    ("upgrade", &[("upgrade", "h2c")], b""),
    ("line end in a value", &[("x", "a\r\nTransfer-Encoding: chunked")], b""),
    ("LF in a value", &[("x", "a\nb")], b""),
    ("NUL in a value", &[("x", "a\0b")], b""),
    ("line end in a name", &[("x: y\r\nz", "a")], b""),
    ("colon in a name", &[("x:", "a")], b""),
    ("capitals in a name", &[("X-Big", "a")], b""),
    ("a path behind the headers", &[("x", "y"), (":path", "/smuggled")], b""),
    ("another host", &[("host", "b")], b""),
    ("unknown pseudo-header", &[(":other", "a")], b""),
];

/// Requests over HTTP/2 whose first fields are wrong.
const TARGETS: &[(&str, [(&str, &str); 4])] = &[
    (
        "line end in the path",
        [(":method", "GET"), (":path", "/x HTTP/1.1\r\nX: y"), (":scheme", "http"), (":authority", "a")],
    ),
    ("space in the path", [(":method", "GET"), (":path", "/x y"), (":scheme", "http"), (":authority", "a")]),
    ("path without a slash", [(":method", "GET"), (":path", "x"), (":scheme", "http"), (":authority", "a")]),
    (
        "line end in the method",
        [(":method", "GET / HTTP/1.1\r\n"), (":path", "/"), (":scheme", "http"), (":authority", "a")],
    ),
    (
        "space in the method",
        [(":method", "GET /smuggled"), (":path", "/"), (":scheme", "http"), (":authority", "a")],
    ),
    (
        "line end in the authority",
        [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "a\r\nx: y")],
    ),
    (
        "path in the authority",
        [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "a/b")],
    ),
    (
        "user in the authority",
        [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "u@a")],
    ),
];

#[tokio::test]
async fn nothing_is_smuggled_from_http2_to_http1() {
    let world = World::start().await;
    let key = world.key().await;
    let api = Api::start(|_, _| Reply::Send(ok())).await;
    let edge = EdgeProcess::start(&world, api.addr, &[]).await;
    until_known(&edge, &key, "/known").await;
    let before = api.seen().len();
    let good = [(":method", "POST"), (":path", "/x"), (":scheme", "http"), (":authority", "a")];
    let mut failures = Vec::new();
    for (name, fields, body) in DOWNGRADES {
        let fields: Vec<_> = good
            .iter()
            .copied()
            .chain([("x-api-key", key.secret.reveal())])
            .chain(fields.iter().copied())
            .collect();
        if !is_refused(&edge, &fields, body).await {
            failures.push((*name).to_owned());
        }
    }
    for (name, fields) in TARGETS {
        let fields: Vec<_> = fields.iter().copied().chain([("x-api-key", key.secret.reveal())]).collect();
        if !is_refused(&edge, &fields, b"").await {
            failures.push((*name).to_owned());
        }
    }
    assert!(failures.is_empty(), "{failures:?}");
    assert_eq!(api.seen().split_off(before), [], "nothing arrived whole");
    let fields: Vec<_> = good.iter().copied().chain([("x-api-key", key.secret.reveal())]).collect();
    assert!(!is_refused(&edge, &fields, b"hello").await, "a good one passes");
    assert_eq!(api.seen().last().unwrap().body, b"hello");
}

/// Sends one request in frames of our own; whether it is reset, answered with 400, or the connection is ended.
async fn is_refused(edge: &EdgeProcess, fields: &[(&str, &str)], body: &[u8]) -> bool {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    };
    // Literal fields, not indexed, without Huffman's code: lengths below 127 in one byte.
    let field = |(name, value): &(&str, &str)| {
        let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        [vec![0], text(name), text(value)].concat()
    };
    let block: Vec<u8> = fields.iter().flat_map(field).collect();
    let sent = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(SETTINGS, 0, 0, &[]),
        frame(HEADERS, 4 | u8::from(body.is_empty()), 1, &block),
        if body.is_empty() { Vec::new() } else { frame(DATA, 1, 1, body) },
    ];
    let mut stream = TcpStream::connect(&edge.addr).await.unwrap();
    let _ = stream.write_all(&sent.concat()).await;
    let mut head = [0; 9];
    loop {
        if stream.read_exact(&mut head).await.is_err() {
            return true;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        if stream.read_exact(&mut payload).await.is_err() {
            return true;
        }
        match head[3] {
            RST_STREAM | GOAWAY => return true,
            // 0x88 is `:status: 200` and 0x8c `:status: 400`, both of the static table (RFC 7541, appendix A).
            HEADERS => return payload[0] != 0x88,
            _ => {}
        }
    }
}
