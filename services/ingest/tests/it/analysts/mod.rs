//! What the users of workspaces see: the policies and rights of `deploy/clickhouse`, the views, and every query of `docs/sql.md`.

mod bypass;
mod engine;
mod users;
mod views;
