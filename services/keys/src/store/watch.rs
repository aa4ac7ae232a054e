//! The key feed as Postgres has it, whether NATS has it or not: every change has its place from the moment that it was
//! numbered, in the outbox until the bucket has it and in `secret_feed_versions` from then on.

use sqlx::Row as _;

use super::{
    Store, StoreError,
    feed::part_bounds,
    outbox::{Entry, OutboxListener, entry, entry_columns, number},
};

/// What is notified with what edges say of themselves, from one keys service to all.
const ACKS_CHANNEL: &str = "feed_acks";

/// A piece of the feed.
#[derive(Debug)]
pub struct Newer {
    /// The highest version that was given.
    pub highest: i64,
    /// Everything up to here is among the entries, or was before them.
    pub up_to: i64,
    /// In the order of the feed, as the keys are now.
    pub entries: Vec<Entry>,
}

impl Store {
    /// Gives the next feed versions to waiting rows, at most `limit`, and says to how many. The relay does the same:
    /// whoever is first.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn number(&self, limit: usize) -> Result<usize, StoreError> {
        let numbered = number(&mut *self.pool.acquire().await?, limit).await?;
        Ok(usize::try_from(numbered).unwrap_or(usize::MAX))
    }

    /// The highest feed version that was given: every change up to it can be read.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn feed_version(&self) -> Result<i64, StoreError> {
        Ok(sqlx::query_scalar("select feed_version from feed_state").fetch_one(&self.pool).await?)
    }

    /// What stands in the feed after a version, at most `limit` entries.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn feed_after(&self, after: i64, limit: usize) -> Result<Newer, StoreError> {
        // One statement, so one snapshot: an entry moves from one table to the other, or to a later place.
        let sql = concat!(
            "with next as materialized (
                     (select secret_id, feed_version from key_outbox
                      where feed_version > $1 order by feed_version limit $2)
                     union all
                     (select secret_id, feed_version from secret_feed_versions
                      where feed_version > $1 order by feed_version limit $2)
                     order by feed_version limit $2
                   ), entries as (
                     select n.feed_version, false as is_new, ",
            entry_columns!(),
            " from next n join secrets s using (secret_id) join keys k using (key_id)
                       join workspaces w using (workspace_id)
                   )
                   select f.feed_version as highest, e.* from feed_state f left join entries e on true
                   order by e.feed_version"
        );
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = sqlx::query(sql).bind(after).bind(limit).fetch_all(&self.pool).await?;
        let highest = rows.first().ok_or(StoreError::Damaged("feed state"))?.try_get("highest")?;
        let is_entry = |row: &&_| matches!(feed_version(row), Ok(Some(_)) | Err(_));
        let entries = rows.iter().filter(is_entry).map(entry).collect::<Result<Vec<_>, _>>()?;
        let is_cut = i64::try_from(entries.len()).unwrap_or(i64::MAX) >= limit;
        let last = entries.last().filter(|_| is_cut).map(|entry| entry.feed_version);
        Ok(Newer { highest, up_to: last.unwrap_or(highest), entries })
    }

    /// How many secrets are in the feed, or about to be.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn feed_secrets(&self) -> Result<i64, StoreError> {
        let sql = "select secrets + (select count(*) from key_outbox) from feed_state";
        Ok(sqlx::query_scalar(sql).fetch_one(&self.pool).await?)
    }

    /// All that is in the feed of the hashes that start with these `bits` bits, as the keys are now.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn feed_part(&self, prefix: u32, bits: u8) -> Result<Vec<Entry>, StoreError> {
        let (from, to) = part_bounds(prefix, bits);
        let sql = concat!(
            "select greatest(f.feed_version, o.feed_version) as feed_version, false as is_new, ",
            entry_columns!(),
            " from secrets s left join secret_feed_versions f using (secret_id)
                     left join lateral (
                       select max(feed_version) as feed_version from key_outbox o where o.secret_id = s.secret_id
                     ) o on true
                     join keys k using (key_id) join workspaces w using (workspace_id)
                   where s.secret_hash >= $1 and ($2::bytea is null or s.secret_hash < $2)
                     and (f.feed_version is not null or o.feed_version is not null)"
        );
        let rows = sqlx::query(sql).bind(from).bind(to).fetch_all(&self.pool).await?;
        rows.iter().map(entry).collect()
    }

    /// Says something to every keys service that listens now.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn tell_acks(&self, text: &str) -> Result<(), StoreError> {
        sqlx::query("select pg_notify($1, $2)").bind(ACKS_CHANNEL).bind(text).execute(&self.pool).await?;
        Ok(())
    }

    /// Starts to hear what any keys service says so.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn listen_to_acks(&self) -> Result<OutboxListener, StoreError> {
        self.listen(ACKS_CHANNEL).await
    }
}

fn feed_version(row: &sqlx::postgres::PgRow) -> Result<Option<i64>, sqlx::Error> {
    row.try_get("feed_version")
}
