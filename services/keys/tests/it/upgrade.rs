//! A database from before there was a chain gets one, with its rows in their order and its addresses sealed.

use std::{collections::HashMap, time::Duration};

use keys::{ledger::Address, signing::Signing, store::Store, verify_chain};
use parts::{Postgres, Service, eventually};
use sqlx::{Connection as _, PgConnection};

use crate::{chain::origins, harness::ROLE};

#[tokio::test]
async fn a_table_that_is_read_for_long_is_waited_for_and_nobody_behind_it() {
    let postgres = Postgres::start().await;
    assert!(Store::patient(&postgres.url().into(), None).unwrap().migrate_to_ledger().await.unwrap());
    let mut reader = PgConnection::connect(&postgres.url()).await.unwrap();
    let _ = sqlx::raw_sql("begin; select from key_events").execute(&mut reader).await.unwrap();

    let (service, url) = (postgres.url_as(ROLE), postgres.url());
    let environment =
        [("KEYMETER_KEYS_DATABASE_URL", service.as_str()), ("KEYMETER_KEYS_OWNER_DATABASE_URL", &url)];
    let mut program = Service::spawn_with("keys", &["migrate"], &environment);
    eventually("it does not get the table", async || program.log().contains("a table is in use")).await;
    // Each comes behind what waits for the table, and fails if that does not give up.
    let mut other = PgConnection::connect(&url).await.unwrap();
    let _ = sqlx::raw_sql("set statement_timeout = '3s'").execute(&mut other).await.unwrap();
    for _ in 0..20 {
        let _ = sqlx::raw_sql("select from key_events").execute(&mut other).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let _ = sqlx::raw_sql("rollback").execute(&mut reader).await.unwrap();
    assert!(program.wait().await.success(), "{}", program.log());
    Store::new(&service.as_str().into(), None).unwrap().check_version().await.unwrap();
}

#[tokio::test]
async fn old_rows_get_their_places() {
    let postgres = Postgres::start().await;
    let owner = Store::patient(&postgres.url().into(), None).unwrap();
    assert!(owner.migrate_to_ledger().await.unwrap());
    let (workspace, account, key) =
        (domain::WorkspaceId::generate(), domain::AccountId::generate(), domain::KeyId::generate());
    let old = format!(
        "insert into workspaces values ('{w}', 'Old', now()), (gen_random_uuid(), 'Empty', now());
         insert into accounts values ('{a}', 'ada@example.org', 'x', now());
         insert into key_events (workspace_id, key_id, version, type, payload, actor, from_address, event_time)
         select '{w}', '{k}', n, 'updated', jsonb_build_object('display_name', 'n' || n, 'a', 1),
                case when n % 2 = 0 then '{account}' else 'svc_x' end,
                case when n % 3 > 0 then '192.0.2.' || (n % 256) end, now() from generate_series(1, 1200) n;
         insert into audit_entries (workspace_id, action, resource, actor, from_address, entry_time)
         select '{w}', 'reveal_key', 'r' || n, '{account}', '2001:db8::1', now() from generate_series(1, 7) n;",
        w = workspace.as_uuid(),
        a = account.as_uuid(),
        k = key.as_uuid(),
    );
    let _ = postgres.query(&old);

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("kek"), "5a".repeat(32)).unwrap();
    let kek = folder.path().join("kek").to_string_lossy().into_owned();
    let (service, url) = (postgres.url_as(ROLE), postgres.url());
    let migrate = async |with_kek: bool| {
        let mut environment = vec![
            ("KEYMETER_KEYS_DATABASE_URL", service.as_str()),
            ("KEYMETER_KEYS_OWNER_DATABASE_URL", &url),
        ];
        if with_kek {
            environment.push(("KEYMETER_KEYS_KEK_FILE", &kek));
        }
        let mut program = Service::spawn_with("keys", &["migrate"], &environment);
        (program.wait().await.success(), program.log())
    };
    let (good, said) = migrate(false).await;
    assert!(!good && said.contains("must be signed and sealed"), "{said}");
    let (good, said) = migrate(true).await;
    assert!(good && said.contains("1207 rows have got their places"), "{said}");
    let (good, said) = migrate(false).await;
    assert!(good && said.is_empty(), "{said}");

    let store = Store::new(&service.as_str().into(), None).unwrap();
    Signing::open(&store, &keys::seal::Kek::read(&folder.path().join("kek")).unwrap()).await.unwrap();
    let mut found = vec![];
    let counts =
        verify_chain::verify(&store, HashMap::new(), &mut |finding| found.push(finding)).await.unwrap();
    assert_eq!(counts, (2, 1207));
    // A workspace in which nothing ever happened has no head; the product makes none like it.
    assert_eq!(found.len(), 1, "{found:?}");

    let order = "select bool_and(version = sequence) from key_events";
    assert_eq!(postgres.query(order), "t\n");
    let clear = "select count(*), count(from_address) from key_events where actor like 'acc_%'
                 union all select count(*), count(from_address) from audit_entries";
    assert_eq!(postgres.query(clear), "600\t0\n7\t0\n", "no person's address is in the clear");
    let entries = store.entries(workspace, 0, 2_000).await.unwrap();
    let addresses = store.addresses(&origins(&entries)).await.unwrap();
    assert_eq!(
        addresses[..4],
        [
            Address::Known("192.0.2.1".into()),
            Address::Known("192.0.2.2".into()),
            Address::None,
            Address::Known("192.0.2.4".into()),
        ]
    );
    assert_eq!(addresses[1206], Address::Known("2001:db8::1".into()));
}
