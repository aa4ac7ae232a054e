//! An API that sees every byte: it answers requests as it is told, and keeps what came on each connection.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// A request as it came over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The number of its connection.
    pub(crate) connection: usize,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// The API.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) addr: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// What it does with the n-th request of a connection.
pub(crate) enum Reply {
    /// Sends these bytes and goes on.
    Send(Vec<u8>),
    /// Sends these bytes and closes.
    Close(Vec<u8>),
    /// Sends these bytes as soon as the head is there, then reads the body.
    Before(Vec<u8>, Vec<u8>),
    /// Says nothing, for ever.
    Nothing,
}

/// An answer without peculiarities.
pub(crate) fn ok() -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()
}

impl Api {
    /// Answers what `reply` says of the request and of its place on its connection.
    pub(crate) async fn start(reply: impl Fn(&str, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = Self { addr: listener.local_addr().unwrap(), seen: Arc::default() };
        let (this, reply) = (api.clone(), Arc::new(reply));
        tokio::spawn(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let (this, reply) = (this.clone(), reply.clone());
                tokio::spawn(async move { this.serve(stream, connection, &*reply).await });
            }
        });
        api
    }

    /// Every request that came whole.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    async fn serve(
        &self,
        mut stream: TcpStream,
        connection: usize,
        reply: &(impl Fn(&str, usize) -> Reply + ?Sized),
    ) -> Option<()> {
        for place in 0.. {
            let head = until(&mut stream, b"\r\n\r\n").await?;
            let reply = reply(&head, place);
            if let Reply::Before(early, _) = &reply {
                stream.write_all(early).await.ok()?;
            }
            let body = body(&mut stream, &head).await?;
            self.seen.lock().unwrap().push(Seen { connection, head, body });
            match reply {
                Reply::Send(bytes) | Reply::Before(_, bytes) => stream.write_all(&bytes).await.ok()?,
                Reply::Close(bytes) => return stream.write_all(&bytes).await.ok(),
                Reply::Nothing => std::future::pending().await,
            }
        }
        None
    }
}

/// Reads what ends with `end`.
pub(crate) async fn until(stream: &mut TcpStream, end: &[u8]) -> Option<String> {
    let mut read = Vec::new();
    while !read.ends_with(end) {
        read.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8_lossy(&read).into_owned())
}

/// The body that the head announces; two announcements are a failure of the edge.
async fn body(stream: &mut TcpStream, head: &str) -> Option<Vec<u8>> {
    let value = |name: &str| {
        let values: Vec<_> = head.lines().filter_map(|line| line.strip_prefix(name)).collect();
        assert!(values.len() <= 1, "{head}");
        values.first().map(|value| value.trim().to_owned())
    };
    match (value("content-length:"), value("transfer-encoding:")) {
        (None, None) => Some(Vec::new()),
        (Some(length), None) => {
            let mut body = vec![0; length.parse().unwrap()];
            stream.read_exact(&mut body).await.ok()?;
            Some(body)
        }
        (None, Some(coding)) => {
            assert_eq!(coding, "chunked", "{head}");
            let mut body = Vec::new();
            loop {
                let line = until(stream, b"\r\n").await?;
                let size = usize::from_str_radix(line.trim_end(), 16).expect("a size alone");
                if size == 0 {
                    while until(stream, b"\r\n").await? != "\r\n" {}
                    return Some(body);
                }
                let mut chunk = vec![0; size + 2];
                stream.read_exact(&mut chunk).await.ok()?;
                assert!(chunk.ends_with(b"\r\n"));
                body.extend_from_slice(&chunk[..size]);
            }
        }
        (Some(_), Some(_)) => panic!("two lengths reached the API: {head}"),
    }
}
