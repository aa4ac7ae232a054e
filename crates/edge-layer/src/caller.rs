//! What a request tells about who made it: address, agent, own id. All of it is bounded. Pure.

use std::{borrow::Cow, net::SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, header::USER_AGENT};
use trace::{TRACEPARENT, TRACESTATE, Traceparent};

use crate::route::clean;

/// The id of a request, ours on the way out and upstream, the client's own on the way in.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
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

/// Takes out a trace context that can not be read, as its specification wants: nothing is passed on of it.
pub(crate) fn strip_broken_trace(headers: &mut HeaderMap) {
    if headers.contains_key(TRACEPARENT) && Traceparent::of(headers).is_none() {
        headers.remove(TRACEPARENT);
        headers.remove(TRACESTATE);
    }
}

/// Bytes that are no UTF-8 are replaced, and secrets cut.
fn text(value: Option<&HeaderValue>) -> Cow<'_, str> {
    clean(value.map_or(b"", HeaderValue::as_bytes), TEXT_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_passed_on_if_it_can_be_read() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        for (given, kept) in [(&[good][..], 2), (&["", good], 0), (&["00-0-0-01"], 0)] {
            let mut headers = HeaderMap::new();
            headers.insert(TRACESTATE, "a=b".parse().unwrap());
            for value in given {
                headers.append(TRACEPARENT, value.parse().unwrap());
            }
            strip_broken_trace(&mut headers);
            assert_eq!(headers.len(), kept, "all or nothing is passed on of {given:?}");
        }
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
