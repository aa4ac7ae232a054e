//! The outbox, as its one relay sees it. A row is in it until the bucket has its entry: no cursor is kept, so
//! a row that is committed late is never skipped.

use domain::{AddressStorage, KeyId, KeyState, SecretHash, SecretId, WorkspaceId};
use sqlx::{
    Connection as _, PgConnection, Postgres, Row as _,
    pool::PoolConnection,
    postgres::{PgListener, PgRow},
    types::Json,
};
use time::OffsetDateTime;

use super::{Store, StoreError, keys::OUTBOX_CHANNEL};

/// What is locked by the relay, over all of the keys services on one Postgres.
const RELAY_LOCK: i64 = 0x6b65_795f_6665_6564;

/// What is notified when waiting rows were given their feed versions.
const NUMBERED_CHANNEL: &str = "key_outbox_numbered";

/// What [`entry`] reads beside the feed version, of `secrets s`, `keys k` and `workspaces w`.
macro_rules! entry_columns {
    () => {
        "s.secret_hash, s.secret_id, s.retire_time, k.*, w.suspend_time, w.address_storage"
    };
}
pub(super) use entry_columns;

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
    /// When the secret stops working.
    pub retire_time: Option<OffsetDateTime>,
    /// Whether the key works, its expiry aside.
    pub state: KeyState,
    /// What it may do.
    pub scopes: Vec<String>,
    /// From where; empty is anywhere.
    pub allowed_networks: Vec<String>,
    /// How often.
    pub rate_limits: Vec<RateLimit>,
    /// What is kept of its callers' addresses.
    pub address_storage: AddressStorage,
    /// Whether the bucket did not have the secret before.
    pub is_new: bool,
}

/// A limit as Postgres keeps it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct RateLimit {
    /// Unique in its key.
    pub name: String,
    /// So many.
    pub requests: u64,
    /// In so many seconds.
    pub window_s: u32,
}

/// How far a bucket is known to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketPosition {
    /// When the bucket was made.
    pub created: OffsetDateTime,
    /// Sequence of the newest write.
    pub sequence: i64,
}

/// What is known of the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedState {
    /// Where the bucket stood after our newest write; `None` before the first one.
    pub position: Option<BucketPosition>,
    /// The highest feed version that the bucket ever had.
    pub feed_version: i64,
    /// How many secrets the bucket has.
    pub secrets: i64,
    /// How many more it may have, since they are about to leave.
    pub removals: i64,
    /// It forgot and is not whole yet.
    pub filling: bool,
    /// How often it forgot.
    pub fills: i64,
    /// How far every part of the snapshot goes; `None` if there is none.
    pub snapshot_sequence: Option<i64>,
    /// Older parts are not to be used.
    pub snapshot_floor: i64,
}

/// The only relay: its connection holds the lock.
pub struct Relay {
    pub(super) connection: PoolConnection<Postgres>,
}

/// Hears of rows in the outbox.
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
        self.listen(OUTBOX_CHANNEL).await
    }

    /// Starts to hear of rows that got their feed versions.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn listen_to_numbers(&self) -> Result<OutboxListener, StoreError> {
        self.listen(NUMBERED_CHANNEL).await
    }

    pub(super) async fn listen(&self, channel: &str) -> Result<OutboxListener, StoreError> {
        let mut inner = PgListener::connect_with(&self.pool).await?;
        inner.listen(channel).await?;
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
    /// Waits for the next notice and says what it says.
    ///
    /// # Errors
    /// If the connection is lost.
    pub async fn heard(&mut self) -> Result<String, StoreError> {
        Ok(self.inner.recv().await?.payload().to_owned())
    }

    /// Waits for the next notice; several may come as one.
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
    /// What is known of the feed.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn state(&mut self) -> Result<FeedState, StoreError> {
        feed_state(&mut *self.connection).await
    }

    /// The bucket forgot: it is to be filled again, however often that takes.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn fill_begins(&mut self) -> Result<(), StoreError> {
        // What was noted of a snapshot may be of another bucket.
        let sql = "update feed_state set filling = true, fills = fills + 1, snapshot_sequence = null";
        sqlx::query(sql).execute(&mut *self.connection).await?;
        sqlx::query("delete from feed_removals").execute(&mut *self.connection).await?;
        Ok(())
    }

    /// The bucket has all secrets again.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn fill_ends(&mut self) -> Result<(), StoreError> {
        let sql = "update feed_state
                   set filling = false, secrets = (select count(*) from secret_feed_versions)";
        sqlx::query(sql).execute(&mut *self.connection).await?;
        Ok(())
    }

    /// Puts the secrets of these hashes into the outbox and returns their hashes, with whether the bucket was
    /// meant to have them; leaves out those that nobody has.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn feed_again(&mut self, hashes: &[SecretHash]) -> Result<Vec<(SecretHash, bool)>, StoreError> {
        let sql = "with found as (
                     select s.secret_id, s.secret_hash, f.secret_id is not null as is_fed
                     from secrets s left join secret_feed_versions f using (secret_id)
                     where s.secret_hash = any($1)
                   ), again as (
                     insert into key_outbox (secret_id) select secret_id from found
                   )
                   select secret_hash, is_fed from found";
        let hashes: Vec<&[u8]> = hashes.iter().map(|hash| &hash.as_bytes()[..]).collect();
        let rows: Vec<(Vec<u8>, bool)> =
            sqlx::query_as(sql).bind(hashes).fetch_all(&mut *self.connection).await?;
        rows.into_iter().map(|(hash, is_fed)| Ok((secret_hash(&hash)?, is_fed))).collect()
    }

    /// Of these hashes those that the bucket is meant to have.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn fed(&mut self, hashes: &[SecretHash]) -> Result<Vec<SecretHash>, StoreError> {
        let sql = "select s.secret_hash from secrets s join secret_feed_versions f using (secret_id)
                   where s.secret_hash = any($1)";
        let hashes: Vec<&[u8]> = hashes.iter().map(|hash| &hash.as_bytes()[..]).collect();
        let rows: Vec<Vec<u8>> =
            sqlx::query_scalar(sql).bind(hashes).fetch_all(&mut *self.connection).await?;
        rows.iter().map(|hash| secret_hash(hash)).collect()
    }

    /// Feed versions from now on are higher than this one, which the bucket has: it knows more than Postgres,
    /// which was restored from a copy.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn beyond(&mut self, feed_version: u64) -> Result<(), StoreError> {
        let feed_version = i64::try_from(feed_version).unwrap_or(i64::MAX);
        let mut tx = self.connection.begin().await?;
        // What was numbered without the bucket got places that it has given to others: it is numbered again.
        sqlx::query("select from feed_state for update").execute(&mut *tx).await?;
        sqlx::query("update key_outbox set feed_version = null where feed_version <= $1")
            .bind(feed_version)
            .execute(&mut *tx)
            .await?;
        let sql = "update feed_state set feed_version = greatest(feed_version, $1),
                     relayed_version = greatest(relayed_version, $1)";
        sqlx::query(sql).bind(feed_version).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Gives the next feed versions to waiting rows, at most `limit` of them, in their order, for good, and wakes
    /// who waits for that.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn number(&mut self, limit: usize) -> Result<(), StoreError> {
        number(&mut self.connection, limit).await?;
        Ok(())
    }

    /// What to write next, at most `limit` entries in the order of the feed, as the keys are now.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn numbered(&mut self, limit: usize) -> Result<Vec<Entry>, StoreError> {
        // Cut off first, so that the joins are of a few rows whatever Postgres believes of the outbox.
        let sql = concat!(
            "with next as materialized (
               select secret_id, feed_version from key_outbox
               where feed_version is not null order by feed_version limit $1
             )
             select o.feed_version, f.secret_id is null as is_new, ",
            entry_columns!(),
            " from next o join secrets s using (secret_id) join keys k using (key_id)
                     join workspaces w using (workspace_id)
                     left join secret_feed_versions f using (secret_id)
                   order by o.feed_version"
        );
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
        let sql = concat!(
            "select f.feed_version, false as is_new, ",
            entry_columns!(),
            " from secret_feed_versions f join secrets s using (secret_id) join keys k using (key_id)
                     join workspaces w using (workspace_id)
                   where f.feed_version > $1 order by f.feed_version limit $2"
        );
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
                     returning (xmax = 0) as is_new -- no row was there that it replaced
                   ), back as (
                     delete from feed_removals r using gone join secrets s using (secret_id)
                     where r.secret_hash = s.secret_hash
                   )
                   update feed_state set bucket_created = $2, bucket_sequence = $3,
                     relayed_version = greatest(relayed_version, $1),
                     secrets = secrets + (select count(*) from noted where is_new)";
        sqlx::query(sql)
            .bind(up_to)
            .bind(position.created)
            .bind(position.sequence)
            .execute(&mut *self.connection)
            .await?;
        Ok(())
    }
}

/// Gives the next feed versions to waiting rows, at most `limit` of them, in their order, for good, and wakes who
/// waits for that. Says how many there were. Whoever reads the highest version given can read every change up to it.
pub(super) async fn number(connection: &mut PgConnection, limit: usize) -> Result<u64, StoreError> {
    let waiting = "select exists (select from key_outbox where feed_version is null)";
    if !sqlx::query_scalar::<_, bool>(waiting).fetch_one(&mut *connection).await? {
        return Ok(0);
    }
    let mut tx = connection.begin().await?;
    // One at a time: the next statement sees what the one before has numbered.
    sqlx::query("select from feed_state for update").execute(&mut *tx).await?;
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
               where exists (select from numbered)
               returning (select count(*) from numbered), pg_notify($2, '')::text";
    let numbered: Option<(i64, Option<String>)> = sqlx::query_as(sql)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .bind(NUMBERED_CHANNEL)
        .fetch_optional(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(numbered.map_or(0, |(count, _)| count.unsigned_abs()))
}

/// What is known of the feed, from any connection.
pub(super) async fn feed_state(
    executor: impl sqlx::Executor<'_, Database = Postgres>,
) -> Result<FeedState, StoreError> {
    let sql =
        "select bucket_created, bucket_sequence, secrets, filling, fills, snapshot_sequence, snapshot_floor,
                 relayed_version, (select count(*) from feed_removals) as removals
               from feed_state";
    let row = sqlx::query(sql).fetch_one(executor).await?;
    let (created, sequence): (Option<OffsetDateTime>, i64) =
        (row.try_get("bucket_created")?, row.try_get("bucket_sequence")?);
    Ok(FeedState {
        position: created.map(|created| BucketPosition { created, sequence }),
        feed_version: row.try_get("relayed_version")?,
        secrets: row.try_get("secrets")?,
        removals: row.try_get("removals")?,
        filling: row.try_get("filling")?,
        fills: row.try_get("fills")?,
        snapshot_sequence: row.try_get("snapshot_sequence")?,
        snapshot_floor: row.try_get("snapshot_floor")?,
    })
}

/// A row of a key, one of its secrets, its place in the feed and its workspace's suspension.
pub(super) fn entry(row: &PgRow) -> Result<Entry, StoreError> {
    let time = |column| row.try_get::<Option<OffsetDateTime>, _>(column);
    let state = if time("delete_time")?.is_some() {
        KeyState::Deleted
    } else if time("disable_time")?.or(time("suspend_time")?).is_some() {
        KeyState::Disabled
    } else {
        KeyState::Active
    };
    let Json(rate_limits) = row.try_get("rate_limits")?;
    Ok(Entry {
        feed_version: row.try_get("feed_version")?,
        hash: secret_hash(row.try_get("secret_hash")?)?,
        secret_id: SecretId::from_uuid(row.try_get("secret_id")?),
        key_id: KeyId::from_uuid(row.try_get("key_id")?),
        workspace_id: WorkspaceId::from_uuid(row.try_get("workspace_id")?),
        version: row.try_get("version")?,
        expire_time: time("expire_time")?,
        retire_time: time("retire_time")?,
        state,
        scopes: row.try_get("scopes")?,
        allowed_networks: row.try_get("allowed_networks")?,
        rate_limits,
        address_storage: address_storage(row)?,
        is_new: row.try_get("is_new")?,
    })
}

/// A workspace's choice, of a row that has it.
pub(super) fn address_storage(row: &PgRow) -> Result<AddressStorage, StoreError> {
    row.try_get::<&str, _>("address_storage")?.parse().map_err(|()| StoreError::Damaged("workspace"))
}

pub(super) fn secret_hash(bytes: &[u8]) -> Result<SecretHash, StoreError> {
    SecretHash::from_slice(bytes).ok_or(StoreError::Damaged("secret"))
}
