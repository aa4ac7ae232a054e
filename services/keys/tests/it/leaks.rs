//! Reports of leaked secrets over HTTP.

use aws_lc_rs::{
    encoding::{AsDer as _, PublicKeyX509Der},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use data_encoding::{BASE64, HEXLOWER};
use domain::Secret;
use parts::{Answer, eventually, free_port};
use proto::keys::{DeleteKeyRequest, GetKeyRequest, Key, KeyState, RotateKeyRequest};
use serde_json::{Value, json};

use crate::harness::{Running, Served, serve_with};

/// A service that takes reports, and who may sign them.
struct Desk {
    address: String,
    reporter: EcdsaKeyPair,
    _service: Served,
}

impl Desk {
    async fn open(run: &Running) -> Self {
        let reporter = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let der: PublicKeyX509Der<'_> = reporter.public_key().as_der().unwrap();
        let pem = format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            BASE64.encode(der.as_ref())
        );
        let file = run.folder.path().join("reporters");
        let keys = json!({"public_keys": [{"key_identifier": "one", "key": pem, "is_current": true}]});
        std::fs::write(&file, keys.to_string()).unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let settings = ["--leak-reports-addr", &address, "--leak-reports-keys-file", file.to_str().unwrap()];
        let service = serve_with(&run.postgres.url(), &run.nats.url(), &run.folder, &settings).await;
        eventually("reports are taken", async || parts::get(&address, "/").await.is_ok()).await;
        // Until then a report is sent away, to come again.
        eventually("the service is ready", async || *service.health.ready().borrow()).await;
        Self { address, reporter, _service: service }
    }

    async fn post(&self, identifier: &str, signature: &str, body: &str) -> Answer {
        let headers =
            [("Github-Public-Key-Identifier", identifier), ("GITHUB-PUBLIC-KEY-SIGNATURE", signature)];
        parts::request("POST", &self.address, "/leak-reports", &headers, body).await.unwrap()
    }

    fn sign(&self, body: &str) -> String {
        BASE64.encode(self.reporter.sign(&SystemRandom::new(), body.as_bytes()).unwrap().as_ref())
    }

    /// A good report of these tokens; what each was.
    async fn report(&self, tokens: &[&str]) -> Vec<String> {
        let entry = |token: &&str| json!({"token": token, "type": "keymeter_secret", "url": "https://example.org/x", "source": "commit"});
        let body = Value::from(tokens.iter().map(entry).collect::<Vec<_>>()).to_string();
        let answer = self.post("one", &self.sign(&body), &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(tokens.iter().all(|token| !answer.body.contains(token)), "tokens are told by their hash");
        let findings: Vec<Value> = serde_json::from_str(&answer.body).unwrap();
        let label = |(token, finding): (&&str, &Value)| {
            let hash = HEXLOWER.encode(&keys::token::sha256(token.as_bytes()));
            assert_eq!(
                (&finding["token_hash"], &finding["token_type"]),
                (&hash.into(), &"keymeter_secret".into())
            );
            finding["label"].as_str().unwrap().to_owned()
        };
        tokens.iter().zip(&findings).map(label).collect()
    }
}

async fn get(run: &Running, key: &Key) -> Key {
    let request = run.ask(GetKeyRequest { name: key.name.clone() });
    run.keys().get_key(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_reported_key_is_marked_once() {
    let run = Running::start().await;
    let desk = Desk::open(&run).await;
    let (one, other) = (run.make("one").await, run.make("other").await);
    let key = one.key.unwrap();
    let unknown = Secret::generate(domain::Environment::Live);
    let labels = desk.report(&[&one.secret, unknown.reveal(), "km_live_x", &one.secret]).await;
    assert_eq!(labels, ["true_positive", "false_positive", "false_positive", "true_positive"]);
    let marked = get(&run, &key).await;
    assert!(marked.expose_time.is_some());
    assert_eq!(marked.state(), KeyState::Active, "the workspace did not choose to disable it");
    assert_ne!(marked.etag, key.etag);
    assert_eq!(get(&run, other.key.as_ref().unwrap()).await.expose_time, None);
    let events = "select type, actor, payload->>'source', payload->>'url' from key_events where version > 1";
    assert_eq!(run.postgres.query(events), "exposed\tleak_report\tcommit\thttps://example.org/x\n");
    assert_eq!(desk.report(&[&one.secret]).await, ["true_positive"]);
    assert_eq!(get(&run, &key).await, marked, "the same report changes nothing");

    // A new secret can leak as well.
    let overlap = Some(prost_types::Duration::default());
    let rotate = RotateKeyRequest { name: key.name.clone(), overlap, ..Default::default() };
    let rotated = run.keys().rotate_key(run.ask(rotate)).await.unwrap().into_inner();
    assert_eq!(desk.report(&[&rotated.secret]).await, ["true_positive"]);
    assert!(get(&run, &key).await.expose_time.unwrap().seconds >= marked.expose_time.unwrap().seconds);
    assert_eq!(run.postgres.query("select count(*) from key_events where type = 'exposed'"), "2\n");
}

#[tokio::test]
async fn a_workspace_may_disable_what_is_exposed() {
    let run = Running::start().await;
    let desk = Desk::open(&run).await;
    let (one, gone) = (run.make("one").await, run.make("gone").await);
    let _ = run.postgres.query("update workspaces set disable_exposed_keys = true");
    let name = gone.key.unwrap().name;
    let delete = DeleteKeyRequest { name, ..Default::default() };
    run.keys().delete_key(run.ask(delete)).await.unwrap();
    assert_eq!(desk.report(&[&one.secret, &gone.secret]).await, ["true_positive", "true_positive"]);
    let key = get(&run, &one.key.unwrap()).await;
    assert_eq!(key.state(), KeyState::Disabled);
    run.fed(&one.secret, |entry| entry.version == 3).await;
    let events = "select type, version from key_events where version > 1 order by sequence";
    assert_eq!(run.postgres.query(events), "deleted\t2\nexposed\t2\ndisabled\t3\n");
}

#[tokio::test]
async fn a_report_without_proof_does_nothing() {
    let run = Running::start().await;
    let desk = Desk::open(&run).await;
    let made = run.make("one").await;
    let body = json!([{"token": made.secret, "type": "x", "url": "", "source": "commit"}]).to_string();
    let good = desk.sign(&body);
    for (identifier, signature, sent) in [
        ("one", "", &*body),
        ("one", "!", &*body),
        ("two", &*good, &*body),
        ("", &*good, &*body),
        ("one", &*good, &*format!("{body} ")),
        ("one", &*desk.sign("[]"), &*body),
    ] {
        let answer = desk.post(identifier, signature, sent).await;
        let problem: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!((answer.status, &problem["type"]), (401, &"urn:keymeter:problem:not_signed".into()));
    }
    let large = "x".repeat((1 << 20) + 1);
    assert_eq!(desk.post("one", &desk.sign(&large), &large).await.status, 413);
    for unreadable in ["", "{}", "[{}]", "[1]"] {
        assert_eq!(desk.post("one", &desk.sign(unreadable), unreadable).await.status, 400);
    }
    let nothing = desk.post("one", &desk.sign("[]"), "[]").await;
    assert_eq!((nothing.status, nothing.body.as_str()), (200, "[]"));
    assert_eq!(get(&run, made.key.as_ref().unwrap()).await, made.key.unwrap());

    // Fields that may be missing, and what is too long for a record, are no reason to lose a report.
    let url = format!("https://example.org/\u{0}{}", "x".repeat(3_000));
    let bare = json!([{"token": made.secret, "type": "x", "url": url}]).to_string();
    assert_eq!(desk.post("one", &desk.sign(&bare), &bare).await.status, 200);
    let kept = "select length(payload->>'url'), payload->>'source' from key_events where type = 'exposed'";
    assert_eq!(run.postgres.query(kept), "2048\t\n");
}
