//! The role that the service runs as, made by the owner of the tables. What is recorded it can read and add to, and
//! nothing else; it owns nothing.

use anyhow::{Context as _, ensure};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{AssertSqlSafe, Row as _};

use super::{Store, StoreError};

const READ: &str = "select";
const APPEND: &str = "select, insert";
const ADD_AND_CHANGE: &str = "select, insert, update";
const ALL: &str = "select, insert, update, delete";

/// What the service does with each table. One that is not here is closed to it.
pub const GRANTS: &[(&str, &str)] = &[
    ("_sqlx_migrations", READ),
    ("accounts", ADD_AND_CHANGE),
    ("announced_key_events", ADD_AND_CHANGE),
    ("audit_entries", APPEND),
    ("erasures", ADD_AND_CHANGE),
    ("feed_removals", ALL),
    ("feed_state", "select, update"),
    ("idempotency_keys", ALL),
    ("identities", ALL),
    ("invitations", ALL),
    ("key_activity", ADD_AND_CHANGE),
    ("key_addresses", ALL),
    ("key_events", APPEND),
    ("key_outbox", ALL),
    ("keys", ADD_AND_CHANGE),
    ("memberships", ALL),
    ("person_keys", ALL),
    ("pruned_entries", READ),
    ("secret_activity", ALL),
    ("secret_feed_versions", ALL),
    ("secrets", ADD_AND_CHANGE),
    ("service_tokens", ALL),
    ("sessions", ALL),
    ("sign_in_attempts", ALL),
    ("signing_keys", ADD_AND_CHANGE),
    ("used_flows", ALL),
    ("workspace_chains", ADD_AND_CHANGE),
    ("workspace_data_keys", ALL),
    ("workspaces", ADD_AND_CHANGE),
];

impl Store {
    /// Makes the role if it is missing, gives it the password if there is one, and the rights in [`GRANTS`] and no
    /// others on our tables.
    ///
    /// # Errors
    /// A name that is none; a role that could do more anyway; Postgres.
    pub async fn grant(&self, role: &str, password: Option<&SecretString>) -> anyhow::Result<()> {
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
        ensure!(
            (1..=63).contains(&role.len()) && role.bytes().all(plain) && !role.starts_with("pg_"),
            "--service-role must be 1 to 63 characters of a-z, 0-9 and _, and not start with pg_"
        );
        let mut tx = self.begin().await?;
        tx.lock("service role").await?;
        let known =
            sqlx::query("select rolsuper, rolname = current_user as own from pg_roles where rolname = $1")
                .bind(role)
                .fetch_optional(&mut *tx.inner)
                .await
                .map_err(StoreError::from)?;
        let (superuser, own) = match &known {
            Some(row) => (row.try_get("rolsuper")?, row.try_get("own")?),
            None => (false, false),
        };
        ensure!(
            !superuser && !own,
            "the role {role} owns the tables or everything; name another one for the service with --service-role"
        );
        let mut statements = vec![];
        if known.is_none() {
            statements.push(format!("create role {role} login"));
        }
        if let Some(password) = password {
            // Quoted by Postgres itself.
            let sql = "select format('alter role %I login password %L', $1::text, $2::text)";
            let quoted = sqlx::query_scalar(sql).bind(role).bind(password.expose_secret());
            statements.push(quoted.fetch_one(&mut *tx.inner).await.map_err(StoreError::from)?);
        }
        let sql = "select format('%I', current_schema())";
        let schema: String =
            sqlx::query_scalar(sql).fetch_one(&mut *tx.inner).await.map_err(StoreError::from)?;
        statements.push(format!("revoke all on all tables in schema {schema} from {role}"));
        statements.push(format!("grant usage on schema {schema} to {role}"));
        statements
            .extend(GRANTS.iter().map(|(table, rights)| format!("grant {rights} on {table} to {role}")));
        statements.push(format!("grant execute on function prune_audit_entries to {role}"));
        for sql in statements {
            let done =
                sqlx::query(AssertSqlSafe(sql)).execute(&mut *tx.inner).await.map_err(StoreError::from);
            done.with_context(|| format!("the role {role} can not be made or granted its rights"))?;
        }
        tx.commit().await?;
        Ok(())
    }
}
