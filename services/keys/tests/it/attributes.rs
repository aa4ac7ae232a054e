//! What a key may be told at its creation and later: tags, owner, scopes, networks, limits.

use std::collections::HashMap;

use prost_types::{Duration, FieldMask};
use proto::keys::{CreateKeyRequest, GetKeyRequest, Key, RateLimit, UpdateKeyRequest};
use tonic::Status;

use crate::harness::{Running, bearer, field};

fn limit(name: &str, requests: i64) -> RateLimit {
    RateLimit { name: name.into(), requests, window: Some(Duration { seconds: 60, nanos: 0 }) }
}

fn full() -> Key {
    Key {
        display_name: "a".into(),
        tags: HashMap::from([("team".into(), "billing".into()), ("env".into(), String::new())]),
        scopes: vec!["orders:read".into(), "orders:write".into()],
        allowed_networks: vec!["192.0.2.0/24".into(), "2001:0db8::/32".into()],
        rate_limits: vec![limit("minute", 10), limit("burst", 2)],
        ..Key::default()
    }
}

async fn create(run: &Running, token: &str, key: Key, idempotency_key: &str) -> Result<Key, Status> {
    let idempotency_key = idempotency_key.to_owned();
    let request = CreateKeyRequest { parent: run.workspace.clone(), key: Some(key), idempotency_key };
    Ok(run.keys().create_key(bearer(token, request)).await?.into_inner().key.unwrap())
}

async fn update(run: &Running, key: Key, paths: &[&str]) -> Result<Key, Status> {
    let update_mask = Some(FieldMask { paths: paths.iter().map(|&path| path.to_owned()).collect() });
    let request = UpdateKeyRequest { key: Some(key), update_mask };
    Ok(run.keys().update_key(run.ask(request)).await?.into_inner())
}

#[tokio::test]
async fn a_key_keeps_what_it_was_told() {
    let run = Running::start().await;
    let made = create(&run, &run.admin, full(), "").await.unwrap();
    let person = run.postgres.query("select actor from key_events");
    assert_eq!(made.owner, person.trim(), "who makes a key owns it");
    let asked = full();
    assert_eq!((&made.tags, &made.scopes), (&asked.tags, &asked.scopes));
    assert_eq!(made.allowed_networks, ["192.0.2.0/24", "2001:db8::/32"], "networks are normalised");
    assert_eq!(made.rate_limits, asked.rate_limits);
    let get = run.ask(GetKeyRequest { name: made.name.clone() });
    assert_eq!(run.keys().get_key(get).await.unwrap().into_inner(), made);

    let service = create(&run, &run.machine, full(), "").await.unwrap().owner;
    assert!(service.starts_with("svc_"));
    let given = Key { owner: service.clone(), ..full() };
    assert_eq!(create(&run, &run.admin, given, "").await.unwrap().owner, service);

    // Each path changes its own field and no other.
    let new = Key {
        name: made.name.clone(),
        display_name: "b".into(),
        tags: HashMap::from([("team".into(), "payroll".into())]),
        owner: service.clone(),
        scopes: vec!["*".into()],
        allowed_networks: vec![],
        rate_limits: vec![limit("day", 9)],
        ..Key::default()
    };
    let mut expected = made.clone();
    let mut check = async |path: &str, change: &dyn Fn(&mut Key)| {
        let updated =
            update(&run, Key { etag: expected.etag.clone(), ..new.clone() }, &[path]).await.unwrap();
        assert_ne!(updated.etag, expected.etag, "{path}");
        change(&mut expected);
        expected.etag.clone_from(&updated.etag);
        expected.update_time = updated.update_time;
        assert_eq!(updated, expected, "{path}");
    };
    check("tags", &|key| key.tags.clone_from(&new.tags)).await;
    check("owner", &|key| key.owner.clone_from(&new.owner)).await;
    check("scopes", &|key| key.scopes.clone_from(&new.scopes)).await;
    check("allowed_networks", &|key| key.allowed_networks.clear()).await;
    check("rate_limits", &|key| key.rate_limits.clone_from(&new.rate_limits)).await;
    check("display_name", &|key| key.display_name.clone_from(&new.display_name)).await;
    let bare = Key { name: made.name.clone(), display_name: "c".into(), ..Key::default() };
    let cleared = update(&run, bare, &["*"]).await.unwrap();
    assert!(cleared.tags.is_empty() && cleared.scopes.is_empty() && cleared.rate_limits.is_empty());
    assert_eq!(cleared.owner, service, "an owner is never unset");
    let stored = "select count(*), max(version) from key_events join keys using (key_id, version)
                  where key_events.key_id = (select key_id from keys order by create_time limit 1)";
    assert_eq!(run.postgres.query(stored), "1\t8\n");
}

#[tokio::test]
async fn a_repeated_creation_covers_every_field() {
    let run = Running::start().await;
    let first = create(&run, &run.admin, full(), "once").await.unwrap();
    assert_eq!(create(&run, &run.admin, full(), "once").await.unwrap(), first);
    for other in [
        Key { tags: HashMap::new(), ..full() },
        Key { owner: first.owner.clone(), ..full() },
        Key { scopes: vec![], ..full() },
        Key { allowed_networks: vec![], ..full() },
        Key { rate_limits: vec![limit("minute", 11), limit("burst", 2)], ..full() },
    ] {
        let error = create(&run, &run.admin, other, "once").await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::AlreadyExists);
    }
}

#[tokio::test]
async fn what_it_is_told_is_checked() {
    let run = Running::start().await;
    let made = create(&run, &run.admin, full(), "").await.unwrap();
    let (_, stranger) = run.add_tenant("eve@example.org").await;
    let foreign = run.keys().create_key(bearer(&stranger, CreateKeyRequest::default())).await;
    assert!(foreign.is_err());
    let foreign = run.postgres.query("select account_id from accounts where email = 'eve@example.org'");
    let foreign = domain::AccountId::from_uuid(foreign.trim().parse().unwrap()).to_string();
    let bad: [(&str, Key); 12] = [
        ("tags", Key { tags: HashMap::from([("A".into(), String::new())]), ..full() }),
        ("tags", Key { tags: (0..21).map(|i| (format!("t{i}"), String::new())).collect(), ..full() }),
        ("owner", Key { owner: "ada".into(), ..full() }),
        ("owner", Key { owner: foreign, ..full() }),
        ("owner", Key { owner: domain::ServiceTokenId::generate().to_string(), ..full() }),
        ("scopes", Key { scopes: vec!["a b".into()], ..full() }),
        ("scopes", Key { scopes: vec!["a".into(), "a".into()], ..full() }),
        ("allowed_networks", Key { allowed_networks: vec!["192.0.2.1/24".into()], ..full() }),
        ("allowed_networks", Key { allowed_networks: vec!["192.0.2.1".into()], ..full() }),
        ("rate_limits", Key { rate_limits: vec![limit("a", 0)], ..full() }),
        ("rate_limits", Key { rate_limits: vec![limit("a", 1), limit("a", 2)], ..full() }),
        ("rate_limits", Key { rate_limits: vec![RateLimit { window: None, ..limit("a", 1) }], ..full() }),
    ];
    for (path, key) in bad {
        let expected = format!("key.{path}");
        assert_eq!(field(&create(&run, &run.admin, key.clone(), "").await.unwrap_err()), expected);
        let key = Key { name: made.name.clone(), ..key };
        let error = update(&run, key, &[path]).await.unwrap_err();
        assert_eq!(field(&error), expected);
        if error.message().contains("192.0.2.1/24") {
            assert!(error.message().contains("192.0.2.0/24"), "{error:?} shows the right network");
        }
    }
    assert_eq!(run.postgres.query("select version from keys"), "1\n");
}
