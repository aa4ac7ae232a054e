//! The service's role can add to what is recorded and can not change it, and owns nothing.

use keys::store::roles::GRANTS;

use crate::harness::{ROLE, Running, migrate};

#[tokio::test]
async fn what_is_recorded_is_append_only_for_the_service() {
    let run = Running::start().await;
    run.make("a").await;
    for table in ["key_events", "audit_entries"] {
        for sql in [
            format!("update {table} set actor = 'x'"),
            format!("update {table} set sequence = sequence"),
            format!("delete from {table}"),
            format!("truncate {table}"),
            format!("select * from {table} for update"),
            format!("alter table {table} add column x int"),
            format!("alter table {table} disable trigger all"),
            format!("drop table {table}"),
            format!("create rule r as on insert to {table} do instead nothing"),
        ] {
            let said = run.postgres.try_query_as(ROLE, &sql).unwrap_err();
            let denied = said.contains("permission denied") || said.contains("must be owner");
            assert!(denied, "{sql}: {said}");
        }
        let count = run.postgres.try_query_as(ROLE, &format!("select count(*) from {table}")).unwrap();
        assert_eq!(count, "1\n");
    }
    let said = run.postgres.try_query_as(ROLE, "create table t (a int)").unwrap_err();
    assert!(said.contains("permission denied"), "{said}");
    let said = run.postgres.try_query_as(ROLE, "delete from workspace_chains").unwrap_err();
    assert!(said.contains("permission denied"), "{said}");
    assert!(!run.store().owns_its_tables().await.unwrap());
    let owner = keys::store::Store::new(&run.postgres.url().into(), None).unwrap();
    assert!(owner.owns_its_tables().await.unwrap());
}

/// A new table is closed to the service until it is said what it does with it.
#[tokio::test]
async fn every_table_has_its_rights_and_no_more() {
    let run = Running::start().await;
    let _ = run.postgres.query(&format!("grant all on key_events to {ROLE}"));
    migrate(&run.postgres).await;
    let tables = run.postgres.query("select tablename from pg_tables where schemaname = 'public' order by 1");
    let granted: Vec<&str> = GRANTS.iter().map(|(table, _)| *table).collect();
    assert_eq!(tables.lines().collect::<Vec<_>>(), granted, "GRANTS has a row for each table");
    for (table, rights) in GRANTS {
        let sql = format!(
            "select string_agg(lower(privilege_type), ', ' order by array_position(
               array['SELECT', 'INSERT', 'UPDATE', 'DELETE'], privilege_type::text))
             from information_schema.role_table_grants where grantee = '{ROLE}' and table_name = '{table}'"
        );
        assert_eq!(run.postgres.query(&sql).trim(), *rights, "{table}");
    }
}

#[tokio::test]
async fn the_role_is_made_once_with_its_password() {
    let run = Running::start().await;
    let path = run.folder.path().join("it's a password");
    std::fs::write(&path, "o'quoted \"$1\n").unwrap();
    let path = path.to_string_lossy().into_owned();
    let migrate = async |role: &str| {
        let owner = run.postgres.url();
        let arguments = ["migrate", "--service-role", role, "--service-password-file", &path];
        let environment = [("KEYMETER_KEYS_DATABASE_URL", owner.as_str())];
        let mut program = parts::Service::spawn_with("keys", &arguments, &environment);
        (program.wait().await.success(), program.log())
    };
    for _ in 0..2 {
        let (good, said) = migrate("another").await;
        assert!(good && !said.contains("quoted"), "{said}");
    }
    let known =
        "select rolcanlogin, rolsuper, rolpassword like 'SCRAM%' from pg_authid where rolname = 'another'";
    assert_eq!(run.postgres.query(known), "t\tf\tt\n");
    for (role, reason) in
        [("postgres", "owns the tables"), ("x\"; drop table keys", "--service-role must be")]
    {
        let (good, said) = migrate(role).await;
        assert!(!good && said.contains(reason), "{said}");
    }
}
