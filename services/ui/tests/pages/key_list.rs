//! The list of keys: what is found, in which order, what is said of each, and what happened to it today.

use axum::http::StatusCode;
use proto::keys::{Environment, KeyState};
use rstest::rstest;
use time::Duration;
use tonic::Status;

use crate::{
    fakes::ago,
    site::{Site, between},
};

/// Names of the listed keys.
fn names(page: &str) -> Vec<&str> {
    between(page, "class=\"what\"><a href=\"", "</bdi></a>")
        .into_iter()
        .filter_map(|rest| Some(rest.split_once("<bdi>")?.1))
        .collect()
}

/// The row of one key.
fn row<'a>(page: &'a str, name: &str) -> &'a str {
    let rows = between(page, "<tr role=\"row\"", "</tr>");
    rows.into_iter().find(|row| row.contains(&format!("<bdi>{name}</bdi></a>"))).unwrap_or_default()
}

async fn three_keys() -> Site {
    let site = Site::signed_in().await;
    site.fakes.add_key("Billing", |key| {
        key.environment = Environment::Live.into();
        key.tags = [("team".to_owned(), "pay".to_owned())].into();
        key.last_used_time = Some(ago(Duration::MINUTE));
    });
    site.fakes.add_key("analytics", |key| key.expose_time = Some(ago(Duration::HOUR)));
    site.fakes.add_key("Crawler", |key| key.state = KeyState::Disabled.into());
    site
}

#[rstest]
#[case("", &["Crawler", "analytics", "Billing"])]
#[case("?search=bill", &["Billing"])]
#[case("?environment=live", &["Billing"])]
#[case("?environment=test&sort=name", &["analytics", "Crawler"])]
#[case("?tag=team%3Dpay", &["Billing"])]
#[case("?state=disabled", &["Crawler"])]
#[case("?hygiene=exposed", &["analytics"])]
#[case("?hygiene=never_used&state=active", &["analytics"])]
#[case("?sort=name", &["analytics", "Billing", "Crawler"])]
#[tokio::test]
async fn keys_are_found_and_sorted_by_the_address(#[case] query: &str, #[case] expected: &[&str]) {
    let mut site = three_keys().await;
    let page = site.page(&format!("/keys{query}")).await;
    assert_eq!(names(&page), expected);
}

#[tokio::test]
async fn the_form_shows_what_the_address_says() {
    let mut site = three_keys().await;
    let page = site
        .page("/keys?search=b%22i&environment=live&state=active&hygiene=exposed&tag=a%3Db&sort=name")
        .await;
    assert!(page.contains("name=\"search\"") && page.contains("value=\"b&#34;i\""));
    for chosen in ["live", "active", "exposed", "name"] {
        assert!(page.contains(&format!("<option value=\"{chosen}\" selected>")), "{chosen}");
    }
    assert!(page.contains("value=\"a=b\"") && page.contains("No key fits") && page.contains(">Clear</a>"));
}

#[tokio::test]
async fn later_pages_keep_the_filter() {
    let mut site = Site::signed_in().await;
    for number in 0..60 {
        site.fakes.add_key(&format!("key {number}"), |_| {});
    }
    let page = site.page("/keys?search=key&sort=name").await;
    let next = between(&page, "<a class=\"button\" href=\"", "\" rel=\"next\"")[0].replace("&#38;", "&");
    assert_eq!(next, "/keys?search=key&sort=name&page_token=50");
    let last = site.page(&next).await;
    assert_eq!(names(&last).len(), 10);
    assert!(last.replace("&#38;", "&").contains("href=\"/keys?search=key&sort=name\">First page"));
    let stale = site.get("/keys?search=key&sort=name&page_token=stale").await;
    assert_eq!(stale.header("location"), "/keys?search=key&sort=name", "only the page is lost");
}

#[rstest]
#[case("environment=moon", "environment_error")]
#[case("state=gone", "state_error")]
#[case("hygiene=dirty", "hygiene_error")]
#[case("sort=size", "sort_error")]
#[case("tag=team", "tag_error")]
#[tokio::test]
async fn a_bad_value_is_said_at_its_field(#[case] query: &str, #[case] place: &str) {
    let mut site = three_keys().await;
    let answer = site.get(&format!("/keys?{query}")).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.body.contains(&format!("class=\"error\" id=\"{place}\"")));
    assert!(answer.body.contains(&format!("aria-invalid=\"true\" aria-describedby=\"{place}\"")));
}

#[rstest]
#[case("filter.search", "search_error")]
#[case("filter.tags", "tag_error")]
#[tokio::test]
async fn what_keys_refuses_is_said_at_its_field_too(#[case] field: &str, #[case] place: &str) {
    let mut site = three_keys().await;
    site.fakes.fail("ListKeys", proto::status::invalid(field, "must have a letter or a digit"));
    let answer = site.get("/keys?search=--").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.body.contains(&format!("id=\"{place}\">Must have a letter or a digit.")));
}

#[tokio::test]
async fn each_key_shows_its_day_by_one_question() {
    let mut site = three_keys().await;
    let page = site.page("/keys").await;
    assert!(row(&page, "Billing").contains("No calls in the last 24 hours"));
    let key = site.fakes.change(|state| state.keys[2].name.rsplit('/').next().unwrap().parse().unwrap());
    for status_code in [200, 200, 200, 503] {
        site.fakes.add_call(key, "GET", "/v1/orders", status_code);
    }
    site.fakes.change(|state| state.calls.clear());
    let page = site.page("/keys").await;
    let billing = row(&page, "Billing");
    assert!(billing.contains("aria-label=\"4 calls in the last 24 hours, 25% errors, at most 4 an hour\""));
    assert!(billing.contains("<title>4 calls") && billing.contains("25% errors</span>"));
    assert_eq!(billing.matches("class=\"calls\"").count(), 1);
    assert_eq!(billing.matches("class=\"idle\"").count(), 23);
    assert_eq!(site.fakes.change(|state| state.calls.clone()), ["ListKeys", "ListKeyUsage"]);
}

#[tokio::test]
async fn without_query_the_keys_are_there_and_one_line_says_what_is_missing() {
    let mut site = three_keys().await;
    site.fakes.fail("ListKeyUsage", Status::unavailable("tcp connect error"));
    let page = site.page("/keys").await;
    assert_eq!(names(&page).len(), 3);
    assert_eq!(page.matches("The last 24 hours are not shown.").count(), 1);
    assert!(!page.contains("class=\"spark\"") && !page.contains("tcp connect error"));
}

#[tokio::test]
async fn each_thing_to_know_has_its_badge() {
    let mut site = three_keys().await;
    site.fakes.add_key("Soon", |key| key.expire_time = Some(ago(Duration::hours(-50))));
    site.fakes.add_key("Old", |key| key.last_used_time = Some(ago(Duration::days(91))));
    site.fakes.add_key("Two", |key| key.secrets.push(key.secrets[0].clone()));
    let page = site.page("/keys").await;
    assert!(row(&page, "analytics").contains("<span class=\"badge failed\">Exposed</span>"));
    assert!(row(&page, "Crawler").contains("<span class=\"badge limited\">Disabled</span>"));
    assert!(row(&page, "Crawler").contains("Never used"));
    assert!(!row(&page, "Billing").contains("Never used"));
    assert!(row(&page, "Soon").contains("Expires in 2 days"));
    assert!(row(&page, "Old").contains("Unused for 90 days"));
    assert!(row(&page, "Two").contains("2 secrets live"));
    assert!(row(&page, "Billing").contains("<li><bdi>team</bdi>=<bdi>pay</bdi></li>"));
}

#[tokio::test]
async fn a_deleted_key_that_is_still_called_says_so() {
    let mut site = Site::signed_in().await;
    let deleted = |key: &mut proto::keys::Key| {
        key.state = KeyState::Deleted.into();
        key.delete_time = Some(ago(Duration::DAY));
    };
    let called = site.fakes.add_key("Importer", deleted);
    site.fakes.add_key("Gone", deleted);
    site.fakes.add(called, |call| {
        call.status_code = 401;
        "deleted".clone_into(&mut call.denial);
    });
    let page = site.page("/keys?state=deleted").await;
    assert!(
        row(&page, "Importer")
            .contains("title=\"Refused calls in the last 24 hours: 1\">Deleted but still called")
    );
    assert!(row(&page, "Gone").contains("Deleted") && !row(&page, "Gone").contains("still called"));
    assert!(site.page("/keys?state=all").await.contains("Hide deleted"));
}

#[tokio::test]
async fn a_row_leads_to_whatever_can_be_done_with_the_key() {
    let mut site = Site::signed_in().await;
    let key = site.fakes.add_key("Billing", |_| {});
    let page = site.page("/keys").await;
    for path in ["usage", "edit", "secrets", "rotate", "disable", "delete"] {
        assert!(row(&page, "Billing").contains(&format!("href=\"/keys/{key}/{path}\"")), "{path}");
        site.page(&format!("/keys/{key}/{path}")).await;
    }
    site.fakes.change(|state| state.keys[0].state = KeyState::Disabled.into());
    let page = site.page("/keys").await;
    assert!(row(&page, "Billing").contains(&format!("href=\"/keys/{key}/enable\"")));
    assert!(!row(&page, "Billing").contains("/disable\""));
}

#[tokio::test]
async fn names_of_any_script_are_kept_apart_from_the_page() {
    let mut site = Site::signed_in().await;
    let (long, arabic) = ("n".repeat(100), "مفتاح الفواتير");
    site.fakes.add_key(&long, |_| {});
    site.fakes.add_key(arabic, |_| {});
    let page = site.page("/keys").await;
    assert_eq!(names(&page), [arabic, long.as_str()]);
}
