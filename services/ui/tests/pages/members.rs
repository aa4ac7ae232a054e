//! Members: roles, removals, invitations and how they are accepted.

use axum::http::StatusCode;
use proto::keys::Role;
use tonic::Status;

use crate::{
    fake_members::{INVITATION, NEW_PASSWORD},
    fakes::{EMAIL, PASSWORD},
    site::{Site, between},
};

/// The workspace that forms of the signed-in person are opened in.
fn here(site: &Site) -> String {
    site.fakes.change(|state| state.workspace_id.to_string())
}

#[tokio::test]
async fn members_are_listed_with_what_the_reader_may_do() {
    let mut site = Site::signed_in().await;
    let ada = site.fakes.add_member("ada@example.com", Role::Admin);
    let page = site.page("/members").await;
    assert!(page.contains(EMAIL) && page.contains("<span class=\"badge\">You</span>"));
    assert!(page.contains(&format!("href=\"/members/{ada}/remove\"")) && page.contains("Admin"));
    site.fakes.set_role(Role::Viewer);
    let mut site = renewed(site).await;
    let page = site.page("/members").await;
    assert!(page.contains("ada@example.com"));
    let others = format!("/members/{ada}");
    for hidden in [&others, "Invite member", "Open invitations", "href=\"/audit\"", "href=\"/settings\""] {
        assert!(!page.contains(hidden), "{hidden}");
    }
}

/// The same person after the access token has ended.
async fn renewed(mut site: Site) -> Site {
    let answer = site.post("/sign-in", &[("email", EMAIL), ("password", PASSWORD)]).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    site
}

#[tokio::test]
async fn long_lists_go_on() {
    let mut site = Site::signed_in().await;
    for number in 0..60 {
        site.fakes.add_member(&format!("person{number}@example.com"), Role::Viewer);
    }
    let page = site.page("/members").await;
    assert!(page.contains("person48@example.com") && !page.contains("person49@example.com"));
    let next = between(&page, "href=\"/members?", "\"")[0].replace("&#38;", "&");
    let page = site.page(&format!("/members?{next}")).await;
    assert!(page.contains("person59@example.com") && page.contains("First page"));
    let answer = site.get("/members?page_token=nonsense").await;
    assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, "/members"));
}

#[tokio::test]
async fn a_role_is_changed_and_a_refusal_is_said_in_words() {
    let mut site = Site::signed_in().await;
    let ada = site.fakes.add_member("ada@example.com", Role::Member);
    let (path, here) = (format!("/members/{ada}"), here(&site));
    let form = site.page(&path).await;
    assert!(form.contains("value=\"member\" required checked"));
    let answer = site.post(&path, &[("workspace", &here), ("role", "viewer")]).await;
    assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, "/members?done=role"));
    assert!(site.page("/members?done=role").await.contains("The role was changed."));
    assert!(site.page(&path).await.contains("value=\"viewer\" required checked"));

    let own = site.fakes.change(|state| state.team.id(EMAIL));
    let answer = site.post(&format!("/members/{own}"), &[("workspace", &here), ("role", "viewer")]).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert!(answer.body.contains("A workspace always has an owner; make another member one first."));
    let answer = site.post(&path, &[("workspace", &here), ("role", "king")]).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer.body.contains("id=\"role_error\""));
}

#[tokio::test]
async fn the_last_owner_stays() {
    let mut site = Site::signed_in().await;
    let (own, here) = (site.fakes.change(|state| state.team.id(EMAIL)), here(&site));
    let path = format!("/members/{own}/remove");
    assert!(site.page(&path).await.contains("Leave “"));
    let answer = site.post(&path, &[("workspace", &here)]).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert!(answer.body.contains("A workspace always has an owner"), "{}", answer.body);
    assert_eq!(site.fakes.change(|state| state.team.members.len()), 1);
}

#[tokio::test]
async fn everybody_may_leave() {
    let site = Site::signed_in().await;
    let other = site.fakes.add_member("ada@example.com", Role::Owner);
    site.fakes.set_role(Role::Viewer);
    let mut site = renewed(site).await;
    let own = site.fakes.change(|state| state.team.id(EMAIL));
    let here = here(&site);
    assert!(site.page("/members").await.contains(&format!("/members/{own}/remove")));
    let path = format!("/members/{other}/remove");
    assert_eq!(site.get(&path).await.status, StatusCode::FORBIDDEN);
    assert_eq!(site.post(&path, &[("workspace", &here)]).await.status, StatusCode::FORBIDDEN);
    let path = format!("/members/{own}/remove");
    assert!(site.page(&path).await.contains("Leave workspace"));
    assert_eq!(site.post(&path, &[("workspace", &here)]).await.header("location"), "/keys");
    assert_eq!(site.fakes.change(|state| state.team.members.len()), 1);
}

#[tokio::test]
async fn a_member_is_removed_after_a_question() {
    let mut site = Site::signed_in().await;
    let ada = site.fakes.add_member("ada@example.com", Role::Member);
    let (path, here) = (format!("/members/{ada}/remove"), here(&site));
    assert!(site.page(&path).await.contains("Remove <bdi>ada@example.com</bdi>?"));
    assert_eq!(site.fakes.change(|state| state.team.members.len()), 2, "asking removes nobody");
    let answer = site.post(&path, &[("workspace", &here)]).await;
    assert_eq!(answer.header("location"), "/members?done=removed");
    assert_eq!(site.fakes.change(|state| state.team.members.len()), 1);
    assert_eq!(site.get(&path).await.status, StatusCode::NOT_FOUND);
    assert_eq!(site.get("/members/acc_nonsense/remove").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_invitation_shows_its_link_once() {
    let mut site = Site::signed_in().await;
    let here = here(&site);
    let form = [("workspace", here.as_str()), ("email", "new@example.com"), ("role", "viewer")];
    let made = site.post("/members/invite", &form).await;
    assert_eq!((made.status, made.header("cache-control")), (StatusCode::OK, "no-store"));
    assert!(made.body.contains(&format!("http://127.0.0.1:8080/invitations/{INVITATION}")));
    let list = site.page("/members").await;
    assert!(list.contains("new@example.com") && !list.contains(INVITATION));

    let again = site.post("/members/invite", &form).await;
    assert_eq!(again.status, StatusCode::CONFLICT);
    assert!(
        again.body.contains("has an open invitation") && again.body.contains("value=\"new@example.com\"")
    );
    let known = [form[0], ("email", EMAIL), form[2]];
    assert!(site.post("/members/invite", &known).await.body.contains("is a member already"));
    let wrong = site.post("/members/invite", &[form[0], ("email", "nobody"), form[2]]).await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(wrong.body.contains("<p class=\"error\" id=\"email_hint\">Must be an e-mail address.</p>"));
}

#[tokio::test]
async fn an_invitation_is_withdrawn() {
    let mut site = Site::signed_in().await;
    let here = here(&site);
    let form = [("workspace", here.as_str()), ("email", "new@example.com"), ("role", "viewer")];
    site.post("/members/invite", &form).await;
    let list = site.page("/members").await;
    let path = between(&list, "action=\"/members/invitations/", "\"")[0].to_owned();
    for expected in ["/members?done=withdrawn", "/members"] {
        let path = format!("/members/invitations/{path}");
        let answer = site.post(&path, &[("workspace", &here)]).await;
        assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, expected));
    }
    assert!(site.page("/members").await.contains("Nobody is invited at the moment."));
}

#[tokio::test]
async fn somebody_without_an_account_comes_in() {
    let mut site = Site::signed_in().await;
    let here = here(&site);
    let form = [("workspace", here.as_str()), ("email", "new@example.com"), ("role", "viewer")];
    site.post("/members/invite", &form).await;
    site.set_cookie("keymeter_session", "");
    let path = format!("/invitations/{INVITATION}");
    let page = site.page(&path).await;
    assert!(page.contains("choose one of at least 8 characters") && !page.contains("You are signed in as"));
    assert!(
        page.contains("<bdi>Acme</bdi></strong> as viewer") && page.contains("<bdi>new@example.com</bdi>")
    );
    let short = site.post(&path, &[("password", "short")]).await;
    assert_eq!(short.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(short.body.contains("Must have 8 characters") && !short.body.contains("value=\"short\""));
    let accepted = site.post(&path, &[("password", NEW_PASSWORD)]).await;
    assert_eq!((accepted.status, accepted.header("location")), (StatusCode::SEE_OTHER, "/keys"));
    assert_eq!(site.cookie("keymeter_workspace"), Some(here.as_str()));
    site.page("/keys").await;
    let again = site.post(&path, &[("password", NEW_PASSWORD)]).await;
    let opened = site.get(&path).await;
    for spent in [&again, &opened] {
        assert_eq!(spent.status, StatusCode::NOT_FOUND);
        assert!(spent.body.contains("Ask whoever sent it for a new one") && !spent.body.contains("<form"));
    }
    assert_eq!(again.header("set-cookie"), "", "nobody is signed in by a spent link");
}

#[tokio::test]
async fn while_keys_does_not_say_what_it_is_for_one_comes_in_all_the_same() {
    let mut site = Site::signed_in().await;
    let here = here(&site);
    let form = [("workspace", here.as_str()), ("email", "new@example.com"), ("role", "viewer")];
    site.post("/members/invite", &form).await;
    site.fakes.fail("GetInvitation", Status::unavailable("away"));
    let path = format!("/invitations/{INVITATION}");
    assert!(site.page(&path).await.contains("Somebody has invited you"));
    assert_eq!(site.post(&path, &[("password", NEW_PASSWORD)]).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn somebody_signed_in_comes_in_with_a_session_of_its_own() {
    let mut site = Site::signed_in().await;
    let before = site.cookie("keymeter_session").unwrap().to_owned();
    let here = here(&site);
    let form = [("workspace", here.as_str()), ("email", "new@example.com"), ("role", "viewer")];
    site.post("/members/invite", &form).await;
    let path = format!("/invitations/{INVITATION}");
    let page = site.page(&path).await;
    assert!(page.contains(EMAIL) && page.contains("in as the invited person"), "it says who is signed in");
    let wrong = site.post(&path, &[("password", "not mine at all")]).await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    assert!(wrong.body.contains("The password is wrong."));
    assert_eq!(site.post(&path, &[("password", PASSWORD)]).await.status, StatusCode::SEE_OTHER);
    let after = site.cookie("keymeter_session").unwrap().to_owned();
    assert_ne!(after, before);
    assert_eq!(site.fakes.change(|state| state.sessions.clone()), [after], "the session before is ended");
}

#[tokio::test]
async fn what_is_no_invitation_is_not_found_and_not_asked_for() {
    let mut site = Site::new().await;
    for token in ["x", "kminv_%3Cscript%3E", &format!("kminv_{}", "a".repeat(200))] {
        let path = format!("/invitations/{token}");
        assert_eq!(site.get(&path).await.status, StatusCode::NOT_FOUND, "{token}");
        assert_eq!(site.post(&path, &[("password", PASSWORD)]).await.status, StatusCode::NOT_FOUND);
    }
    assert!(site.fakes.change(|state| state.calls.is_empty()));
}

#[tokio::test]
async fn when_invitations_fail_the_members_stay() {
    let mut site = Site::signed_in().await;
    site.fakes.fail("ListInvitations", Status::unavailable("away"));
    let page = site.page("/members").await;
    assert!(page.contains(EMAIL) && page.contains("Keys are away."));
    site.fakes.fail("ListMembers", Status::unavailable("away"));
    assert_eq!(site.get("/members").await.status, StatusCode::SERVICE_UNAVAILABLE);
}
