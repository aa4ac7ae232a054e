//! What a request tells about who made it: address, agent, own id, trace. All of it is bounded. Pure.

use std::{borrow::Cow, net::SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, header::USER_AGENT};

use crate::route::clean;

/// The id of a request, ours on the way out and upstream, the client's own on the way in.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// Longest client's id and user agent kept, in bytes.
const TEXT_BYTES_MAX: usize = 256;

/// The other end of the connection, put into the request's extensions by the server. Without it the address is
/// unknown, `::`.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// The client's own request id; empty if it sent none.
#[must_use]
pub(crate) fn client_request_id(headers: &HeaderMap) -> Cow<'_, str> {
    text(headers.get(X_REQUEST_ID))
}

/// The user agent; empty if none was sent.
#[must_use]
pub(crate) fn user_agent(headers: &HeaderMap) -> Cow<'_, str> {
    text(headers.get(USER_AGENT))
}

/// The trace id of a W3C `traceparent`; zeros if there is none, several, or it is malformed.
#[must_use]
pub(crate) fn trace_id(headers: &HeaderMap) -> [u8; 16] {
    trace(headers).unwrap_or_default()
}

/// Takes out a trace context that can not be read, as its specification wants: nothing is passed on of it.
pub(crate) fn strip_broken_trace(headers: &mut HeaderMap) {
    if headers.contains_key(TRACEPARENT) && trace(headers).is_none() {
        headers.remove(TRACEPARENT);
        headers.remove(TRACESTATE);
    }
}

fn trace(headers: &HeaderMap) -> Option<[u8; 16]> {
    let mut values = headers.get_all(TRACEPARENT).into_iter();
    let only = values.next().filter(|_| values.next().is_none())?;
    parse_traceparent(only.as_bytes())
}

/// `version-trace_id-parent_id-flags`, as <https://www.w3.org/TR/trace-context/#traceparent-header> has it: a
/// later version may append fields.
fn parse_traceparent(value: &[u8]) -> Option<[u8; 16]> {
    let mut fields = value.split(|byte| *byte == b'-');
    let version = hex::<1>(fields.next()?)?;
    let trace_id = hex::<16>(fields.next()?)?;
    let parent_id = hex::<8>(fields.next()?)?;
    hex::<1>(fields.next()?)?;
    let complete = version != [0xff] && (version != [0] || fields.next().is_none());
    (complete && trace_id != [0; 16] && parent_id != [0; 8]).then_some(trace_id)
}

fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let is_hex = text.len() == 2 * N && data_encoding::HEXLOWER.decode_mut(text, &mut bytes).is_ok();
    is_hex.then_some(bytes)
}

/// Bytes that are no UTF-8 are replaced, and secrets cut.
fn text(value: Option<&HeaderValue>) -> Cow<'_, str> {
    clean(value.map_or(b"", HeaderValue::as_bytes), TEXT_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", true)]
    #[case("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", true)]
    #[case("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", false)]
    #[case("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false)]
    #[case("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", false)]
    #[case("00-00000000000000000000000000000000-b7ad6b7169203331-01", false)]
    #[case("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", false)]
    #[case("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", false)]
    #[case("", false)]
    fn a_trace_is_taken_if_it_is_well_formed(#[case] header: &str, #[case] good: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, header.parse().unwrap());
        headers.insert(TRACESTATE, "a=b".parse().unwrap());
        assert_eq!(trace_id(&headers) != [0; 16], good);
        let mut passed = headers.clone();
        strip_broken_trace(&mut passed);
        assert_eq!(passed.len(), if good { 2 } else { 0 }, "all or nothing is passed on");
        headers.append(TRACEPARENT, header.parse().unwrap());
        assert_eq!(trace_id(&headers), [0; 16], "of two nobody knows which is right");
    }

    #[test]
    fn texts_are_bounded_and_utf8() {
        let mut headers = HeaderMap::new();
        assert_eq!((user_agent(&headers), client_request_id(&headers)), ("".into(), "".into()));
        headers.insert(USER_AGENT, HeaderValue::from_bytes(&[0xff; 300]).unwrap());
        headers.insert(X_REQUEST_ID, HeaderValue::from_bytes("é".repeat(200).as_bytes()).unwrap());
        assert_eq!(user_agent(&headers), "\u{fffd}".repeat(85));
        assert_eq!(client_request_id(&headers), "é".repeat(128));
    }
}
