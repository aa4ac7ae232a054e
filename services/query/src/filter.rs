//! The filter of every RPC, from the wire into values that can be trusted. Every refusal names its field.

use std::net::{IpAddr, Ipv6Addr};

use domain::{Denial, Origin, Outcome, TimeRange, event::PATH_BYTES_MAX};
use proto::{status::invalid, timestamp, usage as pb};
use time::{Duration, OffsetDateTime};
use tonic::Status;

use crate::condition::{Condition, Test};

/// Most values in one list, and in a filter.
const VALUES_MAX: usize = 100;
const ALL_VALUES_MAX: usize = 1_000;
/// Most bytes of texts in a filter: with every byte escaped it still fits into what ClickHouse takes.
const ALL_BYTES_MAX: usize = 128 << 10;
/// Most conditions in a filter, and how deep they may lie in each other.
const CONDITIONS_MAX: usize = 100;
const DEPTH_MAX: usize = 8;
/// Longest range.
const RANGE_MAX: Duration = Duration::days(400);
/// Longest method, in bytes.
const METHOD_BYTES_MAX: usize = 32;
/// Longest route and resource id of an event, in bytes. A longer value finds nothing, so it need not be sent.
const ROUTE_BYTES_MAX: usize = PATH_BYTES_MAX;
const RESOURCE_ID_BYTES_MAX: usize = 256;

/// Which calls are meant.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Filter {
    pub(crate) range: TimeRange,
    pub(crate) condition: Condition,
}

impl Filter {
    /// The filter in a request's field `filter`.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with the first bad field's name, `filter.key_ids[3]`.
    pub(crate) fn parse(wire: Option<pb::UsageFilter>) -> Result<Self, Status> {
        let wire = wire.ok_or_else(|| invalid("filter", "is required"))?;
        let range = range(wire.from.as_ref(), wire.to.as_ref())?;
        let lists = pb::Match {
            key_ids: wire.key_ids,
            outcomes: wire.outcomes,
            methods: wire.methods,
            routes: wire.routes,
            status_codes: wire.status_codes,
            resource_ids: wire.resource_ids,
            secret_ids: wire.secret_ids,
            denials: wire.denials,
            status_classes: wire.status_classes,
            origins: wire.origins,
            request_ids: wire.request_ids,
            client_ips: wire.client_ips,
            latency_us_from: wire.latency_us_from,
            latency_us_to: wire.latency_us_to,
        };
        let mut all = tests("filter", lists)?;
        if let Some(wire) = wire.condition {
            all.push(condition(
                "filter.condition",
                wire,
                &mut Budget { depth: DEPTH_MAX, count: CONDITIONS_MAX },
            )?);
        }
        let condition = Condition::All(all);
        let (values, bytes) = condition.size();
        if values > ALL_VALUES_MAX {
            let why = format!("has {values} values, at most {ALL_VALUES_MAX} are allowed in all");
            return Err(invalid("filter", why));
        }
        if bytes > ALL_BYTES_MAX {
            let why = format!("has values of {bytes} bytes, at most {ALL_BYTES_MAX} are allowed in all");
            return Err(invalid("filter", why));
        }
        Ok(Self { range, condition })
    }
}

/// How many rows are meant by a field: 0 is `default`, more than `most` is `most`.
///
/// # Errors
/// `INVALID_ARGUMENT` on the field if it is negative.
pub(crate) fn row_limit(field: &str, value: i32, default: u32, most: u32) -> Result<u32, Status> {
    match u32::try_from(value) {
        Ok(0) => Ok(default),
        Ok(limit) => Ok(limit.min(most)),
        Err(_) => Err(invalid(field, "must not be negative")),
    }
}

/// What is left of what conditions may have.
struct Budget {
    depth: usize,
    count: usize,
}

fn condition(field: &str, wire: pb::Condition, budget: &mut Budget) -> Result<Condition, Status> {
    use pb::condition::Kind;
    if budget.depth == 0 {
        return Err(invalid(field, format!("lies deeper than {DEPTH_MAX} conditions in each other")));
    }
    if budget.count == 0 {
        return Err(invalid("filter.condition", format!("has more than {CONDITIONS_MAX} conditions")));
    }
    budget.depth -= 1;
    budget.count -= 1;
    let several = |name: &str, wire: pb::Conditions, budget: &mut Budget| {
        let read = |(index, wire)| condition(&format!("{field}.{name}[{index}]"), wire, budget);
        wire.conditions.into_iter().enumerate().map(read).collect::<Result<Vec<_>, Status>>()
    };
    let read = match wire.kind {
        Some(Kind::AllOf(wire)) => Condition::All(several("all_of", wire, budget)?),
        Some(Kind::AnyOf(wire)) => Condition::Any(several("any_of", wire, budget)?),
        Some(Kind::Not(wire)) => Condition::Not(Box::new(condition(&format!("{field}.not"), *wire, budget)?)),
        Some(Kind::Match(wire)) => Condition::All(tests(&format!("{field}.match"), *wire)?),
        None => return Err(invalid(field, "must have one of all_of, any_of, not and match")),
    };
    budget.depth += 1;
    Ok(read)
}

/// A test for each list that is not empty.
fn tests(prefix: &str, wire: pb::Match) -> Result<Vec<Condition>, Status> {
    let field = |name: &str| format!("{prefix}.{name}");
    let texts = |name: &str, values, bytes_max| -> Result<_, Status> {
        Ok(list(&field(name), values, Ok)?.map(at_most(bytes_max)))
    };
    let tests = [
        list(&field("key_ids"), wire.key_ids, |id| id.parse().map_err(describe))?.map(Test::Keys),
        list(&field("outcomes"), wire.outcomes, outcome)?.map(Test::Outcomes),
        list(&field("methods"), wire.methods, method)?.map(Test::Methods),
        texts("routes", wire.routes, ROUTE_BYTES_MAX)?.map(Test::Routes),
        list(&field("status_codes"), wire.status_codes, |code| number(code, 100, 599))?
            .map(Test::StatusCodes),
        list(&field("status_classes"), wire.status_classes, |class| number(class, 1, 5))?
            .map(Test::StatusClasses),
        list(&field("origins"), wire.origins, origin)?.map(Test::Origins),
        list(&field("denials"), wire.denials, denial)?.map(Test::Denials),
        texts("resource_ids", wire.resource_ids, RESOURCE_ID_BYTES_MAX)?.map(Test::ResourceIds),
        list(&field("request_ids"), wire.request_ids, |id| id.parse().map_err(describe))?
            .map(Test::RequestIds),
        list(&field("secret_ids"), wire.secret_ids, |id| id.parse().map_err(describe))?.map(Test::SecretIds),
        list(&field("client_ips"), wire.client_ips, |ip| client_ip(&ip))?.map(Test::ClientIps),
        wire.latency_us_from.map(Test::LatencyFrom),
        wire.latency_us_to.map(Test::LatencyTo),
    ];
    if let (Some(from), Some(to)) = (wire.latency_us_from, wire.latency_us_to)
        && from >= to
    {
        return Err(invalid(&field("latency_us_to"), "must be above latency_us_from"));
    }
    Ok(tests.into_iter().flatten().map(Condition::Is).collect())
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
) -> Result<Option<Vec<T>>, Status> {
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

fn number(value: u32, least: u16, most: u16) -> Result<u16, String> {
    u16::try_from(value)
        .ok()
        .filter(|value| (least..=most).contains(value))
        .ok_or_else(|| format!("must be {least} to {most}"))
}

fn origin(value: i32) -> Result<Origin, String> {
    match pb::Origin::try_from(value) {
        Ok(pb::Origin::Edge) => Ok(Origin::Edge),
        Ok(pb::Origin::Upstream) => Ok(Origin::Upstream),
        Ok(pb::Origin::Unspecified) | Err(_) => Err("must be EDGE or UPSTREAM".to_owned()),
    }
}

/// As events have it: IPv4 in IPv6.
fn client_ip(value: &str) -> Result<Ipv6Addr, String> {
    match value.parse() {
        Ok(IpAddr::V4(ip)) => Ok(ip.to_ipv6_mapped()),
        Ok(IpAddr::V6(ip)) => Ok(ip),
        Err(_) => Err("must be an IPv4 or IPv6 address".to_owned()),
    }
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
    use domain::{KeyId, SecretId};
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
        check("filter.status_classes[1]", |f| f.status_classes = vec![5, 6]);
        check("filter.status_classes[0]", |f| f.status_classes = vec![0]);
        check("filter.origins[0]", |f| f.origins = vec![0]);
        check("filter.origins[0]", |f| f.origins = vec![3]);
        check("filter.request_ids[0]", |f| f.request_ids = vec!["req_1".into()]);
        check("filter.client_ips[1]", |f| f.client_ips = vec!["10.0.0.1".into(), "10.0.0.256".into()]);
        check("filter.client_ips[0]", |f| f.client_ips = vec!["10.0.0.0/8".into()]);
        check("filter.latency_us_to", |f| (f.latency_us_from, f.latency_us_to) = (Some(5), Some(5)));
        check("filter", |f| {
            let many = vec![200; 100];
            let of = |codes: &[u32]| pb::Match { status_codes: codes.to_vec(), ..Default::default() };
            f.condition = Some(any_of((0..11).map(|_| is(of(&many))).collect()));
        });
        check("filter", |f| {
            f.routes = vec!["r".repeat(1_024); 100];
            f.condition = Some(is(pb::Match { routes: f.routes.clone(), ..Default::default() }));
        });
    }

    fn is(wire: pb::Match) -> pb::Condition {
        pb::Condition { kind: Some(pb::condition::Kind::Match(Box::new(wire))) }
    }

    fn any_of(conditions: Vec<pb::Condition>) -> pb::Condition {
        pb::Condition { kind: Some(pb::condition::Kind::AnyOf(pb::Conditions { conditions })) }
    }

    fn not(condition: pb::Condition) -> pb::Condition {
        pb::Condition { kind: Some(pb::condition::Kind::Not(Box::new(condition))) }
    }

    #[test]
    fn a_bad_condition_is_named_where_it_lies() {
        let bad = is(pb::Match { status_codes: vec![99], ..Default::default() });
        check("filter.condition.match.status_codes[0]", |f| f.condition = Some(bad.clone()));
        check("filter.condition.any_of[1].not.match.status_codes[0]", |f| {
            f.condition = Some(any_of(vec![any_of(vec![]), not(bad)]));
        });
        check("filter.condition.any_of[0]", |f| f.condition = Some(any_of(vec![pb::Condition::default()])));
        let deep = |depth| (1..depth).fold(any_of(vec![]), |inner, _| not(inner));
        assert!(Filter::parse(Some(pb::UsageFilter { condition: Some(deep(8)), ..wire() })).is_ok());
        check("filter.condition.not.not.not.not.not.not.not.not", |f| f.condition = Some(deep(9)));
        let wide = |count: usize| any_of(vec![any_of(vec![]); count - 1]);
        assert!(Filter::parse(Some(pb::UsageFilter { condition: Some(wide(100)), ..wire() })).is_ok());
        check("filter.condition", |f| f.condition = Some(wide(101)));
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
            status_classes: vec![5],
            origins: vec![2],
            client_ips: vec!["10.0.0.1".into(), "2001:db8::1".into()],
            latency_us_from: Some(0),
            latency_us_to: Some(u32::MAX),
            ..wire()
        }))
        .unwrap();
        assert_eq!(filter.range.duration(), RANGE_MAX);
        let tests = [
            Test::Keys(vec![key_id]),
            Test::Outcomes(vec![Outcome::RateLimited, Outcome::Completed]),
            Test::Methods(vec!["GET".into()]),
            Test::Routes(vec!["/v1/Orders/{id}".into()]),
            Test::StatusCodes(vec![100, 599]),
            Test::StatusClasses(vec![5]),
            Test::Origins(vec![Origin::Upstream]),
            Test::Denials(vec!["deleted".into(), String::new()]),
            // Nothing can fit, which is not the same as no condition.
            Test::ResourceIds(vec![]),
            Test::SecretIds(vec![secret_id]),
            Test::ClientIps(vec!["::ffff:10.0.0.1".parse().unwrap(), "2001:db8::1".parse().unwrap()]),
            Test::LatencyFrom(0),
            Test::LatencyTo(u32::MAX),
        ];
        assert_eq!(filter.condition, Condition::All(tests.map(Condition::Is).to_vec()));
        assert_eq!(Filter::parse(Some(wire())).unwrap().condition, Condition::ALWAYS);
    }
}
