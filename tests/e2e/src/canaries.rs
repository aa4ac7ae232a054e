//! Secrets are planted everywhere that they can come in, and then looked for in everything that is written.

use std::{fs, path::Path};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use proto::keys::{
    RevealKeyRequest, RotateKeyRequest, VerificationCode, VerifyKeyRequest,
    keys_service_client::KeysServiceClient, sessions_service_client::SessionsServiceClient,
};

use crate::stack::{ADMIN_EMAIL, ADMIN_PASSWORD, Stack};

/// A call with headers of the client's own.
async fn call(url: String, headers: &[(&str, &str)]) -> u16 {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let mut request = Request::builder().method(Method::POST).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client.request(request.body(Full::from("{}")).unwrap()).await.unwrap().status().as_u16()
}

/// The files below a folder that hold one of the canaries.
fn files_with(folder: &Path, canaries: &[(&str, String)], found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_with(&path, canaries, found);
        } else if let Ok(bytes) = fs::read(&path) {
            look(&path.display().to_string(), &bytes, canaries, found);
        }
    }
}

fn look(place: &str, bytes: &[u8], canaries: &[(&str, String)], found: &mut Vec<String>) {
    for (name, canary) in canaries {
        if bytes.windows(canary.len()).any(|window| window == canary.as_bytes()) {
            found.push(format!("{name} in {place}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_written_anywhere() {
    let stack = Stack::start_talkative().await;
    let (key, gone) = (stack.make_key("canary").await, stack.make_key("gone").await);
    stack.delete_key(&gone).await;
    let mistyped = format!("{}{}", &key.secret[..43], if key.secret.ends_with('0') { '1' } else { '0' });

    // As it should be, refused, mistyped, and where it does not belong.
    let edge = stack.edge_url();
    let bearer = |secret: &str| format!("Bearer {secret}");
    let good = bearer(&key.secret);
    assert_eq!(call(format!("{edge}/v1/orders"), &[("authorization", &good)]).await, 200);
    assert_eq!(call(format!("{edge}/v1/orders"), &[("x-api-key", &key.secret)]).await, 200);
    assert_eq!(call(format!("{edge}/v1/orders"), &[("authorization", &bearer(&gone.secret))]).await, 401);
    assert_eq!(call(format!("{edge}/v1/orders"), &[("authorization", &bearer(&mistyped))]).await, 401);
    let misplaced = [
        ("authorization", good.as_str()),
        ("user-agent", &key.secret),
        ("x-request-id", &key.secret),
        ("referer", &key.secret),
        ("cookie", &key.secret),
    ];
    let path = format!("{edge}/v1/{0}/orders/{0}?api_key={0}", key.secret);
    call(path, &misplaced).await;

    let mut keys = KeysServiceClient::new(stack.keys_channel().await);
    for (secret, code) in [
        (&key.secret, VerificationCode::Valid),
        (&gone.secret, VerificationCode::Deleted),
        (&mistyped, VerificationCode::Malformed),
    ] {
        let ask = VerifyKeyRequest { parent: stack.workspace.clone(), secret: secret.clone() };
        let verified = keys.verify_key(stack.signed(ask).await).await.unwrap().into_inner();
        assert_eq!(verified.code(), code);
    }
    // A secret where a name is wanted: the refusal must not repeat it in a log.
    let get = proto::keys::GetKeyRequest { name: key.secret.clone() };
    keys.get_key(stack.signed(get).await).await.unwrap_err();
    let rotate = RotateKeyRequest {
        name: key.name.clone(),
        overlap: Some(prost_types::Duration::default()),
        ..RotateKeyRequest::default()
    };
    let rotated = keys.rotate_key(stack.signed(rotate).await).await.unwrap().into_inner();
    let wrong_password = "hunter2-planted";
    let mut sessions = SessionsServiceClient::new(stack.keys_channel().await);
    for (password, good) in [(ADMIN_PASSWORD, true), (wrong_password, false)] {
        let sign_in =
            proto::keys::SignInRequest { email: ADMIN_EMAIL.to_owned(), password: password.to_owned() };
        let signed_in = sessions.sign_in(sign_in).await;
        assert_eq!(signed_in.is_ok(), good);
        let Some(token) = signed_in.ok().and_then(|signed_in| signed_in.into_inner().access_token) else {
            continue;
        };
        let mut reveal = tonic::Request::new(RevealKeyRequest { name: key.name.clone() });
        let bearer = format!("Bearer {}", token.token).parse().unwrap();
        reveal.metadata_mut().insert("authorization", bearer);
        assert_eq!(keys.reveal_key(reveal).await.unwrap().into_inner().secret, rotated.secret);
    }
    stack.complete().await;

    // Of a token, what lists do not show: 35 characters and more, so that nothing is found by chance.
    let canaries = [
        ("a key's secret", key.secret[8..43].to_owned()),
        ("a deleted key's secret", gone.secret[8..43].to_owned()),
        ("a rotated key's new secret", rotated.secret[8..43].to_owned()),
        ("the service token", stack.service_token()[12..].to_owned()),
        ("a password", ADMIN_PASSWORD.to_owned()),
        ("a wrong password", wrong_password.to_owned()),
        ("the key-encryption key", "07".repeat(32)),
    ];
    let mut found = Vec::new();
    for (service, log) in stack.logs() {
        assert!(log.contains("TRACE"), "{service} must log all that it can");
        look(&format!("the log of {service}"), log.as_bytes(), &canaries, &mut found);
    }
    for folder in [stack.nats.folder(), stack.postgres.folder(), &stack.folder().join("spool")] {
        files_with(folder, &canaries, &mut found);
    }
    // ClickHouse's files are compressed, so it is asked for its rows.
    let rows = stack.clickhouse.query("select * from keymeter.request_events format JSONEachRow").await;
    assert!(rows.lines().count() == 4 && rows.contains(&key.secret[..12]), "{rows}");
    look("ClickHouse", rows.as_bytes(), &canaries, &mut found);
    assert!(found.is_empty(), "{found:#?}");
}
