//! Service tokens: made, narrowed, seen, revoked.

use proto::{
    keys::{
        CreateServiceTokenRequest, CreateServiceTokenResponse, ExchangeTokenRequest, ListKeysRequest,
        ListMembersRequest, ListServiceTokensRequest, RevokeServiceTokenRequest, ServiceToken,
    },
    timestamp::to_proto,
};
use time::{Duration, OffsetDateTime};
use tonic::{Code, Status};

use crate::{
    harness::{Running, bearer, field},
    team::refused,
};

async fn create(run: &Running, scopes: &[&str]) -> Result<CreateServiceTokenResponse, Status> {
    let service_token = ServiceToken {
        display_name: "billing".into(),
        scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
        ..ServiceToken::default()
    };
    let request =
        CreateServiceTokenRequest { parent: run.workspace.clone(), service_token: Some(service_token) };
    run.service_tokens().create_service_token(run.ask(request)).await.map(tonic::Response::into_inner)
}

async fn exchange(run: &Running, token: &str) -> Result<String, Status> {
    let request = ExchangeTokenRequest { service_token: token.into() };
    Ok(run.sessions().exchange_token(request).await?.into_inner().access_token.unwrap().token)
}

#[tokio::test]
async fn a_token_does_what_its_scopes_say_until_it_is_revoked() {
    let run = Running::start().await;
    let made = create(&run, &["keys.read", "usage.read", "keys.read"]).await.unwrap();
    let known = made.service_token.unwrap();
    assert_eq!(known.scopes, ["keys.read", "usage.read"]);
    assert!(made.token.starts_with("kmsvc_") && made.token.starts_with(&known.start));
    assert!(!run.postgres.query("select t::text from service_tokens t").contains(&made.token[12..]));

    let access = exchange(&run, &made.token).await.unwrap();
    let keys = ListKeysRequest { parent: run.workspace.clone(), ..Default::default() };
    run.keys().list_keys(bearer(&access, keys)).await.unwrap();
    let members = ListMembersRequest { parent: run.workspace.clone(), ..Default::default() };
    let members = run.members().list_members(bearer(&access, members)).await;
    refused(members, Code::PermissionDenied, "SCOPE_MISSING");
    let list = ListServiceTokensRequest { parent: run.workspace.clone(), ..Default::default() };
    let tokens = run.service_tokens().list_service_tokens(bearer(&access, list.clone())).await;
    refused(tokens, Code::PermissionDenied, "PEOPLE_ONLY");

    let tokens = async || {
        let listed = run.service_tokens().list_service_tokens(run.ask(list.clone())).await.unwrap();
        listed.into_inner().service_tokens
    };
    let listed = tokens().await;
    assert_eq!(
        listed.iter().map(|token| token.display_name.as_str()).collect::<Vec<_>>(),
        ["billing", "bootstrap"]
    );
    let day = listed[0].last_used_day.expect("it was used").seconds;
    assert_eq!(day % 86_400, 0);
    assert_eq!(ServiceToken { last_used_day: None, ..listed[0].clone() }, known);

    let revoke = RevokeServiceTokenRequest { name: known.name.clone() };
    let revoked =
        run.service_tokens().revoke_service_token(run.ask(revoke.clone())).await.unwrap().into_inner();
    let again = run.service_tokens().revoke_service_token(run.ask(revoke)).await.unwrap().into_inner();
    assert_eq!(revoked, again, "revoking twice changes nothing");
    refused(exchange(&run, &made.token).await, Code::Unauthenticated, "NOT_SIGNED_IN");
    assert!(tokens().await[0].revoke_time.is_some());
    let audited =
        "select string_agg(action, ' ' order by sequence) from audit_entries where action like '%token'";
    assert_eq!(run.postgres.query(audited), "create_service_token revoke_service_token\n");
}

#[tokio::test]
async fn fields_of_a_token_are_checked() {
    let run = Running::start().await;
    for bad in ["keys.reveal", "root", "", "keys.read "] {
        assert_eq!(field(&create(&run, &[bad]).await.unwrap_err()), "service_token.scopes");
    }
    let check = async |change: &dyn Fn(&mut ServiceToken)| {
        let mut asked = ServiceToken { display_name: "a".into(), ..ServiceToken::default() };
        change(&mut asked);
        let request = CreateServiceTokenRequest { parent: run.workspace.clone(), service_token: Some(asked) };
        field(&run.service_tokens().create_service_token(run.ask(request)).await.unwrap_err())
    };
    assert_eq!(check(&|token| token.display_name.clear()).await, "service_token.display_name");
    let past = to_proto(OffsetDateTime::now_utc() - Duration::SECOND);
    assert_eq!(check(&|token| token.expire_time = Some(past)).await, "service_token.expire_time");
    assert_eq!(run.postgres.query("select count(*) from service_tokens"), "1\n");
}
