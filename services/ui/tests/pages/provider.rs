//! Signing in at the OpenID Connect provider, as far as pages go: the cookie, where people are led, what is said when
//! nobody comes in. What makes an answer good is tested in keys.

use axum::{
    body::Body,
    http::{HeaderValue, Request, StatusCode},
};
use data_encoding::BASE64URL_NOPAD;
use domain::WorkspaceId;
use proto::keys::Invitation;
use rstest::rstest;
use tonic::{Code, Status};

use crate::{
    fake_members::INVITATION,
    fake_provider::{FLOW, PROVIDER_URL, STATE},
    fake_team::refused,
    fakes::{EMAIL, PASSWORD},
    site::{Answer, Site, between, form},
};

const COOKIE: &str = "keymeter_provider";

fn back(state: &str) -> String {
    format!("/sign-in/oidc/callback?code=a-code&state={state}&iss=https%3A%2F%2Fid.example.com")
}

async fn site() -> Site {
    let site = Site::new().await;
    site.fakes.change(|state| state.provider.display_name = "Example & Sons".to_owned());
    site
}

/// A cookie as somebody may make it up.
fn trip(flow: &str, next: &str) -> String {
    BASE64URL_NOPAD.encode(format!("{flow}\n\n\n{next}").as_bytes())
}

/// To the provider and back.
async fn round_trip(site: &mut Site, start: &str) -> Answer {
    let there = site.get(start).await;
    assert_eq!((there.status, there.header("location")), (StatusCode::SEE_OTHER, PROVIDER_URL));
    site.get(&back(STATE)).await
}

#[tokio::test]
async fn the_button_is_there_if_there_is_a_provider() {
    let mut site = Site::new().await;
    site.fakes.change(|state| state.team.invitations.push(Invitation::default()));
    let invitation = format!("/invitations/{INVITATION}");
    for path in ["/sign-in", &invitation] {
        assert!(!site.page(path).await.contains("/sign-in/oidc"), "{path}");
    }
    site.fakes.change(|state| state.provider.display_name = "Example & Sons".to_owned());
    let page = site.page("/sign-in?next=/keys/new").await;
    assert!(page.contains("Sign in with <bdi>Example &#38; Sons</bdi>"), "{page}");
    assert!(page.contains("href=\"/sign-in/oidc?next=%2Fkeys%2Fnew\""), "{page}");
    let page = site.page(&invitation).await;
    assert!(page.contains(&format!("href=\"/sign-in/oidc?invitation={INVITATION}\"")), "{page}");
}

#[tokio::test]
async fn a_person_goes_there_and_comes_back_to_the_page_that_was_asked_for() {
    let mut site = site().await;
    let there = site.get("/sign-in/oidc?next=%2Fkeys%2Fnew").await;
    assert_eq!((there.status, there.header("location")), (StatusCode::SEE_OTHER, PROVIDER_URL));
    let cookie = there.header("set-cookie");
    assert!(cookie.starts_with("keymeter_provider="), "{cookie}");
    for part in ["HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=600"] {
        assert!(cookie.contains(part), "{part}: {cookie}");
    }
    let came = site.get(&back(STATE)).await;
    assert_eq!((came.status, came.header("location")), (StatusCode::SEE_OTHER, "/keys/new"));
    assert_eq!(site.cookie(COOKIE), None, "a trip is over once");
    site.page("/keys/new").await;
    site.fakes.change(|state| {
        let redirect_uri = "http://127.0.0.1:8080/sign-in/oidc/callback";
        let begun = &state.provider.begun[0];
        assert_eq!((begun.redirect_uri.as_str(), begun.reauthenticate), (redirect_uri, false));
        let finished = &state.provider.finished[0];
        let told = finished.answer.clone().unwrap();
        assert_eq!([told.flow, told.state, told.code, told.error], [FLOW, STATE, "a-code", ""]);
        assert_eq!((told.redirect_uri.as_str(), finished.invitation_token.as_str()), (redirect_uri, ""));
    });
    let again = site.get(&back(STATE)).await;
    assert_eq!(again.status, StatusCode::UNAUTHORIZED, "the way back is open once");
}

#[tokio::test]
async fn over_https_the_cookies_are_bound_to_the_host() {
    let mut site = Site::at("https://keys.example.com").await;
    let there = site.get("/sign-in/oidc").await;
    let cookie = there.header("set-cookie");
    assert!(cookie.starts_with("__Host-keymeter-provider="), "{cookie}");
    for part in ["HttpOnly", "Secure", "SameSite=Lax", "Path=/"] {
        assert!(cookie.contains(part), "{part}: {cookie}");
    }
    assert!(!cookie.contains("Domain"), "{cookie}");
    assert_eq!(site.get(&back(STATE)).await.status, StatusCode::SEE_OTHER);
    assert!(site.cookie("__Host-keymeter").is_some_and(|token| token.starts_with("session-")));
    let uri = site.fakes.change(|state| state.provider.begun[0].redirect_uri.clone());
    assert_eq!(uri, "https://keys.example.com/sign-in/oidc/callback");
}

#[rstest]
#[case("https%3A%2F%2Fevil.example%2F", "/keys")]
#[case("%2F%2Fevil.example%2F", "/keys")]
#[case("%2F%5Cevil.example%2F", "/keys")]
#[case("%2F%09%2Fevil.example", "/keys")]
#[case("javascript%3Aalert(1)", "/keys")]
#[case("%2Fkeys%0D%0Aset-cookie%3A%20a%3Db", "/keys")]
#[case("%2Foverview%3Frange%3D24h%26method%3DGET", "/overview?range=24h&method=GET")]
#[tokio::test]
async fn the_way_back_leads_to_own_pages_only(#[case] next: &str, #[case] location: &str) {
    let mut site = site().await;
    let came = round_trip(&mut site, &format!("/sign-in/oidc?next={next}")).await;
    assert_eq!((came.status, came.header("location")), (StatusCode::SEE_OTHER, location));

    // What is in the cookie is no more trusted than what is in the address.
    let next = form_urlencoded::parse(format!("next={next}").as_bytes()).next().unwrap().1.into_owned();
    site.set_cookie(COOKIE, &trip(FLOW, &next));
    assert_eq!(site.get(&back(STATE)).await.header("location"), location);
    let longest = format!("/sign-in/oidc?next=%2Fkeys%3Fsearch%3D{}", "%25".repeat(1_900));
    let cookie = site.get(&longest).await.header("set-cookie").to_owned();
    assert!((2_500..4_096).contains(&cookie.len()), "{}", cookie.len());
    let long = format!("/sign-in/oidc?next=%2Fkeys%3Fsearch%3D{}", "x".repeat(2_000));
    assert_eq!(round_trip(&mut site, &long).await.header("location"), "/keys", "browsers drop long cookies");
}

#[rstest]
#[case::without_a_cookie("", STATE)]
#[case::of_another_flow(&trip("kmflow_of-another.1", "/keys"), STATE)]
#[case::of_another_state(&trip(FLOW, "/keys"), "forged")]
#[case::with_a_damaged_cookie("%%%&flow", STATE)]
#[case::with_half_a_cookie("a21mbG93", STATE)]
#[tokio::test]
async fn an_answer_that_this_browser_did_not_ask_for_signs_nobody_in(
    #[case] cookie: &str,
    #[case] state: &str,
) {
    let mut site = site().await;
    site.set_cookie(COOKIE, cookie);
    let answer = site.get(&back(state)).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(answer.body.contains("was begun elsewhere. Try again. Reference: "), "{}", answer.body);
    assert!(answer.body.contains("href=\"/sign-in/oidc?next=%2Fkeys\""), "the way to try again");
    assert_eq!((site.cookie("keymeter_session"), site.cookie(COOKIE)), (None, None));
    assert!(site.fakes.change(|state| state.sessions.is_empty()));
}

#[tokio::test]
async fn other_sites_can_neither_send_people_there_nor_post_the_answer() {
    let mut site = site().await;
    for from in ["cross-site", "same-site"] {
        let mut start = Request::get("/sign-in/oidc").body(Body::empty()).unwrap();
        start.headers_mut().insert("sec-fetch-site", HeaderValue::from_static(from));
        let answer = site.send(start).await;
        assert_eq!((answer.header("location"), answer.header("set-cookie")), ("/sign-in", ""));

        site.set_cookie(COOKIE, &trip(FLOW, "/keys"));
        let mut posted = form(&back(STATE), &[("code", "a-code"), ("state", STATE)]);
        posted.headers_mut().insert("sec-fetch-site", HeaderValue::from_static(from));
        assert_eq!(site.send(posted).await.status, StatusCode::FORBIDDEN);
        assert!(site.cookie(COOKIE).is_some() && site.fakes.change(|state| state.sessions.is_empty()));

        // The one thing that does come from there: the provider sends the browser back.
        let mut back = Request::get(back(STATE)).body(Body::empty()).unwrap();
        back.headers_mut().insert("sec-fetch-site", HeaderValue::from_static(from));
        assert_eq!(site.send(back).await.status, StatusCode::SEE_OTHER);
        site.post("/sign-out", &[]).await;
    }
}

#[tokio::test]
async fn the_session_is_a_new_one_and_the_one_before_ends() {
    let mut site = Site::signed_in().await;
    let planted = site.cookie("keymeter_session").unwrap().to_owned();
    round_trip(&mut site, "/sign-in/oidc").await;
    let own = site.cookie("keymeter_session").unwrap().to_owned();
    assert_ne!(own, planted);
    assert_eq!(site.fakes.change(|state| state.sessions.clone()), [own]);
}

#[tokio::test]
async fn an_invitation_goes_along_and_its_workspace_is_shown() {
    let mut site = site().await;
    site.fakes.change(|state| state.team.invitations.push(Invitation::default()));
    let came = round_trip(&mut site, &format!("/sign-in/oidc?invitation={INVITATION}")).await;
    assert_eq!((came.status, came.header("location")), (StatusCode::SEE_OTHER, "/keys"));
    let workspace_id = site.fakes.change(|state| {
        assert_eq!(state.provider.finished[0].invitation_token, INVITATION);
        state.workspace_id
    });
    let shown: WorkspaceId = site.cookie("keymeter_workspace").unwrap().parse().unwrap();
    assert_eq!(shown, workspace_id);
    round_trip(&mut site, "/sign-in/oidc?invitation=../../x").await;
    assert_eq!(site.fakes.change(|state| state.provider.finished[1].invitation_token.clone()), "");

    let status = refused(Code::PermissionDenied, "INVITED_IS_ANOTHER", "another");
    site.fakes.fail("FinishProviderSignIn", status);
    let answer = round_trip(&mut site, &format!("/sign-in/oidc?invitation={INVITATION}")).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(answer.body.contains("You are invited") && answer.body.contains("is for another e-mail address"));
}

#[rstest]
#[case(Code::Unavailable, "PROVIDER_AWAY", 503, "gives no good answer")]
#[case(Code::Unauthenticated, "PROVIDER_REFUSED", 401, "was cancelled or refused")]
#[case(Code::Unauthenticated, "PROVIDER_TOKEN_INVALID", 502, "does not hold")]
#[case(Code::PermissionDenied, "NO_ACCOUNT", 403, "to invite you")]
#[case(Code::PermissionDenied, "EMAIL_NOT_VERIFIED", 403, "is not verified")]
#[case(Code::PermissionDenied, "LINKED_TO_ANOTHER", 403, "somebody else’s sign-in")]
#[case(Code::PermissionDenied, "NOT_A_MEMBER", 403, "in no workspace any more")]
#[case(Code::Unavailable, "UNAVAILABLE", 503, "The keys service does not answer")]
#[tokio::test]
async fn whatever_goes_wrong_is_said_with_a_reference(
    #[case] code: Code,
    #[case] reason: &str,
    #[case] status: u16,
    #[case] said: &str,
) {
    let mut site = site().await;
    site.fakes.fail("FinishProviderSignIn", refused(code, reason, "a message for programs"));
    let answer = round_trip(&mut site, "/sign-in/oidc").await;
    assert_eq!(answer.status.as_u16(), status);
    assert!(answer.body.contains(said), "{}", answer.body);
    assert!(!answer.body.contains("a message for programs"));
    assert_eq!(between(&answer.body, "Reference: ", "<")[0].len(), 32);
    assert_eq!((site.cookie(COOKIE), site.cookie("keymeter_session")), (None, None));
    site.fakes.fail("BeginProviderSignIn", refused(code, reason, "a message for programs"));
    let answer = site.get("/sign-in/oidc").await;
    assert!(answer.status.as_u16() == status && answer.body.contains(said));
}

#[tokio::test]
async fn what_the_address_says_of_an_error_is_on_no_page() {
    let mut site = site().await;
    site.get("/sign-in/oidc").await;
    let path =
        format!("/sign-in/oidc/callback?state={STATE}&error=access_denied&error_description=Call+0900");
    let answer = site.get(&path).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(!answer.body.contains("0900") && !answer.body.contains("access_denied"));
}

#[tokio::test]
async fn a_reveal_leads_there_again_and_a_password_is_not_asked_for() {
    let mut site = site().await;
    round_trip(&mut site, "/sign-in/oidc").await;
    let key = site.fakes.add_key("Billing", |_| {});
    let page = site.page("/keys?search=Bill").await;
    let dialog = between(&page, "<dialog id=\"password\"", "</dialog>")[0];
    let link = "href=\"/sign-in/oidc?again=1&#38;next=%2Fkeys%3Fsearch%3DBill\"";
    assert!(dialog.contains(link) && !dialog.contains("type=\"password\""), "{dialog}");

    let stale = refused(Code::PermissionDenied, "REAUTHENTICATION_REQUIRED", "again");
    site.fakes.fail("RevealKey", stale);
    let reveal = format!("/keys/{key}/reveal");
    assert!(site.post(&reveal, &[]).await.body.contains("REAUTHENTICATION_REQUIRED"));
    let session = site.cookie("keymeter_session").unwrap().to_owned();
    let came = round_trip(&mut site, "/sign-in/oidc?again=1&next=%2Fkeys%3Fsearch%3DBill").await;
    assert_eq!((came.status, came.header("location")), (StatusCode::SEE_OTHER, "/keys?search=Bill"));
    assert_eq!(site.cookie("keymeter_session"), Some(session.as_str()), "the session goes on");
    assert_eq!(site.post(&reveal, &[]).await.status, StatusCode::OK);
    site.fakes.change(|state| {
        assert!(state.provider.begun.last().unwrap().reauthenticate);
        assert_eq!(state.provider.again[0].session_token, session);
        assert!(state.provider.again[0].workspace.starts_with("workspaces/ws_"));
    });

    site.fakes.fail("ReauthenticateByProvider", refused(Code::PermissionDenied, "ANOTHER_PERSON", "x"));
    let answer = round_trip(&mut site, "/sign-in/oidc?again=1").await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(answer.body.contains("You have signed in as somebody else than here."), "{}", answer.body);
    site.set_cookie("keymeter_session", "");
    let answer = round_trip(&mut site, "/sign-in/oidc?again=1").await;
    assert_eq!(answer.header("location"), "/sign-in", "there is nothing to go on");
}

#[tokio::test]
async fn people_with_passwords_are_asked_for_them_as_before() {
    let mut site = site().await;
    site.fakes.add_key("Billing", |_| {});
    site.post("/sign-in", &[("email", EMAIL), ("password", PASSWORD)]).await;
    let page = site.page("/keys").await;
    let dialog = between(&page, "<dialog id=\"password\"", "</dialog>")[0];
    assert!(dialog.contains("type=\"password\"") && !dialog.contains("/sign-in/oidc"), "{dialog}");
    site.fakes.fail("SignIn", Status::unauthenticated("wrong"));
    let answer = site.post("/sign-in", &[("email", EMAIL), ("password", "guess")]).await;
    assert!(answer.body.contains("href=\"/sign-in/oidc?next=%2Fkeys\""), "the other way stays at hand");
}
