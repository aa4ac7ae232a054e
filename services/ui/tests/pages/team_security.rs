//! The pages about people and workspaces: forms from elsewhere, links to elsewhere, hostile texts, signing in first.

use axum::http::{HeaderValue, StatusCode};
use proto::keys::{Invitation, Role, ServiceToken};
use rstest::rstest;

use crate::{
    fake_members::INVITATION,
    fakes::Fakes,
    security::{HOSTILE, check_inert},
    site::{Site, form},
};

/// Ids of one of everything.
struct Things {
    member: String,
    invitation: String,
    token: String,
}

fn things(fakes: &Fakes, text: &str) -> Things {
    let member = fakes.add_member(text, Role::Viewer).to_string();
    let (invitation, token) = (domain::InvitationId::generate(), domain::ServiceTokenId::generate());
    fakes.change(|state| {
        state.team.invitations.push(Invitation {
            name: proto::resource::invitation_name(state.workspace_id, invitation),
            email: text.to_owned(),
            ..Invitation::default()
        });
        state.team.service_tokens.push(ServiceToken {
            name: proto::resource::service_token_name(state.workspace_id, token),
            display_name: text.to_owned(),
            scopes: vec![text.to_owned()],
            start: text.to_owned(),
            ..ServiceToken::default()
        });
        text.clone_into(&mut state.team.workspaces[0].display_name);
    });
    fakes.add_workspace(text);
    fakes.add_entry(text, text, |entry| {
        text.clone_into(&mut entry.actor);
        text.clone_into(&mut entry.from_address);
        let value = serde_json::json!({ text: text, "role": text, "display_name": text });
        (entry.before_json, entry.after_json) = (value.to_string(), value.to_string());
    });
    Things { member, invitation: invitation.to_string(), token: token.to_string() }
}

fn forms(things: &Things) -> Vec<String> {
    vec![
        "/theme".to_owned(),
        "/workspace".to_owned(),
        "/workspaces".to_owned(),
        format!("/invitations/{INVITATION}"),
        "/members/invite".to_owned(),
        format!("/members/invitations/{}/withdraw", things.invitation),
        format!("/members/{}", things.member),
        format!("/members/{}/remove", things.member),
        "/settings".to_owned(),
        "/settings/service-tokens".to_owned(),
        format!("/settings/service-tokens/{}/revoke", things.token),
        "/settings/suspend".to_owned(),
        "/settings/export".to_owned(),
        "/settings/delete".to_owned(),
    ]
}

fn pages(things: &Things) -> Vec<String> {
    vec![
        "/members".to_owned(),
        "/members/invite".to_owned(),
        format!("/members/{}", things.member),
        format!("/members/{}/remove", things.member),
        "/audit".to_owned(),
        "/settings".to_owned(),
        "/settings/suspend".to_owned(),
        "/settings/delete".to_owned(),
        "/settings/service-tokens".to_owned(),
        "/settings/service-tokens/new".to_owned(),
        format!("/settings/service-tokens/{}/revoke", things.token),
        "/workspaces/new".to_owned(),
    ]
}

#[tokio::test]
async fn forms_from_elsewhere_are_refused_before_anything_happens() {
    let mut site = Site::signed_in().await;
    let workspace = site.fakes.change(|state| state.workspace_id.to_string());
    let things = things(&site.fakes, "somebody@example.com");
    let before = site.fakes.change(|state| state.calls.clone());
    for path in forms(&things) {
        for (name, value) in [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("origin", "https://evil.example"),
            ("origin", "null"),
        ] {
            let fields = [("workspace", workspace.as_str()), ("theme", "dark"), ("display_name", "Acme")];
            let mut request = form(&path, &fields);
            request.headers_mut().insert(name, HeaderValue::from_static(value));
            let answer = site.send(request).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path} {name}: {value}");
            assert!(answer.body.contains("another site"), "{path}");
            assert_eq!(answer.header("set-cookie"), "", "{path}");
        }
    }
    assert_eq!(site.fakes.change(|state| state.calls.clone()), before);
}

#[tokio::test]
async fn every_page_and_form_asks_to_sign_in_first() {
    let mut site = Site::new().await;
    let things = things(&site.fakes, "somebody@example.com");
    for path in pages(&things) {
        let answer = site.get(&path).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{path}");
        assert!(answer.header("location").starts_with("/sign-in?next=%2F"), "{path}");
    }
    for path in forms(&things) {
        if path == "/theme" || path.starts_with("/invitations/") {
            continue;
        }
        let answer = site.post(&path, &[]).await;
        assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, "/sign-in"), "{path}");
    }
    assert!(site.fakes.change(|state| state.calls.is_empty()));
}

#[rstest]
#[case("https://evil.example/", "/keys")]
#[case("//evil.example/", "/keys")]
#[case("/\\evil.example/", "/keys")]
#[case("/\t/evil.example", "/keys")]
#[case("", "/keys")]
#[case("/audit?action=create_key", "/audit?action=create_key")]
#[tokio::test]
async fn a_theme_leads_back_to_own_pages_only(#[case] next: &str, #[case] location: &str) {
    let mut site = Site::new().await;
    let answer = site.post("/theme", &[("theme", "dark"), ("next", next)]).await;
    assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, location));
}

#[tokio::test]
async fn stored_and_reflected_texts_stay_texts() {
    for text in HOSTILE {
        let mut site = Site::signed_in().await;
        let things = things(&site.fakes, text);
        let workspace = site.fakes.change(|state| state.workspace_id.to_string());
        for path in pages(&things) {
            check_inert(&path, &site.page(&path).await);
        }
        let reflected: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
        for field in ["actor", "action", "resource", "from", "to", "page_token"] {
            let path = format!("/audit?{field}={reflected}");
            check_inert(&path, &site.get(&path).await.body);
        }
        for path in
            ["/members?done=", "/settings?done=", "/members?page_token=", "/invitations/", "/members/"]
        {
            let path = format!("{path}{reflected}");
            check_inert(&path, &site.get(&path).await.body);
        }
        site.fakes.change(|state| state.team.invitations.clear());
        for path in forms(&things) {
            let mut fields = vec![("workspace", workspace.as_str())];
            for name in ["display_name", "email", "role", "scope", "life", "opened", "address_storage"] {
                fields.push((name, text));
            }
            let answer = site.post(&path, &fields).await;
            check_inert(&path, &answer.body);
        }
    }
}

#[tokio::test]
async fn the_page_of_no_permission_is_inert_too() {
    for text in HOSTILE {
        let mut site = Site::new().await;
        site.fakes.set_role(Role::Viewer);
        site.fakes.add_member(text, Role::Owner);
        site.fakes.change(|state| text.clone_into(&mut state.team.workspaces[0].display_name));
        let credentials = [("email", crate::fakes::EMAIL), ("password", crate::fakes::PASSWORD)];
        site.post("/sign-in", &credentials).await;
        check_inert("/audit", &site.get("/audit").await.body);
    }
}

#[tokio::test]
async fn no_page_has_inline_code_or_styles() {
    let mut site = Site::signed_in().await;
    let things = things(&site.fakes, "somebody@example.com");
    let mut paths = pages(&things);
    paths.push(format!("/invitations/{INVITATION}"));
    for path in paths {
        let page = site.page(&path).await;
        for inline in [" style=", "<style", " onclick=", " onload=", "javascript:", "<script>"] {
            assert!(!page.contains(inline), "{path} has {inline}");
        }
    }
}
