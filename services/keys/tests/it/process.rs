//! The real program: it is ready, serves, keeps secrets out of its log, and ends on SIGTERM.

use parts::{Nats, Postgres, Service, eventually, free_port};
use proto::keys::{
    CreateKeyRequest, Key, RevealKeyRequest, VerifyKeyRequest, keys_service_client::KeysServiceClient,
    sessions_service_client::SessionsServiceClient,
};
use tonic::transport::Channel;

use crate::harness::{EMAIL, PASSWORD, ROLE, add_person, bearer, migrate, sign_in, token_file};

#[tokio::test]
async fn it_serves_says_no_secret_and_drains_on_sigterm() {
    let (postgres, nats) = tokio::join!(Postgres::start(), Nats::start());
    let folder = tempfile::tempdir().unwrap();
    let kek = folder.path().join("kek");
    std::fs::write(&kek, "5a".repeat(32)).unwrap();
    let (grpc, health) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
    let environment = [
        ("KEYMETER_KEYS_GRPC_ADDR", grpc.as_str()),
        ("KEYMETER_KEYS_HEALTH_ADDR", &health),
        ("KEYMETER_KEYS_DATABASE_URL", &postgres.url_as(ROLE)),
        ("KEYMETER_KEYS_NATS_URL", &nats.url()),
        ("KEYMETER_KEYS_KEK_FILE", &kek.to_string_lossy()),
        ("RUST_LOG", "trace,h2=info,hyper=info"),
    ];
    let _ = postgres.query(&format!("create role {ROLE} login"));
    let mut service = Service::spawn("keys", &environment).await;
    eventually("it says what is missing", async || {
        parts::get(&health, "/readyz").await.is_ok_and(|answer| answer.body.contains("run `keys migrate`"))
    })
    .await;
    migrate(&postgres).await;
    service.wait_ready(&health).await;
    assert!(!service.log().contains("owns its tables"), "{}", service.log());
    // Bootstrap works beside a running service.
    add_person(&postgres, &folder, EMAIL, "Analytical Engines").await;

    let channel = Channel::from_shared(format!("http://{grpc}")).unwrap().connect().await.unwrap();
    let mut sessions = SessionsServiceClient::new(channel.clone());
    let mut keys = KeysServiceClient::new(channel.clone());
    let signed_in = sign_in(&mut sessions, EMAIL).await.unwrap();
    let token = signed_in.access_token.unwrap().token;
    let parent = signed_in.workspace;
    let key = Some(Key { display_name: "canary".into(), ..Key::default() });
    let request = CreateKeyRequest { parent: parent.clone(), key, idempotency_key: "once".into() };
    let made = keys.create_key(bearer(&token, request.clone())).await.unwrap().into_inner();
    let secret = made.secret.clone();
    keys.create_key(bearer(&token, request)).await.unwrap();
    keys.reveal_key(bearer(&token, RevealKeyRequest { name: made.key.unwrap().name })).await.unwrap();
    for sent in [secret.clone(), format!("{secret}x")] {
        keys.verify_key(bearer(&token, VerifyKeyRequest { parent: parent.clone(), secret: sent }))
            .await
            .unwrap();
    }
    let wrong = proto::keys::SignInRequest { email: EMAIL.into(), password: "canary wrong password".into() };
    sessions.sign_in(wrong).await.unwrap_err();

    let metrics = parts::get(&health, "/metrics").await.unwrap().body;
    for expected in [
        "keymeter_key_calls_total{change=\"created\"",
        "keymeter_key_verifications_total{code=\"valid\"",
        "keymeter_sign_ins_total{result=\"wrong\"",
    ] {
        assert!(metrics.contains(expected), "{expected} is not in\n{metrics}");
    }
    let version = "keymeter_feed_version";
    eventually("the feed is counted", async || {
        parts::get(&health, "/metrics").await.unwrap().body.contains(version)
    })
    .await;
    drop((keys, sessions, channel));
    assert!(service.sigterm().await.success());
    let log = service.log();
    assert!(log.contains("key created") && log.contains("stopped"), "{log}");
    let service_token = std::fs::read_to_string(token_file(&folder, EMAIL)).unwrap();
    let kek = "5a".repeat(32);
    for canary in [
        &secret[12..],
        PASSWORD,
        "canary wrong",
        &service_token[6..],
        &signed_in.session_token[6..],
        &token,
        &kek,
    ] {
        assert!(!log.contains(canary), "{canary} is in the log");
    }
}
