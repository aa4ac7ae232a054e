//! Giving the password again, and what asks for it.

use proto::keys::{ReauthenticateRequest, RefreshRequest, RevealKeyRequest, Role};
use tonic::{Code, Status};

use crate::{
    harness::{PASSWORD, Running, bearer, field},
    team::refused,
};

async fn again(run: &Running, session: &str, password: &str, workspace: &str) -> Result<String, Status> {
    let request = ReauthenticateRequest {
        session_token: session.into(),
        password: password.into(),
        workspace: workspace.into(),
    };
    Ok(run.sessions().reauthenticate(request).await?.into_inner().access_token.unwrap().token)
}

#[tokio::test]
async fn a_reveal_asks_for_a_password_of_the_last_five_minutes() {
    let run = Running::start().await;
    let made = run.make("a").await;
    let owner = run.owner().await;
    let reveal = async |token: &str| {
        let request = RevealKeyRequest { name: made.key.clone().unwrap().name };
        Ok::<_, Status>(run.keys().reveal_key(bearer(token, request)).await?.into_inner().secret)
    };
    assert_eq!(reveal(&run.admin).await.unwrap(), made.secret, "a sign-in is a password");
    assert_eq!(reveal(&run.refresh(&owner).await.unwrap()).await.unwrap(), made.secret);

    let _ = run.postgres.query("update sessions set authenticate_time = now() - interval '301 seconds'");
    let stale = run.refresh(&owner).await.unwrap();
    refused(reveal(&stale).await, Code::PermissionDenied, "REAUTHENTICATION_REQUIRED");
    refused(again(&run, &owner.session, "wrong horse", "").await, Code::Unauthenticated, "NOT_SIGNED_IN");
    refused(
        reveal(&run.refresh(&owner).await.unwrap()).await,
        Code::PermissionDenied,
        "REAUTHENTICATION_REQUIRED",
    );
    let fresh = again(&run, &owner.session, PASSWORD, &run.workspace).await.unwrap();
    assert_eq!(reveal(&fresh).await.unwrap(), made.secret);
    assert_eq!(reveal(&run.refresh(&owner).await.unwrap()).await.unwrap(), made.secret, "a refresh keeps it");
    let viewer = run.join("viewer@example.org", Role::Viewer).await;
    refused(reveal(&viewer.token).await, Code::PermissionDenied, "ROLE_NOT_ALLOWED");
    refused(reveal(&run.machine).await, Code::PermissionDenied, "PEOPLE_ONLY");
}

#[tokio::test]
async fn giving_it_again_is_throttled_and_for_sessions_that_go_on() {
    let run = Running::start().await;
    let owner = run.owner().await;
    for _ in 0..10 {
        refused(again(&run, &owner.session, "wrong horse", "").await, Code::Unauthenticated, "NOT_SIGNED_IN");
    }
    refused(again(&run, &owner.session, PASSWORD, "").await, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
    let _ = run.postgres.query("delete from sign_in_attempts");
    refused(again(&run, "kmses_never", PASSWORD, "").await, Code::Unauthenticated, "NOT_SIGNED_IN");
    let (foreign, _) = run.add_tenant("eve@example.org").await;
    refused(again(&run, &owner.session, PASSWORD, &foreign).await, Code::PermissionDenied, "NOT_A_MEMBER");
    assert_eq!(field(&again(&run, "", PASSWORD, "").await.unwrap_err()), "session_token");
    assert_eq!(field(&again(&run, &owner.session, "", "").await.unwrap_err()), "password");
    assert_eq!(field(&again(&run, &owner.session, PASSWORD, "x").await.unwrap_err()), "workspace");

    let request = RefreshRequest { session_token: owner.session.clone(), workspace: String::new() };
    assert_eq!(run.sessions().refresh(request).await.unwrap().into_inner().role(), Role::Owner);
}
