//! What is typed into the form of a key becomes a message and comes back; no page, no service.

use rstest::rstest;
use time::macros::datetime;

use super::*;

const NOW: OffsetDateTime = datetime!(2026-11-22 12:00 UTC);

#[test]
fn every_field_is_read_and_shown_again() {
    let form = KeyForm::read(
        "display_name=+Billing+&description=Nightly&environment=test&expiry=30&scopes=orders:read,+orders:write\
         &networks=192.0.2.0/24%0D%0A2001:db8::/32&tags=team%3Dpay%0D%0A%0D%0Arun+%3D+nightly+one\
         &limit_name=burst&limit_requests=10&limit_window=90&limit_unit=s\
         &limit_name=&limit_requests=&limit_window=&limit_unit=min\
         &limit_name=daily&limit_requests=1000&limit_window=1&limit_unit=d&idempotency_key=7&etag=3",
    );
    let key = form.to_key(NOW).unwrap();
    assert_eq!((key.display_name.as_str(), key.description.as_str()), ("Billing", "Nightly"));
    assert_eq!(key.environment(), Environment::Test);
    assert_eq!(key.expire_time, Some(timestamp::to_proto(datetime!(2026-12-22 23:59:59 UTC))));
    assert_eq!(key.scopes, ["orders:read", "orders:write"]);
    assert_eq!(key.allowed_networks, ["192.0.2.0/24", "2001:db8::/32"]);
    assert_eq!((key.tags["team"].as_str(), key.tags["run"].as_str()), ("pay", "nightly one"));
    let limits: Vec<_> =
        key.rate_limits.iter().map(|limit| (limit.requests, limit.window.unwrap().seconds)).collect();
    assert_eq!(limits, [(10, 90), (1000, 86_400)], "blank rows are left out");
    let shown = KeyForm::of(&key);
    assert_eq!((shown.expiry.as_str(), shown.limits.as_slice()), ("keep", form.limits.as_slice()));
    assert_eq!(form.differences(&shown), ["expiry"]);
    assert_eq!((form.limits.len(), form.limit_rows().len()), (2, LIMIT_ROWS));
}

#[rstest]
#[case("", None)]
#[case("expiry=none", None)]
#[case("expiry=keep", None)]
#[case("expiry=365", Some(datetime!(2027-11-22 23:59:59 UTC)))]
#[case("expiry=date&expire_date=2030-01-31", Some(datetime!(2030-01-31 23:59:59 UTC)))]
fn an_expiry_is_the_end_of_a_day(#[case] form: &str, #[case] expected: Option<OffsetDateTime>) {
    let key = KeyForm::read(form).to_key(NOW).unwrap();
    assert_eq!(key.expire_time, expected.map(timestamp::to_proto));
}

#[rstest]
#[case("expiry=date&expire_date=", "expire_time")]
#[case("expiry=date&expire_date=soon", "expire_time")]
#[case("expiry=-1", "expire_time")]
#[case("expiry=99999999999999999999", "expire_time")]
#[case("tags=team", "tags")]
#[case("tags=a%3D1%0Aa%3D2", "tags")]
#[case("limit_name=a&limit_requests=many&limit_window=1", "rate_limits[0].requests")]
#[case("limit_name=&limit_name=a&limit_requests=1&limit_window=", "rate_limits[0].window")]
fn what_can_not_be_read_is_said_at_its_place(#[case] form: &str, #[case] place: &str) {
    let errors = KeyForm::read(form).to_key(NOW).unwrap_err();
    assert!(errors.at(place).is_some(), "{errors:?}");
}

#[test]
fn an_expiry_that_stays_is_in_no_mask() {
    let paths = |form: &str| KeyForm::read(form).mask().paths;
    assert_eq!(paths("expiry=keep").len(), CHANGED.len());
    assert!(paths("expiry=none").contains(&"expire_time".to_owned()));
}

#[rstest]
#[case(0, 3)]
#[case(2, 3)]
#[case(3, 4)]
#[case(9, 10)]
#[case(10, 10)]
#[case(12, 12)]
fn there_is_always_a_row_for_one_more_limit(#[case] limits: usize, #[case] rows: usize) {
    let form = KeyForm { limits: vec![LimitFields::default(); limits], ..KeyForm::default() };
    assert_eq!(form.limit_rows().len(), rows);
}

#[test]
fn a_window_is_shown_in_its_longest_unit() {
    let shown = |seconds| {
        let window = Some(prost_types::Duration { seconds, nanos: 0 });
        let limit = LimitFields::of(&RateLimit { name: "a".into(), requests: 1, window });
        (limit.window, limit.unit)
    };
    assert_eq!(shown(2_592_000), ("30".into(), "d".into()));
    assert_eq!(shown(5_400), ("90".into(), "min".into()));
    assert_eq!(shown(61), ("61".into(), "s".into()));
}
