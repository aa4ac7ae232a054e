//! One ClickHouse or a cluster of them, from the same SQL: what a statement of the schema becomes, and what tables are
//! called where they lie. Pure. Nothing but this and the marks in `migrations` differs between the two.

use crate::schema::MIGRATIONS;

/// Where the tables are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// The cluster's name in ClickHouse's configuration; `None` for one server.
    cluster: Option<String>,
}

/// How a table lies on a cluster, as its `create` says behind the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spread<'a> {
    /// `-- spread by X`: on the server that X names, in a table `<name>_local`; `<name>` reads all of them.
    By(&'a str),
    /// `-- the same on every server`.
    Everywhere,
}

impl Layout {
    /// One server, or the cluster of that name.
    #[must_use]
    pub const fn new(cluster: Option<String>) -> Self {
        Self { cluster }
    }

    /// A statement of a migration, as the servers are to run it.
    ///
    /// # Panics
    /// If it is of a kind, or lacks a mark, that migrations must not; a test runs all of them through this.
    #[must_use]
    pub fn render(&self, statement: &str) -> Vec<String> {
        let Some(cluster) = &self.cluster else { return vec![statement.to_owned()] };
        let sql = statement.lines().skip_while(|line| line.starts_with("--") || line.is_empty());
        let sql = sql.collect::<Vec<_>>().join("\n");
        if sql.starts_with("create table if not exists ") {
            return create_table(&sql, cluster);
        }
        let name = sql.split_whitespace().find(|word| word.starts_with("keymeter")).unwrap_or_default();
        let on_cluster = sql.replacen(name, &format!("{name} on cluster '{cluster}'"), 1);
        if !sql.starts_with("alter table ") {
            let known = ["create database ", "create dictionary ", "create view "];
            assert!(known.iter().any(|kind| sql.starts_with(kind)), "a migration can not do this: {sql}");
            return vec![on_cluster];
        }
        if !is_spread(name) {
            return vec![on_cluster];
        }
        let local = sql.replacen(name, &format!("{name}_local on cluster '{cluster}'"), 1);
        // The table that reads all servers has columns, and nothing else of its own.
        if sql.contains(" column ") { vec![local, on_cluster] } else { vec![local] }
    }

    /// `keymeter.<table>` to alter its rows: where they lie.
    #[must_use]
    pub fn alter(&self, table: &str) -> String {
        match &self.cluster {
            None => format!("alter table keymeter.{table}"),
            Some(cluster) => format!("alter table keymeter.{table}_local on cluster '{cluster}'"),
        }
    }

    /// The name of a spread table's own rows, as `system.mutations` has it.
    #[must_use]
    pub fn rows_of(&self, table: &str) -> String {
        if self.cluster.is_some() { format!("{table}_local") } else { table.to_owned() }
    }

    /// `system.<table>` of all servers.
    #[must_use]
    pub fn system(&self, table: &str) -> String {
        self.cluster.as_ref().map_or_else(
            || format!("system.{table}"),
            |cluster| format!("clusterAllReplicas('{cluster}', system.{table})"),
        )
    }

    /// A statement about access; on a cluster, of a spread table also for where its rows lie.
    #[must_use]
    pub fn grant(&self, statement: &str) -> Vec<String> {
        let name = statement.split_whitespace().find(|word| word.starts_with("keymeter."));
        let mut all = vec![statement.to_owned()];
        if let Some(name) = name.filter(|name| self.cluster.is_some() && is_spread(name)) {
            all.push(statement.replacen(name, &format!("{name}_local"), 1));
        }
        all
    }

    /// ` on cluster '…'`, or nothing.
    #[must_use]
    pub fn on_cluster(&self) -> String {
        self.cluster.as_ref().map_or_else(String::new, |cluster| format!(" on cluster '{cluster}'"))
    }

    /// The column of `system.processes` that holds the id which the writer gave its insert: on a cluster it is passed
    /// on to the servers that the rows lie on.
    #[must_use]
    pub const fn query_id_column(&self) -> &'static str {
        if self.cluster.is_some() { "initial_query_id" } else { "query_id" }
    }

    /// Settings of every statement.
    #[must_use]
    pub const fn settings(&self) -> &'static [(&'static str, &'static str)] {
        if self.cluster.is_some() {
            // Answered is on most replicas, and a replica that lacks some of that answers nothing: so the fence, and
            // what is read back, are as on one server.
            &[
                ("async_insert", "0"),
                ("distributed_foreground_insert", "1"),
                ("insert_deduplicate", "0"),
                ("insert_quorum", "auto"),
                ("insert_quorum_parallel", "0"),
                ("select_sequential_consistency", "1"),
                ("distributed_ddl_output_mode", "none"),
                ("alter_sync", "2"),
            ]
        } else {
            &[("async_insert", "0")]
        }
    }

    /// The setting `mutations_sync` that waits for a mutation on all replicas.
    #[must_use]
    pub const fn mutations_sync(&self) -> &'static str {
        if self.cluster.is_some() { "2" } else { "1" }
    }

    /// The engine that `request_events` has.
    #[must_use]
    pub const fn engine(&self) -> &'static str {
        if self.cluster.is_some() { "Distributed" } else { "MergeTree" }
    }
}

fn create_table(sql: &str, cluster: &str) -> Vec<String> {
    let name = table_name(sql);
    let engine = sql.lines().find(|line| line.starts_with("engine = ")).unwrap_or_default();
    let kind = engine.trim_start_matches("engine = ").split(" --").next().unwrap_or_default();
    let (kind, arguments) = kind.split_once('(').unwrap_or((kind, ")"));
    let sql = sql.replace("non_replicated_deduplication_window", "replicated_deduplication_window");
    match spread(sql.as_str()).unwrap_or_else(|| {
        panic!("{name} says neither `-- spread by` nor `-- the same on every server` behind its engine")
    }) {
        Spread::By(key) => {
            let local = sql.replacen(name, &format!("{name}_local on cluster '{cluster}'"), 1);
            // Where its replicas meet is the server's own choice: `default_replica_path`.
            let arguments = if arguments == ")" { String::new() } else { format!("({arguments}") };
            let local = local.replacen(engine, &format!("engine = Replicated{kind}{arguments}"), 1);
            let (_, table) = name.split_once('.').unwrap_or_default();
            let all = format!(
                "create table if not exists {name} on cluster '{cluster}' as {name}_local\n\
                 engine = Distributed('{cluster}', keymeter, {table}_local, {key})"
            );
            vec![local, all]
        }
        Spread::Everywhere => {
            let path = format!("'/clickhouse/tables/{}', '{{shard}}_{{replica}}'", name.replace('.', "/"));
            let arguments = if arguments == ")" { ")".to_owned() } else { format!(", {arguments}") };
            let sql = sql.replacen(name, &format!("{name} on cluster '{cluster}'"), 1);
            vec![sql.replacen(engine, &format!("engine = Replicated{kind}({path}{arguments}"), 1)]
        }
    }
}

/// The name of the table that `sql` creates, with its database.
fn table_name(sql: &str) -> &str {
    sql.trim_start_matches("create table if not exists ").split_whitespace().next().unwrap_or_default()
}

fn spread(sql: &str) -> Option<Spread<'_>> {
    let (_, mark) = sql.lines().find(|line| line.starts_with("engine = "))?.split_once(" -- ")?;
    if mark == "the same on every server" {
        return Some(Spread::Everywhere);
    }
    mark.strip_prefix("spread by ").map(Spread::By)
}

/// Whether the table `keymeter.<name>` lies spread over the servers.
fn is_spread(name: &str) -> bool {
    let created = MIGRATIONS.iter().flat_map(crate::schema::Migration::statements);
    created
        .filter_map(|statement| statement.find("create table if not exists ").map(|at| &statement[at..]))
        .any(|sql| table_name(sql) == name && matches!(spread(sql), Some(Spread::By(_))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> Layout {
        Layout::new(Some("main".to_owned()))
    }

    #[test]
    fn one_server_runs_what_is_written() {
        for statement in MIGRATIONS.iter().flat_map(crate::schema::Migration::statements) {
            assert_eq!(Layout::default().render(statement), [statement]);
        }
    }

    #[test]
    fn every_statement_of_a_cluster_is_for_all_of_it() {
        for statement in MIGRATIONS.iter().flat_map(crate::schema::Migration::statements) {
            for rendered in cluster().render(statement) {
                assert!(rendered.contains(" on cluster 'main'"), "{rendered}");
                assert!(
                    !rendered.contains("engine = MergeTree") && !rendered.contains("engine = Replacing"),
                    "{rendered}"
                );
                assert!(!rendered.contains("non_replicated"), "{rendered}");
            }
        }
    }

    #[test]
    fn a_spread_table_is_two_and_an_alter_reaches_both() {
        let create = "-- Why.\n\ncreate table if not exists keymeter.request_events\n(\n    a UInt8\n)\n\
                      engine = MergeTree -- spread by cityHash64(key_id)\norder by a\n\
                      settings non_replicated_deduplication_window = 0";
        assert_eq!(
            cluster().render(create),
            [
                "create table if not exists keymeter.request_events_local on cluster 'main'\n(\n    a UInt8\n)\n\
                 engine = ReplicatedMergeTree\norder by a\nsettings replicated_deduplication_window = 0",
                "create table if not exists keymeter.request_events on cluster 'main' as keymeter.request_events_local\n\
                 engine = Distributed('main', keymeter, request_events_local, cityHash64(key_id))",
            ]
        );
        let column = "alter table keymeter.request_events\n    add column if not exists b UInt8";
        assert_eq!(
            cluster().render(column),
            [
                "alter table keymeter.request_events_local on cluster 'main'\n    add column if not exists b UInt8",
                "alter table keymeter.request_events on cluster 'main'\n    add column if not exists b UInt8",
            ]
        );
        let ttl = "alter table keymeter.request_events modify ttl expires_at";
        let local = "alter table keymeter.request_events_local on cluster 'main' modify ttl expires_at";
        assert_eq!(cluster().render(ttl), [local]);
    }

    #[test]
    fn a_table_for_all_has_one_path_for_all() {
        let create = "create table if not exists keymeter.writer_fence\n(\n    epoch UInt32\n)\n\
                      engine = ReplacingMergeTree(epoch) -- the same on every server\norder by epoch";
        assert_eq!(
            cluster().render(create),
            ["create table if not exists keymeter.writer_fence on cluster 'main'\n(\n    epoch UInt32\n)\n\
              engine = ReplicatedReplacingMergeTree('/clickhouse/tables/keymeter/writer_fence', \
              '{shard}_{replica}', epoch)\norder by epoch"]
        );
        let other = "create dictionary if not exists keymeter.writer_fence_now\n(\n)";
        let expected = "create dictionary if not exists keymeter.writer_fence_now on cluster 'main'\n(\n)";
        assert_eq!(cluster().render(other), [expected]);
    }

    #[test]
    #[should_panic(expected = "neither `-- spread by`")]
    fn a_table_without_a_mark_is_a_mistake() {
        let _ =
            cluster().render("create table if not exists keymeter.x\n(\n)\nengine = MergeTree\norder by a");
    }
}
