//! Signing in and out, throttling, and access tokens that other servers check offline.

use access::{Role, Verifier};
use parts::eventually;
use proto::{
    keys::{ExchangeTokenRequest, ListKeysRequest, RefreshRequest, SignInRequest, SignOutRequest},
    resource::workspace_name,
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, metadata::MetadataMap};
use tonic_types::StatusExt as _;

use crate::harness::{EMAIL, PASSWORD, Running, bearer, reason, sign_in, token_file};

mod provider;

fn metadata(token: &str) -> MetadataMap {
    bearer(token, ()).metadata().clone()
}

async fn refresh(run: &Running, session_token: &str) -> Result<proto::keys::RefreshResponse, Status> {
    let request = RefreshRequest { session_token: session_token.into(), workspace: String::new() };
    Ok(run.sessions().refresh(request).await?.into_inner())
}

#[tokio::test]
async fn others_check_tokens_offline() {
    let run = Running::start().await;
    let verifier = Verifier::default();
    let shutdown = CancellationToken::new();
    let follower =
        tokio::spawn(access::follow(verifier.clone(), run.service.channel.clone(), shutdown.clone(), |_| {}));
    let claims =
        eventually("the public keys", async || verifier.authenticate(&metadata(&run.admin)).ok()).await;
    assert_eq!(workspace_name(claims.workspace_id), run.workspace);
    assert_eq!((claims.role, claims.scopes.len()), (Role::Owner, 0));
    assert!(claims.subject.to_string().starts_with("acc_"));
    let claims = verifier.authenticate(&metadata(&run.machine)).unwrap();
    assert_eq!(claims.role, Role::Service);
    assert!(claims.subject.to_string().starts_with("svc_"));
    shutdown.cancel();
    follower.await.unwrap();
}

#[tokio::test]
async fn a_session_goes_on_until_it_ends() {
    let run = Running::start().await;
    let signed_in = sign_in(&mut run.sessions(), "  Ada@Example.ORG ").await.unwrap();
    assert_eq!(signed_in.workspace, run.workspace);
    let session = signed_in.session_token;
    let refreshed = refresh(&run, &session).await.unwrap();
    assert_eq!((refreshed.email.as_str(), &refreshed.workspace), (EMAIL, &run.workspace));
    let list = ListKeysRequest { parent: run.workspace.clone(), ..Default::default() };
    let token = refreshed.access_token.unwrap().token;
    assert!(run.keys().list_keys(bearer(&token, list)).await.is_ok());

    let ended = |result: Result<_, Status>| {
        let error = result.map(|_: proto::keys::RefreshResponse| ()).unwrap_err();
        assert_eq!((error.code(), reason(&error).as_str()), (Code::Unauthenticated, "NOT_SIGNED_IN"));
    };
    let ago = |column: &str, interval: &str| {
        let sql = format!("update sessions set {column} = now() + interval '{interval}'");
        let _ = run.postgres.query(&sql);
    };
    ago("last_used_time", "-11 hours -59 minutes");
    refresh(&run, &session).await.unwrap();
    ago("last_used_time", "-12 hours");
    ended(refresh(&run, &session).await);
    ago("last_used_time", "0");
    refresh(&run, &session).await.unwrap();
    ago("expire_time", "-1 second");
    ended(refresh(&run, &session).await);
    ago("expire_time", "1 hour");
    refresh(&run, &session).await.unwrap();
    for _ in 0..2 {
        run.sessions().sign_out(SignOutRequest { session_token: session.clone() }).await.unwrap();
        ended(refresh(&run, &session).await);
    }
    ended(refresh(&run, "kmses_never").await);
    ended(refresh(&run, &"x".repeat(100_000)).await);
    let days = "select round(extract(epoch from expire_time - create_time) / 86400) from sessions order by create_time desc limit 1";
    sign_in(&mut run.sessions(), EMAIL).await.unwrap();
    assert_eq!(run.postgres.query(days), "30\n");
}

#[tokio::test]
async fn guessing_is_slowed_down() {
    let run = Running::start().await;
    let attempt = async |email: &str, password: &str| {
        let request = SignInRequest { email: email.into(), password: password.into() };
        run.sessions().sign_in(request).await.map(|_| ())
    };
    let nobody = attempt("nobody@example.org", PASSWORD).await.unwrap_err();
    for _ in 0..9 {
        let wrong = attempt(EMAIL, "wrong horse").await.unwrap_err();
        assert_eq!((wrong.code(), wrong.message()), (Code::Unauthenticated, nobody.message()));
        assert_eq!(wrong.details(), nobody.details(), "the same to the byte");
    }
    attempt(EMAIL, PASSWORD).await.unwrap();
    for _ in 0..9 {
        attempt(EMAIL, "wrong horse").await.unwrap_err();
    }
    attempt(EMAIL, PASSWORD).await.expect("a good sign-in clears the count");

    // All at once, so that no attempt has failed before the next one starts.
    let many = (0..14).map(|_| attempt(EMAIL, "wrong horse"));
    let errors = futures_util::future::join_all(many).await;
    let throttled = errors.iter().filter(|error| code(error) == Code::ResourceExhausted).count();
    let wrong = errors.iter().filter(|error| code(error) == Code::Unauthenticated).count();
    assert_eq!((throttled, wrong), (4, 10));
    let error = attempt(EMAIL, PASSWORD).await.unwrap_err();
    assert_eq!((error.code(), reason(&error).as_str()), (Code::ResourceExhausted, "TOO_MANY_ATTEMPTS"));
    let pause = error.get_details_retry_info().unwrap().retry_delay.unwrap().as_secs();
    assert!((1..=900).contains(&pause), "{pause}");
    attempt("nobody@example.org", PASSWORD)
        .await
        .expect_err("another account is not slowed down, only unknown");
    let _ =
        run.postgres.query("update sign_in_attempts set attempt_time = attempt_time - interval '15 minutes'");
    attempt(EMAIL, PASSWORD).await.unwrap();
}

fn code(result: &Result<(), Status>) -> Code {
    result.as_ref().map_or_else(Status::code, |()| Code::Ok)
}

#[tokio::test]
async fn a_service_token_works_until_it_ends() {
    let run = Running::start().await;
    let service_token = std::fs::read_to_string(token_file(&run.folder, EMAIL)).unwrap();
    let exchange = async |service_token: &str| {
        let request = ExchangeTokenRequest { service_token: service_token.into() };
        run.sessions().exchange_token(request).await.map(tonic::Response::into_inner)
    };
    assert_eq!(exchange(&service_token).await.unwrap().workspace, run.workspace);
    let refused = async |token: &str| {
        let error = exchange(token).await.unwrap_err();
        assert_eq!((error.code(), reason(&error).as_str()), (Code::Unauthenticated, "NOT_SIGNED_IN"));
    };
    refused("kmsvc_never").await;
    refused(&service_token[..service_token.len() - 1]).await;
    let _ = run.postgres.query("update service_tokens set expire_time = now() + interval '1 minute'");
    let end = exchange(&service_token).await.unwrap().access_token.unwrap().expire_time.unwrap().seconds;
    let limit = run.postgres.query("select ceil(extract(epoch from expire_time)) from service_tokens");
    assert!(
        end <= limit.trim().parse::<i64>().unwrap(),
        "an access token does not outlive its service token"
    );
    let _ = run.postgres.query("update service_tokens set expire_time = now()");
    refused(&service_token).await;
    let _ = run.postgres.query("update service_tokens set expire_time = null, revoke_time = now()");
    refused(&service_token).await;
}

#[tokio::test]
async fn what_has_ended_is_swept_away() {
    let run = Running::start().await;
    sign_in(&mut run.sessions(), EMAIL).await.unwrap();
    let rows = || run.postgres.query("select count(*) from sessions");
    let store = run.store();
    keys::sweep::sweep(&store, time::OffsetDateTime::now_utc()).await.unwrap();
    assert_eq!(rows(), "2\n");
    let later = time::OffsetDateTime::now_utc() + keys::sessions::IDLE_MAX;
    keys::sweep::sweep(&store, later).await.unwrap();
    assert_eq!(rows(), "0\n");
}
