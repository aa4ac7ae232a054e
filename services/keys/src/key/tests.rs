//! What events make of a key, and the forms that are stored for ever.

use time::macros::datetime;

use super::*;

const NOW: OffsetDateTime = datetime!(2026-11-22 06:00 UTC);

fn created() -> Created {
    Created {
        display_name: "billing".into(),
        description: "nightly".into(),
        environment: Environment::Test,
        expire_time: None,
        start: "km_test_0123".into(),
        secret_id: SecretId::generate().to_string(),
        secret_hash: "ab".repeat(32),
        tags: BTreeMap::new(),
        owner: None,
        scopes: vec![],
        allowed_networks: vec![],
        rate_limits: vec![],
    }
}

fn key() -> Key {
    Key::created(WorkspaceId::generate(), KeyId::generate(), &created(), NOW)
}

fn rotated(key: &Key, overlap: Duration, at: OffsetDateTime) -> Key {
    let retired = key.retired_by_rotation(overlap, at).unwrap();
    let event = Rotated {
        start: "km_test_4567".into(),
        secret_id: SecretId::generate().to_string(),
        secret_hash: "cd".repeat(32),
        retired: retired.iter().map(SecretId::to_string).collect(),
        retire_time: at + overlap,
    };
    key.clone().after(&KeyEvent::Rotated(event), at)
}

#[test]
fn events_make_the_key() {
    let (later, end) = (NOW + Duration::HOUR, NOW + Duration::DAY);
    let key = key();
    let named = Changes { display_name: Some("payroll".into()), ..Changes::default() };
    let expiring = Changes { expire_time: Some(Expiry::At(end)), ..Changes::default() };
    let endless = Changes { expire_time: Some(Expiry::Never), ..Changes::default() };
    let updated = key.clone().after(&KeyEvent::Updated(named), later);
    assert_eq!(updated, Key { version: 2, display_name: "payroll".into(), update_time: later, ..key });
    let updated = updated.after(&KeyEvent::Updated(expiring), later);
    assert_eq!((updated.version, updated.expire_time), (3, Some(end)));
    let updated = updated.after(&KeyEvent::Updated(endless), later);
    assert_eq!((updated.version, updated.expire_time), (4, None));
    let disabled = updated.after(&KeyEvent::Disabled {}, later);
    assert_eq!((disabled.disable_time, disabled.standing(later)), (Some(later), Standing::Disabled));
    let enabled = disabled.after(&KeyEvent::Enabled {}, end);
    assert_eq!((enabled.disable_time, enabled.standing(end)), (None, Standing::Active));
    let deleted = enabled.after(&KeyEvent::Deleted {}, end);
    assert_eq!((deleted.version, deleted.delete_time, deleted.update_time), (7, Some(end), end));
}

#[test]
fn secrets_overlap_and_retire() {
    let hour = Duration::HOUR;
    let one = key();
    let first = one.secrets[0].secret_id;
    let two = rotated(&one, hour, NOW);
    let second = two.secrets[0].secret_id;
    assert_eq!((two.start.as_str(), two.secrets.len(), two.secrets[0].key_version), ("km_test_4567", 2, 2));
    assert_eq!(two.secret(first).unwrap().retire_time, Some(NOW + hour));
    assert_eq!(two.answer(first, NOW + hour - Duration::SECOND), Answer::Good);
    assert_eq!(two.answer(first, NOW + hour), Answer::Retired);
    assert_eq!(two.answer(second, NOW + hour), Answer::Good);

    let three = rotated(&two, hour * 24, NOW);
    assert_eq!(three.secret(first).unwrap().retire_time, Some(NOW + hour), "an earlier end stays");
    let cut = KeyEvent::SecretRetired(SecretRetired { secret_id: second.to_string() });
    let cut = three.clone().after(&cut, NOW + hour / 2);
    assert_eq!(cut.answer(second, NOW + hour / 2), Answer::Retired);
    assert_eq!(cut.answer(first, NOW + hour / 2), Answer::Good);

    let exposed = Exposed { secret_id: first.to_string(), source: "commit".into(), url: String::new() };
    let exposed = cut.after(&KeyEvent::Exposed(exposed), NOW);
    assert_eq!(exposed.secrets.iter().filter(|secret| secret.expose_time == Some(NOW)).count(), 1);
    assert_eq!(exposed.answer(first, NOW), Answer::Good, "a report alone refuses nothing");

    let five = rotated(&rotated(&three, hour, NOW), hour, NOW);
    assert_eq!(five.retired_by_rotation(Duration::SECOND, NOW), None, "a sixth would work");
    assert_eq!(five.retired_by_rotation(Duration::ZERO, NOW).unwrap().len(), 5);
    assert_eq!(five.retired_by_rotation(Duration::SECOND, NOW + hour).unwrap(), [five.secrets[0].secret_id]);
    let alone = rotated(&five, Duration::ZERO, NOW);
    assert_eq!(alone.secrets.iter().filter(|secret| secret.works(NOW)).count(), 1);
}

#[test]
fn standing_follows_from_the_time() {
    let key = Key { expire_time: Some(NOW + Duration::HOUR), ..key() };
    assert_eq!(key.standing(NOW), Standing::Active);
    assert_eq!(key.standing(NOW + Duration::HOUR), Standing::Expired);
    let secret_id = key.secrets[0].secret_id;
    assert_eq!(key.answer(secret_id, NOW + Duration::HOUR), Answer::Key(Standing::Expired));
    assert_eq!(key.answer(SecretId::generate(), NOW), Answer::Retired);
    let disabled = Key { disable_time: Some(NOW), ..key.clone() };
    assert_eq!(disabled.standing(NOW + Duration::HOUR), Standing::Disabled);
    let deleted = Key { delete_time: Some(NOW), ..disabled };
    assert_eq!(deleted.standing(NOW + Duration::HOUR), Standing::Deleted);
    assert_ne!(key.etag(NOW), key.etag(NOW + Duration::HOUR));
    assert_eq!(key.etag(NOW), key.etag(NOW + Duration::MINUTE));
    assert_ne!(key.etag(NOW), Key { version: 2, ..key }.etag(NOW));
}

#[test]
fn what_is_the_same_is_no_change() {
    let key = Key { expire_time: Some(NOW), scopes: vec!["a".into()], ..key() };
    let same = Changes {
        display_name: Some(key.display_name.clone()),
        description: Some(key.description.clone()),
        expire_time: Some(Expiry::At(NOW)),
        tags: Some(BTreeMap::new()),
        owner: None,
        scopes: Some(vec!["a".into()]),
        allowed_networks: Some(vec![]),
        rate_limits: Some(vec![]),
    };
    assert!(same.without_same(&key).is_empty());
    let endless = Changes { expire_time: Some(Expiry::Never), ..Changes::default() };
    assert_eq!(endless.clone().without_same(&key), endless);
    let without = Changes { scopes: Some(vec![]), ..Changes::default() };
    assert_eq!(without.clone().without_same(&key), without);
}

/// What is in Postgres must be readable for ever, in the forms of every version.
#[test]
fn stored_forms_are_fixed() {
    let check = |event: &KeyEvent, json: &str| {
        assert_eq!(serde_json::to_string(event).unwrap(), json);
        assert_eq!(&serde_json::from_str::<KeyEvent>(json).unwrap(), event);
    };
    let plain =
        Created { secret_id: "sec_x".into(), secret_hash: "00".into(), expire_time: Some(NOW), ..created() };
    check(
        &KeyEvent::Created(plain.clone()),
        r#"{"type":"created","payload":{"display_name":"billing","description":"nightly","environment":"test","expire_time":"2026-11-22T06:00:00Z","start":"km_test_0123","secret_id":"sec_x","secret_hash":"00"}}"#,
    );
    let owner = "acc_00000000000000000000000000".parse().ok();
    let tags = || BTreeMap::from([("team".to_owned(), "a b".to_owned())]);
    let limits = || vec![RateLimit { name: "burst".into(), requests: 10, window_s: 60 }];
    let networks = || vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
    check(
        &KeyEvent::Created(Created {
            tags: tags(),
            owner,
            scopes: vec!["orders:read".into()],
            allowed_networks: networks(),
            rate_limits: limits(),
            ..plain
        }),
        r#"{"type":"created","payload":{"display_name":"billing","description":"nightly","environment":"test","expire_time":"2026-11-22T06:00:00Z","start":"km_test_0123","secret_id":"sec_x","secret_hash":"00","tags":{"team":"a b"},"owner":"acc_00000000000000000000000000","scopes":["orders:read"],"allowed_networks":["192.0.2.0/24","2001:db8::/32"],"rate_limits":[{"name":"burst","requests":10,"window_s":60}]}}"#,
    );
    let changes = |expire_time| Changes { expire_time: Some(expire_time), ..Changes::default() };
    check(
        &KeyEvent::Updated(changes(Expiry::Never)),
        r#"{"type":"updated","payload":{"expire_time":"never"}}"#,
    );
    check(
        &KeyEvent::Updated(changes(Expiry::At(NOW))),
        r#"{"type":"updated","payload":{"expire_time":{"at":"2026-11-22T06:00:00Z"}}}"#,
    );
    check(
        &KeyEvent::Updated(Changes {
            tags: Some(tags()),
            owner,
            scopes: Some(vec![]),
            allowed_networks: Some(networks()),
            rate_limits: Some(limits()),
            ..Changes::default()
        }),
        r#"{"type":"updated","payload":{"tags":{"team":"a b"},"owner":"acc_00000000000000000000000000","scopes":[],"allowed_networks":["192.0.2.0/24","2001:db8::/32"],"rate_limits":[{"name":"burst","requests":10,"window_s":60}]}}"#,
    );
    check(&KeyEvent::Disabled {}, r#"{"type":"disabled","payload":{}}"#);
    check(&KeyEvent::Enabled {}, r#"{"type":"enabled","payload":{}}"#);
    check(
        &KeyEvent::Rotated(Rotated {
            start: "km_test_4567".into(),
            secret_id: "sec_y".into(),
            secret_hash: "11".into(),
            retired: vec!["sec_x".into()],
            retire_time: NOW,
        }),
        r#"{"type":"rotated","payload":{"start":"km_test_4567","secret_id":"sec_y","secret_hash":"11","retired":["sec_x"],"retire_time":"2026-11-22T06:00:00Z"}}"#,
    );
    check(
        &KeyEvent::SecretRetired(SecretRetired { secret_id: "sec_x".into() }),
        r#"{"type":"secret_retired","payload":{"secret_id":"sec_x"}}"#,
    );
    check(
        &KeyEvent::Exposed(Exposed {
            secret_id: "sec_x".into(),
            source: "commit".into(),
            url: "https://example.org/x".into(),
        }),
        r#"{"type":"exposed","payload":{"secret_id":"sec_x","source":"commit","url":"https://example.org/x"}}"#,
    );
    check(&KeyEvent::Deleted {}, r#"{"type":"deleted","payload":{}}"#);
}
