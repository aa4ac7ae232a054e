//! What users of ClickHouse see: the policies and rights of `deploy/clickhouse`, the views, and every query of `docs/sql.md`.
//! Never more than libchdb can hold: it has one user, who is each of them in turn.

mod bypass;
mod engine;
mod guide;
mod services;
mod users;
mod verify;
mod views;
