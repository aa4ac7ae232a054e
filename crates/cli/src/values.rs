//! Values of options that are more than a text: addresses, tags, limits, names of the protos' enums. Pure.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use domain::WorkspaceId;
use proto::{
    keys::{KeyHygiene, KeyOrder, KeyState, RateLimit},
    resource::parse_workspace_name,
    usage::{Dimension, ExportFormat, Outcome},
};
use tonic::transport::Uri;

use crate::when::length;

/// Where a service is: `http://` or `https://` and a host.
pub(crate) fn url(text: &str) -> Result<Uri, String> {
    let expected = || "write http:// or https://, a host and a port: http://127.0.0.1:50051".to_owned();
    let url: Uri = text.parse().map_err(|_| expected())?;
    let is_plain = url.path_and_query().is_none_or(|path| path.as_str() == "/");
    let scheme = url.scheme_str().unwrap_or_default();
    // Whoever writes a password into an address would see it in errors.
    let is_bare = url.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    if ["http", "https"].contains(&scheme) && is_bare && is_plain { Ok(url) } else { Err(expected()) }
}

/// `ws_…` or `workspaces/ws_…`.
pub(crate) fn workspace(text: &str) -> Result<WorkspaceId, String> {
    let id = parse_workspace_name(text).or_else(|_| text.parse().map_err(Into::into));
    id.map_err(|error: proto::resource::NameError| error.to_string())
}

/// `team=payments`.
pub(crate) fn tag(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE, such as team=payments")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// `burst=100/1m`: a name, a number of requests and the window that they are counted in.
pub(crate) fn rate_limit(text: &str) -> Result<RateLimit, String> {
    let expected = || "write NAME=REQUESTS/WINDOW, such as burst=100/1m".to_owned();
    let (name, rest) = text.split_once('=').ok_or_else(expected)?;
    let (requests, window) = rest.split_once('/').ok_or_else(expected)?;
    let requests = requests.trim().parse().map_err(|_| expected())?;
    let window = length(window.trim())?;
    let window = prost_types::Duration { seconds: window.whole_seconds(), nanos: 0 };
    Ok(RateLimit { name: name.trim().to_owned(), requests, window: Some(window) })
}

/// HTTP statuses: a code or a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StatusCodes {
    /// `404`
    One(u32),
    /// `4xx`
    Class(u32),
}

/// `404` or `4xx`.
pub(crate) fn status(text: &str) -> Result<StatusCodes, String> {
    let class = text.strip_suffix("xx").or_else(|| text.strip_suffix("XX"));
    let number = class.unwrap_or(text).parse::<u32>().ok();
    match (number, class) {
        (Some(number @ 1..=5), Some(_)) => Ok(StatusCodes::Class(number)),
        (Some(number @ 100..=599), None) => Ok(StatusCodes::One(number)),
        _ => Err("write a number from 100 to 599, such as 404, or a class, such as 4xx".to_owned()),
    }
}

/// One of `names`, which are those of a proto's enum in lower case behind `prefix`.
fn named<E: Clone + Send + Sync + 'static>(
    prefix: &'static str,
    names: &'static [&'static str],
    value: impl Fn(&str) -> Option<E> + Clone + Send + Sync + 'static,
) -> impl TypedValueParser<Value = E> {
    PossibleValuesParser::new(names).try_map(move |name| {
        value(&format!("{prefix}{}", name.to_ascii_uppercase())).ok_or("has no such value")
    })
}

pub(crate) fn outcome() -> impl TypedValueParser<Value = Outcome> {
    named("OUTCOME_", &["completed", "failed", "rate_limited"], Outcome::from_str_name)
}

pub(crate) fn key_state() -> impl TypedValueParser<Value = KeyState> {
    named("KEY_STATE_", &["active", "disabled", "expired", "deleted"], KeyState::from_str_name)
}

pub(crate) fn hygiene() -> impl TypedValueParser<Value = KeyHygiene> {
    const NAMES: &[&str] = &[
        "never_used",
        "unused_30_days",
        "unused_90_days",
        "no_expiry",
        "expires_soon",
        "many_addresses",
        "exposed",
        "several_secrets",
    ];
    named("KEY_HYGIENE_", NAMES, KeyHygiene::from_str_name)
}

pub(crate) fn order() -> impl TypedValueParser<Value = KeyOrder> {
    const NAMES: &[&str] = &["create_time_desc", "display_name", "last_used_time_desc", "expire_time"];
    named("KEY_ORDER_", NAMES, KeyOrder::from_str_name)
}

pub(crate) fn format() -> impl TypedValueParser<Value = ExportFormat> {
    named("EXPORT_FORMAT_", &["csv", "ndjson", "parquet", "arrow"], ExportFormat::from_str_name)
}

pub(crate) fn dimension() -> impl TypedValueParser<Value = Dimension> {
    const NAMES: &[&str] = &[
        "route",
        "method",
        "status_code",
        "status_class",
        "outcome",
        "key",
        "secret",
        "denial",
        "limit",
        "origin",
        "resource",
        "client_ip",
        "user_agent",
        "region",
    ];
    named("DIMENSION_", NAMES, Dimension::from_str_name)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("http://127.0.0.1:50051", true)]
    #[case("https://keys.example:443/", true)]
    #[case("127.0.0.1:50051", false)]
    #[case("ftp://host", false)]
    #[case("http://user:password@host", false)]
    #[case("http://host/path", false)]
    #[case("http://", false)]
    #[case("", false)]
    fn an_address_is_a_scheme_and_a_host(#[case] text: &str, #[case] good: bool) {
        assert_eq!(url(text).is_ok(), good, "{text}");
    }

    #[test]
    fn limits_tags_and_statuses_are_read() {
        let limit = rate_limit("burst = 100 / 1m").unwrap();
        assert_eq!((limit.name.as_str(), limit.requests, limit.window.unwrap().seconds), ("burst", 100, 60));
        for bad in ["", "burst", "burst=100", "burst=x/1m", "burst=1/x", "burst=1/"] {
            assert!(rate_limit(bad).is_err(), "{bad}");
        }
        assert_eq!(tag("team=a=b"), Ok(("team".into(), "a=b".into())));
        assert!(tag("team").is_err());
        assert_eq!((status("404"), status("5xx")), (Ok(StatusCodes::One(404)), Ok(StatusCodes::Class(5))));
        for bad in ["", "99", "600", "6xx", "xx", "4x", "-1"] {
            assert!(status(bad).is_err(), "{bad}");
        }
        let id = WorkspaceId::generate();
        assert_eq!(workspace(&id.to_string()), Ok(id));
        assert_eq!(workspace(&format!("workspaces/{id}")), Ok(id));
        assert!(workspace("workspaces/").is_err() && workspace("Acme").is_err());
    }
}
