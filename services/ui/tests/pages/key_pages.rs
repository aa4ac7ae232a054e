//! What is done to one key: generated with everything, edited, rotated, switched, cut, deleted.

use axum::http::StatusCode;
use domain::KeyId;
use proto::keys::{Key, KeyState};
use rstest::rstest;
use time::Duration;
use tonic::{Code, Status};

use crate::{
    fake_keys::{ROTATED, secret},
    fakes::ago,
    site::{Site, between},
};

const ALL: [(&str, &str); 15] = [
    ("display_name", "Billing"),
    ("description", "Nightly"),
    ("environment", "test"),
    ("expiry", "date"),
    ("expire_date", "2099-12-31"),
    ("limit_name", "burst"),
    ("limit_requests", "100"),
    ("limit_window", "2"),
    ("limit_unit", "min"),
    ("limit_name", ""),
    ("limit_requests", ""),
    ("limit_window", ""),
    ("scopes", "orders:read orders:write"),
    ("networks", "192.0.2.0/24\r\n2001:db8::/32"),
    ("tags", "team=pay"),
];

fn first(site: &Site) -> Key {
    site.fakes.change(|state| state.keys[0].clone())
}

async fn one_key() -> (Site, KeyId) {
    let site = Site::signed_in().await;
    let key = site.fakes.add_key("Billing", |_| {});
    (site, key)
}

#[tokio::test]
async fn a_key_is_generated_with_everything_it_can_be_told() {
    let mut site = Site::signed_in().await;
    let created = site.post("/keys", &ALL).await;
    assert_eq!(created.status, StatusCode::OK, "{}", created.body);
    let key = first(&site);
    assert_eq!(key.expire_time.unwrap().seconds, 4_102_444_799, "the end of the day in UTC");
    assert_eq!((key.rate_limits.len(), key.rate_limits[0].requests), (1, 100));
    assert_eq!(key.rate_limits[0].window.unwrap().seconds, 120);
    assert_eq!(key.scopes, ["orders:read", "orders:write"]);
    assert_eq!(key.allowed_networks, ["192.0.2.0/24", "2001:db8::/32"]);
    assert_eq!(key.tags["team"], "pay");
}

#[tokio::test]
async fn the_short_form_leads_to_the_long_one_with_what_was_typed() {
    let mut site = Site::signed_in().await;
    let list = site.page("/keys").await;
    let dialog = between(&list, "<dialog id=\"generate\"", "</dialog>")[0];
    assert!(dialog.contains("formaction=\"/keys/new\"") && dialog.contains("More options"));
    assert!(!dialog.contains("name=\"scopes\""));
    let page = site.page("/keys/new?display_name=Billing&environment=test").await;
    assert!(page.contains("value=\"Billing\"") && page.contains("value=\"test\" checked"));
    assert_eq!(page.matches("name=\"limit_name\"").count(), 3, "limits can be told without a script");
}

#[rstest]
#[case("key.expire_time", "id=\"expire_time_hint\">Must be so.")]
#[case("key.scopes", "id=\"scopes_hint\">Must be so.")]
#[case("key.allowed_networks", "id=\"networks_hint\">Must be so.")]
#[case("key.tags", "id=\"tags_hint\">Must be so.")]
#[case("key.description", "id=\"description_hint\">Must be so.")]
#[case("key.rate_limits", "<p class=\"error\">Must be so.")]
#[case("idempotency_key", "role=\"alert\"")]
#[tokio::test]
async fn what_keys_refuses_is_said_at_its_field(#[case] field: &str, #[case] said: &str) {
    let (mut site, key) = one_key().await;
    for (rpc, path) in [("CreateKey", "/keys".to_owned()), ("UpdateKey", format!("/keys/{key}/edit"))] {
        site.fakes.fail(rpc, proto::status::invalid(field, "must be so"));
        let answer = site.post(&path, &ALL).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(answer.body.contains(said), "{path}");
        assert!(answer.body.contains("2001:db8::/32</textarea>") && answer.body.contains("2099-12-31"));
    }
}

#[tokio::test]
async fn a_refused_limit_is_marked_in_its_row() {
    let mut site = Site::signed_in().await;
    site.fakes.fail("CreateKey", proto::status::invalid("key.rate_limits[0].window", "must be at least 1 s"));
    let answer = site.post("/keys", &ALL).await;
    let limit = between(&answer.body, "aria-label=\"Limit 1\"", "</div>")[0];
    assert!(limit.contains("<p class=\"error\">Must be at least 1 s.</p>"));
    let window = between(limit, "name=\"limit_window\"", ">")[0];
    assert!(window.contains("aria-invalid=\"true\"") && window.contains("value=\"2\""));
    let typed =
        [("display_name", "x"), ("limit_name", "a"), ("limit_requests", "many"), ("limit_window", "1")];
    let answer = site.post("/keys", &typed).await;
    assert!(
        answer.body.contains("value=\"many\" aria-invalid=\"true\"")
            && answer.body.contains("Write a whole number.")
    );
}

#[tokio::test]
async fn a_key_is_edited_under_its_etag() {
    let (mut site, key) = one_key().await;
    let path = format!("/keys/{key}/edit");
    let page = site.page(&path).await;
    assert!(page.contains("name=\"etag\" value=\"1\"") && !page.contains("name=\"environment\""));
    let fields: Vec<_> = [("etag", "1")].into_iter().chain(ALL).collect();
    let saved = site.post(&path, &fields).await;
    assert_eq!(
        (saved.status, saved.header("location")),
        (StatusCode::SEE_OTHER, format!("{path}?saved=1").as_str())
    );
    assert!(site.page(&format!("{path}?saved=1")).await.contains("Saved."));
    let changed = first(&site);
    assert_eq!((changed.description.as_str(), changed.tags["team"].as_str()), ("Nightly", "pay"));
    let page = site.page(&path).await;
    assert!(page.contains("value=\"keep\" checked") && page.contains("team=pay</textarea>"));
    site.post(&path, &[("etag", "1+"), ("display_name", "Billing"), ("expiry", "keep")]).await;
    let update = site.fakes.change(|state| state.updates.pop().unwrap());
    assert!(!update.update_mask.unwrap().paths.contains(&"expire_time".to_owned()));
    assert_eq!(first(&site).expire_time, changed.expire_time, "what was not touched stays");
    assert!(first(&site).tags.is_empty(), "what was emptied is empty");
}

#[tokio::test]
async fn nobody_writes_over_a_change_that_they_have_not_seen() {
    let (mut site, key) = one_key().await;
    let path = format!("/keys/{key}/edit");
    site.fakes.change(|state| {
        "2".clone_into(&mut state.keys[0].etag);
        "Theirs".clone_into(&mut state.keys[0].description);
    });
    let fields = [("etag", "1"), ("display_name", "Billing"), ("description", "Mine")];
    let conflict = site.post(&path, &fields).await;
    assert_eq!(conflict.status, StatusCode::CONFLICT);
    assert!(
        conflict.body.contains("Somebody changed this key")
            && conflict.body.contains("differs from it in: description")
    );
    assert!(conflict.body.contains("Mine</textarea>") && conflict.body.contains("name=\"etag\" value=\"2\""));
    assert_eq!(first(&site).description, "Theirs");
    assert_eq!(site.post(&path, &[("etag", "2"), fields[1], fields[2]]).await.status, StatusCode::SEE_OTHER);
    assert_eq!(first(&site).description, "Mine", "now it was seen");
}

#[rstest]
#[case("0", 0, "refused from now on")]
#[case("1h", 3_600, "until")]
#[case("30d", 2_592_000, "until")]
#[tokio::test]
async fn rotating_shows_the_new_secret_once_and_what_becomes_of_the_old(
    #[case] overlap: &str,
    #[case] seconds: i64,
    #[case] said: &str,
) {
    let (mut site, key) = one_key().await;
    let path = format!("/keys/{key}/rotate");
    let form = site.page(&path).await;
    let number = between(&form, "name=\"idempotency_key\" value=\"", "\"")[0].to_owned();
    assert!(form.contains("value=\"24h\" checked") && number.len() == 36);
    let fields = [("overlap", overlap), ("idempotency_key", number.as_str()), ("etag", "1")];
    let rotated = site.post(&path, &fields).await;
    assert_eq!(rotated.status, StatusCode::OK);
    assert!(
        rotated.body.contains(&format!("<code id=\"secret\">{ROTATED}</code>"))
            && rotated.body.contains(said)
    );
    assert!(rotated.body.contains("curl -H") && rotated.body.contains(&format!("/keys/{key}/secrets")));
    let asked = site.fakes.change(|state| state.rotations[0].clone());
    assert_eq!(
        (asked.overlap.unwrap().seconds, asked.idempotency_key, asked.etag),
        (seconds, number, "1".to_owned())
    );
    assert!(!site.page(&format!("/keys/{key}/secrets")).await.contains(ROTATED));
}

#[rstest]
#[case("forever", None, StatusCode::UNPROCESSABLE_ENTITY, "Choose how long")]
#[case("1h", Some(Status::aborted("etag")), StatusCode::CONFLICT, "Somebody changed this key")]
#[case(
    "1h",
    Some(Status::failed_precondition("5 secrets work; retire one first")),
    StatusCode::CONFLICT,
    "Retire one first."
)]
#[case("1h", Some(Status::already_exists("used")), StatusCode::UNPROCESSABLE_ENTITY, "Send it again.")]
#[tokio::test]
async fn a_refused_rotation_says_why_and_keeps_the_choice(
    #[case] overlap: &str,
    #[case] failure: Option<Status>,
    #[case] code: StatusCode,
    #[case] said: &str,
) {
    let (mut site, key) = one_key().await;
    if let Some(status) = failure {
        site.fakes.fail("RotateKey", status);
    }
    let answer = site.post(&format!("/keys/{key}/rotate"), &[("overlap", overlap)]).await;
    assert_eq!(answer.status, code);
    let body = answer.body.replace("5 secrets work; retire", "Retire");
    assert!(body.contains(said), "{body}");
    assert_eq!(answer.body.contains("value=\"1h\" checked"), overlap == "1h");
    assert_eq!(first(&site).secrets.len(), 1);
}

#[tokio::test]
async fn a_form_that_was_sent_before_may_have_no_secret_to_show() {
    let (mut site, key) = one_key().await;
    site.fakes.change(|state| state.rotated_before = true);
    let answer = site.post(&format!("/keys/{key}/rotate"), &[("overlap", "1h")]).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.body.contains("This form was sent before.") && !answer.body.contains("id=\"secret\""));
}

/// A key with a current secret and an old one that goes on for an hour.
async fn rotated_key() -> (Site, KeyId, [String; 2]) {
    let (site, key) = one_key().await;
    let ids = site.fakes.change(|state| {
        let key = &mut state.keys[0];
        key.secrets[0].retire_time = Some(ago(-Duration::HOUR));
        key.secrets.insert(0, secret(&key.name, "km_test_NEW1"));
        [0, 1].map(|at: usize| key.secrets[at].name.rsplit('/').next().unwrap().to_owned())
    });
    (site, key, ids)
}

#[tokio::test]
async fn a_keys_secrets_are_shown_with_the_calls_of_each() {
    let (mut site, key, [new, old]) = rotated_key().await;
    for (secret, age) in [(&new, 1), (&old, 1), (&old, 2), (&old, 120)] {
        site.fakes.add(key, |call| {
            call.secret_id.clone_from(secret);
            call.occurred_at = Some(ago(Duration::minutes(age)));
        });
    }
    let page = site.page(&format!("/keys/{key}/secrets")).await;
    assert!(
        page.contains("Current")
            && page.contains("Still works")
            && page.contains("data-label=\"Retires\"><time")
    );
    assert!(page.contains("aria-label=\"km_test_NEW1…: 1 (33.3%), km_test_0123…: 2 (66.7%)\""));
    assert!(page.contains("3 calls in the last hour"));
    let day = site.page(&format!("/keys/{key}/secrets?range=24h")).await;
    assert!(
        day.contains("4 calls in the last 24 hours") && day.contains("range=24h\" aria-current=\"true\"")
    );
    assert!(
        page.contains(&format!("/secrets/{old}/retire")) && !page.contains(&format!("/secrets/{new}/retire"))
    );
    site.fakes.fail("GetBreakdown by secret", Status::unavailable("away"));
    let page = site.page(&format!("/keys/{key}/secrets")).await;
    assert!(page.contains("km_test_NEW1…") && page.contains("panel-problem"), "the secrets stay");
}

#[tokio::test]
async fn an_old_secret_is_cut_with_a_receipt() {
    let (mut site, key, [new, old]) = rotated_key().await;
    let path = format!("/keys/{key}/secrets/{old}/retire");
    let page = site.page(&path).await;
    assert!(page.contains("cannot be undone") && page.contains("name=\"etag\" value=\"1\""));
    let cut = site.post(&path, &[("etag", "1")]).await;
    assert_eq!(cut.status, StatusCode::OK);
    assert!(
        cut.body.contains("no longer takes this secret")
            && cut.body.contains("Refused by 3 of 3 edges after 84.0 ms.")
    );
    let page = site.page(&format!("/keys/{key}/secrets")).await;
    assert!(page.contains("Retired") && !page.contains("/retire\""));
    let secrets = format!("/keys/{key}/secrets");
    assert_eq!(site.get(&path).await.header("location"), secrets, "it is cut already");
    assert_eq!(site.get(&format!("/keys/{key}/secrets/{new}/retire")).await.header("location"), secrets);
    assert_eq!(site.get(&format!("/keys/{key}/secrets/sec_x/retire")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(
        site.post(&format!("/keys/{key}/secrets/sec_x/retire"), &[]).await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn a_key_is_switched_off_with_a_receipt_and_on_again() {
    let (mut site, key) = one_key().await;
    assert!(site.page(&format!("/keys/{key}/disable")).await.contains("Disable key</button>"));
    assert_eq!(first(&site).state(), KeyState::Active, "asking changes nothing");
    let off = site.post(&format!("/keys/{key}/disable"), &[]).await;
    assert!(
        off.body.contains("is switched off") && off.body.contains("Refused by 3 of 3 edges after 84.0 ms.")
    );
    assert_eq!(first(&site).state(), KeyState::Disabled);
    assert!(site.page(&format!("/keys/{key}/enable")).await.contains("Enable key</button>"));
    let on = site.post(&format!("/keys/{key}/enable"), &[]).await;
    assert!(on.body.contains("is switched on"));
    assert_eq!(first(&site).state(), KeyState::Active);
}

#[rstest]
#[case("")]
#[case("billing")]
#[case("Billing 2")]
#[tokio::test]
async fn a_wrong_name_deletes_nothing(#[case] typed: &str) {
    let (mut site, key) = one_key().await;
    let answer = site.post(&format!("/keys/{key}/delete"), &[("confirm", typed)]).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer.body.contains("This is not the key’s name. Nothing was deleted."));
    assert_eq!(first(&site).state(), KeyState::Active);
    assert!(!site.fakes.change(|state| state.calls.contains(&"DeleteKey")));
}

#[tokio::test]
async fn deleting_twice_deletes_once() {
    let (mut site, key) = one_key().await;
    for _ in 0..2 {
        let answer = site.post(&format!("/keys/{key}/delete"), &[("confirm", "Billing")]).await;
        assert!(answer.body.contains("was deleted"));
    }
}

#[tokio::test]
async fn of_a_deleted_key_there_is_only_its_past() {
    let (mut site, key) = one_key().await;
    site.fakes.change(|state| state.keys[0].state = KeyState::Deleted.into());
    for path in ["edit", "rotate", "disable", "enable", "delete"] {
        assert_eq!(
            site.get(&format!("/keys/{key}/{path}")).await.header("location"),
            format!("/keys/{key}/usage")
        );
    }
    let page = site.page(&format!("/keys/{key}/secrets")).await;
    assert!(!page.contains("Rotate key") && !page.contains("Current"));
}

#[rstest]
#[case("edit", "UpdateKey")]
#[case("rotate", "RotateKey")]
#[case("disable", "DisableKey")]
#[case("enable", "EnableKey")]
#[tokio::test]
async fn a_missing_right_and_a_missing_key_have_their_pages(#[case] page: &str, #[case] rpc: &'static str) {
    let (mut site, key) = one_key().await;
    site.fakes.fail(rpc, Status::new(Code::PermissionDenied, "role"));
    let answer = site.post(&format!("/keys/{key}/{page}"), &[("overlap", "1h"), ("display_name", "x")]).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    for unknown in [KeyId::generate().to_string(), "key_x".to_owned()] {
        assert_eq!(site.get(&format!("/keys/{unknown}/{page}")).await.status, StatusCode::NOT_FOUND);
    }
}
