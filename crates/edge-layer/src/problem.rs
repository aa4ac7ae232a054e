//! Refusals as `application/problem+json` (RFC 9457), each with a remedy.

use bytes::Bytes;
use domain::{Denial, RequestId};
use http::{
    HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use http_body_util::Full;
use serde_json::json;

use crate::credential::CredentialError;

/// The client left before there was any answer; nginx's number for it.
pub(crate) const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Why a call got no answer from the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// No usable secret.
    Credential(CredentialError),
    /// A well-formed secret that no key has.
    UnknownKey,
    /// The edge does not know the keys, so it cannot tell.
    KeysUnavailable,
    /// The key is known, and refused.
    Denied(Denial),
    /// The API could not be reached.
    UpstreamUnreachable,
    /// The API took too long to answer.
    UpstreamTimeout,
    /// The API failed without an answer.
    UpstreamFailed,
    /// The client broke off its request; nobody reads this.
    ClientGone,
    /// `CONNECT`, which would make a proxy of the API.
    ConnectRefused,
    /// The request's body is longer than allowed.
    BodyTooLarge,
    /// The request's body did not come in time.
    RequestTimeout,
    /// The request cannot be passed on.
    BadRequest,
}

impl Problem {
    /// The answer's status.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::Credential(_) | Self::UnknownKey => StatusCode::UNAUTHORIZED,
            Self::KeysUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Denied(denial) => {
                StatusCode::from_u16(denial.status_code()).expect("denials have the status codes of HTTP")
            }
            Self::UpstreamUnreachable | Self::UpstreamFailed => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::ClientGone => StatusCode::from_u16(CLIENT_CLOSED_REQUEST).expect("a three-digit number"),
            Self::ConnectRefused => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::BadRequest => StatusCode::BAD_REQUEST,
        }
    }

    /// The whole answer.
    #[must_use]
    pub fn response(self, request_id: RequestId) -> Response<Full<Bytes>> {
        self.response_naming(request_id, None)
    }

    /// The same; names the rate limit that refused, as draft-ietf-httpapi-ratelimit-headers does in problems.
    pub(crate) fn response_naming(self, request_id: RequestId, limit: Option<&str>) -> Response<Full<Bytes>> {
        let (slug, title, detail) = self.texts();
        let status = self.status();
        let denial = if let Self::Denied(denial) = self { denial.as_str() } else { "" };
        let mut body = json!({
            "type": format!("urn:keymeter:problem:{slug}"),
            "title": title,
            "status": status.as_u16(),
            "detail": detail,
            "denial": denial,
            "request_id": request_id.to_string(),
        });
        if let Some(limit) = limit {
            body["violated-policies"] = json!([limit]);
        }
        let mut response = Response::new(Full::from(body.to_string()));
        *response.status_mut() = status;
        // For whoever has to say the same in another form.
        response.extensions_mut().insert(self);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }

    /// Its title and what to do, as one text.
    pub(crate) fn message(self) -> String {
        let (_, title, detail) = self.texts();
        format!("{title}: {detail}")
    }

    /// Its name in metrics and at the end of its type.
    pub(crate) fn slug(self) -> &'static str {
        self.texts().0
    }

    /// The end of its type, its title, and what to do.
    fn texts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Credential(CredentialError::Missing) => (
                "missing_key",
                "No API key",
                "Send your API key as \"Authorization: Bearer <key>\" or as \"X-API-Key: <key>\".",
            ),
            Self::Credential(CredentialError::Ambiguous) => (
                "ambiguous_key",
                "Two different API keys",
                "The request carries API keys that differ; send one.",
            ),
            Self::Credential(CredentialError::Malformed) => (
                "malformed_key",
                "Not an API key",
                "The key is cut, mistyped or not one of this service: copy it again, as a whole.",
            ),
            Self::UnknownKey => (
                "unknown_key",
                "Unknown API key",
                "No such key exists here: check that the key belongs to this service and environment.",
            ),
            Self::KeysUnavailable => (
                "keys_unavailable",
                "API keys cannot be checked",
                "The gateway has no current list of keys; try again in some seconds.",
            ),
            Self::Denied(denial) => denied(denial),
            Self::UpstreamUnreachable => (
                "upstream_unreachable",
                "The API cannot be reached",
                "The gateway got no connection to the API behind it; try again later.",
            ),
            Self::UpstreamTimeout => (
                "upstream_timeout",
                "The API did not answer in time",
                "The API took too long; before trying again, find out whether the call had an effect.",
            ),
            Self::UpstreamFailed => (
                "upstream_failed",
                "The API failed",
                "The API ended the call without an answer; before trying again, find out whether it had an effect.",
            ),
            Self::ClientGone => {
                ("client_gone", "The request was broken off", "Send the request again, as a whole.")
            }
            Self::ConnectRefused => (
                "connect_refused",
                "CONNECT is not served here",
                "Send requests to the API itself, with another method.",
            ),
            Self::BodyTooLarge => (
                "body_too_large",
                "The request is too large",
                "The body is larger than this service takes; send less at a time.",
            ),
            Self::RequestTimeout => (
                "request_timeout",
                "The request did not come in time",
                "Nothing more of the body came for too long; send the request again, as a whole.",
            ),
            Self::BadRequest => (
                "bad_request",
                "The request cannot be passed on",
                "Its target, its host or the framing of its body can be read in more than one way; send it as HTTP has it.",
            ),
        }
    }
}

fn denied(denial: Denial) -> (&'static str, &'static str, &'static str) {
    let (title, detail) = match denial {
        Denial::RateLimited => {
            ("Too many requests", "A limit of this key is exceeded; slow down and try again later.")
        }
        Denial::Deleted => {
            ("Deleted API key", "This key was deleted for good; ask for a new one and use that.")
        }
        Denial::Expired => {
            ("Expired API key", "This key has expired; have its expiry extended or use a new key.")
        }
        Denial::Disabled => ("Disabled API key", "This key is switched off; ask its owner to switch it on."),
        Denial::SecretRetired => ("Retired secret", "This key was rotated; use its newest secret."),
        Denial::IpNotAllowed => {
            ("Address not allowed", "This key may not be used from your address; ask its owner.")
        }
        Denial::ScopeMissing => {
            ("Scope missing", "This key may not call this route; ask its owner for the scope.")
        }
        Denial::EnvironmentMismatch => {
            ("Wrong environment", "Use a key of the environment that you are calling.")
        }
        Denial::FeedLost => (
            "API keys cannot be checked",
            "The gateway lost its list of keys for too long; try again in some seconds.",
        ),
    };
    (denial.as_str(), title, detail)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn every_refusal_is_a_whole_document() {
        let credentials = [CredentialError::Missing, CredentialError::Ambiguous, CredentialError::Malformed];
        let others = [
            Problem::UnknownKey,
            Problem::KeysUnavailable,
            Problem::UpstreamUnreachable,
            Problem::UpstreamTimeout,
            Problem::UpstreamFailed,
            Problem::ClientGone,
            Problem::ConnectRefused,
        ];
        let denials = Denial::ALL.iter().copied().map(Problem::Denied);
        let mut types = std::collections::HashSet::new();
        for problem in credentials.map(Problem::Credential).into_iter().chain(others).chain(denials) {
            let request_id = RequestId::generate();
            let response = problem.response(request_id);
            let (head, body) = response.into_parts();
            assert_eq!(head.headers[CONTENT_TYPE], "application/problem+json");
            assert_eq!(head.headers.contains_key(WWW_AUTHENTICATE), head.status == StatusCode::UNAUTHORIZED);
            let body: serde_json::Value =
                serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
            assert_eq!(body["status"], head.status.as_u16());
            assert_eq!(body["request_id"], request_id.to_string());
            let denial = if let Problem::Denied(denial) = problem { denial.as_str() } else { "" };
            assert_eq!(body["denial"], denial);
            assert!(body["title"].as_str().unwrap().len() > 8 && body["detail"].as_str().unwrap().len() > 20);
            assert!(types.insert(body["type"].to_string()), "{body}");
        }
    }
}
