//! The workspace's settings, its service tokens, and what owners do to it.

use axum::http::StatusCode;
use proto::keys::Role;
use tonic::Status;

use crate::{
    fake_tokens::SERVICE_TOKEN,
    site::{Site, between},
};

fn here(site: &Site) -> String {
    site.fakes.change(|state| state.workspace_id.to_string())
}

/// The form as the page has it, with some fields changed; an empty value takes a field out, as for a box.
async fn filled(site: &mut Site, changes: &[(&str, &str)]) -> Vec<(String, String)> {
    let page = site.page("/settings").await;
    let opened = between(&page, "name=\"opened\" value=\"", "\"")[0].to_owned();
    let workspace = here(site);
    let fields = [
        ("workspace", workspace.as_str()),
        ("opened", &opened),
        ("display_name", "Acme"),
        ("keep_copies", "on"),
        ("disable_exposed_keys", ""),
        ("destroy_copies", ""),
        ("address_storage", "whole"),
        ("request_retention_days", "90"),
        ("audit_retention_days", "400"),
    ];
    let changed = |name: &str| changes.iter().find(|(changed, _)| *changed == name).map(|(_, value)| *value);
    let fields = fields.map(|(name, value)| (name.to_owned(), changed(name).unwrap_or(value).to_owned()));
    fields.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

async fn save(site: &mut Site, fields: &[(String, String)]) -> crate::site::Answer {
    let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    site.post("/settings", &fields).await
}

#[tokio::test]
async fn only_what_was_changed_is_sent() {
    let mut site = Site::signed_in().await;
    let form = filled(&mut site, &[("audit_retention_days", "30")]).await;
    let answer = save(&mut site, &form).await;
    assert_eq!(answer.header("location"), "/settings?done=saved", "{}", answer.body);
    assert_eq!(site.fakes.change(|state| state.team.changed_paths.clone()), ["audit_retention_days"]);
    assert!(site.page("/settings?done=saved").await.contains("The settings were saved."));
    let form = filled(&mut site, &[("audit_retention_days", "30"), ("display_name", "Acme & Co")]).await;
    save(&mut site, &form).await;
    assert!(site.page("/members").await.contains("Acme &#38; Co"), "the frame has the new name at once");
}

#[tokio::test]
async fn nobody_undoes_what_another_one_did() {
    let mut site = Site::signed_in().await;
    let form = filled(&mut site, &[("audit_retention_days", "30")]).await;
    site.fakes.change(|state| state.team.workspaces[0].request_retention_days = 37);
    let answer = save(&mut site, &form).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert!(answer.body.contains("Somebody changed these settings") && answer.body.contains("value=\"37\""));
    assert!(!site.fakes.change(|state| state.calls.contains(&"UpdateWorkspace")));
}

#[tokio::test]
async fn a_field_error_is_at_its_field_and_keeps_what_was_typed() {
    let mut site = Site::signed_in().await;
    let form = filled(&mut site, &[("audit_retention_days", "7"), ("display_name", "Typed")]).await;
    let answer = save(&mut site, &form).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer.body.contains("id=\"audit_days_hint\">Must be 30 to 3,650.</p>"), "{}", answer.body);
    assert!(answer.body.contains("value=\"Typed\""));
}

#[tokio::test]
async fn copies_are_destroyed_only_after_a_second_yes() {
    let mut site = Site::signed_in().await;
    let form = filled(&mut site, &[("keep_copies", "")]).await;
    let answer = save(&mut site, &form).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer.body.contains("name=\"destroy_copies\""));
    assert!(site.fakes.change(|state| state.team.workspaces[0].keep_copies));
    let form = filled(&mut site, &[("keep_copies", ""), ("destroy_copies", "on")]).await;
    assert_eq!(save(&mut site, &form).await.status, StatusCode::SEE_OTHER);
    assert!(!site.fakes.change(|state| state.team.workspaces[0].keep_copies));
}

#[tokio::test]
async fn the_owners_part_is_for_owners() {
    let mut site = Site::signed_in().await;
    assert!(site.page("/settings").await.contains("href=\"/settings/delete\""));
    let mut site = Site::new().await;
    site.fakes.set_role(Role::Admin);
    site.post("/sign-in", &[("email", crate::fakes::EMAIL), ("password", crate::fakes::PASSWORD)]).await;
    let page = site.page("/settings").await;
    assert!(!page.contains("/settings/delete") && !page.contains("/settings/export"));
    let here = here(&site);
    for path in ["/settings/delete", "/settings/suspend", "/settings/export"] {
        let answer = site.post(path, &[("workspace", &here), ("display_name", "Acme")]).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
        assert!(answer.body.contains("somebody who is owner"), "{path}");
    }
    let calls = site.fakes.change(|state| state.calls.clone());
    assert!(
        !calls.iter().any(|rpc| ["DeleteWorkspace", "SuspendWorkspace", "ExportWorkspace"].contains(rpc))
    );
}

#[tokio::test]
async fn a_workspace_is_suspended_and_resumed() {
    let mut site = Site::signed_in().await;
    let here = here(&site);
    assert!(site.page("/settings/suspend").await.contains("Suspend “"));
    site.post("/settings/suspend", &[("workspace", &here)]).await;
    assert!(site.page("/settings").await.contains("This workspace is suspended"));
    assert!(site.page("/settings/suspend").await.contains("name=\"resume\""));
    site.post("/settings/suspend", &[("workspace", &here), ("resume", "1")]).await;
    assert!(!site.page("/settings").await.contains("This workspace is suspended"));
}

#[tokio::test]
async fn a_workspace_is_exported_as_a_file() {
    let mut site = Site::signed_in().await;
    let here = here(&site);
    let answer = site.post("/settings/export", &[("workspace", &here)]).await;
    assert_eq!(answer.body, "{\"type\":\"workspace\"}\n{\"type\":\"member\"}\n");
    let name = answer.header("content-disposition");
    assert!(name.starts_with(&format!("attachment; filename=\"workspace-{here}-")), "{name}");
    assert_eq!(site.get("/settings/export").await.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_workspace_is_deleted_by_its_name() {
    let mut site = Site::signed_in().await;
    let here = here(&site);
    let wrong = site.post("/settings/delete", &[("workspace", &here), ("display_name", "acme")]).await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(wrong.body.contains("id=\"display_name_error\"") && wrong.body.contains("nothing was deleted"));
    let gone = site.post("/settings/delete", &[("workspace", &here), ("display_name", "Acme")]).await;
    assert_eq!(gone.status, StatusCode::OK);
    assert!(gone.body.contains("“<bdi>Acme</bdi>” was deleted"));
    let answer = site.get("/keys").await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(answer.body.contains("in no workspace any more") && answer.body.contains("action=\"/sign-out\""));
}

#[tokio::test]
async fn a_service_token_is_shown_once_and_revoked_after_a_question() {
    let mut site = Site::signed_in().await;
    let here = here(&site);
    assert!(site.page("/settings/service-tokens").await.contains("No service tokens yet"));
    let fields = [
        ("workspace", here.as_str()),
        ("display_name", "Billing"),
        ("scope", "keys.read"),
        ("scope", "usage.read"),
        ("life", "30d"),
    ];
    let made = site.post("/settings/service-tokens", &fields).await;
    assert_eq!((made.status, made.header("cache-control")), (StatusCode::OK, "no-store"));
    assert!(made.body.contains(SERVICE_TOKEN));
    let list = site.page("/settings/service-tokens").await;
    assert!(list.contains("keys.read, usage.read") && !list.contains(SERVICE_TOKEN));
    let path = between(&list, "href=\"/settings/service-tokens/svc_", "\"")[0];
    let path = format!("/settings/service-tokens/svc_{path}");
    assert!(site.page(&path).await.contains("Revoke “<bdi>Billing</bdi>”?"));
    assert!(site.fakes.change(|state| state.team.service_tokens[0].revoke_time.is_none()));
    let answer = site.post(&path, &[("workspace", &here)]).await;
    assert_eq!(answer.header("location"), "/settings/service-tokens?done=revoked");
    assert!(site.page("/settings/service-tokens").await.contains("Revoked"));
    assert_eq!(site.get(&path).await.header("location"), "/settings/service-tokens");
}

#[tokio::test]
async fn a_wrong_service_token_is_said_at_the_field() {
    let mut site = Site::signed_in().await;
    let here = here(&site);
    let mut post = async |fields: &[(&str, &str)]| {
        let mut all = vec![("workspace", here.as_str())];
        all.extend(fields);
        site.post("/settings/service-tokens", &all).await
    };
    let none = post(&[("display_name", "Billing"), ("life", "30d")]).await;
    assert_eq!(none.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(none.body.contains("Choose at least one.") && none.body.contains("value=\"Billing\""));
    let unnamed = post(&[("scope", "keys.read"), ("life", "1y")]).await;
    assert!(unnamed.body.contains("id=\"display_name_hint\">Must not be empty.</p>"));
    assert!(
        unnamed.body.contains("value=\"keys.read\" checked") && unnamed.body.contains("value=\"1y\" checked")
    );
    site.fakes.fail("CreateServiceToken", Status::unavailable("away"));
    let away = post_again(&mut site).await;
    assert_eq!(away, StatusCode::SERVICE_UNAVAILABLE);
}

async fn post_again(site: &mut Site) -> StatusCode {
    let here = here(site);
    let fields =
        [("workspace", here.as_str()), ("display_name", "B"), ("scope", "keys.read"), ("life", "1y")];
    site.post("/settings/service-tokens", &fields).await.status
}
