//! Postgres or NATS away: at the start and in between.

use parts::{Nats, Postgres, eventually};
use proto::keys::sessions_service_client::SessionsServiceClient;
use proto::keys::{CreateKeyRequest, Key, ListKeysRequest, ListSigningKeysRequest, SignInRequest};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::harness::{EMAIL, PASSWORD, ROLE, Running, add_person, reason, serve, sign_in};

fn check_away(status: &Status) {
    assert_eq!((status.code(), reason(status).as_str()), (Code::Unavailable, "UNAVAILABLE"), "{status:?}");
    assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
}

#[tokio::test]
async fn it_starts_before_its_parts() {
    let (mut postgres, mut nats) = tokio::join!(Postgres::start(), Nats::start());
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("kek"), "5a".repeat(32)).unwrap();
    add_person(&postgres, &folder, EMAIL, "Analytical Engines").await;
    tokio::join!(postgres.stop(), nats.stop());
    let service = serve(&postgres.url_as(ROLE), &nats.url(), &folder).await;
    let mut sessions = SessionsServiceClient::new(service.channel.clone());
    check_away(&sign_in(&mut sessions, EMAIL).await.unwrap_err());
    check_away(&sessions.list_signing_keys(ListSigningKeysRequest {}).await.unwrap_err());
    assert!(!*service.health.ready().borrow());

    postgres.restart().await;
    eventually("people can sign in", async || sign_in(&mut sessions.clone(), EMAIL).await.is_ok()).await;
    assert!(!*service.health.ready().borrow(), "the feed is still missing");
    nats.restart().await;
    eventually("it is ready", async || *service.health.ready().borrow()).await;
}

#[tokio::test]
async fn calls_are_answered_while_postgres_is_away() {
    let mut run = Running::start().await;
    run.postgres.stop().await;
    let list = ListKeysRequest { parent: run.workspace.clone(), ..Default::default() };
    check_away(&run.keys().list_keys(run.ask(list.clone())).await.unwrap_err());
    let request = SignInRequest { email: EMAIL.into(), password: PASSWORD.into() };
    check_away(&run.sessions().sign_in(request).await.unwrap_err());
    let keys = run.sessions().list_signing_keys(ListSigningKeysRequest {}).await;
    assert_eq!(keys.unwrap().into_inner().keys.len(), 1, "others can still check tokens");
    eventually("it says so", async || !*run.service.health.ready().borrow()).await;

    run.postgres.restart().await;
    eventually("calls work again", async || run.keys().list_keys(run.ask(list.clone())).await.is_ok()).await;
    let made = run.make("after").await;
    run.fed(&made.secret, |_| true).await;
    eventually("it is ready again", async || *run.service.health.ready().borrow()).await;
}

#[tokio::test]
async fn keys_work_while_nats_is_away_and_the_feed_catches_up() {
    let mut run = Running::start().await;
    run.nats.kill().await;
    eventually("it says so", async || !*run.service.health.ready().borrow()).await;
    let made = run.make("in the dark").await;
    run.nats.restart().await;
    run.fed(&made.secret, |_| true).await;
    eventually("it is ready again", async || *run.service.health.ready().borrow()).await;

    run.nats.pause();
    let frozen = run.make("frozen").await;
    eventually("it says so", async || !*run.service.health.ready().borrow()).await;
    run.nats.resume();
    run.fed(&frozen.secret, |_| true).await;
}

#[tokio::test]
async fn a_wrong_key_encryption_key_is_refused_at_the_start() {
    let run = Running::start().await;
    std::fs::write(run.folder.path().join("kek"), "77".repeat(32)).unwrap();
    let mut other = serve(&run.postgres.url_as(ROLE), &run.nats.url(), &run.folder).await;
    let error = (&mut other.task).await.unwrap().unwrap_err();
    assert!(
        format!("{error:#}").contains("key-encryption key does not open what Postgres holds"),
        "{error:#}"
    );
    // The one with the right key goes on.
    run.make("a").await;
}

#[tokio::test]
async fn a_running_call_ends_before_the_service_does() {
    let mut run = Running::start().await;
    let lock = run.store();
    let mut tx = lock.begin().await.unwrap();
    let key = run.make("a").await.key.unwrap();
    let (workspace_id, key_id) = proto::resource::parse_key_name(&key.name).unwrap();
    tx.hold_key(workspace_id, key_id, time::OffsetDateTime::now_utc()).await.unwrap();
    let mut keys = run.keys();
    let delete = proto::keys::DeleteKeyRequest { name: key.name, ..Default::default() };
    let request = run.ask(delete);
    let waiting = tokio::spawn(async move { keys.delete_key(request).await });
    eventually("the call waits for the row", async || {
        run.postgres.query("select count(*) from pg_locks where not granted") != "0\n"
    })
    .await;
    run.service.shutdown.cancel();
    tx.commit().await.unwrap();
    waiting.await.unwrap().expect("a call that had started is answered");
    (&mut run.service.task).await.unwrap().expect("it ends well");
    let key = Some(Key { display_name: "b".into(), ..Key::default() });
    let late = CreateKeyRequest { parent: run.workspace.clone(), key, ..Default::default() };
    assert!(run.keys().create_key(run.ask(late)).await.is_err());
}
