//! Refusals of gRPC calls: the same answer, said as a gRPC client hears it: a status of gRPC in the headers and no
//! body. The status of HTTP is 200 then, as gRPC over HTTP/2 has it: of any other one some clients read no further, and
//! take a call over its limit for a server that is away. Pure.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use http_body_util::{Either, Full};

use crate::problem::Problem;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const APPLICATION_GRPC: &str = "application/grpc";

/// The content type of a gRPC call, which its answer has too; `None` for any other request.
pub(crate) fn content_type(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get(CONTENT_TYPE)?;
    let rest = value.as_bytes().strip_prefix(APPLICATION_GRPC.as_bytes())?;
    (rest.is_empty() || b"+;-".contains(&rest[0])).then(|| value.clone())
}

/// A problem as the answer to a gRPC call; whatever else stays as it is.
pub(crate) fn shape<B>(
    response: Response<Either<B, Full<Bytes>>>,
    content_type: HeaderValue,
) -> Response<Either<B, Full<Bytes>>> {
    let Some(problem) = response.extensions().get::<Problem>().copied() else { return response };
    let (mut head, _) = response.into_parts();
    head.headers.remove(CONTENT_LENGTH);
    head.headers.insert(CONTENT_TYPE, content_type);
    head.headers.insert(GRPC_STATUS, HeaderValue::from(code(head.status)));
    head.status = StatusCode::OK;
    if let Ok(message) = HeaderValue::try_from(encoded(&problem.message())) {
        head.headers.insert(GRPC_MESSAGE, message);
    }
    Response::from_parts(head, Either::Right(Full::default()))
}

/// The status of gRPC that says the same.
fn code(status: StatusCode) -> u16 {
    match status.as_u16() {
        401 => 16,       // UNAUTHENTICATED
        403 => 7,        // PERMISSION_DENIED
        429 => 8,        // RESOURCE_EXHAUSTED
        405 => 12,       // UNIMPLEMENTED
        413 => 8,        // RESOURCE_EXHAUSTED: the body is too large
        499 => 1,        // CANCELLED
        502 | 503 => 14, // UNAVAILABLE
        504 => 4,        // DEADLINE_EXCEEDED: the call may have had its effect
        500 => 13,       // INTERNAL
        _ => 2,          // UNKNOWN
    }
}

/// As gRPC over HTTP/2 wants messages: printable ASCII without `%`, the rest escaped.
fn encoded(message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use domain::{Denial, RequestId};
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("application/grpc", true)]
    #[case("application/grpc+proto", true)]
    #[case("application/grpc;x=y", true)]
    #[case("application/grpc-web+proto", true)]
    #[case("application/grpcx", false)]
    #[case("application/json", false)]
    fn grpc_is_known_by_its_content_type(#[case] value: &'static str, #[case] expected: bool) {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(value))]);
        assert_eq!(content_type(&headers).is_some(), expected);
        assert_eq!(content_type(&HeaderMap::new()), None);
    }

    #[test]
    fn every_denial_has_a_status_and_a_message() {
        let grpc = HeaderValue::from_static("application/grpc+proto");
        for denial in Denial::ALL {
            let problem = Problem::Denied(*denial);
            let response = problem.response(RequestId::generate()).map(Either::<Full<Bytes>, _>::Right);
            let response = shape(response, grpc.clone());
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(response.headers()[CONTENT_TYPE], grpc);
            let status: u16 = response.headers()[GRPC_STATUS].to_str().unwrap().parse().unwrap();
            assert!([7, 8, 14, 16].contains(&status), "{denial:?}: {status}");
            assert!(response.headers()[GRPC_MESSAGE].to_str().unwrap().len() > 20);
        }
        assert_eq!(encoded("50 % of é"), "50 %25 of %C3%A9");
    }

    #[test]
    fn an_answer_of_the_api_stays() {
        let answer = Response::builder().header(CONTENT_TYPE, "text/plain").status(404);
        let answer = answer.body(Either::<Full<Bytes>, _>::Left(Full::from("no"))).unwrap();
        let shaped = shape(answer, HeaderValue::from_static(APPLICATION_GRPC));
        assert_eq!(
            (shaped.headers()[CONTENT_TYPE].as_bytes(), shaped.headers().len()),
            (&b"text/plain"[..], 1)
        );
    }
}
