//! The methods of HTTP that spans tell by name: others are made up by clients. Pure.

use http::Method;

const KNOWN: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::CONNECT,
    Method::OPTIONS,
    Method::TRACE,
    Method::PATCH,
];

/// What `http.request.method` says of a method, and what the span's name begins with.
#[must_use]
pub fn method(method: &Method) -> (String, String) {
    if KNOWN.contains(method) {
        (method.to_string(), method.to_string())
    } else {
        ("_OTHER".to_owned(), "HTTP".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_make_up_has_one_name() {
        let of = |name: &str| method(&Method::from_bytes(name.as_bytes()).unwrap()).0;
        assert_eq!([of("PATCH"), of("patch"), of("BREW")], ["PATCH", "_OTHER", "_OTHER"]);
    }
}
