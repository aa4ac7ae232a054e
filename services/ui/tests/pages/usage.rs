//! The usage page: its numbers against a list of calls, its filters, its log, its failures.

use axum::http::StatusCode;
use domain::KeyId;
use proto::usage::{KnownGap, UnaccountedEdge};
use rstest::rstest;
use time::Duration;
use tonic::Status;

use crate::{
    fakes::ago,
    site::{Site, between},
};

/// Ten calls: 6 GET, 3 POST, 1 DELETE; 5 × 200, 2 × 201, 404, 503, 429.
async fn busy_site() -> (Site, KeyId) {
    let site = Site::signed_in().await;
    let key = site.fakes.add_key("Billing", |key| key.last_used_time = Some(ago(Duration::MINUTE)));
    for status_code in [200, 200, 200, 200, 404] {
        site.fakes.add_call(key, "GET", "/v1/orders", status_code);
    }
    for status_code in [201, 201, 429] {
        site.fakes.add_call(key, "POST", "/v1/orders", status_code);
    }
    site.fakes.add(key, |call| {
        "/v1/orders/{id}".clone_into(&mut call.route);
        "/v1/orders/17".clone_into(&mut call.path);
        "17".clone_into(&mut call.resource_id);
    });
    site.fakes.add_call(key, "DELETE", "/v1/carts/{id}", 503);
    (site, key)
}

/// Total, completed, failed, rate limited.
fn cards(page: &str) -> Vec<String> {
    between(page, "<span class=\"value\">", "<").into_iter().map(str::to_owned).collect()
}

fn log_rows(page: &str) -> usize {
    between(page, "<code>req_", "</code>").len()
}

/// Label and count of each part of the legend under a heading.
fn legend<'a>(page: &'a str, heading: &str) -> Vec<(&'a str, &'a str)> {
    let section = between(page, &format!("<h2 id=\"{heading}\">"), "</section>")[0];
    let labels = between(section, "<span class=\"label\">", "</span>");
    let text = |label: &'a str| between(label, "\">", "<").first().copied().unwrap_or(label);
    labels.into_iter().map(text).zip(between(section, "<span class=\"number\">", "<")).collect()
}

#[tokio::test]
async fn the_page_names_its_key_and_leads_back() {
    let (mut site, key) = busy_site().await;
    let page = site.page(&format!("/keys/{key}/usage")).await;
    assert!(page.contains("<h1><bdi>Billing</bdi></h1>"));
    assert!(page.contains("Back to API Keys") && page.contains("class=\"back\" href=\"/keys\""));
}

#[tokio::test]
async fn four_cards_in_their_colours_add_up() {
    let (mut site, key) = busy_site().await;
    let page = site.page(&format!("/keys/{key}/usage")).await;
    assert_eq!(cards(&page), ["10", "7", "2", "1"]);
    for (hue, title) in [
        ("total", "Total Requests"),
        ("completed", "Completed"),
        ("failed", "Failed"),
        ("limited", "Rate Limited"),
    ] {
        let card = between(&page, &format!("<div class=\"card {hue}\"><dt>"), "</dt>");
        assert!(card[0].contains(title), "{title}");
    }
    assert_eq!(between(&page, "<span class=\"share\">", "<"), ["70%", "20%", "10%"]);
}

#[tokio::test]
async fn donuts_and_endpoints_break_the_same_calls_down() {
    let (mut site, key) = busy_site().await;
    let page = site.page(&format!("/keys/{key}/usage")).await;
    assert_eq!(legend(&page, "by-method"), [("GET", "6"), ("POST", "3"), ("DELETE", "1")]);
    assert_eq!(
        legend(&page, "by-status"),
        [("200", "5"), ("201", "2"), ("404", "1"), ("429", "1"), ("503", "1")]
    );
    assert!(page.contains("<title>GET: 6 (60%)</title>"));
    assert!(page.contains("s-2xx-0") && page.contains("s-429") && page.contains("s-5xx-0"));
    let endpoints = between(&page, "<table class=\"endpoints\">", "</table>")[0];
    assert_eq!(between(endpoints, "<code>", "<"), ["/v1/orders", "/v1/carts/{id}", "/v1/orders/{id}"]);
    assert_eq!(between(endpoints, "<td class=\"number\">", "<"), ["8", "1", "1"]);
    assert_eq!(between(endpoints, "<td class=\"number errors\">", "<"), ["25%", "100%"]);
    assert_eq!(between(&page, "<summary>Show as table", "</table>").len(), 3);
}

#[tokio::test]
async fn the_log_has_its_six_columns() {
    let (mut site, key) = busy_site().await;
    let page = site.page(&format!("/keys/{key}/usage")).await;
    let table = between(&page, "<table class=\"log\">", "</table>")[0];
    let titles: Vec<_> = between(table, "<th scope=\"col\" class=\"c-", "</th>");
    let titles: Vec<_> =
        titles.iter().map(|title| title.split_once('>').unwrap().1.split(" <").next().unwrap()).collect();
    assert_eq!(titles, ["Request ID", "Timestamp", "Method", "Endpoint", "Status", "Response"]);
    assert_eq!(log_rows(&page), 10);
    assert_eq!(between(table, "data-show=\"full\"", "</time>").len(), 10);
    assert!(table.contains("<span class=\"badge limited\">Rate limited</span>"));
    assert!(table.contains("<span class=\"badge failed\">Failed</span>"));
    assert!(table.contains("<span class=\"badge completed\">Completed</span>"));
    assert!(table.contains("<span class=\"response limited\">429</span>"));
    assert!(
        page.contains(" UTC\" data-show=\"full\">"),
        "the zone is said until a script knows the reader's"
    );
}

#[rstest]
#[case("method=POST", &["3", "2", "0", "1"])]
#[case("method=post&method=DELETE", &["4", "2", "1", "1"])]
#[case("outcome=failed", &["2", "0", "2", "0"])]
#[case("outcome=failed&outcome=rate_limited", &["3", "0", "2", "1"])]
#[case("route=%2Fv1%2Forders%2F%7Bid%7D", &["1", "1", "0", "0"])]
#[case("status_code=200,+503", &["6", "5", "1", "0"])]
#[case("resource_id=17", &["1", "1", "0", "0"])]
#[case("range=15m", &["10", "7", "2", "1"])]
#[case("range=custom&from=2026-01-01T00:00&to=2026-01-02T00:00", &["0", "0", "0", "0"])]
#[case("method=GET&outcome=failed&status_code=404&route=/v1/orders&range=1h", &["1", "0", "1", "0"])]
#[tokio::test]
async fn one_filter_holds_for_cards_donuts_endpoints_and_log(#[case] query: &str, #[case] expected: &[&str]) {
    let (mut site, key) = busy_site().await;
    let page = site.page(&format!("/keys/{key}/usage?{query}")).await;
    assert_eq!(cards(&page), expected);
    let total: u64 = expected[0].parse().unwrap();
    let sum =
        |parts: Vec<(&str, &str)>| parts.iter().map(|(_, count)| count.parse::<u64>().unwrap()).sum::<u64>();
    assert_eq!((sum(legend(&page, "by-method")), sum(legend(&page, "by-status"))), (total, total));
    let endpoints =
        between(&page, "<table class=\"endpoints\">", "</table>").first().copied().unwrap_or_default();
    let calls = between(endpoints, "<td class=\"number\">", "<")
        .into_iter()
        .map(|count| count.parse::<u64>().unwrap());
    assert_eq!(calls.sum::<u64>(), total);
    assert_eq!(log_rows(&page) as u64, total);
}

#[tokio::test]
async fn the_form_shows_what_holds_and_clears_to_this_key() {
    let (mut site, key) = busy_site().await;
    let query = "range=24h&outcome=failed&method=GET&status_code=404&route=%2Fv1%2Forders&resource_id=17";
    let page = site.page(&format!("/keys/{key}/usage?{query}")).await;
    let form = between(&page, "data-filters=", "</form>")[0];
    assert!(form.contains("<option value=\"24h\" selected>"));
    assert!(form.contains("name=\"outcome\" value=\"failed\" checked"));
    assert!(form.contains("name=\"method\" value=\"GET\" checked"));
    assert!(
        form.contains("value=\"404\"")
            && form.contains("value=\"/v1/orders\"")
            && form.contains("value=\"17\"")
    );
    assert!(form.contains(&format!("value=\"{key}\"")), "the API key ID is set to this key");
    assert!(form.contains(&format!("<a class=\"button\" href=\"/keys/{key}/usage\">Clear filters</a>")));
    assert!(form.contains("type=\"submit\">Apply</button>"));
    let page = site.page(&format!("/keys/{key}/usage")).await;
    assert!(page.contains("<option value=\"7d\" selected>"));
    assert!(!between(&page, "data-filters=", "</form>")[0].contains("checked"));
}

#[tokio::test]
async fn a_wrong_filter_is_marked_and_asks_for_nothing() {
    let (mut site, key) = busy_site().await;
    site.page("/keys").await;
    let before = site.fakes.change(|state| state.calls.len());
    let answer = site
        .get(&format!("/keys/{key}/usage?status_code=abc&from=2026-01-02T00:00&to=2026-01-01T00:00"))
        .await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(
        answer.body.contains("Write numbers from 100 to 599")
            && answer.body.contains("must end after it starts")
    );
    assert!(answer.body.contains("value=\"abc\""));
    assert_eq!(site.fakes.change(|state| state.calls[before..].to_vec()), ["GetKey"]);
}

#[tokio::test]
async fn another_key_or_every_key_is_said() {
    let (mut site, key) = busy_site().await;
    let other = site.fakes.add_key("Crawler", |_| {});
    site.fakes.add_call(other, "GET", "/v1/robots", 200);
    let page = site.page(&format!("/keys/{key}/usage?key_id={other}")).await;
    assert_eq!(cards(&page)[0], "1");
    assert!(page.contains("<h1><bdi>Billing</bdi></h1>") && page.contains("calls of another key"));
    assert!(
        page.contains("<strong><bdi>Crawler</bdi></strong>")
            && page.contains(&format!("/keys/{other}/usage\">Open"))
    );
    let page = site.page(&format!("/keys/{key}/usage?key_id=")).await;
    assert_eq!(cards(&page)[0], "11");
    assert!(page.contains("every key"));
    let page = site.page(&format!("/keys/{key}/usage?key_id={}", KeyId::generate())).await;
    assert_eq!(cards(&page)[0], "0");
    assert!(page.contains("was not found among this workspace"));
}

#[tokio::test]
async fn nothing_at_all_is_shown_without_dividing_by_it() {
    let mut site = Site::signed_in().await;
    let key = site.fakes.add_key("Quiet", |_| {});
    let page = site.page(&format!("/keys/{key}/usage")).await;
    assert_eq!(cards(&page), ["0", "0", "0", "0"]);
    assert_eq!(between(&page, "<span class=\"share\">", "<"), ["–", "–", "–"]);
    assert_eq!(between(&page, "No calls in this period", "<").len(), 4);
    assert!(page.contains("This key was never used") && page.contains("https://api.example.com/v1/orders"));
    assert!(!page.contains("NaN"));
}

#[tokio::test]
async fn older_pages_keep_the_filter_and_the_period() {
    let mut site = Site::signed_in().await;
    let key = site.fakes.add_key("Busy", |_| {});
    for _ in 0..120 {
        site.fakes.add_call(key, "GET", "/v1/orders", 200);
    }
    let usage = format!("/keys/{key}/usage");
    let first = site.page(&format!("{usage}?range=24h&method=GET")).await;
    let (mut page, mut seen, mut pages) = (first, 0, 0);
    loop {
        (seen, pages) = (seen + log_rows(&page), pages + 1);
        assert_eq!(cards(&page)[0], "120", "a call that comes meanwhile shifts nothing");
        site.fakes.add(key, |call| call.occurred_at = Some(ago(Duration::ZERO)));
        let older = between(&page, &format!("href=\"{usage}?"), "#log\" rel=\"next\"");
        let Some(query) = older.last().map(|query| query.replace("&#38;", "&").replace("&amp;", "&")) else {
            break;
        };
        assert!(
            query.contains("range=24h") && query.contains("method=GET") && query.contains("at="),
            "{query}"
        );
        page = site.page(&format!("{usage}?{}", query.rsplit("usage?").next().unwrap())).await;
    }
    assert_eq!((seen, pages), (120, 3));
    assert!(page.contains("#log\">Newest</a>"));
}

#[tokio::test]
async fn chosen_columns_are_remembered() {
    let (mut site, key) = busy_site().await;
    let usage = format!("/keys/{key}/usage?method=GET");
    let next = format!("{usage}#log");
    assert!(site.page(&usage).await.contains(&format!("name=\"next\" value=\"{next}\"")));
    let fields = [("column", "latency"), ("column", "method"), ("column", "<b>"), ("next", next.as_str())];
    let answer = site.post("/columns", &fields).await;
    assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, next.as_str()));
    let page = site.page(&usage).await;
    assert_eq!(between(&page, "<th scope=\"col\" class=\"c-", "\""), ["latency", "method"]);
    assert!(page.contains("12.3 ms") && page.contains("name=\"column\" value=\"latency\" checked"));
    assert_eq!(log_rows(&page), 0);
    site.post("/columns", &[("reset", "1"), ("next", &next)]).await;
    assert_eq!(log_rows(&site.page(&usage).await), 6);
}

#[tokio::test]
async fn the_page_says_how_far_it_can_be_trusted() {
    let (mut site, key) = busy_site().await;
    let usage = format!("/keys/{key}/usage");
    assert!(site.page(&usage).await.contains("Nothing counted yet"));
    site.fakes.change(|state| {
        state.freshness.complete_up_to = Some(prost_types::Timestamp { seconds: 1_790_000_000, nanos: 0 });
        state.freshness.unaccounted_edges =
            vec![UnaccountedEdge { edge_id: "edge_17".into(), since: state.freshness.complete_up_to }];
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let gap = |from, to| KnownGap { from: at(from), to: at(to), ..KnownGap::default() };
        state.freshness.known_gaps =
            vec![gap(1_789_990_000, 1_789_991_000), gap(1_789_980_000, 1_789_981_000)];
    });
    let page = site.page(&usage).await;
    let fresh = between(&page, "Complete up to ", "</time>")[0];
    assert!(
        fresh.contains("datetime=\"2026-09-21T14:13:20.000Z\"") && fresh.ends_with("14:13:20 UTC"),
        "{fresh}"
    );
    assert!(page.contains("Edge <code>edge_17</code> has not reported since"));
    let missing = between(&page, "<strong>Some calls are missing</strong>", "in no total")[0];
    let times = between(missing, "datetime=\"", "\"");
    assert_eq!(times, ["2026-09-21T08:40:00.000Z", "2026-09-21T11:43:20.000Z"]);
}

#[tokio::test]
async fn a_deleted_key_stays_readable_under_a_banner() {
    let (mut site, key) = busy_site().await;
    site.post(&format!("/keys/{key}/delete"), &[("confirm", "Billing")]).await;
    let page = site.page(&format!("/keys/{key}/usage")).await;
    assert!(page.contains("This key was deleted") && page.contains("its usage stays readable"));
    assert_eq!(cards(&page)[0], "10");
    assert!(!page.contains("still called"));
    for client_ip in ["192.0.2.7", "192.0.2.8", "192.0.2.8"] {
        site.fakes.add(key, |request| {
            request.status_code = 401;
            "deleted".clone_into(&mut request.denial);
            client_ip.clone_into(&mut request.client_ip);
        });
    }
    let page = site.page(&format!("/keys/{key}/usage")).await;
    assert!(page.contains("it was still called <strong>3 times from 2 addresses</strong>"));
}

#[rstest]
#[case("GetOverview", 4)]
#[case("GetBreakdown by route", 1)]
#[case("ListRequests", 1)]
#[tokio::test]
async fn what_fails_fails_alone(#[case] rpc: &'static str, #[case] panels: usize) {
    let (mut site, key) = busy_site().await;
    site.fakes.fail(rpc, Status::unavailable("connection refused"));
    let page = site.page(&format!("/keys/{key}/usage")).await;
    assert_eq!(between(&page, "class=\"panel-problem\"", "</div>").len(), panels);
    let problem = between(&page, "class=\"panel-problem\"", "</div>")[0];
    assert!(problem.contains("Usage is away") && problem.contains("nothing of them is lost"));
    assert_eq!(between(problem, "<code>", "<")[0].len(), 32, "the reference");
    assert_eq!(cards(&page).is_empty(), rpc == "GetOverview");
    assert_eq!(log_rows(&page) == 0, rpc == "ListRequests");
}

#[tokio::test]
async fn of_a_single_endpoint_the_cards_say_all() {
    let (mut site, key) = busy_site().await;
    // So whoever asks would see a problem.
    site.fakes.fail("GetBreakdown by route", Status::unavailable("connection refused"));
    let page = site.page(&format!("/keys/{key}/usage?route=/v1/orders")).await;
    let endpoints = between(&page, "<table class=\"endpoints\">", "</table>")[0];
    assert_eq!(between(endpoints, "<code>", "<"), ["/v1/orders"]);
    assert_eq!(between(endpoints, "<td class=\"number\">", "<"), ["8"]);
    assert_eq!(between(endpoints, "<td class=\"number errors\">", "<"), ["25%"]);
    assert!(!page.contains("panel-problem"));
}

#[tokio::test]
async fn with_query_away_the_page_is_there_and_with_keys_away_its_numbers_are() {
    let (mut site, key) = busy_site().await;
    let usage = format!("/keys/{key}/usage");
    site.page(&usage).await;
    site.fakes.fail("GetKey", Status::unavailable("connection refused"));
    let page = site.page(&usage).await;
    assert!(page.contains("Keys are away") && page.contains(&format!("<h1>{key}</h1>")));
    assert_eq!(cards(&page)[0], "10");
}

#[tokio::test]
async fn a_rejected_access_token_is_not_used_again() {
    let (mut site, key) = busy_site().await;
    site.fakes.fail("GetOverview", Status::unauthenticated("unknown signing key"));
    let page = site.page(&format!("/keys/{key}/usage")).await;
    assert!(page.contains("Your sign-in was not accepted"));
    site.fakes.change(|state| state.failures.clear());
    site.fakes.change(|state| state.calls.clear());
    site.page(&format!("/keys/{key}/usage")).await;
    assert_eq!(site.fakes.change(|state| state.calls[0]), "Refresh");
}
