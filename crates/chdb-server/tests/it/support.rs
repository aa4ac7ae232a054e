//! A server under test, and HTTP by hand: what a client library would hide is visible here.

use std::collections::HashMap;

use clickhouse::Client;
use parts::{Service, eventually, free_port};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A running server and its data folder.
pub(crate) struct Server {
    pub(crate) service: Service,
    pub(crate) address: String,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub(crate) async fn start_with(settings: &[(&str, &str)]) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let library = parts::libchdb().to_string_lossy().into_owned();
        // Relative to the process's own temporary folder.
        let mut environment =
            vec![("CHDB_LIBRARY", library.as_str()), ("CHDB_PATH", "data"), ("CHDB_LISTEN", &address)];
        environment.extend(settings);
        let service = Service::spawn("chdb-server", &environment).await;
        let mut server = Self { service, address };
        server.ready().await;
        server
    }

    pub(crate) async fn ready(&mut self) {
        let address = self.address.clone();
        eventually("the server answers", async || {
            assert!(self.service.is_running(), "the server ended: {}", self.service.log());
            parts::get(&address, "/ping").await.is_ok()
        })
        .await;
    }

    pub(crate) fn client(&self) -> Client {
        Client::default().with_url(format!("http://{}", self.address))
    }

    /// The answer to a POST of `body` to `/?<query>`.
    pub(crate) async fn post(&self, query: &str, body: impl AsRef<[u8]>) -> Answer {
        self.request("POST", &format!("/?{query}"), "", body.as_ref()).await
    }

    /// The text of a statement's answer.
    #[track_caller]
    pub(crate) fn query(&self, sql: &str) -> impl Future<Output = String> {
        let sql = sql.to_owned();
        async move {
            let answer = self.post("", &sql).await;
            assert_eq!(answer.status, 200, "{sql}: {}", answer.text());
            answer.text()
        }
    }

    /// `headers` are whole lines, each with its end.
    pub(crate) async fn request(&self, method: &str, target: &str, headers: &str, body: &[u8]) -> Answer {
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        self.raw(&[head.as_bytes(), body].concat()).await
    }

    /// The answer to a whole request.
    pub(crate) async fn raw(&self, request: &[u8]) -> Answer {
        let mut stream = self.connect().await;
        stream.write_all(request).await.unwrap();
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes).await;
        Answer::parse(&bytes, read.is_ok())
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).await.unwrap()
    }

    /// Begins an insert over HTTP whose rows go on later, chunk by chunk.
    pub(crate) async fn begin_insert(&self, url_query: &str) -> TcpStream {
        let mut stream = self.connect().await;
        let head = format!(
            "POST /?{url_query} HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
            self.address
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }

    /// Waits until no query runs but the one that asks.
    pub(crate) async fn idle(&self) {
        eventually("no query runs", async || {
            self.query("select count() from system.processes").await == "1\n"
        })
        .await;
    }
}

pub(crate) async fn send_chunk(stream: &mut TcpStream, data: &[u8]) {
    let chunk = [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat();
    stream.write_all(&chunk).await.unwrap();
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
    /// The body ended as HTTP says.
    pub(crate) whole: bool,
}

impl Answer {
    pub(crate) fn parse(bytes: &[u8], read: bool) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let headers: HashMap<_, _> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let (body, whole) = if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
            unchunk(&bytes[end + 4..])
        } else {
            let body = bytes[end + 4..].to_vec();
            let whole = headers.get("content-length").is_none_or(|length| *length == body.len().to_string());
            (body, whole)
        };
        Self { status: status.expect("a status"), headers, body, whole: whole && read }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

fn unchunk(mut bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") {
        let size =
            std::str::from_utf8(&bytes[..end]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
        let Some(size) = size else { break };
        if size == 0 {
            return (body, true);
        }
        let rest = &bytes[end + 2..];
        body.extend(&rest[..size.min(rest.len())]);
        bytes = rest.get(size + 2..).unwrap_or_default();
    }
    (body, false)
}
