//! The life of a key.

use domain::Secret;
use keys::key::{Key as Model, KeyEvent};
use parts::eventually;
use prost_types::FieldMask;
use proto::{
    events,
    keys::{
        CreateKeyRequest, DeleteKeyRequest, Environment, GetKeyRequest, Key, KeyState, ListKeysRequest,
        RevealKeyRequest, UpdateKeyRequest, VerificationCode, VerifyKeyRequest,
    },
    timestamp::{from_proto, to_proto},
};
use time::{Duration, OffsetDateTime};
use tonic::Code;

use crate::harness::{Running, bearer, key_id, reason};

fn mask(paths: &[&str]) -> Option<FieldMask> {
    Some(FieldMask { paths: paths.iter().map(|&path| path.to_owned()).collect() })
}

#[tokio::test]
async fn a_key_lives_and_ends() {
    let run = Running::start().await;
    let mut keys = run.keys();
    let expire_time = Some(to_proto(OffsetDateTime::now_utc() + Duration::DAY));
    let asked = Key {
        display_name: "billing".into(),
        description: "nightly\nrun".into(),
        environment: Environment::Test.into(),
        expire_time,
        ..Key::default()
    };
    let request = CreateKeyRequest { parent: run.workspace.clone(), key: Some(asked), ..Default::default() };
    let created = keys.create_key(run.ask(request)).await.unwrap().into_inner();
    let (key, secret) = (created.key.unwrap(), created.secret);
    assert_eq!(Secret::parse(&secret).unwrap().start(), key.start);
    assert_eq!((key.state(), key.environment()), (KeyState::Active, Environment::Test));
    let name = key.name.clone();
    let get = async || {
        let request = run.ask(GetKeyRequest { name: name.clone() });
        run.keys().get_key(request).await.unwrap().into_inner()
    };
    assert_eq!(get().await, key);
    let entry = run.fed(&secret, |_| true).await;
    assert_eq!((entry.version, entry.state()), (1, events::KeyState::Active));
    assert_eq!(entry.expire_time, key.expire_time);

    let verify = async |secret: &str| {
        let request = VerifyKeyRequest { parent: run.workspace.clone(), secret: secret.into() };
        run.keys().verify_key(run.ask(request)).await.unwrap().into_inner()
    };
    let good = verify(&secret).await;
    assert_eq!((good.valid, good.code(), good.key.as_ref()), (true, VerificationCode::Valid, Some(&key)));
    let unknown = verify(Secret::generate(domain::Environment::Live).reveal()).await;
    assert_eq!((unknown.valid, unknown.code(), unknown.key), (false, VerificationCode::NotFound, None));
    for malformed in ["", "x", &secret[1..], &format!("{secret} ")] {
        assert_eq!(verify(malformed).await.code(), VerificationCode::Malformed);
    }

    let change = Key { name: name.clone(), display_name: "payroll".into(), ..Key::default() };
    let request = UpdateKeyRequest { key: Some(change), update_mask: mask(&["display_name", "expire_time"]) };
    let updated = keys.update_key(run.ask(request)).await.unwrap().into_inner();
    assert_eq!((updated.display_name.as_str(), updated.expire_time), ("payroll", None));
    assert_eq!(updated.description, key.description);
    assert_ne!(updated.etag, key.etag);
    assert_eq!(get().await, updated);
    run.fed(&secret, |entry| entry.version == 2 && entry.expire_time.is_none()).await;

    let request = run.ask(RevealKeyRequest { name: name.clone() });
    assert_eq!(keys.reveal_key(request).await.unwrap().into_inner().secret, secret);
    let sql = "select action, resource, from_address is null, personal is not null from audit_entries
               where action = 'reveal_key'";
    assert_eq!(
        run.postgres.query(sql),
        format!("reveal_key\t{name}\tt\tt\n"),
        "a person's address is sealed"
    );
    assert_eq!(get().await.etag, updated.etag, "a reveal is no change");

    let request = DeleteKeyRequest { name: name.clone(), etag: updated.etag.clone(), ..Default::default() };
    let deleted = keys.delete_key(run.ask(request.clone())).await.unwrap().into_inner();
    assert_eq!(deleted.version, 3);
    assert_eq!(deleted.key.as_ref().unwrap().state(), KeyState::Deleted);
    assert!(deleted.key.as_ref().unwrap().delete_time.is_some());
    let tombstone = run.fed(&secret, |entry| entry.state() == events::KeyState::Deleted).await;
    assert_eq!((tombstone.version, &tombstone.key_id), (3, &entry.key_id));
    assert!(tombstone.feed_version > entry.feed_version);
    assert_eq!(
        keys.delete_key(run.ask(request)).await.unwrap().into_inner(),
        deleted,
        "again, with the old etag"
    );
    assert_eq!(get().await, deleted.key.clone().unwrap());
    let refused = verify(&secret).await;
    assert_eq!((refused.valid, refused.code(), refused.key), (false, VerificationCode::Deleted, deleted.key));
    let request = UpdateKeyRequest { key: Some(updated), update_mask: None };
    let error = keys.update_key(run.ask(request)).await.unwrap_err();
    assert_eq!((error.code(), reason(&error).as_str()), (Code::FailedPrecondition, "KEY_DELETED"));
    let error = keys.reveal_key(run.ask(RevealKeyRequest { name })).await.unwrap_err();
    assert_eq!((error.code(), reason(&error).as_str()), (Code::FailedPrecondition, "KEY_DELETED"));
    assert_eq!(run.postgres.query("select count(sealed) from secrets"), "0\n", "its copy is destroyed");
    check_replay(&run);
}

/// What the events make is what the projection holds.
fn check_replay(run: &Running) {
    let sql = "select json_build_object('type', type, 'payload', payload), extract(epoch from event_time),
               workspace_id, key_id from key_events order by sequence";
    let mut model: Option<Model> = None;
    for line in run.postgres.query(sql).lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        let event: KeyEvent = serde_json::from_str(columns[0]).unwrap();
        let micros: i128 = columns[1].replace('.', "").parse().unwrap();
        let at = OffsetDateTime::from_unix_timestamp_nanos(micros * 1_000).unwrap();
        let uuid = |text: &str| uuid::Uuid::parse_str(text).unwrap();
        model = Some(match (model, &event) {
            (None, KeyEvent::Created(created)) => {
                let workspace_id = domain::WorkspaceId::from_uuid(uuid(columns[2]));
                Model::created(workspace_id, domain::KeyId::from_uuid(uuid(columns[3])), created, at)
            }
            (Some(key), event) => key.after(event, at),
            (None, event) => panic!("the first event is {event:?}"),
        });
    }
    let model = model.unwrap();
    let sql = "select version, display_name, description, environment, start, delete_time is not null, expire_time is null,
               extract(epoch from create_time)::text, extract(epoch from update_time)::text from keys";
    let time = |at: OffsetDateTime| format!("{:.6}", at.unix_timestamp_nanos() as f64 / 1e9);
    let expected = format!(
        "{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\n",
        model.version,
        model.display_name,
        model.description,
        model.environment.as_str(),
        model.start,
        if model.delete_time.is_some() { 't' } else { 'f' },
        if model.expire_time.is_none() { 't' } else { 'f' },
        time(model.create_time),
        time(model.update_time),
    );
    assert_eq!(run.postgres.query(sql), expected);
}

#[tokio::test]
async fn a_repeated_creation_is_one_key() {
    let run = Running::start().await;
    let asked = |display_name: &str, idempotency_key: &str| CreateKeyRequest {
        parent: run.workspace.clone(),
        key: Some(Key { display_name: display_name.into(), ..Key::default() }),
        idempotency_key: idempotency_key.into(),
    };
    let create = async |token: &str, request: CreateKeyRequest| {
        run.keys().create_key(bearer(token, request)).await.map(tonic::Response::into_inner)
    };
    let at_once =
        futures_util::future::join_all((0..8).map(|_| create(&run.admin, asked("a", "once")))).await;
    let first = at_once[0].as_ref().unwrap();
    assert!(at_once.iter().all(|created| created.as_ref().unwrap() == first), "one key, one secret");
    let other = create(&run.admin, asked("b", "once")).await.unwrap_err();
    assert_eq!((other.code(), reason(&other).as_str()), (Code::AlreadyExists, "IDEMPOTENCY_KEY_REUSED"));
    assert_ne!(create(&run.admin, asked("a", "twice")).await.unwrap().key, first.key);
    assert_ne!(create(&run.machine, asked("a", "once")).await.unwrap().key, first.key, "another caller's");
    assert_eq!(run.postgres.query("select count(*) from keys"), "3\n");

    let _ = run.postgres.query("update idempotency_keys set create_time = create_time - interval '24 hours'");
    assert_ne!(create(&run.admin, asked("b", "once")).await.unwrap().key, first.key, "a day later");

    // A repeated request finds the key as it is, without a secret once its copy is gone.
    let made = create(&run.admin, asked("c", "late")).await.unwrap();
    let name = made.key.unwrap().name;
    run.keys().delete_key(run.ask(DeleteKeyRequest { name, ..Default::default() })).await.unwrap();
    let again = create(&run.admin, asked("c", "late")).await.unwrap();
    assert_eq!((again.key.unwrap().state(), again.secret.as_str()), (KeyState::Deleted, ""));
}

#[tokio::test]
async fn a_lost_update_is_refused() {
    let run = Running::start().await;
    let key = run.make("a").await.key.unwrap();
    let update = async |display_name: &str, etag: &str| {
        let key = Key { display_name: display_name.into(), etag: etag.into(), ..key.clone() };
        let request = UpdateKeyRequest { key: Some(key), update_mask: mask(&["display_name"]) };
        run.keys().update_key(run.ask(request)).await.map(tonic::Response::into_inner)
    };
    let same = update("a", &key.etag).await.unwrap();
    assert_eq!(same, key, "what is the same is no change");
    let updated = update("b", &key.etag).await.unwrap();
    let error = update("c", &key.etag).await.unwrap_err();
    assert_eq!((error.code(), reason(&error).as_str()), (Code::Aborted, "STALE_ETAG"));
    let request = DeleteKeyRequest { name: key.name.clone(), etag: key.etag.clone(), ..Default::default() };
    assert_eq!(run.keys().delete_key(run.ask(request)).await.unwrap_err().code(), Code::Aborted);
    update("c", "").await.unwrap();
    assert_eq!(update("d", &updated.etag).await.unwrap_err().code(), Code::Aborted);

    // Of many at once with the same etag, one wins.
    let current = update("e", "").await.unwrap();
    let names: Vec<String> = (0..8).map(|i| format!("at once {i}")).collect();
    let at_once = futures_util::future::join_all(names.iter().map(|name| update(name, &current.etag))).await;
    assert_eq!(at_once.iter().filter(|updated| updated.is_ok()).count(), 1);
    let mut refused = at_once.iter().filter_map(|updated| updated.as_ref().err());
    assert!(refused.all(|error| error.code() == Code::Aborted), "{at_once:?}");
}

#[tokio::test]
async fn an_expired_key_says_so_and_can_be_extended() {
    let run = Running::start().await;
    let created = run.make("a").await;
    let (key, secret) = (created.key.unwrap(), created.secret);
    let soon = OffsetDateTime::now_utc() + Duration::seconds(2);
    let expiring = Key { expire_time: Some(to_proto(soon)), ..key.clone() };
    let request = UpdateKeyRequest { key: Some(expiring), update_mask: mask(&["expire_time"]) };
    let before = run.keys().update_key(run.ask(request)).await.unwrap().into_inner();
    let verify = async || {
        let request = VerifyKeyRequest { parent: run.workspace.clone(), secret: secret.clone() };
        run.keys().verify_key(run.ask(request)).await.unwrap().into_inner()
    };
    eventually("the key expires", async || verify().await.code() == VerificationCode::Expired).await;
    let request = run.ask(GetKeyRequest { name: key.name.clone() });
    let expired = run.keys().get_key(request).await.unwrap().into_inner();
    assert_eq!(expired.state(), KeyState::Expired);
    assert_ne!(expired.etag, before.etag, "the state is part of the etag");
    let request = UpdateKeyRequest {
        key: Some(Key { display_name: "b".into(), ..expired.clone() }),
        update_mask: mask(&["*"]),
    };
    let renamed = run.keys().update_key(run.ask(request)).await.unwrap().into_inner();
    assert_eq!(renamed.state(), KeyState::Expired, "an expiry that stays need not lie ahead");
    let request = UpdateKeyRequest { key: Some(key), update_mask: mask(&["expire_time"]) };
    let request = tonic::Request::new(request.into_fresh());
    let endless = run.keys().update_key(bearer(&run.admin, request.into_inner())).await.unwrap().into_inner();
    assert_eq!(endless.state(), KeyState::Active);
    assert!(verify().await.valid);
}

trait Fresh {
    fn into_fresh(self) -> Self;
}

impl Fresh for UpdateKeyRequest {
    /// Without an etag.
    fn into_fresh(mut self) -> Self {
        if let Some(key) = &mut self.key {
            key.etag.clear();
        }
        self
    }
}

#[tokio::test]
async fn pages_hold_every_key_once() {
    let run = Running::start().await;
    let mut names = Vec::new();
    for i in 0..7 {
        names.push(run.make(&format!("key {i}")).await.key.unwrap().name);
    }
    let request = DeleteKeyRequest { name: names[3].clone(), ..Default::default() };
    run.keys().delete_key(run.ask(request)).await.unwrap();
    let list = async |page_size: i32, page_token: &str, show_deleted: bool| {
        let page_token = page_token.to_owned();
        let request = ListKeysRequest { parent: run.workspace.clone(), page_size, page_token, show_deleted };
        run.keys().list_keys(run.ask(request)).await.map(tonic::Response::into_inner)
    };
    for show_deleted in [true, false] {
        let mut expected: Vec<&String> = names.iter().rev().collect();
        if !show_deleted {
            expected.retain(|name| **name != names[3]);
        }
        for page_size in [1, 2, 3, 6, 7, 0] {
            let (mut found, mut token) = (Vec::new(), String::new());
            loop {
                let page = list(page_size, &token, show_deleted).await.unwrap();
                if page_size > 0 {
                    assert!(page.keys.len() <= usize::try_from(page_size).unwrap());
                }
                found.extend(page.keys.into_iter().map(|key| key.name));
                token = page.next_page_token;
                if token.is_empty() {
                    break;
                }
            }
            assert_eq!(found.iter().collect::<Vec<_>>(), expected);
        }
    }
    // New keys do not shift the pages that follow.
    let first = list(2, "", false).await.unwrap();
    run.make("new").await;
    let second = list(2, &first.next_page_token, false).await.unwrap();
    assert_eq!(second.keys[0].name, names[4]);
    let other = list(2, &first.next_page_token, true).await.unwrap_err();
    assert_eq!(crate::harness::field(&other), "page_token");
}

#[tokio::test]
async fn times_are_the_same_wherever_they_are_shown() {
    let run = Running::start().await;
    let key = run.make("a").await.key.unwrap();
    let row = run.postgres.query("select extract(epoch from create_time)::text from keys");
    let create_time = from_proto(key.create_time.as_ref().unwrap()).unwrap();
    assert_eq!(row.trim().replace('.', ""), (create_time.unix_timestamp_nanos() / 1_000).to_string());
    assert_eq!(key_id(&key).as_uuid().get_version_num(), 7);
}
