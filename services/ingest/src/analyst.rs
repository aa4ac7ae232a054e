//! `ingest analyst`: the ClickHouse user of a workspace. What it may see and use is said by `deploy/clickhouse`, not
//! here. Never keeps a password.

use std::io::{self, Write as _};

use anyhow::{Context as _, ensure};
use aws_lc_rs::rand;
use clap::Subcommand;
use domain::{SecretHash, WorkspaceId};

use crate::{config::Config, layout::Layout, schema, store::Store};

/// 128 bits.
const PASSWORD_BYTES: usize = 16;
const CREATE: &str = concat!(
    include_str!("../../../deploy/clickhouse/analysts.sql"),
    include_str!("../../../deploy/clickhouse/analyst.sql")
);
/// What the names of all analysts start with; the row policy goes by what follows it.
const PREFIX: &str = "analyst_";

/// What to do with analysts.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum Action {
    /// Make the user of a workspace and print its password, this once
    Create {
        /// ws_…
        workspace: WorkspaceId,
    },
    /// Remove the user of a workspace
    Drop {
        /// ws_…
        workspace: WorkspaceId,
    },
    /// List the workspaces that have a user
    List,
}

/// Does it.
///
/// # Errors
/// ClickHouse is away or refuses; the user is there already, or is not.
pub async fn run(config: &Config, action: Action) -> anyhow::Result<()> {
    let store = Store::new(config)?;
    let mut out = io::stdout();
    match action {
        Action::Create { workspace } => {
            ensure!(
                !analysts(&store, config).await?.contains(&workspace),
                "{workspace} has a user already: `ingest analyst drop {workspace}` first, then its password is void"
            );
            let password = password()?;
            let hash = SecretHash::of(&password).to_string();
            let layout = Layout::new(config.clickhouse_cluster.clone());
            for sql in statements(&user(workspace), &hash, &layout) {
                store.execute(&sql).await.with_context(|| {
                    format!(
                        "not all was made: `ingest analyst drop {workspace}`, then try again; {}",
                        rights(config)
                    )
                })?;
            }
            writeln!(out, "user      {}\npassword  {password}\ndatabase  keymeter", user(workspace))?;
        }
        Action::Drop { workspace } => {
            ensure!(
                analysts(&store, config).await?.contains(&workspace),
                "{workspace} has no user; nothing was removed"
            );
            let layout = Layout::new(config.clickhouse_cluster.clone());
            let sql = format!("drop user `{}`{}", user(workspace), layout.on_cluster());
            store.execute(&sql).await.with_context(|| rights(config))?;
            writeln!(out, "removed {}", user(workspace))?;
        }
        Action::List => {
            for workspace in analysts(&store, config).await? {
                writeln!(out, "{workspace}  {}", user(workspace))?;
            }
        }
    }
    Ok(())
}

/// The statements that make a user, in order.
#[must_use]
pub fn statements(user: &str, password_hash: &str, layout: &Layout) -> Vec<String> {
    let filled = CREATE
        .replace("{user}", user)
        .replace("{password_hash}", password_hash)
        .replace("{on_cluster}", &layout.on_cluster());
    // Their comments name tables as well.
    let bare = |sql: &str| sql.lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join("\n");
    schema::statements(&filled).flat_map(|sql| layout.grant(bare(sql).trim())).collect()
}

async fn analysts(store: &Store, config: &Config) -> anyhow::Result<Vec<WorkspaceId>> {
    let names = store.users(PREFIX).await.with_context(|| rights(config))?;
    let id = |name: &String| name.strip_prefix(PREFIX)?.parse().ok().map(WorkspaceId::from_uuid);
    Ok(names.iter().filter_map(id).collect())
}

fn user(workspace: WorkspaceId) -> String {
    format!("{PREFIX}{}", workspace.as_uuid())
}

fn password() -> anyhow::Result<String> {
    let mut bytes = [0; PASSWORD_BYTES];
    rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("the operating system has no randomness to give"))?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}

fn rights(config: &Config) -> String {
    let user = config.clickhouse_user.as_deref().unwrap_or("default");
    format!(
        "the ClickHouse user {user} needs access_management, what it grants with grant option, and set definer"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(layout: &Layout) -> Vec<String> {
        let workspace = WorkspaceId::from_uuid("0193a1b2-0000-7000-8000-0000000000ff".parse().unwrap());
        statements(&user(workspace), &SecretHash::of("x").to_string(), layout)
    }

    #[test]
    fn nothing_is_readable_before_the_policies_are_there() {
        for layout in [Layout::default(), Layout::new(Some("main".to_owned()))] {
            let all = rendered(&layout);
            let position = |start: &str| all.iter().position(|sql| sql.contains(start)).unwrap();
            let last_policy = all.iter().rposition(|sql| sql.contains("create row policy")).unwrap();
            assert!(last_policy < position("grant") && position("create user") < position("alter user"));
            let read = |sql: &String| sql.starts_with("grant") && sql.contains(" select ");
            assert!(all.iter().all(|sql| !sql.contains("{")), "{all:?}");
            for table in ["request_events", "daily_archive"] {
                let names = |sql: &&String| sql.contains(&format!(" on keymeter.{table}"));
                let (reads, policies): (Vec<_>, Vec<_>) = all.iter().filter(names).partition(|sql| read(sql));
                // For analysts, and for the views, which alone may read.
                assert_eq!(policies.len(), reads.len() * 2);
                assert!(reads.iter().all(|sql| sql.ends_with("to keymeter_views")));
            }
        }
    }

    #[test]
    fn a_view_is_readable_only_after_it_reads_with_the_rights_of_nobody() {
        let all = rendered(&Layout::default());
        let granted =
            all.iter().filter(|sql| sql.starts_with("grant") && sql.ends_with("to keymeter_analyst"));
        let mut views = 0;
        for grant in granted {
            let view = grant.split_whitespace().find(|word| word.starts_with("keymeter.")).unwrap();
            let definer = format!("alter table {view} modify definer = keymeter_views sql security definer");
            let position = |sql: &str| all.iter().position(|one| one == sql).unwrap();
            assert!(position(&definer) < position(grant), "{view}");
            views += 1;
        }
        assert_eq!(views, 5);
    }

    #[test]
    fn the_policy_goes_by_the_rest_of_the_name() {
        let all = rendered(&Layout::default()).join(";\n");
        assert!(all.contains(&format!("substring(currentUser(), {})", PREFIX.len() + 1)));
        assert!(all.contains("create user `analyst_0193a1b2-0000-7000-8000-0000000000ff` identified"));
    }

    #[test]
    fn a_cluster_has_policies_where_the_rows_lie() {
        let all = rendered(&Layout::new(Some("main".to_owned())));
        assert!(all.iter().all(|sql| sql.contains(" on cluster 'main'")), "{all:?}");
        let policies = all.iter().filter(|sql| sql.contains("create row policy"));
        assert_eq!(policies.filter(|sql| sql.contains("_local")).count(), 4);
    }

    #[test]
    fn passwords_differ() {
        let (one, other) = (password().unwrap(), password().unwrap());
        assert!(one != other && one.len() == 2 * PASSWORD_BYTES);
    }
}
