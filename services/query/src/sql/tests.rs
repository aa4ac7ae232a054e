//! The SQL of every statement as snapshots, and that no value is ever in it.

use std::fmt::Write as _;

use domain::{KeyId, Origin, Outcome, RequestId, SecretId, TimeRange};
use time::macros::datetime;

use super::*;
use crate::condition::{Detail, Test};

const WORKSPACE: WorkspaceId = WorkspaceId::from_uuid(Uuid::from_u128(1));
const KEY: KeyId = KeyId::from_uuid(Uuid::from_u128(2));

/// Across days, so that all segments are there.
fn range() -> TimeRange {
    TimeRange::new(datetime!(2026-11-01 00:01 UTC), datetime!(2026-11-04 10:05 UTC)).unwrap()
}

fn plan(detail: Detail) -> Plan {
    Plan::new(&range(), detail, &[], i64::MIN)
}

/// The first day has expired.
fn old(detail: Detail) -> Plan {
    let range = TimeRange::new(datetime!(2026-11-01 00:00 UTC), range().to()).unwrap();
    Plan::new(&range, detail, &[], datetime!(2026-11-02 00:00 UTC).unix_timestamp() * 1000)
}

/// Days of a time zone east of Greenwich.
fn other_days() -> Plan {
    let border = datetime!(2026-11-02 18:30 UTC).unix_timestamp() * 1000;
    Plan::of_bars(&range(), Detail::Routes, &[border, border + 86_400_000], i64::MIN)
}

fn is(test: Test) -> Condition {
    Condition::Is(test)
}

fn answers() -> Vec<Condition> {
    vec![
        is(Test::Keys(vec![KEY])),
        is(Test::Outcomes(vec![Outcome::Failed, Outcome::RateLimited])),
        is(Test::Methods(vec!["GET".into()])),
        is(Test::StatusCodes(vec![429, 500])),
        is(Test::StatusClasses(vec![4, 5])),
        is(Test::Origins(vec![Origin::Edge])),
        is(Test::Denials(vec!["deleted".into()])),
    ]
}

fn every() -> Condition {
    let mut all = answers();
    all.extend([
        is(Test::Routes(vec!["/v1/it's".into()])),
        is(Test::ResourceIds(vec!["7".into()])),
        is(Test::RequestIds(vec![RequestId::from_uuid(Uuid::from_u128(5))])),
        is(Test::SecretIds(vec![SecretId::from_uuid(Uuid::from_u128(4))])),
        is(Test::ClientIps(vec![Ipv6Addr::LOCALHOST])),
        is(Test::LatencyFrom(5)),
        is(Test::LatencyTo(50)),
    ]);
    Condition::All(all)
}

/// And, or and not in each other.
fn nested() -> Condition {
    let get = || is(Test::Methods(vec!["GET".into()]));
    Condition::All(vec![
        is(Test::Keys(vec![KEY, KEY])),
        Condition::Any(vec![get(), Condition::Not(Box::new(Condition::All(vec![get(), get()])))]),
        Condition::Any(vec![]),
        Condition::Not(Box::new(Condition::All(vec![]))),
    ])
}

fn position() -> Position {
    Position { occurred_at_ms: 1_000, request_id: RequestId::from_uuid(Uuid::from_u128(3)) }
}

fn text(statement: &Statement) -> String {
    let mut text = format!("{}\n", statement.text);
    for (name, value) in &statement.params {
        write!(text, "\n{name} = {value:?}").unwrap();
    }
    text
}

fn of_events() -> Vec<(&'static str, Statement)> {
    let (any, every, answers) = (Condition::ALWAYS, every(), Condition::All(answers()));
    let span = Span::of(&range());
    let starts_s = [1_793_491_200, 1_793_577_600];
    let since = Since { start_ms: 1, shards: vec![(2, 3)] };
    let part = Part { condition: &every, span, after: Some((KEY.as_uuid(), position())), written_ms: 9 };
    let (falling, rising) = (Direction::Falling, Direction::Rising);
    let some = Fields::Only(vec!["route".into(), "origin".into()]);
    let (narrow, calls) = (plan(Detail::Answers), plan(Detail::Calls));
    vec![
        ("summary", summary(WORKSPACE, &any, &narrow)),
        ("summary_of_every_test", summary(WORKSPACE, &every, &calls)),
        ("summary_of_a_nested_condition", summary(WORKSPACE, &nested(), &narrow)),
        ("summary_of_archived_days", summary(WORKSPACE, &answers, &old(Detail::Answers))),
        ("summary_of_nothing", summary(WORKSPACE, &any, &Plan { segments: vec![], ..narrow.clone() })),
        ("breakdown", breakdown(WORKSPACE, &answers, &plan(Detail::Routes), (Dimension::Route, None), 10)),
        (
            "breakdown_of_pairs",
            breakdown(WORKSPACE, &any, &calls, (Dimension::Key, Some(Dimension::ClientIp)), 10),
        ),
        ("series", series(WORKSPACE, &any, &narrow, &starts_s)),
        (
            "series_by_other_days",
            series(WORKSPACE, &is(Test::Routes(vec!["/".into()])), &other_days(), &starts_s),
        ),
        ("overview", overview(WORKSPACE, &any, &narrow, &starts_s)),
        (
            "overview_by_other_days",
            overview(WORKSPACE, &is(Test::Routes(vec!["/".into()])), &other_days(), &starts_s),
        ),
        ("series_of_archived_days", series(WORKSPACE, &any, &old(Detail::Routes), &starts_s)),
        ("key_usage", key_usage(WORKSPACE, &answers, &old(Detail::Answers), &starts_s, 10)),
        ("latency", latency(WORKSPACE, &any, &calls, false)),
        ("latency_exact", latency(WORKSPACE, &every, &calls, true)),
        ("p95_by", p95_by(WORKSPACE, &answers, &calls, Dimension::Route, vec!["/v1/it's".into()])),
        ("callers", callers(WORKSPACE, &every, &calls)),
        ("quarters", quarters(WORKSPACE, &every, span, falling, 10)),
        ("page", page(WORKSPACE, (&any, &Fields::All), span, None, falling, 51)),
        ("page_after", page(WORKSPACE, (&every, &Fields::All), span, Some(position()), falling, 51)),
        ("page_of_some_fields", page(WORKSPACE, (&any, &some), span, None, falling, 51)),
        ("page_rising", page(WORKSPACE, (&any, &Fields::All), span, Some(position()), rising, 51)),
        ("call", call(WORKSPACE, position().request_id, span)),
        ("tail", tail(WORKSPACE, &every, span, &since, 10)),
        ("tail_ends", tail_ends(WORKSPACE, &any, span, &Since::default())),
        ("export", export(WORKSPACE, &part, Some((KEY.as_uuid(), position())))),
        ("export_end", export_end(WORKSPACE, &part, 100)),
        ("export_count", export_count(WORKSPACE, &Part { after: None, ..part })),
    ]
}

#[test]
fn statements() {
    let of_all = [
        ("watermarks", watermarks()),
        ("archive", archive()),
        ("retentions", retentions()),
        ("gaps_version", gaps_version()),
        ("gaps", gaps()),
    ];
    for (name, statement) in of_events().into_iter().chain(of_all) {
        insta::assert_snapshot!(name, text(&statement));
    }
}

#[test]
fn long_lists_are_parted_and_an_empty_one_stays_a_condition() {
    let of = |routes| summary(WORKSPACE, &is(Test::Routes(routes)), &plan(Detail::Routes));
    let statement = of((0..100).map(|n| format!("/{n}")).collect());
    assert!(
        statement.text.contains("(route in {routes:Array(String)} or route in {routes_2:Array(String)})")
    );
    let lengths = statement.params.iter().filter_map(|(_, value)| match value {
        Value::Texts(values) => Some(values.len()),
        _ => None,
    });
    assert_eq!(lengths.collect::<Vec<_>>(), [50, 50]);
    assert!(of(vec![]).text.contains("route in {routes:Array(String)}"));
}

#[test]
fn every_select_over_events_names_the_workspace() {
    for (name, statement) in of_events() {
        let text = &statement.text;
        let selects = text.matches("from keymeter.").count();
        let bound = text.matches("\nwhere workspace_id = {workspace_id:UUID}\n  and ").count();
        assert!(selects > 0 && bound == selects, "{name}: {text}");
        assert!(statement.params.contains(&("workspace_id".into(), Value::Uuid(WORKSPACE.as_uuid()))));
        assert!(!text.contains("it's"), "a value is in the text: {text}");
    }
}
