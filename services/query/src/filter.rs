//! The filter of every RPC, from the wire into values that can be trusted. Every refusal names its field.

use domain::{Denial, KeyId, Outcome, SecretId, TimeRange, event::PATH_BYTES_MAX};
use proto::{status::invalid, timestamp, usage as pb};
use time::{Duration, OffsetDateTime};
use tonic::Status;

/// Most values in one list.
const VALUES_MAX: usize = 100;
/// Longest range.
const RANGE_MAX: Duration = Duration::days(400);
/// Longest method, in bytes.
const METHOD_BYTES_MAX: usize = 32;
/// Longest route and resource id of an event, in bytes. A longer value finds nothing, so it need not be sent.
const ROUTE_BYTES_MAX: usize = PATH_BYTES_MAX;
const RESOURCE_ID_BYTES_MAX: usize = 256;

/// Any of these values; `None` is no condition. A list may be empty: then nothing fits.
pub(crate) type AnyOf<T> = Option<Vec<T>>;

/// Which calls are meant; all conditions hold at once.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Filter {
    pub(crate) range: TimeRange,
    pub(crate) key_ids: AnyOf<KeyId>,
    pub(crate) outcomes: AnyOf<Outcome>,
    /// In upper case, as events have them.
    pub(crate) methods: AnyOf<String>,
    pub(crate) routes: AnyOf<String>,
    pub(crate) status_codes: AnyOf<u16>,
    pub(crate) resource_ids: AnyOf<String>,
    pub(crate) secret_ids: AnyOf<SecretId>,
    /// Names; empty is not refused.
    pub(crate) denials: AnyOf<String>,
}

impl Filter {
    /// The filter in a request's field `filter`.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with the first bad field's name, `filter.key_ids[3]`.
    pub(crate) fn parse(wire: Option<pb::UsageFilter>) -> Result<Self, Status> {
        let wire = wire.ok_or_else(|| invalid("filter", "is required"))?;
        Ok(Self {
            range: range(wire.from.as_ref(), wire.to.as_ref())?,
            key_ids: list("filter.key_ids", wire.key_ids, |id| id.parse().map_err(describe))?,
            outcomes: list("filter.outcomes", wire.outcomes, outcome)?,
            methods: list("filter.methods", wire.methods, method)?,
            routes: list("filter.routes", wire.routes, Ok)?.map(at_most(ROUTE_BYTES_MAX)),
            status_codes: list("filter.status_codes", wire.status_codes, status_code)?,
            resource_ids: list("filter.resource_ids", wire.resource_ids, Ok)?
                .map(at_most(RESOURCE_ID_BYTES_MAX)),
            secret_ids: list("filter.secret_ids", wire.secret_ids, |id| id.parse().map_err(describe))?,
            denials: list("filter.denials", wire.denials, denial)?,
        })
    }
}

fn range(
    from: Option<&prost_types::Timestamp>,
    to: Option<&prost_types::Timestamp>,
) -> Result<TimeRange, Status> {
    let from = instant("filter.from", from)?;
    let to = instant("filter.to", to)?;
    let range = TimeRange::new(from, to).map_err(|_| invalid("filter.to", "must be after filter.from"))?;
    if range.duration() > RANGE_MAX {
        let days = RANGE_MAX.whole_days();
        return Err(invalid("filter.to", format!("must be at most {days} days after filter.from")));
    }
    Ok(range)
}

fn instant(field: &str, at: Option<&prost_types::Timestamp>) -> Result<OffsetDateTime, Status> {
    let at = at.ok_or_else(|| invalid(field, "is required"))?;
    timestamp::from_proto(at)
        .filter(|at| at.year() > 0)
        .ok_or_else(|| invalid(field, "must be a time in the years 1 to 9999"))
}

/// Reads each value; an empty list is no condition.
fn list<W, T>(
    field: &str,
    values: Vec<W>,
    read: impl Fn(W) -> Result<T, String>,
) -> Result<AnyOf<T>, Status> {
    if values.len() > VALUES_MAX {
        return Err(invalid(field, format!("has {} values, at most {VALUES_MAX} are allowed", values.len())));
    }
    if values.is_empty() {
        return Ok(None);
    }
    let read = |(index, value)| read(value).map_err(|why| invalid(&format!("{field}[{index}]"), why));
    values.into_iter().enumerate().map(read).collect::<Result<_, _>>().map(Some)
}

fn outcome(value: i32) -> Result<Outcome, String> {
    match pb::Outcome::try_from(value) {
        Ok(pb::Outcome::Completed) => Ok(Outcome::Completed),
        Ok(pb::Outcome::Failed) => Ok(Outcome::Failed),
        Ok(pb::Outcome::RateLimited) => Ok(Outcome::RateLimited),
        Ok(pb::Outcome::Unspecified) | Err(_) => Err("must be COMPLETED, FAILED or RATE_LIMITED".to_owned()),
    }
}

fn method(mut value: String) -> Result<String, String> {
    value.make_ascii_uppercase();
    if value.len() > METHOD_BYTES_MAX {
        return Err(format!("has {} bytes, at most {METHOD_BYTES_MAX} are allowed", value.len()));
    }
    Ok(value)
}

fn status_code(value: u32) -> Result<u16, String> {
    u16::try_from(value)
        .ok()
        .filter(|code| (100..600).contains(code))
        .ok_or_else(|| "must be 100 to 599".to_owned())
}

fn denial(value: String) -> Result<String, String> {
    if value.is_empty() || Denial::ALL.iter().any(|denial| denial.as_str() == value) {
        return Ok(value);
    }
    let names = Denial::ALL.iter().map(|denial| denial.as_str()).collect::<Vec<_>>().join(", ");
    Err(format!("must be empty (not refused) or one of {names}"))
}

fn at_most(bytes: usize) -> impl Fn(Vec<String>) -> Vec<String> {
    move |mut values| {
        values.retain(|value| value.len() <= bytes);
        values
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn describe(error: domain::IdError) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;
    use tonic::Code;
    use tonic_types::StatusExt as _;

    use super::*;

    const DAY: i64 = 86_400;

    fn at(seconds: i64) -> Option<Timestamp> {
        Some(Timestamp { seconds, nanos: 0 })
    }

    fn wire() -> pb::UsageFilter {
        pb::UsageFilter { from: at(0), to: at(400 * DAY), ..Default::default() }
    }

    #[track_caller]
    fn check(field: &str, change: impl FnOnce(&mut pb::UsageFilter)) {
        let mut wire = wire();
        change(&mut wire);
        let status = Filter::parse(Some(wire)).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, field);
    }

    #[test]
    fn each_bad_field_is_named() {
        assert!(Filter::parse(None).unwrap_err().message().starts_with("filter: "));
        check("filter.from", |f| f.from = None);
        check("filter.to", |f| f.to = None);
        check("filter.from", |f| f.from = Some(Timestamp { seconds: 0, nanos: -1 }));
        check("filter.from", |f| f.from = at(-62_135_596_801));
        check("filter.to", |f| f.to = Some(Timestamp { seconds: 0, nanos: 1_000_000_000 }));
        check("filter.to", |f| f.to = at(253_402_300_800));
        check("filter.to", |f| f.to = f.from);
        check("filter.to", |f| f.to = at(-1));
        check("filter.to", |f| f.to = Some(Timestamp { seconds: 400 * DAY, nanos: 1 }));
        let good = KeyId::generate().to_string();
        check("filter.key_ids[1]", |f| f.key_ids = vec![good.clone(), good.to_uppercase()]);
        check("filter.key_ids[0]", |f| f.key_ids = vec![String::new()]);
        check("filter.key_ids", |f| f.key_ids = vec![good.clone(); 101]);
        check("filter.outcomes[0]", |f| f.outcomes = vec![0]);
        check("filter.outcomes[1]", |f| f.outcomes = vec![1, 4]);
        check("filter.outcomes", |f| f.outcomes = vec![1; 101]);
        check("filter.methods[0]", |f| f.methods = vec!["x".repeat(33)]);
        check("filter.methods", |f| f.methods = vec!["GET".into(); 101]);
        check("filter.routes", |f| f.routes = vec!["/".into(); 101]);
        check("filter.status_codes[0]", |f| f.status_codes = vec![99]);
        check("filter.status_codes[2]", |f| f.status_codes = vec![100, 599, 600]);
        check("filter.status_codes[0]", |f| f.status_codes = vec![u32::MAX]);
        check("filter.status_codes", |f| f.status_codes = vec![200; 101]);
        check("filter.resource_ids", |f| f.resource_ids = vec!["a".into(); 101]);
        check("filter.secret_ids[0]", |f| f.secret_ids = vec![good.clone()]);
        check("filter.secret_ids", |f| f.secret_ids = vec![String::new(); 101]);
        check("filter.denials[1]", |f| f.denials = vec![String::new(), "refused".into()]);
        check("filter.denials", |f| f.denials = vec![String::new(); 101]);
    }

    #[test]
    fn a_good_filter_is_read_whole() {
        let (key_id, secret_id) = (KeyId::generate(), SecretId::generate());
        let filter = Filter::parse(Some(pb::UsageFilter {
            key_ids: vec![key_id.to_string()],
            outcomes: vec![3, 1],
            methods: vec!["get".into()],
            routes: vec!["/v1/Orders/{id}".into(), "/".repeat(1025)],
            status_codes: vec![100, 599],
            resource_ids: vec!["a".repeat(257)],
            secret_ids: vec![secret_id.to_string()],
            denials: vec!["deleted".into(), String::new()],
            ..wire()
        }))
        .unwrap();
        assert_eq!(filter.range.duration(), RANGE_MAX);
        assert_eq!(filter.key_ids, Some(vec![key_id]));
        assert_eq!(filter.secret_ids, Some(vec![secret_id]));
        assert_eq!(filter.denials, Some(vec!["deleted".into(), String::new()]));
        assert_eq!(filter.outcomes, Some(vec![Outcome::RateLimited, Outcome::Completed]));
        assert_eq!(filter.methods, Some(vec!["GET".into()]));
        assert_eq!(filter.routes, Some(vec!["/v1/Orders/{id}".into()]));
        assert_eq!(filter.status_codes, Some(vec![100, 599]));
        assert_eq!(
            filter.resource_ids,
            Some(vec![]),
            "nothing can fit, which is not the same as no condition"
        );
        assert_eq!(Filter::parse(Some(wire())).unwrap().routes, None);
    }
}
