//! The audit log: sentences, filters, pages, the file.

use axum::http::StatusCode;
use domain::KeyId;
use proto::keys::Role;
use tonic::Status;

use crate::{
    fakes::EMAIL,
    site::{Site, between},
};

#[tokio::test]
async fn entries_are_sentences_with_details() {
    let mut site = Site::signed_in().await;
    let ada = site.fakes.add_member("ada@example.com", Role::Viewer);
    let key = KeyId::generate();
    site.fakes.add_entry("create_key", &format!("keys/{key}"), |entry| {
        entry.after_json = "{\"display_name\":\"Billing\",\"environment\":\"live\"}".to_owned();
    });
    site.fakes.add_entry("update_member", &format!("members/{ada}"), |entry| {
        entry.before_json = "{\"role\":\"member\"}".to_owned();
        entry.after_json = "{\"role\":\"viewer\"}".to_owned();
    });
    let page = site.page("/audit").await;
    let said: Vec<_> = between(&page, "class=\"said\">", "</span>").into_iter().map(text).collect();
    assert_eq!(
        said,
        [
            format!("{EMAIL} changed the role of ada@example.com from member to viewer"),
            format!("{EMAIL} generated the key Billing"),
        ]
    );
    assert!(page.contains("<del><span class=\"unseen\">was </span>member</del>"));
    assert!(page.contains("192.0.2.7") && page.contains(&format!("href=\"/keys/{key}/usage\"")));
}

/// What a reader reads of some HTML.
fn text(html: &str) -> String {
    html.split('<').map(|part| part.split_once('>').map_or(part, |(_, text)| text)).collect()
}

#[tokio::test]
async fn the_filter_is_the_address() {
    let mut site = Site::signed_in().await;
    let key = KeyId::generate();
    site.fakes.add_entry("create_key", &format!("keys/{key}"), |_| {});
    site.fakes.add_entry("delete_key", &format!("keys/{key}"), |_| {});
    site.fakes.add_entry("create_key", &format!("keys/{}", KeyId::generate()), |entry| {
        entry.actor = "acc_somebody".to_owned();
    });
    let mut count = async |path: &str| site.page(path).await.matches("class=\"said\"").count();
    assert_eq!(count("/audit").await, 3);
    assert_eq!(count("/audit?action=create_key").await, 2);
    assert_eq!(count(&format!("/audit?resource={key}")).await, 2);
    assert_eq!(count(&format!("/audit?actor={EMAIL}&action=create_key")).await, 1);
    assert_eq!(count("/audit?actor=acc_somebody").await, 1);
    assert_eq!(count("/audit?to=2020-01-01").await, 0);
    assert_eq!(count("/audit?from=2020-01-01").await, 3);
    let page = site.page(&format!("/audit?actor={EMAIL}&action=paint_key")).await;
    assert!(page.contains("No entries match."));
    assert!(page.contains("<option value=\"paint_key\" selected>paint_key</option>"));
    assert!(page.contains(&format!("value=\"{EMAIL}\"")));
}

#[tokio::test]
async fn a_wrong_filter_is_said_at_its_field_before_anything_is_asked() {
    let mut site = Site::signed_in().await;
    for (query, field) in [
        ("actor=nobody@example.com", "actor"),
        ("from=yesterday", "from"),
        ("from=2026-02-02&to=2026-02-01", "to"),
    ] {
        let answer = site.get(&format!("/audit?{query}")).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{query}");
        assert!(answer.body.contains(&format!("id=\"{field}_error\"")), "{query}");
        let export = site.get(&format!("/audit/export?{query}")).await;
        assert_eq!(export.status, StatusCode::UNPROCESSABLE_ENTITY, "{query}");
    }
    let calls = site.fakes.change(|state| state.calls.clone());
    assert!(!calls.contains(&"ListAuditEntries") && !calls.contains(&"ExportAuditEntries"));
    site.fakes.fail("ListAuditEntries", proto::status::invalid("filter.to", "must be after filter.from"));
    let answer = site.get("/audit").await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer.body.contains("Must be after filter.from."));
}

#[tokio::test]
async fn pages_keep_the_filter() {
    let mut site = Site::signed_in().await;
    for number in 0..60 {
        site.fakes.add_entry("create_key", &format!("keys/{}", KeyId::generate()), |entry| {
            entry.after_json = format!("{{\"display_name\":\"K{number}\"}}");
        });
    }
    let page = site.page("/audit?action=create_key").await;
    assert!(page.contains(">K59<") && !page.contains(">K9<"));
    let older = between(&page, "href=\"/audit?", "\"").into_iter().find(|link| link.contains("page_token"));
    let older = older.unwrap().replace("&#38;", "&").replace("&amp;", "&");
    assert!(older.contains("action=create_key"));
    let page = site.page(&format!("/audit?{older}")).await;
    assert!(page.contains(">K9<") && page.contains("Newest"));
    let answer = site.get("/audit?action=create_key&page_token=nonsense").await;
    assert_eq!(answer.header("location"), "/audit?action=create_key");
}

#[tokio::test]
async fn the_export_is_a_file_of_all_that_matches() {
    let mut site = Site::signed_in().await;
    for action in ["create_key", "delete_key", "create_key"] {
        site.fakes.add_entry(action, &format!("keys/{}", KeyId::generate()), |_| {});
    }
    let answer = site.get("/audit/export?action=create_key").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.body, "{\"action\":\"create_key\"}\n".repeat(2));
    assert!(answer.header("content-type").starts_with("application/x-ndjson"));
    let name = answer.header("content-disposition").to_owned();
    let workspace_id = site.fakes.change(|state| state.workspace_id);
    assert!(name.starts_with(&format!("attachment; filename=\"audit-{workspace_id}-")), "{name}");
    assert!(name.ends_with(".ndjson\""), "{name}");
    site.fakes.fail("ExportAuditEntries", Status::unavailable("away"));
    assert_eq!(site.get("/audit/export").await.status, StatusCode::SERVICE_UNAVAILABLE);
}
