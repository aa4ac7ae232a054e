//! One HTTP request as ClickHouse understands it: what is in the URL, the headers and a form. Reads no rows.

use std::net::IpAddr;

use bytes::Bytes;
use hyper::{HeaderMap, Method, header};

use crate::exception::Exception;

/// The longest text of a statement, and the largest form, in bytes.
pub(crate) const TEXT_BYTES_MAX: usize = 1 << 20;

/// Everything of a request but the bytes of its body.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    /// The statement, or its beginning, from the URL or a form.
    pub(crate) query: String,
    /// `database=`; empty is the default one.
    pub(crate) database: String,
    /// Format of the answer unless the statement names one.
    pub(crate) format: Option<String>,
    /// Values of `{name:Type}`.
    pub(crate) params: Vec<(String, String)>,
    /// Settings of the engine for this statement.
    pub(crate) settings: Vec<(String, String)>,
    /// The client's name for the statement.
    pub(crate) query_id: Option<String>,
    /// A GET: may only read.
    pub(crate) reads_only: bool,
    /// A session was named; this server has none.
    pub(crate) session: bool,
    /// Hold the answer back until the statement has ended.
    pub(crate) whole_answer: bool,
    /// How the body comes.
    pub(crate) input: Input,
    /// How the answer is wanted.
    pub(crate) output: Coding,
}

/// How the body of a request is compressed: by HTTP, and inside that by ClickHouse.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Input {
    /// `Content-Encoding: lz4`
    pub(crate) frame: bool,
    /// `decompress=1`
    pub(crate) blocks: bool,
}

/// How an answer is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Coding {
    #[default]
    Identity,
    /// `compress=1`: ClickHouse's own blocks.
    Blocks,
    /// `Accept-Encoding: lz4`
    Frame,
}

impl Request {
    /// Reads the URL and the headers.
    ///
    /// # Errors
    /// For what this server has not: users, sessions, other codings.
    pub(crate) fn parse(method: &Method, url_query: &str, headers: &HeaderMap) -> Result<Self, Exception> {
        let mut request = Self { reads_only: *method == Method::GET, ..Self::default() };
        refuse_web_pages_and_users(headers)?;
        request.format = text(headers, "x-clickhouse-format")?;
        request.database = text(headers, "x-clickhouse-database")?.unwrap_or_default();
        for (name, value) in form_urlencoded::parse(url_query.as_bytes()) {
            request.set(&name, value.into_owned())?;
        }
        if let Some(coding) = text(headers, header::CONTENT_ENCODING.as_str())? {
            request.input.frame = match coding.as_str() {
                "lz4" => true,
                "identity" | "" => false,
                other => {
                    return Err(Exception::not_implemented(format!(
                        "Content-Encoding {other} is not supported; send lz4 or nothing"
                    )));
                }
            };
        }
        let accepted = text(headers, header::ACCEPT_ENCODING.as_str())?.unwrap_or_default();
        let lz4 = accepted
            .split(',')
            .any(|coding| coding.split(';').next().is_some_and(|name| name.trim() == "lz4"));
        if request.output == Coding::Identity && lz4 {
            request.output = Coding::Frame;
        }
        Ok(request)
    }

    /// Adds the fields of a `multipart/form-data` body.
    ///
    /// # Errors
    /// If the form is garbled or holds a file.
    pub(crate) fn add_form(&mut self, boundary: &str, body: &Bytes) -> Result<(), Exception> {
        for (name, value) in form_fields(boundary, body)? {
            self.set(&name, value)?;
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), Exception> {
        match name {
            "query" => self.query = value,
            "database" => self.database = value,
            "default_format" => self.format = Some(value),
            "query_id" => self.query_id = Some(value).filter(|id| !id.is_empty()),
            "compress" => self.output = if flag(&value) { Coding::Blocks } else { self.output },
            "decompress" => self.input.blocks = flag(&value),
            "wait_end_of_query" => self.whole_answer = flag(&value),
            "session_id" => self.session = !value.is_empty(),
            "session_check" if flag(&value) => {
                return Err(Exception::new(372, "Session not found: this server keeps no sessions"));
            }
            "user" if !value.is_empty() && value != "default" => return Err(no_users()),
            "password" if !value.is_empty() => return Err(no_users()),
            "role" => return Err(Exception::not_implemented("this server has no roles")),
            // Buffering and HTTP compression are this server's own business.
            "user"
            | "password"
            | "session_timeout"
            | "session_check"
            | "buffer_size"
            | "quota_key"
            | "stacktrace"
            | "enable_http_compression"
            | "http_zlib_compression_level"
            | "send_progress_in_http_headers"
            | "http_headers_progress_interval_ms"
            | "cancel_http_readonly_queries_on_client_close" => {}
            _ => match name.strip_prefix("param_") {
                Some(param) => self.params.push((param.to_owned(), value)),
                None => self.settings.push((name.to_owned(), value)),
            },
        }
        Ok(())
    }
}

/// The boundary of a `multipart/form-data` body; `None` for any other body.
pub(crate) fn boundary(headers: &HeaderMap) -> Option<String> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let parameters = kind.strip_prefix("multipart/form-data")?;
    let boundary = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("boundary="))?;
    Some(boundary.trim_matches('"').to_owned())
}

fn flag(value: &str) -> bool {
    !matches!(value, "" | "0" | "false")
}

fn no_users() -> Exception {
    Exception::new(516, "this server has no users but `default` without a password")
}

/// Any web page could use a server on the loopback address: by its own name, of which the browser tells the origin, or
/// by a host name that it lets point here.
fn refuse_web_pages_and_users(headers: &HeaderMap) -> Result<(), Exception> {
    let host = text(headers, header::HOST.as_str())?.unwrap_or_default();
    if headers.contains_key(header::ORIGIN) || !is_loopback(&host) {
        return Err(Exception::new(
            516,
            "web pages may not use this server; call it by its loopback address",
        ));
    }
    let user = text(headers, "x-clickhouse-user")?.filter(|user| !user.is_empty() && user != "default");
    let key = text(headers, "x-clickhouse-key")?.filter(|key| !key.is_empty());
    // `default` without a password, as HTTP's basic scheme writes it.
    let other = headers.get(header::AUTHORIZATION).filter(|value| {
        !["Basic ZGVmYXVsdDo=", "Basic Og=="].iter().any(|basic| value.as_bytes() == basic.as_bytes())
    });
    if user.is_some() || key.is_some() || other.is_some() { Err(no_users()) } else { Ok(()) }
}

/// `localhost`, `127.0.0.1`, `[::1]`, with or without a port; or no name at all.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.is_empty() || name == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn text(headers: &HeaderMap, name: &str) -> Result<Option<String>, Exception> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    match value.to_str() {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(_) => Err(Exception::bad_arguments(format!("header {name} is not text"))),
    }
}

fn form_fields(boundary: &str, body: &[u8]) -> Result<Vec<(String, String)>, Exception> {
    let garbled = || Exception::bad_arguments("the multipart form can not be read");
    let delimiter = format!("\r\n--{boundary}");
    // The first delimiter has no line before it.
    let body = [b"\r\n", body].concat();
    let mut parts = split(&body, delimiter.as_bytes()).into_iter().skip(1);
    let mut fields = Vec::new();
    loop {
        let part = parts.next().ok_or_else(garbled)?;
        if part.starts_with(b"--") {
            return Ok(fields);
        }
        let part = part.strip_prefix(b"\r\n").ok_or_else(garbled)?;
        let end = part.windows(4).position(|window| window == b"\r\n\r\n").ok_or_else(garbled)?;
        let head = std::str::from_utf8(&part[..end]).map_err(|_| garbled())?;
        let value = String::from_utf8(part[end + 4..].to_vec()).map_err(|_| garbled())?;
        let disposition = head
            .lines()
            .find(|line| line.to_ascii_lowercase().starts_with("content-disposition:"))
            .ok_or_else(garbled)?;
        if disposition.contains("filename=") {
            return Err(Exception::not_implemented("external tables in a form are not supported"));
        }
        let name = disposition.split("name=\"").nth(1).and_then(|rest| rest.split('"').next());
        fields.push((name.ok_or_else(garbled)?.to_owned(), value));
    }
}

fn split<'text>(mut text: &'text [u8], delimiter: &[u8]) -> Vec<&'text [u8]> {
    let mut parts = Vec::new();
    while let Some(at) = text.windows(delimiter.len()).position(|window| window == delimiter) {
        parts.push(&text[..at]);
        text = &text[at + delimiter.len()..];
    }
    parts.push(text);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_loopback_s_names_are_its_hosts() {
        for host in ["", "localhost", "localhost:8123", "127.0.0.1:8123", "127.1.2.3", "[::1]", "[::1]:8123"]
        {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "example.org",
            "example.org:8123",
            "10.0.0.1:8123",
            "localhost.example.org",
            "[::2]:1",
            "127.0.0.1.example.org",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
