//! The key feed beside its relay: snapshots, tombstones that leave, and where a change stands. Writes no bucket.

use domain::{KeyId, SecretHash};
use sqlx::Row as _;
use time::OffsetDateTime;

use super::{
    Store, StoreError,
    outbox::{Entry, FeedState, Relay, entry, entry_columns, feed_state, secret_hash},
};

impl Store {
    /// What is known of the feed.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn feed_state(&self) -> Result<FeedState, StoreError> {
        feed_state(&self.pool).await
    }

    /// All that the bucket has of the hashes that start with these `bits` bits, as the keys are now.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn fed_entries(&self, prefix: u16, bits: u8) -> Result<Vec<Entry>, StoreError> {
        let (from, to) = part_bounds(prefix.into(), bits);
        let sql = concat!(
            "select f.feed_version, false as is_new, ",
            entry_columns!(),
            " from secrets s join secret_feed_versions f using (secret_id) join keys k using (key_id)
                     join workspaces w using (workspace_id)
                   where s.secret_hash >= $1 and ($2::bytea is null or s.secret_hash < $2)"
        );
        let rows = sqlx::query(sql).bind(from).bind(to).fetch_all(&self.pool).await?;
        rows.iter().map(entry).collect()
    }

    /// Every part of the snapshot of the bucket made at `created` goes up to `sequence` now.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn snapshot_written(&self, created: OffsetDateTime, sequence: i64) -> Result<(), StoreError> {
        sqlx::query("update feed_state set snapshot_sequence = $2 where bucket_created = $1 and not filling")
            .bind(created)
            .bind(sequence)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// The feed version at which edges know all that was committed of a key; `None` until the relay gave it.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn feed_place(&self, key_id: KeyId) -> Result<Option<u64>, StoreError> {
        let sql =
            "select coalesce(bool_or(o.secret_id is not null and o.feed_version is null), false) as waits,
                     max(greatest(o.feed_version, f.feed_version)) as feed_version
                   from secrets s left join key_outbox o using (secret_id)
                     left join secret_feed_versions f using (secret_id)
                   where s.key_id = $1";
        let row = sqlx::query(sql).bind(key_id.as_uuid()).fetch_one(&self.pool).await?;
        let (waits, place): (bool, Option<i64>) = (row.try_get("waits")?, row.try_get("feed_version")?);
        // A tombstone that has left the feed has no place: nobody has to hear of it.
        Ok(if waits { None } else { Some(place.unwrap_or(0).unsigned_abs()) })
    }
}

/// The bucket sequence of a tombstone that never leaves.
const KEPT: i64 = i64::MAX;

impl Relay {
    /// Lets tombstones of keys that were deleted before `until` leave the feed, at most `limit` of them. The
    /// bucket may lose them once every part of the snapshot is at least as new as `bucket_sequence`. Returns how
    /// many they are.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn expire(
        &mut self,
        until: OffsetDateTime,
        bucket_sequence: i64,
        limit: usize,
    ) -> Result<i64, StoreError> {
        let sql = "with old as (
                     select s.secret_id, s.secret_hash
                     from keys k join secrets s using (key_id) join secret_feed_versions f using (secret_id)
                     where k.delete_time < $1
                       and not exists (select from key_outbox o where o.secret_id = s.secret_id)
                     limit $3
                   ), gone as (
                     delete from secret_feed_versions f using old where f.secret_id = old.secret_id
                   ), leaving as (
                     insert into feed_removals (secret_hash, bucket_sequence) select secret_hash, $2 from old
                     on conflict (secret_hash) do update set bucket_sequence = excluded.bucket_sequence
                   )
                   update feed_state set secrets = secrets - (select count(*) from old)
                   returning (select count(*) from old)";
        Ok(sqlx::query_scalar(sql)
            .bind(until)
            .bind(bucket_sequence)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_one(&mut *self.connection)
            .await?)
    }

    /// Tombstones that the bucket may lose now, at most `limit`: what came back meanwhile is not among them.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn removable(&mut self, limit: usize) -> Result<Vec<SecretHash>, StoreError> {
        let sql = "select r.secret_hash from feed_removals r, feed_state
                   where (snapshot_sequence is null or r.bucket_sequence <= snapshot_sequence)
                     and r.bucket_sequence < $2 limit $1";
        let rows: Vec<Vec<u8>> = sqlx::query_scalar(sql)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .bind(KEPT)
            .fetch_all(&mut *self.connection)
            .await?;
        rows.iter().map(|hash| secret_hash(hash)).collect()
    }

    /// Of these hashes those that are of no secret.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn nobodys(&mut self, hashes: &[SecretHash]) -> Result<Vec<SecretHash>, StoreError> {
        let sql = "select hash from unnest($1::bytea[]) hash
                   where not exists (select from secrets where secret_hash = hash)";
        let hashes: Vec<&[u8]> = hashes.iter().map(|hash| &hash.as_bytes()[..]).collect();
        let rows: Vec<Vec<u8>> =
            sqlx::query_scalar(sql).bind(hashes).fetch_all(&mut *self.connection).await?;
        rows.iter().map(|hash| secret_hash(hash)).collect()
    }

    /// Notes that the bucket has, and keeps, tombstones under these hashes, which are of no secret.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn keep(&mut self, hashes: &[SecretHash]) -> Result<(), StoreError> {
        let hashes: Vec<&[u8]> = hashes.iter().map(|hash| &hash.as_bytes()[..]).collect();
        let sql = "insert into feed_removals (secret_hash, bucket_sequence) select unnest($1::bytea[]), $2
                   on conflict (secret_hash) do nothing";
        sqlx::query(sql).bind(hashes).bind(KEPT).execute(&mut *self.connection).await?;
        Ok(())
    }

    /// From now on no older part of the snapshot may be used.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn raise_snapshot_floor(&mut self) -> Result<(), StoreError> {
        let sql = "update feed_state set snapshot_floor = coalesce(snapshot_sequence, snapshot_floor)";
        sqlx::query(sql).execute(&mut *self.connection).await?;
        Ok(())
    }

    /// The bucket has lost them.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn removed(&mut self, hashes: &[SecretHash]) -> Result<(), StoreError> {
        let hashes: Vec<&[u8]> = hashes.iter().map(|hash| &hash.as_bytes()[..]).collect();
        sqlx::query("delete from feed_removals where secret_hash = any($1)")
            .bind(hashes)
            .execute(&mut *self.connection)
            .await?;
        Ok(())
    }
}

/// The first hash that starts with these bits, and the first beyond them; `None` if there is none.
pub(super) fn part_bounds(prefix: u32, bits: u8) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let shift = 16 - u32::from(bits);
    let bound = |prefix: u32| {
        let mut hash = [0_u8; 32];
        u16::try_from(prefix << shift).ok().map(|start| {
            hash[..2].copy_from_slice(&start.to_be_bytes());
            hash.to_vec()
        })
    };
    (bound(prefix), bound(prefix + 1))
}
