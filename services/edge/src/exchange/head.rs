//! The head of a request as it is written to the API, and of the API's answer as it is read: where its body ends is
//! decided here, and never guessed (RFC 9112, section 6.3). Pure.

use std::mem::MaybeUninit;

use bytes::BytesMut;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING},
    request,
};

use crate::upstream::Address;

/// Longest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = u16::MAX as usize;
/// Most headers of an answer.
const HEADERS_MAX: usize = 128;

/// How long a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// So many bytes; a request with 0 that said nothing of a body has [`Length::None`].
    Known(u64),
    /// Until its last chunk.
    Chunked,
    /// Until the connection's end; answers only.
    UntilClose,
    /// There is none.
    None,
}

/// The head of an answer.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) length: Length,
    /// Whether another call may follow on the connection.
    pub(crate) is_reusable: bool,
}

/// An answer that cannot be understood, or not safely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    /// It is no HTTP.
    #[error("the head of the answer is malformed")]
    Malformed,
    /// It has no end.
    #[error(
        "the head of the answer is longer than {HEAD_BYTES_MAX} bytes, or has more than {HEADERS_MAX} headers"
    )]
    TooLong,
    /// It says two things of its body's length.
    #[error("the length of the answer's body cannot be told for sure")]
    Length,
}

/// Appends the head of a request. Its headers have been made fit for the API; those of framing are ours.
pub(crate) fn write(out: &mut Vec<u8>, head: &request::Parts, address: &Address, length: Length) {
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    address.write_target(out, &head.uri);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if !head.headers.contains_key(HOST) {
        // HTTP/1.0 may name none.
        out.extend_from_slice(b"host: ");
        out.extend_from_slice(address.authority().as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    for (name, value) in &head.headers {
        if name != CONTENT_LENGTH && name != TRANSFER_ENCODING {
            write_field(out, name, value);
        }
    }
    match length {
        Length::Known(bytes) => {
            out.extend_from_slice(b"content-length: ");
            out.extend_from_slice(bytes.to_string().as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Length::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Length::None | Length::UntilClose => {}
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends one header.
pub(crate) fn write_field(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Takes the head of an answer to `method` out of `buffer`; `None` if it is not all there.
pub(crate) fn read(buffer: &mut BytesMut, method: &Method) -> Result<Option<Head>, HeadError> {
    // Places of names and values in the buffer, so that they can be cut out without a copy.
    let mut places = [[0_u16; 4]; HEADERS_MAX];
    let (length, status, version, count) = {
        let mut fields = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut []);
        let parser = httparse::ParserConfig::default();
        let length = match parser.parse_response_with_uninit_headers(&mut response, buffer, &mut fields) {
            Ok(httparse::Status::Complete(length)) if length <= HEAD_BYTES_MAX => length,
            Ok(httparse::Status::Partial) if buffer.len() <= HEAD_BYTES_MAX => return Ok(None),
            Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooLong),
            Err(_) => return Err(HeadError::Malformed),
        };
        let start = buffer.as_ptr().addr();
        // Below HEAD_BYTES_MAX, each of them.
        let place = |part: &[u8]| u16::try_from(part.as_ptr().addr() - start).unwrap_or(u16::MAX);
        let end = |part: &[u8]| place(part).saturating_add(u16::try_from(part.len()).unwrap_or(u16::MAX));
        for (field, at) in response.headers.iter().zip(&mut places) {
            let (name, value) = (field.name.as_bytes(), field.value);
            // An empty value may stand nowhere.
            let value = if value.is_empty() { [0, 0] } else { [place(value), end(value)] };
            *at = [place(name), end(name), value[0], value[1]];
        }
        (length, response.code.unwrap_or(0), response.version.unwrap_or(0), response.headers.len())
    };
    let bytes = buffer.split_to(length).freeze();
    let mut headers = HeaderMap::with_capacity(count + 2);
    for at in &places[..count] {
        let [name, name_end, value, value_end] = at.map(usize::from);
        let name = HeaderName::from_bytes(&bytes[name..name_end]).map_err(|_| HeadError::Malformed)?;
        let value = HeaderValue::from_maybe_shared(bytes.slice(value..value_end))
            .map_err(|_| HeadError::Malformed)?;
        headers.try_append(name, value).map_err(|_| HeadError::TooLong)?;
    }
    let status = StatusCode::from_u16(status).map_err(|_| HeadError::Malformed)?;
    let version = if version == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    let is_both = headers.contains_key(TRANSFER_ENCODING) && headers.contains_key(CONTENT_LENGTH);
    let length = body_length(method, status, version, &mut headers)?;
    let is_reusable = !is_both && length != Length::UntilClose && stays_open(version, &headers);
    Ok(Some(Head { status, headers, length, is_reusable }))
}

/// Where the body of an answer ends. Leaves at most one `Content-Length` among the headers.
fn body_length(
    method: &Method,
    status: StatusCode,
    version: Version,
    headers: &mut HeaderMap,
) -> Result<Length, HeadError> {
    let is_bodiless = status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || method == Method::HEAD;
    let known = known_length(headers)?;
    if headers.contains_key(TRANSFER_ENCODING) {
        let codings: Vec<_> = headers.get_all(TRANSFER_ENCODING).iter().collect();
        let is_chunked = codings.len() == 1 && codings[0].as_bytes().eq_ignore_ascii_case(b"chunked");
        if !is_bodiless && (!is_chunked || version == Version::HTTP_10) {
            return Err(HeadError::Length);
        }
        // It overrides a length, which must not be passed on.
        headers.remove(CONTENT_LENGTH);
        return Ok(if is_bodiless { Length::None } else { Length::Chunked });
    }
    Ok(match known {
        _ if is_bodiless => Length::None,
        Some(bytes) => Length::Known(bytes),
        None => Length::UntilClose,
    })
}

/// What `Content-Length` says; several must say the same.
fn known_length(headers: &mut HeaderMap) -> Result<Option<u64>, HeadError> {
    let mut known = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        for digits in value.as_bytes().split(|byte| *byte == b',') {
            let digits = str::from_utf8(digits.trim_ascii()).map_err(|_| HeadError::Length)?;
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(HeadError::Length);
            }
            let bytes: u64 = digits.parse().map_err(|_| HeadError::Length)?;
            if known.replace(bytes).is_some_and(|other| other != bytes) {
                return Err(HeadError::Length);
            }
        }
    }
    if let Some(bytes) = known
        && (headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some()
            || headers[CONTENT_LENGTH].as_bytes().contains(&b','))
    {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes));
    }
    Ok(known)
}

fn stays_open(version: Version, headers: &HeaderMap) -> bool {
    let mut options = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii);
    if version == Version::HTTP_10 {
        options.any(|option| option.eq_ignore_ascii_case(b"keep-alive"))
    } else {
        !options.any(|option| option.eq_ignore_ascii_case(b"close"))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn head(method: &Method, sent: &str) -> Result<Head, HeadError> {
        for cut in 0..sent.len() {
            let early = read(&mut BytesMut::from(&sent.as_bytes()[..cut]), method);
            assert!(!matches!(early, Ok(Some(_))), "a head without its end: {:?}", &sent[..cut]);
        }
        let mut buffer = BytesMut::from(format!("{sent}rest").as_bytes());
        let head = read(&mut buffer, method)?.expect("a whole head");
        assert_eq!(buffer, "rest");
        Ok(head)
    }

    #[rstest]
    #[case("Content-Length: 5", Length::Known(5), true)]
    #[case("Content-Length: 5\r\nContent-Length: 5", Length::Known(5), true)]
    #[case("Content-Length: 5, 5", Length::Known(5), true)]
    #[case("Transfer-Encoding: Chunked", Length::Chunked, true)]
    #[case("Transfer-Encoding: chunked\r\nContent-Length: 5", Length::Chunked, false)]
    #[case("Content-Length: 5\r\nConnection: x, Close", Length::Known(5), false)]
    #[case("X-A: b", Length::UntilClose, false)]
    fn the_body_s_end_is_told(#[case] headers: &str, #[case] length: Length, #[case] is_reusable: bool) {
        let read = head(&Method::GET, &format!("HTTP/1.1 200 OK\r\n{headers}\r\n\r\n")).unwrap();
        assert_eq!((read.length, read.is_reusable), (length, is_reusable));
        let lengths = read.headers.get_all(CONTENT_LENGTH).iter().count();
        assert_eq!(lengths, usize::from(matches!(length, Length::Known(_))));
    }

    #[rstest]
    #[case("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6")]
    #[case("HTTP/1.1 200 OK\r\nContent-Length: 5, 6")]
    #[case("HTTP/1.1 200 OK\r\nContent-Length: +5")]
    #[case("HTTP/1.1 200 OK\r\nContent-Length: 0x5")]
    #[case("HTTP/1.1 200 OK\r\nContent-Length:")]
    #[case("HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616")]
    #[case("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip")]
    #[case("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked")]
    #[case("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked")]
    #[case("HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked")]
    #[case("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked")]
    fn a_length_in_doubt_is_refused(#[case] sent: &str) {
        assert_eq!(head(&Method::GET, &format!("{sent}\r\n\r\n")).unwrap_err(), HeadError::Length);
    }

    #[rstest]
    #[case("nonsense")]
    #[case("HTTP/1.1 200 OK\r\nContent-Length : 5")]
    #[case("HTTP/1.1 200 OK\r\nX: a\r\n folded")]
    #[case("HTTP/1.1 200 OK\r\nX: a\0b")]
    #[case("HTTP/1.1 20 OK")]
    #[case("HTTP/1.1 099 OK")]
    fn what_is_no_http_is_refused(#[case] sent: &str) {
        assert_eq!(head(&Method::GET, &format!("{sent}\r\n\r\n")).unwrap_err(), HeadError::Malformed);
    }

    #[rstest]
    #[case(&Method::HEAD, "200 OK")]
    #[case(&Method::GET, "204 No Content")]
    #[case(&Method::GET, "304 Not Modified")]
    #[case(&Method::GET, "103 Early Hints")]
    fn some_have_no_body_whatever_they_say(#[case] method: &Method, #[case] status: &str) {
        for header in ["Content-Length: 5", "Transfer-Encoding: chunked", "X-A: b"] {
            let read = head(method, &format!("HTTP/1.1 {status}\r\n{header}\r\n\r\n")).unwrap();
            assert_eq!((read.length, read.is_reusable), (Length::None, true));
        }
    }

    #[test]
    fn an_old_server_keeps_a_connection_only_if_it_says_so() {
        let answer = "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n";
        assert!(!head(&Method::GET, &format!("{answer}\r\n")).unwrap().is_reusable);
        let kept = format!("{answer}Connection: Keep-Alive\r\n\r\n");
        assert!(head(&Method::GET, &kept).unwrap().is_reusable);
    }

    #[test]
    fn an_endless_head_is_refused() {
        let long = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(HEAD_BYTES_MAX));
        let error = read(&mut BytesMut::from(long.as_bytes()), &Method::GET).unwrap_err();
        assert_eq!(error, HeadError::TooLong);
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(HEADERS_MAX + 1));
        let error = read(&mut BytesMut::from(many.as_bytes()), &Method::GET).unwrap_err();
        assert_eq!(error, HeadError::TooLong);
    }
}
