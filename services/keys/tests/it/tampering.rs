//! Whatever the owner of the tables changes in what is recorded, the check finds.

use keys::{
    ledger::{Finding, Flaw},
    verify_chain,
};
use proto::resource::parse_workspace_name;

use crate::{
    chain::{findings, live_a_life},
    harness::Running,
};

const TABLES: [&str; 3] = ["key_events", "audit_entries", "workspace_chains"];

/// A service with a history, and the means to put it back.
struct Crime {
    run: Running,
}

impl Crime {
    async fn prepare() -> Self {
        let run = Running::start().await;
        let (_, _) = run.add_tenant("eve@example.org").await;
        live_a_life(&run).await;
        live_a_life(&run).await;
        for table in TABLES {
            let _ = run.postgres.query(&format!("create table {table}_kept as table {table}"));
        }
        assert_eq!(findings(&run).await, []);
        Self { run }
    }

    /// What is found after `sql`, which is undone again.
    async fn commit(&self, sql: &str) -> Vec<Finding> {
        let _ = self.run.postgres.query(sql);
        let found = findings(&self.run).await;
        for table in TABLES {
            let restore = format!("truncate {table}; insert into {table} table {table}_kept");
            let _ = self.run.postgres.query(&restore);
        }
        found
    }

    fn id(&self) -> uuid::Uuid {
        parse_workspace_name(&self.run.workspace).unwrap().as_uuid()
    }
}

fn flaws(found: &[Finding]) -> Vec<(i64, Flaw)> {
    found.iter().map(|finding| (finding.sequence, finding.flaw.clone())).collect()
}

/// Changes a value of a column, whatever it is.
fn other(column: &str, kind: &str) -> String {
    match (column, kind) {
        ("workspace_id", _) => {
            "(select workspace_id from workspaces w where w.workspace_id <> t.workspace_id)".into()
        }
        ("type", _) => "'exposed'".into(),
        ("sequence", _) => "sequence + 1000".into(),
        ("content_hash" | "entry_hash", _) => format!("sha256({column})"),
        (_, "uuid") => "gen_random_uuid()".into(),
        (_, "bigint") => format!("{column} + 1"),
        (_, "text") => format!("coalesce({column}, '') || 'x'"),
        (_, "bytea") => format!("coalesce({column}, '') || '\\x00'"),
        (_, "jsonb") => format!("coalesce({column}, '{{}}') || '{{\"display_name\": \"x\"}}'"),
        (_, "timestamp with time zone") => format!("{column} + interval '1 microsecond'"),
        _ => panic!("no test changes {column}, which is {kind}"),
    }
}

#[tokio::test]
async fn a_change_of_any_column_is_found() {
    let crime = Crime::prepare().await;
    let id = crime.id();
    let mut columns = 0;
    for (table, sequence) in [("key_events", 3), ("audit_entries", 4)] {
        let sql = format!(
            "select column_name, data_type from information_schema.columns where table_name = '{table}'"
        );
        for line in crime.run.postgres.query(&sql).lines() {
            let (column, kind) = line.split_once('\t').unwrap();
            let sql = format!(
                "update {table} t set {column} = {} where workspace_id = '{id}' and sequence = {sequence}",
                other(column, kind)
            );
            let found = crime.commit(&sql).await;
            let here = found.iter().any(|finding| {
                finding.workspace_id.as_uuid() == id && (sequence..=sequence + 1).contains(&finding.sequence)
            });
            assert!(here, "{table}.{column}: {found:?}");
            columns += 1;
        }
    }
    assert_eq!(columns, 14 + 13, "every column was changed");
    let null = format!("update key_events set personal = null where workspace_id = '{id}' and sequence = 3");
    assert_eq!(flaws(&crime.commit(&null).await), [(3, Flaw::Altered)]);
}

#[tokio::test]
async fn what_is_missing_moved_or_added_is_found() {
    let crime = Crime::prepare().await;
    let (id, chain) = (crime.id(), format!("workspace_id = '{}'", crime.id()));
    // 1 create_workspace, 2 created, 3 updated, 4 reveal_key, 5 created, 6 updated, 7 reveal_key
    let found = async |sql: String| flaws(&crime.commit(&sql).await);
    let delete = |table: &str, at: i32| format!("delete from {table} where {chain} and sequence = {at}");
    assert_eq!(found(delete("audit_entries", 1)).await, [(1, Flaw::Missing { to: 1 }), (2, Flaw::NotLinked)]);
    assert_eq!(found(delete("key_events", 3)).await, [(3, Flaw::Missing { to: 3 }), (4, Flaw::NotLinked)]);
    assert_eq!(found(delete("audit_entries", 7)).await, [(7, Flaw::Truncated)]);
    assert_eq!(found(format!("delete from key_events where {chain}")).await[0], (2, Flaw::Missing { to: 3 }));
    assert_eq!(found(format!("delete from workspace_chains where {chain}")).await, [(7, Flaw::Headless)]);

    let swap = "update key_events set sequence = case sequence when 3 then -5 else -3 end + 1000";
    let swap = format!(
        "{swap} where {chain} and sequence in (3, 5);
         update key_events set sequence = sequence - 1000 + case when sequence = 995 then 10 else 6 end
         where {chain} and sequence > 900"
    );
    let swapped = found(swap).await;
    assert_eq!(swapped.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [3, 4, 5, 6], "{swapped:?}");
    assert!(swapped.iter().all(|(_, flaw)| *flaw == Flaw::NotLinked));

    let columns = "workspace_id, action, resource, actor, entry_time, sequence, content_hash, entry_hash";
    let insert = |at: i32| {
        format!(
            "insert into audit_entries ({columns}) select workspace_id, 'forged', resource, actor, entry_time, {at},
             content_hash, entry_hash from audit_entries where {chain} and sequence = 4"
        )
    };
    assert!(found(insert(3)).await.contains(&(3, Flaw::Doubled)));
    assert_eq!(found(insert(8)).await, [(8, Flaw::Altered), (8, Flaw::NotLinked), (8, Flaw::Foreign)]);

    // Rewritten with all hashes right: only the signature tells.
    let forge = format!(
        "update audit_entries a set entry_hash = sha256(e.entry_hash || int8send(a.sequence) || a.content_hash)
         from key_events e where a.workspace_id = '{id}' and a.sequence = 7 and e.workspace_id = '{id}'
           and e.sequence = 3;
         update workspace_chains c set entry_hash = a.entry_hash from audit_entries a
         where c.workspace_id = '{id}' and a.workspace_id = '{id}' and a.sequence = 7"
    );
    assert!(found(forge).await.contains(&(7, Flaw::Unsigned)));
    let head = |set: &str| format!("update workspace_chains set {set} where {chain}");
    assert_eq!(found(head("sequence = 6")).await, [(6, Flaw::Unsigned), (7, Flaw::Foreign)]);
    assert_eq!(found(head("sequence = 8")).await, [(8, Flaw::Unsigned), (8, Flaw::Truncated)]);
    assert_eq!(found(head("kid = 'x'")).await, [(7, Flaw::Unsigned)]);
    assert_eq!(
        found(head("signature = set_byte(signature, 0, get_byte(signature, 0) # 1)")).await,
        [(7, Flaw::Unsigned)]
    );
    let other =
        "signature = (select o.signature from workspace_chains o where o.workspace_id <> w.workspace_id)";
    let swap = format!("update workspace_chains w set {other} where {chain}");
    assert_eq!(found(swap).await, [(7, Flaw::Unsigned)]);
}

#[tokio::test]
async fn a_chain_that_was_rolled_back_is_found_by_an_exported_head() {
    let crime = Crime::prepare().await;
    let run = &crime.run;
    let old_head = run.postgres.query("select * from workspace_chains order by workspace_id");
    let _ = run.postgres.query("create table old_heads as table workspace_chains");
    live_a_life(run).await;
    let (good, heads) = run.command(&["export-heads"]).await;
    assert!(good && heads.lines().count() == 2, "{heads}");
    let file = run.folder.path().join("heads");
    std::fs::write(&file, &heads).unwrap();
    let path = file.to_string_lossy().into_owned();
    let check = async || run.command(&["verify-chain", "--heads", &path]).await;
    let (good, said) = check().await;
    assert!(good, "{said}");
    live_a_life(run).await;
    assert!(check().await.0, "a chain may have grown since");

    // Everything as it was, with a signature that is good: Postgres alone can not tell.
    let _ = run.postgres.query(
        "delete from key_events where sequence > 7; delete from audit_entries where sequence > 7;
         truncate workspace_chains; insert into workspace_chains table old_heads",
    );
    assert_eq!(run.postgres.query("select * from workspace_chains order by workspace_id"), old_head);
    assert_eq!(findings(run).await, []);
    let (good, said) = check().await;
    assert!(
        !good && said.contains(" 10: truncated: the chain does not have what an exported head says"),
        "{said}"
    );

    std::fs::write(&file, heads.replacen("\"sequence\":10", "\"sequence\":7", 1)).unwrap();
    let (good, said) = check().await;
    assert!(!good && said.contains("its signature does not fit"), "{said}");
    assert!(verify_chain::read_heads(&file).is_err());
}
