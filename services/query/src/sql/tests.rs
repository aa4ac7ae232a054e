//! The SQL of every statement as snapshots, and that no value is ever in it.

use std::fmt::Write as _;

use domain::{Outcome, SecretId, TimeRange};
use time::macros::datetime;

use super::*;

const WORKSPACE: WorkspaceId = WorkspaceId::from_uuid(Uuid::from_u128(1));
const KEY: KeyId = KeyId::from_uuid(Uuid::from_u128(2));

/// Across quarter hours, so that all three segments are there.
fn any() -> Filter {
    Filter {
        range: TimeRange::new(datetime!(2026-11-01 00:01 UTC), datetime!(2026-11-01 10:05 UTC)).unwrap(),
        key_ids: None,
        outcomes: None,
        methods: None,
        routes: None,
        status_codes: None,
        resource_ids: None,
        secret_ids: None,
        denials: None,
    }
}

fn every() -> Filter {
    Filter {
        key_ids: Some(vec![KEY]),
        outcomes: Some(vec![Outcome::Failed, Outcome::RateLimited]),
        methods: Some(vec!["GET".into()]),
        routes: Some(vec!["/v1/it's".into()]),
        status_codes: Some(vec![429, 500]),
        resource_ids: Some(vec!["7".into()]),
        secret_ids: Some(vec![SecretId::from_uuid(Uuid::from_u128(4))]),
        denials: Some(vec!["deleted".into()]),
        ..any()
    }
}

fn text(statement: &Statement) -> String {
    let mut text = format!("{}\n", statement.text);
    for (name, value) in &statement.params {
        write!(text, "\n{name} = {value:?}").unwrap();
    }
    text
}

#[test]
fn statements() {
    let position = Position { occurred_at_ms: 1_000, request_id: RequestId::from_uuid(Uuid::from_u128(3)) };
    let in_projection = Filter { resource_ids: None, secret_ids: None, denials: None, ..every() };
    for (name, statement) in [
        ("summary", summary(WORKSPACE, &any())),
        ("summary_of_every_filter", summary(WORKSPACE, &every())),
        ("breakdown", breakdown(WORKSPACE, &in_projection, Dimension::Route, 10)),
        ("breakdown_from_rows", breakdown(WORKSPACE, &any(), Dimension::ClientIp, 10)),
        ("series_by_hour", series(WORKSPACE, &any(), 3600)),
        ("series_by_minute", series(WORKSPACE, &any(), 60)),
        ("page", page(WORKSPACE, &any(), None, 51)),
        ("page_after", page(WORKSPACE, &every(), Some(position), 51)),
        ("call", call(WORKSPACE, position.request_id, None)),
        ("call_near", call(WORKSPACE, position.request_id, Some((1, 2)))),
        ("watermarks", watermarks()),
        ("gaps", gaps(WORKSPACE, &any().range)),
    ] {
        insta::assert_snapshot!(name, text(&statement));
    }
}

#[test]
fn long_lists_are_parted_and_an_empty_one_stays_a_condition() {
    let routes = (0..100).map(|n| format!("/{n}")).collect::<Vec<_>>();
    let statement = summary(WORKSPACE, &Filter { routes: Some(routes), ..any() });
    assert!(
        statement.text.contains("(route in {routes_0:Array(String)} or route in {routes_1:Array(String)})")
    );
    let lengths = statement.params.iter().filter_map(|(_, value)| match value {
        Value::Texts(values) => Some(values.len()),
        _ => None,
    });
    assert_eq!(lengths.collect::<Vec<_>>(), [50, 50]);
    let statement = summary(WORKSPACE, &Filter { routes: Some(vec![]), ..any() });
    assert!(statement.text.contains("route in {routes:Array(String)}"));
}

#[test]
fn every_select_over_events_names_the_workspace() {
    let position = Position { occurred_at_ms: 1_000, request_id: RequestId::from_uuid(Uuid::from_u128(3)) };
    for statement in [
        summary(WORKSPACE, &any()),
        breakdown(WORKSPACE, &every(), Dimension::Method, 1),
        series(WORKSPACE, &any(), 900),
        page(WORKSPACE, &any(), Some(position), 1),
        call(WORKSPACE, position.request_id, None),
    ] {
        let selects = statement.text.matches("from keymeter.request_events").count();
        let bound = "from keymeter.request_events\nwhere workspace_id = {workspace_id:UUID}\n  and ";
        assert!(selects > 0);
        assert_eq!(statement.text.matches(bound).count(), selects, "{}", statement.text);
        assert!(statement.params.contains(&("workspace_id".into(), Value::Uuid(WORKSPACE.as_uuid()))));
        assert!(!statement.text.contains("it's"), "a value is in the text: {}", statement.text);
    }
}
