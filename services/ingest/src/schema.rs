//! The schema as numbered files, and which servers are new enough. Pure; the store applies it.

/// Oldest ClickHouse that the schema was written for.
pub const CLICKHOUSE_MIN: (u32, u32) = (26, 3);
/// Oldest NATS that the streams were written for.
pub const NATS_MIN: (u32, u32) = (2, 11);

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
    Migration { version: 7, name: "gaps", sql: include_str!("../migrations/0007_gaps.sql") },
    Migration {
        version: 8,
        name: "unknown_fields",
        sql: include_str!("../migrations/0008_unknown_fields.sql"),
    },
];

impl Migration {
    /// Its statements in order; each can run twice.
    pub fn statements(&self) -> impl Iterator<Item = &'static str> {
        self.sql.split(";\n").map(str::trim).filter(|sql| !sql.is_empty())
    }
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
/// If a newer version was applied than this ingest knows.
pub fn pending(applied: &[u32]) -> Result<impl Iterator<Item = &'static Migration>, Refusal> {
    let known = MIGRATIONS.last().map_or(0, |migration| migration.version);
    if let Some(found) = applied.iter().copied().max().filter(|found| *found > known) {
        return Err(Refusal::NewerSchema { found, known });
    }
    Ok(MIGRATIONS.iter().filter(|migration| !applied.contains(&migration.version)))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn files_are_in_order_and_end_their_statements() {
        assert!(MIGRATIONS.windows(2).all(|two| two[0].version < two[1].version));
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
    fn a_newer_schema_is_refused_and_an_older_one_completed() {
        let versions =
            |applied: &[u32]| pending(applied).map(|rest| rest.map(|one| one.version).collect::<Vec<_>>());
        assert_eq!(versions(&[]), Ok(vec![1, 2, 3, 4, 7, 8]));
        assert_eq!(versions(&[2, 1]), Ok(vec![3, 4, 7, 8]));
        assert_eq!(versions(&[1, 9]), Err(Refusal::NewerSchema { found: 9, known: 8 }));
        let message = versions(&[9]).unwrap_err().to_string();
        assert!(message.contains("install a newer ingest"), "{message}");
    }
}
