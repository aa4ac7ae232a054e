//! Tables of usage: what messages become on the page.

use domain::{KeyId, RequestId};
use proto::usage::{Breakdown, BreakdownRow, Counts, Outcome, Request};
use rstest::rstest;
use time::{OffsetDateTime, macros::datetime};

use super::{
    donut::{Donut, Palette},
    endpoints::Endpoints,
    form::{FilterForm, Seen},
    log::{Cell, cell},
    trust::StillCalled,
};
use crate::{
    columns::Column,
    filters::{CUSTOM, Fields, Filters},
    format::{Moment, Show},
};

fn filters() -> Filters {
    Filters::parse(&Fields::default(), None).unwrap()
}

const NOW: OffsetDateTime = datetime!(2026-11-22 12:00 UTC);

fn breakdown(rows: &[(&str, u64)], other: u64) -> Breakdown {
    let counts = |total_count| Some(Counts { total_count, ..Counts::default() });
    Breakdown {
        rows: rows
            .iter()
            .map(|(value, calls)| BreakdownRow {
                value: (*value).to_owned(),
                counts: counts(*calls),
                ..Default::default()
            })
            .collect(),
        other: counts(other),
        other_value_count: u64::from(other > 0),
        freshness: None,
    }
}

fn hues(palette: Palette, values: &[&str]) -> Vec<String> {
    let rows: Vec<_> = values.iter().map(|value| (*value, 1)).collect();
    Donut::new(palette, &breakdown(&rows, 0), &filters()).parts.into_iter().map(|part| part.hue).collect()
}

#[test]
fn statuses_are_coloured_by_what_came_of_them() {
    let expected = ["s-2xx-0", "s-2xx-1", "s-429", "s-4xx-0", "s-5xx-0", "other"];
    assert_eq!(hues(Palette::StatusCodes, &["200", "201", "429", "404", "503", "strange"]), expected);
    assert_eq!(hues(Palette::StatusCodes, &["200", "201", "202", "203"])[3], "s-2xx-0", "shades come again");
}

#[test]
fn methods_have_a_colour_each() {
    assert_eq!(
        hues(Palette::Methods, &["GET", "DELETE", "PURGE", "\"x"]),
        ["m-get", "m-delete", "other", "other"]
    );
}

#[test]
fn small_slices_are_one_and_the_table_has_them_all() {
    let rows: Vec<(String, u64)> = (0..9).map(|at| (format!("{}", 400 + at), 9 - at)).collect();
    let rows: Vec<(&str, u64)> = rows.iter().map(|(value, calls)| (value.as_str(), *calls)).collect();
    let donut = Donut::new(Palette::StatusCodes, &breakdown(&rows, 5), &filters());
    assert_eq!((donut.parts.len(), donut.rows.len(), donut.total.as_str()), (7, 10, "50"));
    let last = &donut.parts[6].row;
    assert_eq!((last.label.as_str(), last.count.as_str(), last.share.as_str()), ("Other", "11", "22%"));
}

#[test]
fn an_empty_breakdown_has_no_parts() {
    let donut = Donut::new(Palette::Methods, &Breakdown::default(), &filters());
    assert!(donut.parts.is_empty() && donut.rows.is_empty());
    assert!(Endpoints::new(&Breakdown::default(), &filters()).rows.is_empty());
}

#[test]
fn endpoints_are_measured_against_the_most_called_and_shared_of_all() {
    let list = Endpoints::new(&breakdown(&[("/a", 60), ("/b", 15)], 25), &filters());
    let rows: Vec<_> = list.rows.iter().map(|e| (e.width.as_str(), e.share.as_str())).collect();
    assert_eq!(rows, [("100.00", "60%"), ("25.00", "15%")]);
    assert_eq!((list.others, list.other_count.as_str()), (1, "25"));
}

fn request() -> Request {
    Request {
        name: format!("workspaces/ws/requests/{}", RequestId::generate()),
        occurred_at: Some(proto::timestamp::to_proto(NOW)),
        status_code: 401,
        outcome: Outcome::Failed.into(),
        denial: "secret_retired".into(),
        limit_name: "minute".into(),
        limit_window_s: 60,
        limit_remaining: 1_234,
        latency_us: 1_500,
        response_bytes: 2_000,
        ..Request::default()
    }
}

#[rstest]
#[case(Column::Status, Cell::Badge("failed", "Failed"))]
#[case(Column::Response, Cell::Response(401, "failed"))]
#[case(Column::Denial, Cell::Text("secret retired".into()))]
#[case(Column::Latency, Cell::Number("1.5 ms".into()))]
#[case(Column::ResponseBytes, Cell::Number("2.0 kB".into()))]
#[case(Column::RequestBytes, Cell::Number("0 B".into()))]
#[case(Column::Limit, Cell::Text("minute (60 s)".into()))]
#[case(Column::LimitRemaining, Cell::Number("1,234".into()))]
#[case(Column::ResourceId, Cell::Nothing)]
#[case(Column::Timestamp, Cell::Time(Moment::new(NOW, Show::Full, NOW)))]
fn a_cell_shows_its_field(#[case] column: Column, #[case] expected: Cell) {
    assert_eq!(cell(column, &request(), NOW), expected);
}

#[test]
fn a_call_without_limits_shows_none() {
    let free = Request { limit_name: String::new(), limit_window_s: 0, limit_remaining: 0, ..request() };
    assert_eq!(cell(Column::Limit, &free, NOW), Cell::Nothing);
    assert_eq!(cell(Column::LimitRemaining, &free, NOW), Cell::Nothing);
    let old = Request { limit_window_s: 0, ..request() };
    assert_eq!(cell(Column::Limit, &old, NOW), Cell::Text("minute".into()));
}

#[test]
fn a_request_is_named_by_its_id() {
    let Cell::Code(id) = cell(Column::RequestId, &request(), NOW) else { panic!("not a code") };
    assert!(id.parse::<RequestId>().is_ok());
}

#[test]
fn the_form_keeps_what_was_wrong() {
    let own = KeyId::generate();
    let fields = Fields::read("from=soon&to=2026-11-02T10:00:00%2B02:00&method=PURGE");
    let filters = Filters::parse(&fields, own);
    let form = FilterForm::new(fields, &filters, Some(own), Seen::default(), NOW);
    assert_eq!((form.from.0.as_str(), form.to.0.as_str()), ("soon", "2026-11-02T08:00:00"));
    assert!(form.error("from").is_some() && form.error("to").is_none() && form.error("route").is_none());
    assert_eq!(form.ranges.iter().find(|(.., chosen)| *chosen).map(|(name, ..)| *name), Some(CUSTOM));
    assert_eq!(form.methods.last(), Some(&("PURGE".to_owned(), true)));
    assert_eq!(form.fields.key_id, Some(own.to_string()));
}

#[test]
fn a_deleted_key_that_is_still_called_is_counted() {
    let said = |breakdown: &Breakdown| StillCalled::new(breakdown).map(|called| called.text);
    assert_eq!(said(&breakdown(&[], 0)), None);
    assert_eq!(said(&breakdown(&[("192.0.2.7", 1)], 0)).as_deref(), Some("1 time from 1 address"));
    assert_eq!(
        said(&breakdown(&[("192.0.2.7", 1_000)], 12)).as_deref(),
        Some("1,012 times from 2 addresses")
    );
}
