//! The frame: what each role sees, switching workspaces, the theme.

use axum::http::StatusCode;
use proto::keys::Role;
use rstest::rstest;

use crate::{
    fakes::{EMAIL, PASSWORD},
    site::Site,
};

/// Somebody of that role, signed in.
async fn of_role(role: Role) -> Site {
    let mut site = Site::new().await;
    site.fakes.set_role(role);
    let answer = site.post("/sign-in", &[("email", EMAIL), ("password", PASSWORD)]).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    site
}

#[rstest]
#[case(Role::Owner, true)]
#[case(Role::Admin, true)]
#[case(Role::Member, false)]
#[case(Role::LogViewer, false)]
#[case(Role::Viewer, false)]
#[tokio::test]
async fn links_lead_where_the_role_may_go(#[case] role: Role, #[case] sees: bool) {
    let mut site = of_role(role).await;
    let page = site.page("/keys").await;
    assert!(page.contains("href=\"/members\""));
    for link in ["href=\"/audit\"", "href=\"/settings\""] {
        assert_eq!(page.contains(link), sees, "{link}");
    }
}

#[rstest]
#[case("/audit", "read the audit log")]
#[case("/audit/export", "read the audit log")]
#[case("/settings", "see or change the settings")]
#[case("/settings/service-tokens", "see or make service tokens")]
#[case("/settings/service-tokens/new", "see or make service tokens")]
#[case("/settings/delete", "suspend, export or delete the workspace")]
#[case("/members/invite", "invite, change or remove members")]
#[tokio::test]
async fn going_there_anyway_says_whom_to_ask(#[case] path: &str, #[case] right: &str) {
    let mut site = of_role(Role::Viewer).await;
    site.fakes.add_member("member@example.com", Role::Member);
    let answer = site.get(path).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
    assert!(answer.body.contains(right), "{}", answer.body);
    assert!(answer.body.contains(&format!("<li><bdi>{EMAIL}</bdi></li>")), "the owner is named");
    assert!(!answer.body.contains("member@example.com"), "only people who may are named");
    assert!(answer.body.contains("aria-label=\"Main\""), "the frame is there");
    let asked = site.fakes.change(|state| state.calls.clone());
    assert!(!asked.iter().any(|rpc| rpc.contains("Audit") || rpc.contains("ServiceToken")), "{asked:?}");
}

#[tokio::test]
async fn each_page_marks_its_own_link() {
    let mut site = Site::signed_in().await;
    for (path, link) in [
        ("/keys", "/keys"),
        ("/members", "/members"),
        ("/audit", "/audit"),
        ("/settings", "/settings"),
        ("/settings/service-tokens", "/settings"),
    ] {
        let page = site.page(path).await;
        let nav = page.split_once("aria-label=\"Main\"").unwrap().1.split_once("</nav>").unwrap().0;
        assert!(nav.contains(&format!("href=\"{link}\" aria-current=\"page\"")), "{path}");
        assert_eq!(nav.matches("aria-current").count(), 1, "{path}");
    }
}

#[tokio::test]
async fn one_workspace_needs_no_switch() {
    let mut site = Site::signed_in().await;
    assert!(!site.page("/keys").await.contains("action=\"/workspace\""));
}

#[tokio::test]
async fn the_chosen_workspace_is_shown_until_another_one_is() {
    let mut site = Site::signed_in().await;
    let (first, second) = (site.fakes.change(|state| state.workspace_id), site.fakes.add_workspace("Beta"));
    let page = site.page("/settings").await;
    assert!(page.contains("action=\"/workspace\"") && page.contains(&format!("value=\"{second}\"")));
    let answer = site.post("/workspace", &[("workspace", &second.to_string())]).await;
    assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, "/keys"));
    let cookie = answer.header("set-cookie");
    assert!(["HttpOnly", "SameSite=Lax", "Path=/"].iter().all(|part| cookie.contains(part)), "{cookie}");
    assert!(
        site.page("/settings")
            .await
            .contains("name=\"display_name\" required maxlength=\"100\" autocomplete=\"off\" value=\"Beta\"")
    );
    site.post("/workspace", &[("workspace", &first.to_string())]).await;
    assert!(site.page("/settings").await.contains("autocomplete=\"off\" value=\"Acme\""));
}

#[rstest]
#[case("ws_00000000000000000000000000")]
#[case("nonsense")]
#[case("../../x")]
#[tokio::test]
async fn a_workspace_that_one_is_not_in_falls_back_to_the_first(#[case] cookie: &str) {
    let mut site = Site::signed_in().await;
    site.set_cookie("keymeter_workspace", cookie);
    assert!(site.page("/settings").await.contains("value=\"Acme\""));
    let second = site.fakes.add_workspace("Beta");
    site.post("/workspace", &[("workspace", &second.to_string())]).await;
    site.fakes.change(|state| {
        state.team.workspaces.pop();
    });
    assert!(site.page("/settings").await.contains("value=\"Acme\""), "removed meanwhile");
    assert_eq!(site.post("/workspace", &[("workspace", "nonsense")]).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_form_of_another_workspace_changes_nothing() {
    let mut site = Site::signed_in().await;
    let first = site.fakes.change(|state| state.workspace_id).to_string();
    let ada = site.fakes.add_member("ada@example.com", Role::Viewer);
    let second = site.fakes.add_workspace("Beta").to_string();
    site.post("/workspace", &[("workspace", &second)]).await;
    site.page("/keys").await;
    let before = site.fakes.change(|state| state.calls.clone());
    for path in [
        format!("/members/{ada}"),
        format!("/members/{ada}/remove"),
        "/members/invite".to_owned(),
        "/settings".to_owned(),
        "/settings/suspend".to_owned(),
        "/settings/delete".to_owned(),
        "/settings/export".to_owned(),
        "/settings/service-tokens".to_owned(),
    ] {
        for workspace in [first.as_str(), "", "nonsense"] {
            let answer = site.post(&path, &[("workspace", workspace), ("display_name", "Acme")]).await;
            assert_eq!(answer.status, StatusCode::CONFLICT, "{path}");
            assert!(answer.body.contains("You have switched to Beta"), "{path}");
        }
    }
    assert_eq!(site.fakes.change(|state| state.calls.clone()), before);
}

#[tokio::test]
async fn a_new_workspace_is_shown_at_once() {
    let mut site = Site::signed_in().await;
    let wrong = site.post("/workspaces", &[("display_name", " ")]).await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(wrong.body.contains("Must not be empty."));
    assert_eq!(site.post("/workspaces", &[("display_name", "Gamma")]).await.header("location"), "/keys");
    let page = site.page("/settings").await;
    assert!(page.contains("value=\"Gamma\"") && page.contains("action=\"/workspace\""));
}

#[rstest]
#[case("dark", Some("<html lang=\"en\" data-theme=\"dark\">"))]
#[case("light", Some("<html lang=\"en\" data-theme=\"light\">"))]
#[case("system", None)]
#[tokio::test]
async fn a_theme_is_on_every_page_from_the_server(#[case] theme: &str, #[case] html: Option<&str>) {
    let mut site = Site::signed_in().await;
    let answer = site.post("/theme", &[("theme", theme), ("next", "/members?done=role")]).await;
    let location = answer.header("location");
    assert_eq!((answer.status, location), (StatusCode::SEE_OTHER, "/members?done=role"));
    for path in ["/members", "/sign-in", "/nothing", "/keys/new"] {
        let body = site.get(path).await.body;
        assert!(body.contains(html.unwrap_or("<html lang=\"en\">")), "{path}");
    }
    let page = site.page("/members").await;
    assert!(page.contains(&format!("value=\"{theme}\" type=\"submit\" aria-pressed=\"true\"")));
    assert_eq!(page.matches("aria-pressed=\"true\"").count(), 1);
}

#[rstest]
#[case("\"><script>alert(1)</script>")]
#[case("dark\" onload=alert(1)")]
#[case("DARK")]
#[case("")]
#[tokio::test]
async fn a_hostile_theme_is_no_theme(#[case] theme: &str) {
    let mut site = Site::signed_in().await;
    site.set_cookie("keymeter_theme", theme);
    let page = site.page("/members").await;
    assert!(page.contains("<html lang=\"en\">") && !page.contains("alert(1)"));
    site.set_cookie("keymeter_theme", "dark");
    let answer = site.post("/theme", &[("theme", theme), ("next", "/keys")]).await;
    assert!(answer.header("set-cookie").starts_with("keymeter_theme=;"), "{}", answer.header("set-cookie"));
}

#[tokio::test]
async fn over_https_choices_travel_encrypted_only() {
    let mut site = Site::at("https://keys.example.com").await;
    site.post("/sign-in", &[("email", EMAIL), ("password", PASSWORD)]).await;
    let workspace_id = site.fakes.change(|state| state.workspace_id.to_string());
    for (path, field, value) in [("/theme", "theme", "dark"), ("/workspace", "workspace", &workspace_id)] {
        let answer = site.post(path, &[(field, value)]).await;
        let cookie = answer.header("set-cookie");
        assert!(cookie.contains("Secure") && cookie.contains("HttpOnly"), "{path}: {cookie}");
    }
}
