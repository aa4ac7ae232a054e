//! The list of keys, and the forms that generate, copy and delete one.

use axum::http::StatusCode;
use domain::KeyId;
use proto::keys::KeyState;
use time::Duration;
use tonic::{Code, Status};

use crate::{
    fakes::{EMAIL, PASSWORD, SECRET, ago},
    site::{Site, between},
};

#[tokio::test]
async fn the_sidebar_leads_to_every_key_with_description_and_last_use() {
    let mut site = Site::signed_in().await;
    site.fakes.add_key("Billing", |key| {
        "Nightly invoices".clone_into(&mut key.description);
        key.last_used_time = Some(ago(Duration::minutes(5)));
    });
    site.fakes.add_key("Crawler", |_| {});
    assert_eq!(site.get("/").await.header("location"), "/keys");
    let page = site.page("/keys").await;
    let nav = between(&page, "<nav aria-label=\"Main\">", "</nav>")[0];
    assert!(nav.contains("<details open>") && nav.contains("Integrations") && nav.contains("API Keys"));
    assert!(page.contains("Acme") && page.contains(EMAIL), "who and where is shown");
    let rows = between(&page, "<tr role=\"row\"", "</tr>");
    let (crawler, billing) = (rows[1], rows[2]);
    assert!(billing.contains("Billing") && billing.contains("Nightly invoices"));
    assert!(billing.contains("km_test_0123…") && billing.contains("Test"));
    let used = between(billing, "data-show=\"relative\">", "<");
    assert_eq!(used, ["5 minutes ago"]);
    assert!(crawler.contains("Crawler") && crawler.contains("Never"));
}

#[tokio::test]
async fn each_row_has_its_three_actions() {
    let mut site = Site::signed_in().await;
    let key = site.fakes.add_key("Billing", |_| {});
    let page = site.page("/keys").await;
    assert!(page.contains(&format!("href=\"/keys/{key}/usage\" title=\"Usage statistics\"")));
    assert!(page.contains(&format!("data-copy-key=\"/keys/{key}/reveal\"")));
    assert!(page.contains(&format!("href=\"/keys/{key}/delete\"")));
    assert!(page.contains("<noscript>") && page.contains("Copying a key needs JavaScript"));
    assert!(!page.contains(SECRET));
}

#[tokio::test]
async fn generating_shows_the_secret_once_with_a_ready_curl_line() {
    let mut site = Site::signed_in().await;
    let page = site.page("/keys").await;
    assert!(page.contains("class=\"button primary\" href=\"/keys/new\""));
    let form = site.page("/keys/new").await;
    let number = between(&form, "name=\"idempotency_key\" value=\"", "\"")[0].to_owned();
    assert_eq!(number.len(), 36);
    let fields = [
        ("display_name", " Billing "),
        ("description", "Nightly"),
        ("environment", "test"),
        ("idempotency_key", &number),
    ];
    let created = site.post("/keys", &fields).await;
    assert_eq!(created.status, StatusCode::OK);
    assert!(created.body.contains(&format!("<code id=\"secret\">{SECRET}</code>")));
    let curl = format!(
        "curl -H &#39;Authorization: Bearer {SECRET}&#39; &#39;https://api.example.com/v1/orders&#39;"
    );
    let plain = created.body.replace("&#x27;", "&#39;").replace('\'', "&#39;");
    assert!(plain.contains(&curl), "{plain}");
    let key = site.fakes.change(|state| state.keys[0].clone());
    assert_eq!((key.display_name.as_str(), key.description.as_str()), ("Billing", "Nightly"));
    assert_eq!(key.environment(), proto::keys::Environment::Test);
}

#[tokio::test]
async fn a_refused_field_is_marked_and_the_rest_kept() {
    let mut site = Site::signed_in().await;
    let answer = site
        .post("/keys", &[("display_name", " "), ("description", "Nightly"), ("environment", "test")])
        .await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer.body.contains("aria-invalid=\"true\"") && answer.body.contains("Must not be empty."));
    assert!(answer.body.contains("Nightly</textarea>"));
    assert!(answer.body.contains("value=\"test\" checked"));
    assert!(site.fakes.change(|state| state.keys.is_empty()));
}

#[tokio::test]
async fn deleting_asks_first_and_says_that_it_is_for_good() {
    let mut site = Site::signed_in().await;
    let key = site.fakes.add_key("Billing", |_| {});
    let page = site.page(&format!("/keys/{key}/delete")).await;
    assert!(page.contains("This cannot be undone.") && page.contains("stops working at once"));
    assert!(page.contains(&format!("method=\"post\" action=\"/keys/{key}/delete\"")));
    assert_eq!(site.fakes.change(|state| state.keys[0].state()), KeyState::Active, "asking deletes nothing");
    let answer = site.post(&format!("/keys/{key}/delete"), &[("confirm", " Billing")]).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(
        answer.body.contains("was deleted") && answer.body.contains("Refused by 3 of 3 edges after 84.0 ms.")
    );
    let list = site.page("/keys").await;
    assert!(!list.contains(&format!("/keys/{key}/delete")), "it is gone from the list");
    assert_eq!(
        site.get(&format!("/keys/{key}/delete")).await.header("location"),
        format!("/keys/{key}/usage")
    );
}

#[tokio::test]
async fn deleted_keys_are_shown_on_demand_and_can_only_be_looked_at() {
    let mut site = Site::signed_in().await;
    let key = site.fakes.add_key("Importer", |key| {
        key.state = KeyState::Deleted.into();
        key.delete_time = Some(ago(Duration::DAY));
    });
    assert!(!site.page("/keys").await.contains("Importer"));
    let page = site.page("/keys?state=all").await;
    assert!(page.contains("Importer") && page.contains("Deleted") && page.contains("Hide deleted"));
    assert!(page.contains(&format!("/keys/{key}/usage")));
    assert!(!page.contains(&format!("/keys/{key}/reveal")) && !page.contains(&format!("/keys/{key}/delete")));
}

#[tokio::test]
async fn ten_thousand_keys_are_paged() {
    let mut site = Site::signed_in().await;
    for number in 0..10_000 {
        site.fakes.add_key(&format!("key number {number}."), |_| {});
    }
    let (mut path, mut seen) = ("/keys".to_owned(), 0);
    loop {
        let page = site.page(&path).await;
        seen += page.matches(".</bdi></a>").count();
        match between(&page, "<a class=\"button\" href=\"/keys?page_token", "\" rel=\"next\"").first() {
            Some(rest) => path = format!("/keys?page_token{rest}"),
            None => break,
        }
    }
    assert_eq!(seen, 10_000);
    assert!(site.page(&path).await.contains("First page"));
    assert_eq!(site.get("/keys?page_token=stale").await.header("location"), "/keys");
}

#[tokio::test]
async fn an_empty_list_says_what_to_do() {
    let mut site = Site::signed_in().await;
    let page = site.page("/keys").await;
    assert!(page.contains("No keys yet") && page.contains("Generate a key"));
}

#[tokio::test]
async fn when_keys_are_away_the_page_says_so_with_a_reference() {
    let mut site = Site::signed_in().await;
    site.page("/keys").await;
    site.fakes.fail("ListKeys", Status::unavailable("tcp connect error"));
    let answer = site.get("/keys").await;
    assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "5"));
    assert!(answer.body.contains("Keys are away") && answer.body.contains("Try again in a moment"));
    assert_eq!(between(&answer.body, "Reference <code>", "<")[0].len(), 32);
    assert!(!answer.body.contains("tcp connect error"));
    assert!(answer.body.contains("Sign out"), "the rest of the page is there");
}

#[tokio::test]
async fn a_missing_right_and_a_missing_key_have_their_pages() {
    let mut site = Site::signed_in().await;
    site.fakes.fail("CreateKey", Status::permission_denied("role"));
    let answer = site.post("/keys", &[("display_name", "x")]).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(answer.body.contains("Not allowed") && answer.body.contains("administrators"));
    let other = KeyId::generate();
    for path in [
        format!("/keys/{other}/delete"),
        format!("/keys/{other}/usage"),
        "/keys/key_x/usage".into(),
        "/nothing".into(),
    ] {
        let answer = site.get(&path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert!(answer.body.contains("Go to API Keys"));
    }
}

#[tokio::test]
async fn a_key_that_is_switched_off_says_so() {
    let mut site = Site::signed_in().await;
    assert!(!site.page("/keys").await.contains("Disabled"));
    let key = site.fakes.add_key("Billing", |key| key.state = KeyState::Disabled.into());
    assert!(site.page("/keys").await.contains(">Disabled</span>"));
    assert!(site.page(&format!("/keys/{key}/usage")).await.contains("This key is switched off"));
}

#[tokio::test]
async fn a_copy_may_ask_for_the_password_again() {
    let mut site = Site::signed_in().await;
    let key = site.fakes.add_key("Billing", |_| {});
    let path = format!("/keys/{key}/reveal");
    let stale = proto::status::error(Code::PermissionDenied, "REAUTHENTICATION_REQUIRED", "again");
    site.fakes.fail("RevealKey", stale);
    let refused = site.post(&path, &[]).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(refused.body.contains("\"reason\":\"REAUTHENTICATION_REQUIRED\""));
    let wrong = site.post(&path, &[("password", "a guess")]).await;
    assert_eq!(wrong.status, StatusCode::FORBIDDEN);
    assert!(wrong.body.contains("WRONG_PASSWORD") && !wrong.body.contains("guess"));
    assert_eq!(
        site.post(&path, &[("password", PASSWORD)]).await.body,
        format!("{{\"secret\":\"{SECRET}\"}}")
    );
    assert_eq!(site.post(&path, &[]).await.status, StatusCode::OK, "the session goes on");
}

#[tokio::test]
async fn a_refused_copy_says_why() {
    let mut site = Site::signed_in().await;
    let key = site.fakes.add_key("Billing", |_| {});
    site.fakes.fail("RevealKey", Status::failed_precondition("the workspace keeps no copies"));
    let answer = site.post(&format!("/keys/{key}/reveal"), &[]).await;
    assert_eq!((answer.status, answer.header("content-type")), (StatusCode::CONFLICT, "application/json"));
    assert!(answer.body.contains("The workspace keeps no copies."));
}
