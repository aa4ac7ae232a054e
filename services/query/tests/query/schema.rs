//! The tables as ingest makes them: its own migration files, statement by statement.

use std::fs;

/// Makes the database and its tables.
pub(crate) async fn create(clickhouse: &parts::ClickHouse) {
    let folder = parts::root().join("services/ingest/migrations");
    let mut files: Vec<_> = fs::read_dir(&folder)
        .expect("ingest has migrations")
        .map(|entry| entry.expect("the folder can be read").path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let text = fs::read_to_string(file).expect("a migration can be read");
        // A statement ends with a semicolon at the end of its line.
        for statement in text.split(";\n").filter(|statement| !statement.trim().is_empty()) {
            clickhouse.query(statement).await;
        }
    }
}
