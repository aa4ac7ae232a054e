//! The outbox, as its one relay sees it. A row is in it until the bucket has its entry: no cursor is kept, so
//! a row that is committed late is never skipped.

use domain::{KeyId, SecretHash, SecretId, WorkspaceId};
use sqlx::{
    Postgres, Row as _,
    pool::PoolConnection,
    postgres::{PgListener, PgRow},
};
use time::OffsetDateTime;

use super::{Store, StoreError, keys::OUTBOX_CHANNEL};

/// What is locked by the relay, over all of the keys services on one Postgres.
const RELAY_LOCK: i64 = 0x6b65_795f_6665_6564;

/// One secret as edges must know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands in the feed.
    pub feed_version: i64,
    /// Under which it is found.
    pub hash: SecretHash,
    /// The secret.
    pub secret_id: SecretId,
    /// Its key.
    pub key_id: KeyId,
    /// The tenant.
    pub workspace_id: WorkspaceId,
    /// The key's version.
    pub version: i64,
    /// When the key stops working.
    pub expire_time: Option<OffsetDateTime>,
    /// Whether the key was deleted.
    pub deleted: bool,
}

/// How far a bucket is known to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketPosition {
    /// When the bucket was made.
    pub created: OffsetDateTime,
    /// Sequence of the newest write.
    pub sequence: i64,
}

/// The only relay: its connection holds the lock.
pub struct Relay {
    connection: PoolConnection<Postgres>,
}

/// Hears of new rows.
pub struct OutboxListener {
    inner: PgListener,
}

impl Store {
    /// Becomes the relay; `None` while another one is.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn relay(&self) -> Result<Option<Relay>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        // A lock of the session would outlive its use in the pool.
        connection.close_on_drop();
        let locked = sqlx::query_scalar("select pg_try_advisory_lock($1)")
            .bind(RELAY_LOCK)
            .fetch_one(&mut *connection)
            .await?;
        Ok(if locked { Some(Relay { connection }) } else { None })
    }

    /// Starts to hear of new rows.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn listen_to_outbox(&self) -> Result<OutboxListener, StoreError> {
        let mut inner = PgListener::connect_with(&self.pool).await?;
        inner.listen(OUTBOX_CHANNEL).await?;
        Ok(OutboxListener { inner })
    }

    /// How many rows wait in the outbox.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn outbox_rows(&self) -> Result<i64, StoreError> {
        Ok(sqlx::query_scalar("select count(*) from key_outbox").fetch_one(&self.pool).await?)
    }
}

impl OutboxListener {
    /// Waits for new rows; several notices may come as one.
    ///
    /// # Errors
    /// If the connection is lost.
    pub async fn changed(&mut self) -> Result<(), StoreError> {
        self.inner.recv().await?;
        while self.inner.next_buffered().is_some() {}
        Ok(())
    }
}

impl Relay {
    /// How far the bucket was written; `None` before the first time.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn position(&mut self) -> Result<Option<BucketPosition>, StoreError> {
        let (created, sequence): (Option<OffsetDateTime>, i64) =
            sqlx::query_as("select bucket_created, bucket_sequence from feed_state")
                .fetch_one(&mut *self.connection)
                .await?;
        Ok(created.map(|created| BucketPosition { created, sequence }))
    }

    /// Gives the next feed versions to waiting rows, at most `limit` of them, in their order, for good.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn number(&mut self, limit: usize) -> Result<(), StoreError> {
        let sql = "with waiting as (
                     select outbox_id, row_number() over (order by outbox_id) as place
                     from key_outbox where feed_version is null order by outbox_id limit $1
                   ), numbered as (
                     update key_outbox o set feed_version = s.feed_version + w.place
                     from waiting w, feed_state s where o.outbox_id = w.outbox_id
                     returning o.feed_version
                   )
                   update feed_state
                   set feed_version = greatest(feed_version, (select max(feed_version) from numbered))
                   where exists (select from numbered)";
        sqlx::query(sql)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .execute(&mut *self.connection)
            .await?;
        Ok(())
    }

    /// What to write next, at most `limit` entries in the order of the feed, as the keys are now.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn numbered(&mut self, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let sql = "select o.feed_version, s.secret_hash, s.secret_id, k.*
                   from key_outbox o join secrets s using (secret_id) join keys k using (key_id)
                   where o.feed_version is not null order by o.feed_version limit $1";
        let rows = sqlx::query(sql)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&mut *self.connection)
            .await?;
        rows.iter().map(entry).collect()
    }

    /// What was written before, after a feed version, at most `limit` entries in the order of the feed.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn written(&mut self, after: i64, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let sql = "select f.feed_version, s.secret_hash, s.secret_id, k.*
                   from secret_feed_versions f join secrets s using (secret_id) join keys k using (key_id)
                   where f.feed_version > $1 order by f.feed_version limit $2";
        let rows = sqlx::query(sql)
            .bind(after)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&mut *self.connection)
            .await?;
        rows.iter().map(entry).collect()
    }

    /// Takes rows up to a feed version out of the outbox: the bucket has them, up to `position`.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn relayed(&mut self, up_to: i64, position: BucketPosition) -> Result<(), StoreError> {
        let sql = "with gone as (
                     delete from key_outbox where feed_version <= $1 returning secret_id, feed_version
                   ), noted as (
                     insert into secret_feed_versions (secret_id, feed_version)
                     select secret_id, max(feed_version) from gone group by secret_id
                     on conflict (secret_id) do update set feed_version = excluded.feed_version
                   )
                   update feed_state set bucket_created = $2, bucket_sequence = $3";
        sqlx::query(sql)
            .bind(up_to)
            .bind(position.created)
            .bind(position.sequence)
            .execute(&mut *self.connection)
            .await?;
        Ok(())
    }
}

fn entry(row: &PgRow) -> Result<Entry, StoreError> {
    let hash: &[u8] = row.try_get("secret_hash")?;
    let delete_time: Option<OffsetDateTime> = row.try_get("delete_time")?;
    Ok(Entry {
        feed_version: row.try_get("feed_version")?,
        hash: SecretHash::from_slice(hash).ok_or(StoreError::Damaged("secret"))?,
        secret_id: SecretId::from_uuid(row.try_get("secret_id")?),
        key_id: KeyId::from_uuid(row.try_get("key_id")?),
        workspace_id: WorkspaceId::from_uuid(row.try_get("workspace_id")?),
        version: row.try_get("version")?,
        expire_time: row.try_get("expire_time")?,
        deleted: delete_time.is_some(),
    })
}
