//! One gRPC call under way: who asks, and until when an answer is of use.

use std::time::Duration;

use access::Claims;
use tokio::time::Instant;
use tonic::metadata::MetadataMap;

use crate::store::Store;

/// Longest time for one call, whatever its caller allows.
pub(crate) const CALL_MAX: Duration = Duration::from_secs(30);
/// Taken off the caller's deadline, so that our answer says more than the transport's own.
const ANSWER_MARGIN: Duration = Duration::from_millis(10);

/// What a use case works with.
pub(crate) struct Call {
    /// The checked access token.
    pub(crate) claims: Claims,
    /// Where the events are.
    pub(crate) store: Store,
    /// When to give up.
    pub(crate) deadline: Instant,
}

/// How long a call may take: its `grpc-timeout`, at most [`CALL_MAX`]. A header that is none counts for nothing,
/// as in every gRPC server.
pub(crate) fn time_allowed(metadata: &MetadataMap) -> Duration {
    metadata
        .get("grpc-timeout")
        .and_then(|value| timeout(value.to_str().ok()?))
        .map_or(CALL_MAX, |timeout| timeout.saturating_sub(ANSWER_MARGIN).min(CALL_MAX))
}

/// At most eight digits and a unit, as gRPC over HTTP/2 has it.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("2S", Duration::from_millis(1990))]
    #[case("1500m", Duration::from_millis(1490))]
    #[case("5m", Duration::ZERO)]
    #[case("100u", Duration::ZERO)]
    #[case("1H", CALL_MAX)]
    #[case("99999999H", CALL_MAX)]
    #[case("999999999S", CALL_MAX)]
    #[case("S", CALL_MAX)]
    #[case("", CALL_MAX)]
    #[case("+5S", CALL_MAX)]
    #[case("5s", CALL_MAX)]
    fn the_shorter_limit_holds(#[case] header: &str, #[case] allowed: Duration) {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", header.parse().unwrap());
        assert_eq!(time_allowed(&metadata), allowed);
        assert_eq!(time_allowed(&MetadataMap::new()), CALL_MAX);
    }
}
