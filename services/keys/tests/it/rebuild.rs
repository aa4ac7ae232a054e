//! The keys are what their events make them, and `keys rebuild` says where they are not.

use crate::{
    chain::live_a_life,
    harness::{Running, key_id},
};

#[tokio::test]
async fn a_difference_is_named_with_what_the_events_say() {
    let run = Running::start().await;
    let key = live_a_life(&run).await;
    let (good, said) = run.command(&["rebuild"]).await;
    assert!(good && said.contains("2 events replayed, 0 differences"), "{said}");
    let other = run.make("other").await.key.unwrap();
    let doomed = run.make("doomed").await.key.unwrap();
    let delete = proto::keys::DeleteKeyRequest { name: doomed.name.clone(), ..Default::default() };
    run.keys().delete_key(run.ask(delete)).await.unwrap();
    let (good, said) = run.command(&["rebuild"]).await;
    assert!(good && said.contains("5 events replayed, 0 differences"), "{said}");
    assert_eq!(run.postgres.query("select count(*) from keys"), "3\n", "it changes nothing");

    let (id, other_id, doomed_id) = (key_id(&key), key_id(&other), key_id(&doomed));
    let secret =
        run.postgres.query(&format!("select secret_id from secrets where key_id = '{}'", id.as_uuid()));
    let secret = domain::SecretId::from_uuid(secret.trim().parse().unwrap());
    let check = async |change: &str, undo: &str, expected: &[String]| {
        let _ = run.postgres.query(change);
        let (good, said) = run.command(&["rebuild"]).await;
        assert!(!good, "{change}: {said}");
        for line in expected {
            assert!(said.contains(line), "{change}: {line} is not in {said}");
        }
        assert!(said.contains(&format!("{} differences", expected.len())), "{change}: {said}");
        let _ = run.postgres.query(undo);
        assert!(run.command(&["rebuild"]).await.0, "{undo}");
    };
    let uuid = id.as_uuid();
    check(
        &format!("update keys set display_name = 'x' where key_id = '{uuid}'"),
        &format!("update keys set display_name = 'payroll' where key_id = '{uuid}'"),
        &[format!("{id} display_name is \"x\", its events say \"payroll\"")],
    )
    .await;
    check(
        &format!("update keys set delete_time = null where key_id = '{}'", doomed_id.as_uuid()),
        &format!("update keys set delete_time = update_time where key_id = '{}'", doomed_id.as_uuid()),
        &[format!("{doomed_id} delete_time is null, its events say \"20")],
    )
    .await;
    check(
        &format!("update secrets set secret_hash = sha256(secret_hash), start = 'x' where key_id = '{uuid}'"),
        &format!(
            "update secrets s set start = k.start, secret_hash = decode(e.payload ->> 'secret_hash', 'hex')
             from keys k, key_events e where s.key_id = '{uuid}' and k.key_id = s.key_id
               and e.key_id = s.key_id and e.type = 'created'"
        ),
        &[format!("{secret} start is \"x\""), format!("{secret} secret_hash is")],
    )
    .await;
    let kept = "create table kept_events as table key_events; delete from key_events";
    let other_uuid = other_id.as_uuid();
    check(
        &format!("{kept} where key_id = '{other_uuid}'"),
        "insert into key_events select * from kept_events where not exists
           (select from key_events e where e.key_id = kept_events.key_id); drop table kept_events",
        &[format!("{other_id} is there without events"), "sec_".to_owned()],
    )
    .await;
    check(
        &format!("{kept} where key_id = '{uuid}' and version = 1"),
        "insert into key_events select * from kept_events where version = 1 and not exists
           (select from key_events e where e.key_id = kept_events.key_id and version = 1); drop table kept_events",
        &[
            format!("{id} version 2: an event before it is missing"),
            format!("{id} is there without events"),
            format!("{secret} is there without events"),
        ],
    )
    .await;
}
