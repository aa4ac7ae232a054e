//! Conversions between `google.protobuf.Timestamp` and the domain's time.

use prost_types::Timestamp;
use time::OffsetDateTime;

/// The wire form of a time.
#[must_use]
pub fn to_proto(at: OffsetDateTime) -> Timestamp {
    Timestamp { seconds: at.unix_timestamp(), nanos: i32::try_from(at.nanosecond()).unwrap_or(0) }
}

/// The time of a wire form; `None` if it is out of the years -9999 to 9999 or has no valid nanoseconds.
#[must_use]
pub fn from_proto(at: &Timestamp) -> Option<OffsetDateTime> {
    let nanos = u32::try_from(at.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    OffsetDateTime::from_unix_timestamp(at.seconds).ok()?.replace_nanosecond(nanos).ok()
}
