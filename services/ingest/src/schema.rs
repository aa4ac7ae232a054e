//! The schema as numbered files, and which servers are new enough. Pure; the store applies it.

/// Oldest ClickHouse that the schema was written for.
pub const CLICKHOUSE_MIN: (u32, u32) = (26, 3);
/// Oldest NATS that the streams were written for.
pub const NATS_MIN: (u32, u32) = (2, 11);

/// Where it is noted which of the files were applied.
pub const NOTES: &str = "create database if not exists keymeter;
create table if not exists keymeter.schema_migrations
(
    version UInt32,
    name String,
    applied_at DateTime64(3, 'UTC') default now64(3)
)
engine = MergeTree -- the same on every server
order by version;
";

/// One file.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// Counts from 1.
    pub version: u32,
    /// What it is about.
    pub name: &'static str,
    sql: &'static str,
}

/// All of them in order.
pub const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "writer_fence", sql: include_str!("../migrations/0001_writer_fence.sql") },
    Migration {
        version: 2,
        name: "request_events",
        sql: include_str!("../migrations/0002_request_events.sql"),
    },
    Migration { version: 3, name: "watermarks", sql: include_str!("../migrations/0003_watermarks.sql") },
    Migration { version: 4, name: "limits", sql: include_str!("../migrations/0004_limits.sql") },
    Migration { version: 5, name: "codecs", sql: include_str!("../migrations/0005_codecs.sql") },
    Migration { version: 6, name: "retention", sql: include_str!("../migrations/0006_retention.sql") },
    Migration {
        version: 7,
        name: "daily_archive",
        sql: include_str!("../migrations/0007_daily_archive.sql"),
    },
    Migration { version: 8, name: "gaps", sql: include_str!("../migrations/0008_gaps.sql") },
    Migration {
        version: 9,
        name: "unknown_fields",
        sql: include_str!("../migrations/0009_unknown_fields.sql"),
    },
    Migration { version: 10, name: "merges", sql: include_str!("../migrations/0010_merges.sql") },
    Migration { version: 11, name: "for_queries", sql: include_str!("../migrations/0011_for_queries.sql") },
    Migration { version: 12, name: "views", sql: include_str!("../migrations/0012_views.sql") },
    Migration {
        version: 13,
        name: "closed_months",
        sql: include_str!("../migrations/0013_closed_months.sql"),
    },
];

impl Migration {
    /// Its statements in order; each can run twice.
    pub fn statements(&self) -> impl Iterator<Item = &'static str> {
        statements(self.sql)
    }
}

/// The statements of a file of SQL, each of which ends with a semicolon at the end of its line.
pub fn statements(sql: &str) -> impl Iterator<Item = &str> {
    sql.split(";\n").map(str::trim).filter(|sql| !sql.is_empty())
}

/// Why this version of ingest does not run against a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Released before what ingest needs.
    #[error("{product} {found} is too old: install {}.{} or newer", .min.0, .min.1)]
    TooOld {
        /// Which server.
        product: &'static str,
        /// What it says it is.
        found: String,
        /// The oldest that will do.
        min: (u32, u32),
    },
    /// A newer ingest was here.
    #[error(
        "the database keymeter has schema version {found}, this ingest knows {known}: install a newer ingest"
    )]
    NewerSchema {
        /// Highest version applied.
        found: u32,
        /// Highest version known.
        known: u32,
    },
    /// Something else was here.
    #[error(
        "the database keymeter has a schema version {version} named {found:?}, which no ingest has made: name \
         another ClickHouse with --clickhouse-url"
    )]
    UnknownSchema {
        /// Which version.
        version: u32,
        /// What it is called there.
        found: String,
    },
    /// The schema is that of one server, and a cluster is configured, or the other way round.
    #[error(
        "request_events has the engine {found}, not {wanted}: the database keymeter was made {}; \
         KEYMETER_INGEST_CLICKHOUSE_CLUSTER can not be changed afterwards",
        if .found == "Distributed" { "for a cluster" } else { "for one server" }
    )]
    OtherLayout {
        /// The engine that it has.
        found: String,
        /// That it should have.
        wanted: &'static str,
    },
}

/// Checks a server's version such as `26.7.2.1`.
///
/// # Errors
/// If it is older than `min` or no version.
pub fn check_version(product: &'static str, found: &str, min: (u32, u32)) -> Result<(), Refusal> {
    let mut numbers = found.trim_start_matches('v').split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < min { Err(Refusal::TooOld { product, found: found.to_owned(), min }) } else { Ok(()) }
}

/// The migrations that are still to be applied.
///
/// # Errors
/// If a newer version was applied than this ingest knows, or one of another name.
pub fn pending(applied: &[(u32, String)]) -> Result<impl Iterator<Item = &'static Migration>, Refusal> {
    let known = MIGRATIONS.last().map_or(0, |migration| migration.version);
    if let Some(found) = applied.iter().map(|(version, _)| *version).max().filter(|found| *found > known) {
        return Err(Refusal::NewerSchema { found, known });
    }
    let ours = |(version, name): &&(u32, String)| {
        MIGRATIONS.iter().any(|migration| (migration.version, migration.name) == (*version, name.as_str()))
    };
    if let Some((version, found)) = applied.iter().find(|applied| !ours(applied)) {
        return Err(Refusal::UnknownSchema { version: *version, found: found.clone() });
    }
    let is_applied = |migration: &Migration| applied.iter().any(|(version, _)| *version == migration.version);
    Ok(MIGRATIONS.iter().filter(move |migration| !is_applied(migration)))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn files_are_in_order_and_end_their_statements() {
        assert!(MIGRATIONS.iter().zip(1..).all(|(migration, version)| migration.version == version));
        for migration in MIGRATIONS {
            assert!(migration.sql.ends_with(";\n"));
            assert!(migration.statements().count() > 0);
        }
    }

    #[rstest]
    #[case("26.7.2.1", true)]
    #[case("26.3", true)]
    #[case("27.1.1", true)]
    #[case("26.2.9.9", false)]
    #[case("18.16.1", false)]
    #[case("no version", false)]
    fn old_servers_are_refused(#[case] found: &str, #[case] is_fine: bool) {
        assert_eq!(check_version("ClickHouse", found, CLICKHOUSE_MIN).is_ok(), is_fine);
    }

    #[test]
    fn a_newer_or_unknown_schema_is_refused_and_an_older_one_completed() {
        let of = |versions: &[u32]| {
            let name = |version: u32| {
                MIGRATIONS.iter().find(|one| one.version == version).map_or("new", |one| one.name)
            };
            versions.iter().map(|version| (*version, name(*version).to_owned())).collect::<Vec<_>>()
        };
        let versions = |applied: &[(u32, String)]| {
            pending(applied).map(|rest| rest.map(|one| one.version).collect::<Vec<_>>())
        };
        assert_eq!(versions(&[]), Ok(MIGRATIONS.iter().map(|one| one.version).collect()));
        assert_eq!(versions(&of(&[2, 1])).unwrap()[..2], [3, 4]);
        let known = MIGRATIONS.last().unwrap().version;
        assert_eq!(versions(&of(&[1, 99])), Err(Refusal::NewerSchema { found: 99, known }));
        let message = versions(&of(&[99])).unwrap_err().to_string();
        assert!(message.contains("install a newer ingest"), "{message}");
        let message = versions(&[(2, "usage".to_owned())]).unwrap_err().to_string();
        assert!(message.contains("version 2 named \"usage\""), "{message}");
    }
}
