//! Tables of filters: what a URL means, and that a filter comes back from its own URL.

use proptest::prelude::*;
use rstest::rstest;
use time::macros::datetime;

use super::*;

const NOW: OffsetDateTime = datetime!(2026-11-22 12:00 UTC);

fn parse(query: &str, own: KeyId) -> Result<Filters, Vec<FieldError>> {
    Filters::parse(&Fields::read(query), own)
}

#[test]
fn without_a_query_the_page_shows_its_key_over_seven_days() {
    let own = KeyId::generate();
    let filters = parse("", own).unwrap();
    let wire = filters.to_proto(NOW);
    assert_eq!(wire.key_ids, [own.to_string()]);
    assert_eq!(wire.from, Some(timestamp::to_proto(datetime!(2026-11-15 12:00 UTC))));
    assert_eq!(wire.to, Some(timestamp::to_proto(NOW)));
    assert_eq!(filters.query(), "");
}

#[test]
fn each_condition_reaches_the_wire() {
    let own = KeyId::generate();
    let query = "range=24h&outcome=failed&outcome=rate_limited&method=get&method=POST&route=%2Fv1%2Forders%2F%7Bid%7D\
                 &status_code=429%2C+503&status_code=200&resource_id=ord_17";
    let filters = parse(query, own).unwrap();
    let wire = filters.to_proto(NOW);
    assert_eq!(wire.from, Some(timestamp::to_proto(datetime!(2026-11-21 12:00 UTC))));
    assert_eq!(
        wire.outcomes,
        [proto::usage::Outcome::Failed as i32, proto::usage::Outcome::RateLimited as i32]
    );
    assert_eq!(wire.methods, ["GET", "POST"]);
    assert_eq!(wire.routes, ["/v1/orders/{id}"]);
    assert_eq!(wire.status_codes, [429, 503, 200]);
    assert_eq!(wire.resource_ids, ["ord_17"]);
    assert_eq!(parse(&filters.query(), own), Ok(filters));
}

#[test]
fn the_key_can_be_changed_or_cleared() {
    let (own, other) = (KeyId::generate(), KeyId::generate());
    let scope = |query: &str| parse(query, own).unwrap().keys;
    assert_eq!(scope(&format!("key_id={other}")), Keys::Other(other));
    assert_eq!(scope(&format!("key_id={own}")), Keys::Own(own));
    assert_eq!(scope("key_id="), Keys::Every);
    assert!(parse("key_id=", own).unwrap().to_proto(NOW).key_ids.is_empty());
}

#[test]
fn from_and_to_are_utc_or_have_their_zone() {
    let own = KeyId::generate();
    let range = |query: &str| parse(query, own).unwrap().range(NOW);
    let expected = (datetime!(2026-11-01 10:00 UTC), datetime!(2026-11-02 10:30:15 UTC));
    assert_eq!(range("range=custom&from=2026-11-01T10:00&to=2026-11-02T10:30:15"), expected);
    assert_eq!(range("from=2026-11-01T12:00:00%2B02:00&to=2026-11-02T10:30:15.000Z"), expected);
    // A preset wins over dates that an unscripted form sends along.
    assert_eq!(range("range=1h&from=2026-11-01T10:00&to=2026-11-02T10:30"), (NOW - Duration::HOUR, NOW));
}

#[test]
fn later_pages_of_a_log_keep_its_period() {
    let own = KeyId::generate();
    let filters = parse("range=1h", own).unwrap();
    let older = parse(&filters.query_of_page("abc", NOW), own).unwrap();
    assert_eq!(older.range(NOW + Duration::HOUR), filters.range(NOW));
    assert_eq!(older.page_token, "abc");
    let oldest = parse(&older.query_of_page("def", NOW + Duration::HOUR), own).unwrap();
    assert_eq!(oldest.range(NOW + Duration::DAY), filters.range(NOW));
    assert_eq!(oldest.query(), "range=1h");
}

#[rstest]
#[case("range=8d", &["range"])]
#[case("at=soon", &["range"])]
#[case("range=custom", &["from", "to"])]
#[case("from=yesterday&to=2026-11-02T10:00Z", &["from", "to"])]
#[case("from=2026-11-02T10:00&to=2026-11-02T10:00", &["to"])]
#[case("from=2024-11-02T10:00&to=2026-11-02T10:00", &["to"])]
#[case("from=-9999-01-01T00:00:00Z&to=2026-11-02T10:00", &["from"])]
#[case("key_id=key_short&outcome=fine&method=G%20T&status_code=99", &["key_id", "outcome", "method", "status_code"])]
#[case("status_code=all", &["status_code"])]
#[case("outcome=%F0%28%8C%28", &["outcome"])]
fn a_wrong_field_is_named(#[case] query: &str, #[case] fields: &[&str]) {
    let errors = parse(query, KeyId::generate()).unwrap_err();
    assert_eq!(errors.iter().map(|error| error.field).collect::<Vec<_>>(), fields);
}

#[test]
fn lists_and_texts_are_bounded() {
    let own = KeyId::generate();
    let codes = |count: usize| (100..100 + count).map(|code| code.to_string()).collect::<Vec<_>>().join(",");
    assert!(parse(&format!("status_code={}", codes(100)), own).is_ok());
    assert_eq!(parse(&format!("status_code={}", codes(101)), own).unwrap_err()[0].field, "status_code");
    assert_eq!(parse(&format!("route={}", "a".repeat(1025)), own).unwrap_err()[0].field, "route");
    assert_eq!(parse(&"&method=GET".repeat(101), own).unwrap_err()[0].field, "method");
}

proptest! {
    #[test]
    fn any_query_is_read_and_a_filter_comes_back_from_its_url(query: String, route: String, id: String) {
        let own = KeyId::generate();
        let _ = parse(&query, own);
        let mut fields = Fields { route: route.trim().to_owned(), resource_id: id.trim().to_owned(), ..Fields::default() };
        fields.outcomes = vec!["failed".to_owned()];
        if let Ok(filters) = Filters::parse(&fields, own) {
            prop_assert_eq!(parse(&filters.query(), own), Ok(filters));
        }
    }
}
