//! A page of a workspace's keys. The statement is put together from fixed pieces for what was asked, so that
//! each question has its own plan; values are only ever bound.

use domain::WorkspaceId;
use sqlx::{Postgres, QueryBuilder, types::Json};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{Store, StoreError, keys::Shown, secrets};
use crate::{
    key::Standing,
    listing::{Filter, Hygiene, Mark, Order, Position},
};

/// Within which a key "expires soon".
const SOON: Duration = Duration::days(7);

/// How many keys with the words of a search are looked at one by one.
const FEW: i32 = 20_000;

type Sql = QueryBuilder<Postgres>;

impl Store {
    /// At most `limit` keys of a workspace, those after `after`, with those of their secrets that retire after
    /// `secrets_from`.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn keys_of(
        &self,
        workspace_id: WorkspaceId,
        filter: &Filter,
        after: Option<&Position>,
        limit: usize,
        (now, secrets_from): (OffsetDateTime, OffsetDateTime),
    ) -> Result<Vec<Shown>, StoreError> {
        let mut sql = Sql::new("with shown as (select ");
        sql.push_bind(secrets_from);
        sql.push(
            "::timestamptz as secrets_from)
             select k.*, s.* from (
               select k.*, a.last_used_time, a.address_count
               from keys k join key_activity a using (key_id, workspace_id) where workspace_id = ",
        );
        sql.push_bind(workspace_id.as_uuid());
        of_standing(&mut sql, &filter.standings, now);
        self.of_words(&mut sql, workspace_id, &filter.words).await?;
        narrow(&mut sql, filter);
        for hygiene in &filter.hygiene {
            of_hygiene(&mut sql, *hygiene, now);
        }
        if let Some(position) = after {
            behind(&mut sql, position);
        }
        let order = match filter.order {
            Order::CreateTime => "create_time desc, key_id desc",
            Order::DisplayName => r#"lower(display_name) collate "C", key_id"#,
            Order::LastUsedTime => "coalesce(last_used_time, '-infinity') desc, key_id desc",
            Order::ExpireTime => "coalesce(expire_time, 'infinity'), key_id",
        };
        sql.push(" order by ").push(order).push(" limit ");
        sql.push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
        sql.push(") k ").push(secrets::join_secrets!("(select secrets_from from shown)"));
        sql.push(" order by ").push(order);
        // Planned anew each time: which index is best depends on the values.
        let rows = sql.build().persistent(false).fetch_all(&self.pool).await?;
        rows.iter().map(Shown::of).collect()
    }

    /// Keys with these words: if they are few, those that the index of words names, since Postgres can not tell in
    /// advance how few begin so. If they are many, a page of them is soon found in any order.
    async fn of_words(
        &self,
        sql: &mut Sql,
        workspace_id: WorkspaceId,
        words: &[String],
    ) -> Result<(), StoreError> {
        if words.is_empty() {
            return Ok(());
        }
        // Words hold no character that means something here, so quotes are enough.
        let words: Vec<String> = words.iter().map(|word| format!("'{word}':*")).collect();
        let words = words.join(" & ");
        let found: Vec<Uuid> = sqlx::query_scalar(
            "select key_id from keys
             where workspace_id = $1 and key_words(display_name, description, start) @@ lower($2)::tsquery
             limit $3",
        )
        .bind(workspace_id.as_uuid())
        .bind(&words)
        .bind(FEW + 1)
        .persistent(false)
        .fetch_all(&self.pool)
        .await?;
        if found.len() > FEW as usize {
            sql.push(" and key_words(display_name, description, start) @@ lower(");
            sql.push_bind(words).push(")::tsquery");
        } else {
            sql.push(" and key_id = any(").push_bind(found).push(")");
        }
        Ok(())
    }
}

fn of_standing(sql: &mut Sql, standings: &[Standing], now: OffsetDateTime) {
    let with_deleted = standings.contains(&Standing::Deleted);
    if !with_deleted {
        sql.push(" and delete_time is null");
    }
    let all = standings.len() - usize::from(with_deleted) == 3;
    if all {
        return;
    }
    sql.push(" and (false");
    for standing in standings {
        match standing {
            Standing::Deleted => sql.push(" or delete_time is not null"),
            Standing::Disabled => sql.push(" or delete_time is null and disable_time is not null"),
            Standing::Active => sql
                .push(" or delete_time is null and disable_time is null and coalesce(expire_time, 'infinity') > ")
                .push_bind(now),
            Standing::Expired => sql
                .push(" or delete_time is null and disable_time is null and coalesce(expire_time, 'infinity') <= ")
                .push_bind(now),
        };
    }
    sql.push(")");
}

fn narrow(sql: &mut Sql, filter: &Filter) {
    if let Some(environment) = filter.environment {
        sql.push(" and environment = ").push_bind(environment.as_str());
    }
    if !filter.tags.is_empty() {
        sql.push(" and tags @> ").push_bind(Json(filter.tags.clone()));
    }
    if let Some(owner) = filter.owner {
        sql.push(" and owner = ").push_bind(owner.to_string());
    }
}

fn of_hygiene(sql: &mut Sql, hygiene: Hygiene, now: OffsetDateTime) {
    match hygiene {
        Hygiene::NeverUsed => sql.push(" and coalesce(last_used_time, '-infinity') = '-infinity'"),
        Hygiene::UnusedDays(days) => {
            let since = now - Duration::days(days);
            sql.push(" and coalesce(last_used_time, '-infinity') <= ").push_bind(since);
            sql.push(" and create_time <= ").push_bind(since)
        }
        Hygiene::NoExpiry => sql.push(" and expire_time is null"),
        Hygiene::ExpiresSoon => {
            sql.push(" and coalesce(expire_time, 'infinity') > ").push_bind(now);
            sql.push(" and coalesce(expire_time, 'infinity') <= ").push_bind(now + SOON)
        }
        // As the index of them says.
        Hygiene::ManyAddresses => sql.push(" and address_count >= 5"),
        Hygiene::Exposed => sql.push(" and expose_time is not null"),
        // One always works, and every other one is to retire.
        Hygiene::SeveralSecrets => sql
            .push(" and key_id in (select r.key_id from secrets r where r.retire_time > ")
            .push_bind(now)
            .push(")"),
    };
}

fn behind(sql: &mut Sql, position: &Position) {
    match &position.mark {
        Mark::CreateTime(at) => sql.push(" and (create_time, key_id) < (").push_bind(*at),
        Mark::DisplayName(name) => {
            sql.push(r#" and (lower(display_name) collate "C", key_id) > (lower("#).push_bind(name.clone());
            sql.push(r#") collate "C""#)
        }
        Mark::LastUsedTime(at) => {
            // Of one table, or the index does not serve.
            sql.push(" and (coalesce(a.last_used_time, '-infinity'), a.key_id) < (coalesce(").push_bind(*at);
            sql.push("::timestamptz, '-infinity')")
        }
        Mark::ExpireTime(at) => {
            sql.push(" and (coalesce(expire_time, 'infinity'), key_id) > (coalesce(").push_bind(*at);
            sql.push("::timestamptz, 'infinity')")
        }
    };
    sql.push(", ").push_bind(position.key_id.as_uuid()).push(")");
}
