//! The least HTTP that asks a server on this machine for its state. Follows nothing, keeps no connection.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// An answer, read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body; bytes that are no UTF-8 are replaced.
    pub body: String,
}

/// GETs `path` from `address` (`host:port`).
///
/// # Errors
/// If nobody listens or the answer is not HTTP.
pub async fn get(address: &str, path: &str) -> io::Result<Answer> {
    request("GET", address, path, &[], "").await
}

/// Sends one request, as HTTP/1.0 so that the body ends with the connection.
///
/// # Errors
/// If nobody listens or the answer is not HTTP.
pub async fn request(
    method: &str,
    address: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(address).await?;
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {length}\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let status =
        head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Answer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn reads_status_and_body_and_says_when_nobody_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = vec![0; 1024];
            let bytes = stream.read(&mut heard).await.unwrap();
            stream.write_all(b"HTTP/1.1 503 No\r\nA: b\r\n\r\nnot yet").await.unwrap();
            String::from_utf8_lossy(&heard[..bytes]).into_owned()
        });
        let answer = request("GET", &address, "/readyz", &[("X-A", "b")], "").await.unwrap();
        assert_eq!(answer, Answer { status: 503, body: "not yet".into() });
        let heard = server.await.unwrap();
        assert!(heard.starts_with("GET /readyz HTTP/1.0\r\n") && heard.contains("\r\nX-A: b\r\n"), "{heard}");
        assert!(get(&address, "/readyz").await.is_err());
    }
}
