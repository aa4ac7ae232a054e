//! The usage page beyond its cards: courses and changes, chips, saved views, one call, rows as they come, files.

use axum::http::StatusCode;
use domain::KeyId;
use proto::usage::Counts;
use rstest::rstest;
use tonic::Status;

use crate::site::{Site, between};

async fn site_with_calls() -> (Site, KeyId) {
    let site = Site::signed_in().await;
    let key = site.fakes.add_key("Billing", |_| {});
    for status_code in [200, 200, 404] {
        site.fakes.add_call(key, "GET", "/v1/orders", status_code);
    }
    (site, key)
}

fn unescaped(text: &str) -> String {
    text.replace("&#38;", "&").replace("&amp;", "&")
}

#[tokio::test]
async fn cards_tell_the_change_and_the_course() {
    let (mut site, key) = site_with_calls().await;
    let before = Counts { total_count: 2, completed_count: 2, ..Counts::default() };
    site.fakes.change(|state| state.previous_counts = Some(before));
    let page = site.page(&format!("/keys/{key}/usage")).await;
    let changes = between(&page, "<dd class=\"change", "<span class=\"quiet\">");
    let said = |text: &str| changes.iter().any(|change| change.contains(text));
    assert!(said("+50%") && said("same") && said(" worse\"") && said("new"), "{changes:?}");
    assert_eq!(between(&page, "<dd class=\"course\"", "</dd>").len(), 3, "rate limited has no course");
    let chart = between(&page, "data-brush>", "</svg>")[0];
    assert_eq!(between(chart, "<g data-from=", "</g>").len(), 4);
    assert!(chart.contains("data-numbers=\"3|2|1|0\""));
    assert_eq!(between(chart, "<rect class=\"part completed\"", "/>").len(), 1);
}

#[tokio::test]
async fn the_frame_of_a_page_comes_before_its_numbers_are_asked_for() {
    let (mut site, key) = site_with_calls().await;
    let usage = format!("/keys/{key}/usage");
    site.page("/keys").await;
    site.fakes.change(|state| state.calls.clear());
    let opening = site.opening(&usage).await;
    assert!(opening.ends_with("<main id=\"main\" tabindex=\"-1\">"), "{opening}");
    assert!(opening.contains("<title>Billing · Usage") && opening.contains("/usage.js"));
    assert_eq!(site.fakes.change(|state| state.calls.clone()), ["GetKey"]);
    let page = site.page(&usage).await;
    assert!(page.starts_with(&opening) && page.matches("<main").count() == 1);
    assert_eq!(site.get("/keys/nonsense/usage").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn latencies_come_after_the_page_or_with_it() {
    let (mut site, key) = site_with_calls().await;
    let usage = format!("/keys/{key}/usage");
    let page = site.page(&format!("{usage}?range=1h")).await;
    assert!(page.contains("data-slow") && !page.contains("95.0 ms"));
    assert!(site.fakes.change(|state| !state.calls.contains(&"GetLatency")), "not for the page itself");
    let link = unescaped(between(&page, "<noscript><p class=\"quiet\"><a href=\"", "\"")[0]);
    for address in [link, format!("{usage}/latency?range=1h")] {
        let panels = site.page(&address).await;
        let lines = between(&panels, "<table class=\"latencies\">", "</table>")[0];
        assert!(lines.contains("50.0 ms") && lines.contains("1.50 s") && panels.contains("±3.1%"));
        assert!(between(&panels, "class=\"number p95\">", "<")[0] == "95.0 ms", "{address}");
    }
}

#[tokio::test]
async fn the_workspace_has_a_page_over_every_key() {
    let (mut site, key) = site_with_calls().await;
    let other = site.fakes.add_key("Crawler", |_| {});
    site.fakes.add_call(other, "POST", "/v1/robots", 200);
    let page = site.page("/overview").await;
    assert!(page.contains("<h1>Overview</h1>") && page.contains("<span class=\"value\">4</span>"));
    assert!(!page.contains("API key ID is empty"), "it is no exception here");
    assert!(page.contains("href=\"/overview?method=POST\"") && page.contains("action=\"/overview\""));
    let of_one = site.page(&format!("/overview?key_id={key}")).await;
    assert!(of_one.contains("<span class=\"value\">3</span>") && of_one.contains("calls of one key"));
}

#[tokio::test]
async fn each_part_of_a_chart_leads_to_its_calls() {
    let (mut site, key) = site_with_calls().await;
    let usage = format!("/keys/{key}/usage");
    let page = site.page(&format!("{usage}?range=1h&status_code=200")).await;
    for link in ["range=1h&method=GET&status_code=200", "range=1h&status_code=200&route=%2Fv1%2Forders"] {
        assert!(unescaped(&page).contains(&format!("href=\"{usage}?{link}\"")), "{link}");
    }
    assert!(unescaped(&page).contains(&format!("data-href=\"{usage}?range=1h&status_code=200\"")));
    let chips = between(&page, "<a class=\"chip\" href=\"", "</a>");
    assert_eq!(chips.len(), 1);
    assert!(chips[0].starts_with(&format!("{usage}?range=1h\"")) && chips[0].contains("Remove Response 200"));
}

#[tokio::test]
async fn a_view_is_saved_used_and_removed() {
    let (mut site, key) = site_with_calls().await;
    let usage = format!("/keys/{key}/usage");
    let here = format!("{usage}?range=1h&method=GET");
    let fields = [("name", "Mine \"<b>\""), ("query", "range=1h&method=GET"), ("next", here.as_str())];
    let answer = site.post("/views", &fields).await;
    assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, here.as_str()));
    let cookie = answer.header("set-cookie").to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
    let page = site.page("/overview").await;
    assert!(unescaped(&page).contains("href=\"/overview?range=1h&method=GET\""), "also on other pages");
    assert!(!page.contains("<b>"));
    site.post("/views", &[("remove", "Mine \"<b>\""), ("next", "//evil.example")]).await;
    assert!(!site.page(&usage).await.contains("Mine"));
}

#[tokio::test]
async fn a_column_can_be_moved_forward() {
    let (mut site, key) = site_with_calls().await;
    let columns = ["request_id", "method", "response"].map(|name| ("column", name));
    let answer =
        site.post("/columns", &[&columns[..], &[("up", "response"), ("next", "/keys")]].concat()).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    let page = site.page(&format!("/keys/{key}/usage")).await;
    assert_eq!(between(&page, "<th scope=\"col\" class=\"c-", "\""), ["request_id", "response", "method"]);
}

#[tokio::test]
async fn one_call_is_shown_with_its_neighbours() {
    let (mut site, key) = site_with_calls().await;
    let of_order = |site: &Site, status_code: u32| {
        site.fakes.add(key, |call| {
            "ord_17".clone_into(&mut call.resource_id);
            "/v1/it's/ord_17".clone_into(&mut call.path);
            call.status_code = status_code;
        })
    };
    let (id, other) = (of_order(&site, 200), of_order(&site, 503));
    let usage = format!("/keys/{key}/usage");
    let page = site.page(&format!("{usage}?range=1h")).await;
    let link = between(&page, "<a class=\"row-link\" href=\"", "\"")
        .into_iter()
        .find(|link| link.contains(&id.to_string()))
        .map(unescaped)
        .unwrap();
    assert!(link.contains("range=1h") && link.contains("at="), "{link}");
    let page = site.page(&link).await;
    assert!(page.contains(&format!("<h1 class=\"mono\">{id}</h1>")) && page.contains("12.3 ms"));
    assert!(page.contains("curl/8") && page.contains("<dt>Secret used</dt>") && page.contains("192.0.2.7"));
    assert!(page.contains("it&#39;\\&#39;&#39;s"), "quoted for a shell");
    let neighbours = between(&page, "<h2 id=\"neighbours\">", "</section>")[0];
    assert!(neighbours.contains(&other.to_string()) && !neighbours.contains(&id.to_string()));
    assert!(unescaped(neighbours).contains("resource_id=ord_17#log"));
    for missing in [domain::RequestId::generate().to_string(), "req_nonsense".to_owned()] {
        let answer = site.get(&format!("{usage}/requests/{missing}")).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{missing}");
    }
}

#[tokio::test]
async fn rows_come_as_events() {
    let (mut site, key) = site_with_calls().await;
    let now_ms = time::OffsetDateTime::now_utc().unix_timestamp() * 1000;
    let tail = format!("/keys/{key}/usage/tail?method=GET&since={now_ms}");
    let answer = site.get(&tail).await;
    assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, "text/event-stream"));
    let data = between(&answer.body, "data: ", "\n")[0];
    assert_eq!(data.matches("<tr data-id=").count(), 3);
    assert!(data.contains("\"dropped_count\":3") && answer.body.contains("id: after "));
    assert_eq!(site.get(&format!("/keys/{key}/usage/tail?since=soon")).await.status, StatusCode::NOT_FOUND);
}

#[rstest]
#[case("csv", "text/csv; charset=utf-8")]
#[case("ndjson", "application/x-ndjson; charset=utf-8")]
#[case("parquet", "application/vnd.apache.parquet")]
#[tokio::test]
async fn every_call_goes_into_the_file(#[case] format: &str, #[case] kind: &str) {
    let (mut site, key) = site_with_calls().await;
    let page = site.page(&format!("/keys/{key}/usage?status_code=200")).await;
    let link = between(&page, "class=\"button\" href=\"", "\" data-export>")
        .into_iter()
        .map(|link| unescaped(link.rsplit("href=\"").next().unwrap()))
        .find(|link| link.ends_with(&format!("format={format}")))
        .unwrap();
    assert!(link.contains("status_code=200") && link.contains("at="), "{link}");
    let answer = site.get(&format!("{link}&export=mine")).await;
    assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, kind));
    assert_eq!(answer.body, "GET,200\nGET,200\n");
    let name = answer.header("content-disposition");
    assert!(
        name.starts_with("attachment; filename=\"keymeter-requests-2") && name.contains(format),
        "{name}"
    );
    let progress = site.get("/exports/mine").await.body;
    assert_eq!(progress, r#"{"row_count":2,"total_count":2,"is_done":true,"has_failed":false}"#);
    assert_eq!(site.get("/exports/other").await.status, StatusCode::NOT_FOUND);
    assert_eq!(site.get(&format!("/keys/{key}/usage/export?format=xls")).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_file_that_breaks_off_is_not_taken_for_whole() {
    let (mut site, key) = site_with_calls().await;
    let export = format!("/keys/{key}/usage/export?format=csv&export=mine");
    site.fakes.fail("a piece of a file", Status::unavailable("gone"));
    assert!(site.broken(&export).await, "the connection breaks");
    assert!(site.get("/exports/mine").await.body.contains("\"has_failed\":true"));
    site.fakes.fail("ExportRequests", Status::resource_exhausted("busy"));
    assert_eq!(site.get(&export).await.status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn an_unknown_time_zone_is_utc() {
    let (mut site, key) = site_with_calls().await;
    let usage = format!("/keys/{key}/usage");
    for (zone, used) in [("Asia/Kolkata", "Asia/Kolkata"), ("Mars/Olympus", "Mars/Olympus"), ("<script>", "")]
    {
        site.set_cookie("keymeter_zone", zone);
        let page = site.page(&usage).await;
        assert!(page.contains(&format!("data-zone-used=\"{used}\"")), "{zone}");
        assert_eq!(between(&page, "<g data-from=", "</g>").len(), 4, "{zone}");
    }
}
