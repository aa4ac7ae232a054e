//! Signing in at an OpenID Connect provider that may lie: what is taken of it, and which account that gives.

use proto::keys::{
    BeginProviderSignInRequest, BeginProviderSignInResponse, FinishProviderSignInRequest,
    FinishProviderSignInResponse, GetProviderRequest, ProviderAnswer, ReauthenticateByProviderRequest,
    RefreshRequest, RevealKeyRequest, Role, SignInMethod, SignInRequest,
};
use rstest::rstest;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tonic::{Code, Status};

use self::liar::{CLIENT_ID, CLIENT_SECRET, Instead, Liar, REDIRECT_URI, Signed, query};
use crate::{
    harness::{EMAIL, PASSWORD, Running, bearer, field, reason},
    team::refused,
};

mod liar;
mod tls;

/// A service with a provider.
struct Desk {
    run: Running,
    liar: Liar,
}

impl Desk {
    async fn open() -> Self {
        let liar = Liar::start().await;
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(secret.path(), format!("{CLIENT_SECRET}\n")).unwrap();
        let secret_file = secret.path().to_str().unwrap();
        let issuer = liar.issuer();
        let settings = [
            "--oidc-issuer",
            &issuer,
            "--oidc-client-id",
            CLIENT_ID,
            "--oidc-client-secret-file",
            secret_file,
            "--oidc-name",
            "Example",
        ];
        let run = Box::pin(Running::start_with(&settings)).await;
        Self { run, liar }
    }

    /// What the provider says of the person.
    fn claim(&self, claims: Value) {
        self.liar.change(|says| says.claims = claims);
    }

    async fn begin(&self, reauthenticate: bool) -> Result<BeginProviderSignInResponse, Status> {
        let request = BeginProviderSignInRequest { redirect_uri: REDIRECT_URI.into(), reauthenticate };
        Ok(self.run.sessions().begin_provider_sign_in(request).await?.into_inner())
    }

    /// To the provider and back.
    async fn answer(&self, reauthenticate: bool) -> ProviderAnswer {
        let begun = self.begin(reauthenticate).await.unwrap();
        let (state, code) = self.liar.authorize(&begun.authorization_url);
        let redirect_uri = REDIRECT_URI.into();
        ProviderAnswer { flow: begun.flow, state, code, error: String::new(), redirect_uri }
    }

    async fn finish(
        &self,
        answer: ProviderAnswer,
        invitation_token: &str,
    ) -> Result<FinishProviderSignInResponse, Status> {
        let invitation_token = invitation_token.into();
        let request = FinishProviderSignInRequest { answer: Some(answer), invitation_token };
        Ok(self.run.sessions().finish_provider_sign_in(request).await?.into_inner())
    }

    async fn sign_in(&self) -> Result<FinishProviderSignInResponse, Status> {
        self.finish(self.answer(false).await, "").await
    }

    async fn accept(&self, invitation_token: &str) -> Result<FinishProviderSignInResponse, Status> {
        self.finish(self.answer(false).await, invitation_token).await
    }

    async fn prove_again(&self, session: &str, reauthenticate: bool) -> Result<String, Status> {
        let request = ReauthenticateByProviderRequest {
            session_token: session.into(),
            answer: Some(self.answer(reauthenticate).await),
            workspace: String::new(),
        };
        let again = self.run.sessions().reauthenticate_by_provider(request).await?.into_inner();
        Ok(again.access_token.unwrap().token)
    }

    async fn refresh(&self, session: &str) -> Result<proto::keys::RefreshResponse, Status> {
        let request = RefreshRequest { session_token: session.into(), workspace: String::new() };
        Ok(self.run.sessions().refresh(request).await?.into_inner())
    }

    fn count(&self, table: &str) -> String {
        self.run.postgres.query(&format!("select count(*) from {table}")).trim().to_owned()
    }
}

fn ada() -> Value {
    json!({ "email": "Ada@Example.org", "email_verified": true })
}

fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

#[tokio::test]
async fn a_person_signs_in_and_the_account_is_linked_once() {
    let desk = Desk::open().await;
    let name = desk.run.sessions().get_provider(GetProviderRequest {}).await.unwrap().into_inner();
    assert_eq!(name.display_name, "Example");
    desk.claim(ada());
    let came = desk.sign_in().await.unwrap();
    assert_eq!(came.workspace, desk.run.workspace);
    let refreshed = desk.refresh(&came.session_token).await.unwrap();
    assert_eq!((refreshed.email.as_str(), refreshed.role()), (EMAIL, Role::Owner));
    assert_eq!(refreshed.sign_in_method(), SignInMethod::Provider);

    // From now on the subject counts, whatever the address.
    desk.claim(json!({ "email": "ada@elsewhere.example", "aud": [CLIENT_ID, "another"], "azp": CLIENT_ID }));
    let again = desk.sign_in().await.unwrap();
    assert_ne!(again.session_token, came.session_token);
    assert_eq!(desk.refresh(&again.session_token).await.unwrap().email, EMAIL);
    let entries = "select count(*) from audit_entries where action = 'link_identity'";
    assert_eq!(desk.run.postgres.query(entries), "1\n");
    let asked = desk.liar.change(|says| says.asked.clone());
    assert_eq!(asked, ["discovery", "token", "keys", "token"], "what is known is not asked for again");

    let ended = "update sessions set last_used_time = now() - interval '12 hours'";
    let _ = desk.run.postgres.query(ended);
    refused(desk.refresh(&again.session_token).await, Code::Unauthenticated, "NOT_SIGNED_IN");
    let ended = "update sessions set last_used_time = now(), expire_time = now()";
    let _ = desk.run.postgres.query(ended);
    refused(desk.refresh(&again.session_token).await, Code::Unauthenticated, "NOT_SIGNED_IN");
}

#[rstest]
#[case::nonce(json!({ "nonce": "another" }))]
#[case::no_nonce(json!({ "nonce": null }))]
#[case::issuer(json!({ "iss": "http://127.0.0.1:1" }))]
#[case::audience(json!({ "aud": "another" }))]
#[case::no_audience(json!({ "aud": [] }))]
#[case::several_without_party(json!({ "aud": [CLIENT_ID, "another"] }))]
#[case::party(json!({ "azp": "another" }))]
#[case::expired(json!({ "exp": now() - 61 }))]
#[case::no_end(json!({ "exp": null }))]
#[case::future(json!({ "iat": now() + 120 }))]
#[case::no_subject(json!({ "sub": "" }))]
#[case::long_subject(json!({ "sub": "x".repeat(256) }))]
#[tokio::test]
async fn a_token_that_does_not_hold_signs_nobody_in(#[case] claims: Value) {
    let desk = Desk::open().await;
    let mut lie = ada();
    for (name, value) in claims.as_object().unwrap() {
        lie[name] = value.clone();
    }
    desk.claim(lie);
    refused(desk.sign_in().await, Code::Unauthenticated, "PROVIDER_TOKEN_INVALID");
    desk.claim(json!({ "email": EMAIL, "email_verified": "true", "exp": now() - 30, "iat": now() + 30 }));
    desk.sign_in().await.expect("clocks differ a little, and some write the truth in quotes");
}

#[rstest]
#[case(Signed::Not)]
#[case(Signed::WithPublicKey)]
#[case(Signed::WithSecret)]
#[case(Signed::ByAnother)]
#[tokio::test]
async fn a_token_that_is_signed_otherwise_signs_nobody_in(#[case] signed: Signed) {
    let desk = Desk::open().await;
    desk.claim(ada());
    desk.liar.change(|says| says.signed = signed);
    refused(desk.sign_in().await, Code::Unauthenticated, "PROVIDER_TOKEN_INVALID");
    assert_eq!((desk.count("identities"), desk.count("used_flows")), ("0".into(), "0".into()));
    desk.liar.change(|says| says.signed = Signed::Well);
    desk.sign_in().await.unwrap();
}

#[tokio::test]
async fn keys_are_read_again_for_a_new_one_and_not_at_every_unknown() {
    let desk = Desk::open().await;
    desk.claim(ada());
    let reads = || desk.liar.change(|says| says.asked.iter().filter(|path| **path == "keys").count());
    desk.liar.change(|says| says.kid = "two".into());
    for _ in 0..3 {
        refused(desk.sign_in().await, Code::Unauthenticated, "PROVIDER_TOKEN_INVALID");
    }
    assert_eq!(reads(), 1, "they were read just now");
    desk.liar.change(|says| says.told_kid = "two".into());
    parts::eventually("the new key is found", async || desk.sign_in().await.is_ok()).await;
    assert_eq!(reads(), 2);
}

#[tokio::test]
async fn a_way_back_is_open_once_in_one_browser() {
    let desk = Desk::open().await;
    desk.claim(ada());
    let (mine, other) = (desk.answer(false).await, desk.answer(false).await);
    let ended = async |answer: ProviderAnswer| {
        refused(desk.finish(answer, "").await, Code::Unauthenticated, "PROVIDER_SIGN_IN_ENDED");
    };
    ended(ProviderAnswer { state: other.state.clone(), ..mine.clone() }).await;
    ended(ProviderAnswer { flow: other.flow.clone(), ..mine.clone() }).await;
    ended(ProviderAnswer { flow: "kmflow_x.1".into(), ..mine.clone() }).await;
    let asked = desk.liar.change(|says| says.asked.clone());
    assert_eq!(asked, ["discovery"], "a wrong state is found before the code goes anywhere");
    let swapped = ProviderAnswer { code: other.code.clone(), ..mine.clone() };
    refused(desk.finish(swapped, "").await, Code::Unauthenticated, "PROVIDER_REFUSED");
    desk.finish(mine.clone(), "").await.unwrap();
    refused(desk.finish(mine.clone(), "").await, Code::Unauthenticated, "PROVIDER_REFUSED");

    // A provider that takes a code twice.
    let begun = desk.begin(false).await.unwrap();
    let answer = |(state, code)| ProviderAnswer { flow: begun.flow.clone(), state, code, ..mine.clone() };
    desk.finish(answer(desk.liar.authorize(&begun.authorization_url)), "").await.unwrap();
    ended(answer(desk.liar.authorize(&begun.authorization_url))).await;
    let store = desk.run.store();
    let later = OffsetDateTime::now_utc() + keys::oidc::OPEN_FOR * 2;
    keys::sweep::sweep(&store, later).await.unwrap();
    assert_eq!(desk.count("used_flows"), "0", "what would not be taken any more is forgotten");
}

#[tokio::test]
async fn what_the_provider_refuses_is_told_apart_from_what_it_can_not() {
    let desk = Desk::open().await;
    desk.claim(ada());
    let said = async |error: &str| {
        let answer = ProviderAnswer { error: error.into(), ..desk.answer(false).await };
        desk.finish(answer, "").await
    };
    refused(said("access_denied").await, Code::Unauthenticated, "PROVIDER_REFUSED");
    refused(said("temporarily_unavailable").await, Code::Unavailable, "PROVIDER_AWAY");
    let nothing = ProviderAnswer { code: String::new(), ..desk.answer(false).await };
    refused(desk.finish(nothing, "").await, Code::Unauthenticated, "PROVIDER_REFUSED");
    let long = ProviderAnswer { code: "x".repeat(4_097), ..desk.answer(false).await };
    assert_eq!(field(&desk.finish(long, "").await.unwrap_err()), "answer.code");
    let nowhere = ProviderAnswer { redirect_uri: "javascript:x".into(), ..desk.answer(false).await };
    assert_eq!(field(&desk.finish(nowhere, "").await.unwrap_err()), "answer.redirect_uri");

    let instead = |path, instead| desk.liar.change(|says| says.instead.insert(path, instead));
    for lie in [
        Instead::Status(500, json!({})),
        Instead::Status(401, json!({ "error": "invalid_client" })),
        Instead::Status(302, json!({})),
        Instead::Status(200, json!({ "access_token": "only" })),
        Instead::Endless,
        Instead::Silence,
    ] {
        instead("token", lie);
        refused(desk.sign_in().await, Code::Unavailable, "PROVIDER_AWAY");
    }
    desk.liar.change(|says| says.instead.clear());
    instead("keys", Instead::Endless);
    refused(desk.sign_in().await, Code::Unavailable, "PROVIDER_AWAY");
    desk.liar.change(|says| says.instead.clear());
    parts::eventually("it is asked again", async || desk.sign_in().await.is_ok()).await;
}

#[tokio::test]
async fn a_provider_that_is_away_is_left_alone_for_a_while() {
    let desk = Desk::open().await;
    desk.liar.change(|says| says.instead.insert("discovery", Instead::Status(503, json!({}))));
    for _ in 0..3 {
        refused(desk.begin(false).await, Code::Unavailable, "PROVIDER_AWAY");
    }
    assert!(desk.liar.change(|says| says.asked.len()) < 3);
    desk.liar.change(|says| says.instead.clear());
    let begun = parts::eventually("it is asked again", async || desk.begin(true).await.ok()).await;
    let asked = query(&begun.authorization_url);
    assert_eq!((&*asked["prompt"], &*asked["max_age"], &*asked["tenant"]), ("login", "0", "1"));
    let request = SignInRequest { email: EMAIL.into(), password: PASSWORD.into() };
    desk.run.sessions().sign_in(request).await.expect("passwords need no provider");
}

#[tokio::test]
async fn without_a_provider_nobody_is_sent_anywhere() {
    let run = Running::start().await;
    let name = run.sessions().get_provider(GetProviderRequest {}).await.unwrap().into_inner();
    assert_eq!(name.display_name, "");
    let request = BeginProviderSignInRequest { redirect_uri: REDIRECT_URI.into(), reauthenticate: false };
    let none = run.sessions().begin_provider_sign_in(request).await;
    refused(none, Code::FailedPrecondition, "PROVIDER_NOT_CONFIGURED");
}

#[tokio::test]
async fn only_a_verified_address_without_another_person_gives_an_account() {
    let desk = Desk::open().await;
    let said = async |claims: Value, why: &str| {
        desk.claim(claims);
        refused(desk.sign_in().await, Code::PermissionDenied, why);
    };
    desk.liar.change(|says| says.userinfo = json!({ "sub": "person-1" }));
    for unverified in [
        json!({ "email": EMAIL, "email_verified": false }),
        json!({ "email": EMAIL }),
        json!({ "email": EMAIL, "email_verified": 1 }),
        json!({ "email": "nobody@example.org", "email_verified": false }),
        json!({ "email": "not an address", "email_verified": true }),
    ] {
        said(unverified, "EMAIL_NOT_VERIFIED").await;
    }
    said(json!({ "email": "nobody@example.org", "email_verified": true }), "NO_ACCOUNT").await;
    assert_eq!((desk.count("identities"), desk.count("accounts")), ("0".into(), "1".into()));

    // An address of the userinfo endpoint is as good, but only of the same person.
    desk.liar
        .change(|says| says.userinfo = json!({ "sub": "person-2", "email": EMAIL, "email_verified": true }));
    desk.claim(json!({}));
    refused(desk.sign_in().await, Code::Unauthenticated, "PROVIDER_TOKEN_INVALID");
    desk.liar.change(|says| says.userinfo["sub"] = json!("person-1"));
    desk.sign_in().await.unwrap();

    // The address was given to somebody else.
    let mut other = ada();
    other["sub"] = json!("person-2");
    said(other, "LINKED_TO_ANOTHER").await;
    let _ = desk.run.postgres.query("delete from memberships");
    said(ada(), "NOT_A_MEMBER").await;
}

#[tokio::test]
async fn an_invited_person_comes_in_without_a_password() {
    let desk = Desk::open().await;
    let invited = async |email: &str| desk.run.invite(&desk.run.admin, email, Role::Member).await.unwrap().1;
    let grace = invited("grace@example.org").await;
    desk.claim(json!({ "sub": "grace", "email": "eve@example.org", "email_verified": true }));
    refused(desk.accept(&grace).await, Code::PermissionDenied, "INVITED_IS_ANOTHER");
    refused(desk.accept("kminv_never").await, Code::Unauthenticated, "NOT_SIGNED_IN");
    desk.claim(json!({ "sub": "grace", "email": "Grace@example.org", "email_verified": true }));
    refused(desk.sign_in().await, Code::PermissionDenied, "NO_ACCOUNT");
    let came = desk.accept(&grace).await.unwrap();
    assert_eq!(came.workspace, desk.run.workspace);
    let refreshed = desk.refresh(&came.session_token).await.unwrap();
    assert_eq!((refreshed.email.as_str(), refreshed.role()), ("grace@example.org", Role::Member));
    refused(desk.accept(&grace).await, Code::Unauthenticated, "NOT_SIGNED_IN");
    let request = SignInRequest { email: "grace@example.org".into(), password: PASSWORD.into() };
    let no_password = desk.run.sessions().sign_in(request).await;
    refused(no_password, Code::Unauthenticated, "NOT_SIGNED_IN");
    desk.sign_in().await.expect("the next time without an invitation");

    // Somebody who has an account by password: only a verified address proves that it is the same person.
    let (_, _) = desk.run.add_tenant("eve@example.org").await;
    let eve = invited("eve@example.org").await;
    desk.claim(json!({ "sub": "eve", "email": "eve@example.org" }));
    refused(desk.accept(&eve).await, Code::PermissionDenied, "EMAIL_NOT_VERIFIED");
    desk.claim(json!({ "sub": "grace" }));
    refused(desk.accept(&eve).await, Code::PermissionDenied, "INVITED_IS_ANOTHER");
    desk.claim(json!({ "sub": "eve", "email": "eve@example.org", "email_verified": true }));
    desk.accept(&eve).await.unwrap();

    // Of a provider that tells no address the link is proof enough for a new account, as it is for a password.
    let linus = invited("linus@example.org").await;
    desk.claim(json!({ "sub": "linus" }));
    desk.liar.change(|says| says.userinfo = json!({ "sub": "linus" }));
    let came = desk.accept(&linus).await.unwrap();
    assert_eq!(desk.refresh(&came.session_token).await.unwrap().email, "linus@example.org");
}

#[tokio::test]
async fn a_reveal_sends_the_person_to_the_provider_again() {
    let desk = Desk::open().await;
    let made = desk.run.make("a").await;
    let reveal = async |token: &str| {
        let request = RevealKeyRequest { name: made.key.clone().unwrap().name };
        Ok::<_, Status>(desk.run.keys().reveal_key(bearer(token, request)).await?.into_inner().secret)
    };
    let with = |auth_time: i64| {
        let mut claims = ada();
        claims["auth_time"] = json!(auth_time);
        desk.claim(claims);
    };
    desk.claim(ada());
    let came = desk.sign_in().await.unwrap();
    let stale = came.access_token.unwrap().token;
    let why = "REAUTHENTICATION_REQUIRED";
    refused(reveal(&stale).await, Code::PermissionDenied, why);
    let session = came.session_token;
    let not_asked = "NOT_PROVED_AGAIN";
    refused(desk.prove_again(&session, true).await, Code::Unauthenticated, not_asked);
    with(now() - 61 - 5);
    refused(desk.prove_again(&session, true).await, Code::Unauthenticated, not_asked);
    with(now() + 3_600);
    refused(desk.prove_again(&session, true).await, Code::Unauthenticated, "PROVIDER_TOKEN_INVALID");
    with(now());
    desk.liar.change(|says| says.claims["sub"] = json!("person-2"));
    refused(desk.prove_again(&session, true).await, Code::PermissionDenied, "ANOTHER_PERSON");
    refused(desk.prove_again("kmses_never", true).await, Code::Unauthenticated, "NOT_SIGNED_IN");
    let refreshed = desk.refresh(&session).await.unwrap().access_token.unwrap().token;
    refused(reveal(&refreshed).await, Code::PermissionDenied, why);

    with(now());
    let fresh = desk.prove_again(&session, true).await.unwrap();
    assert_eq!(reveal(&fresh).await.unwrap(), made.secret);
    // A provider that says when it has asked spares the person a second time.
    let came = desk.sign_in().await.unwrap();
    assert_eq!(reveal(&came.access_token.unwrap().token).await.unwrap(), made.secret);
}

#[tokio::test]
async fn nothing_is_left_of_an_erased_person() {
    let desk = Desk::open().await;
    desk.claim(ada());
    desk.sign_in().await.unwrap();
    assert_eq!(desk.count("identities"), "1");
    let (done, log) = desk.run.command(&["erase-person", "--email", EMAIL]).await;
    assert!(done, "{log}");
    assert_eq!((desk.count("identities"), desk.count("sessions")), ("0".into(), "0".into()));
    let gone = desk.sign_in().await.unwrap_err();
    assert_eq!((gone.code(), reason(&gone).as_str()), (Code::PermissionDenied, "NO_ACCOUNT"));
}
