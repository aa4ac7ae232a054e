//! An erased person is nobody: nothing tells who they were, and the chain is as whole as before.

use keys::ledger::Address;
use proto::{
    keys::{CreateKeyRequest, Key, RefreshRequest},
    resource::parse_workspace_name,
};
use tonic::Code;

use crate::{
    chain::{findings, live_a_life, origins},
    harness::{EMAIL, Running, bearer, key_id, sign_in},
};

#[tokio::test]
async fn what_a_person_left_opens_for_nobody() {
    let run = Running::start().await;
    let (foreign, stranger) = run.add_tenant("eve@example.org").await;
    let key = live_a_life(&run).await;
    let create = CreateKeyRequest {
        parent: foreign.clone(),
        key: Some(Key { display_name: "hers".into(), ..Key::default() }),
        ..Default::default()
    };
    run.keys().create_key(bearer(&stranger, create)).await.unwrap();
    let signed_in = sign_in(&mut run.sessions(), EMAIL).await.unwrap();
    let store = run.store();
    let workspace_id = parse_workspace_name(&run.workspace).unwrap();
    let addresses = async || {
        let entries = store.entries(workspace_id, 0, 100).await.unwrap();
        store.addresses(&origins(&entries)).await.unwrap()
    };
    let here = Address::Known("127.0.0.1".into());
    assert_eq!(addresses().await, [Address::None, here.clone(), here.clone(), here.clone()]);
    let hashes = "select entry_hash from key_events order by workspace_id, sequence";
    let before = run.postgres.query(hashes);

    let (good, said) = run.command(&["erase-person", "--email", " Ada@Example.org"]).await;
    assert!(good, "{said}");
    let erased: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(erased["workspaces"], erased["deserted"], "nobody else was there: {said}");
    assert_eq!(erased["workspaces"][0].as_str(), run.workspace.strip_prefix("workspaces/"));

    assert_eq!(
        addresses().await,
        [Address::None, Address::Erased, Address::Erased, Address::Erased, Address::None],
        "with an entry of the erasure"
    );
    assert_eq!(run.postgres.query(hashes), before, "what is recorded is as it was");
    assert_eq!(findings(&run).await, []);
    let tables = run.postgres.query("select tablename from pg_tables where schemaname = 'public'");
    for table in tables.lines() {
        let rows = run.postgres.query(&format!("select t::text from {table} t"));
        assert!(!rows.contains("ada@") && !rows.contains("127.0.0.1"), "{table}");
    }
    let resource = run.postgres.query("select resource from audit_entries where action = 'erase_person'");
    assert_eq!(resource.trim(), format!("accounts/{}", erased["account_id"].as_str().unwrap()));

    assert_eq!(sign_in(&mut run.sessions(), EMAIL).await.unwrap_err().code(), Code::Unauthenticated);
    let refresh = RefreshRequest { session_token: signed_in.session_token, ..Default::default() };
    assert_eq!(run.sessions().refresh(refresh).await.unwrap_err().code(), Code::Unauthenticated);
    let (good, said) = run.command(&["erase-person", "--email", EMAIL]).await;
    assert!(!good && said.contains("no account has this address"), "{said}");

    // An access token lives on for at most five minutes: what it does then is recorded without an address.
    let late = run.make("late").await.key.unwrap();
    assert_ne!(key_id(&late), key_id(&key));
    assert_eq!(*addresses().await.last().unwrap(), Address::None);
    assert_eq!(run.postgres.query("select count(*) from person_keys"), "1\n", "only the other person's");
    assert_eq!(findings(&run).await, []);
    let entries = store.entries(parse_workspace_name(&foreign).unwrap(), 0, 100).await.unwrap();
    assert_eq!(store.addresses(&origins(&entries)).await.unwrap(), [Address::None, here]);
}

#[tokio::test]
async fn a_personal_part_opens_in_its_own_place_only() {
    let run = Running::start().await;
    live_a_life(&run).await;
    let store = run.store();
    let workspace_id = parse_workspace_name(&run.workspace).unwrap();
    let entries = store.entries(workspace_id, 1, 2).await.unwrap();
    let (mut moved, mut other) = (entries[0].clone(), entries[1].clone());
    let (one, two) = (moved.entry.as_mut().unwrap(), other.entry.as_mut().unwrap());
    std::mem::swap(&mut one.origin, &mut two.origin);
    let swapped = store.addresses(&origins(&[moved, other])).await.unwrap();
    assert_eq!(swapped, [Address::Unreadable, Address::Unreadable]);
    let _ = run.postgres.query(
        "update person_keys set wrapped_key = set_byte(wrapped_key, 20, get_byte(wrapped_key, 20) # 1)",
    );
    assert_eq!(
        store.addresses(&origins(&entries)).await.unwrap(),
        [Address::Unreadable, Address::Unreadable]
    );
}
