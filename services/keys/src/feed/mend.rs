//! What is done when the bucket is not as it was left: somebody else wrote, or it forgot. What Postgres has is
//! written again; nothing that others wrote stays.

use domain::SecretHash;
use proto::{events::KeyState as PbState, nats::FEED_HEAD_KEY};

use super::{
    FeedError,
    bucket::{Bucket, FOREIGN_MAX, hash_of},
    message::{own_entry, own_head, signed_head, signed_tombstone},
    writer::{CHUNK, Writer},
};
use crate::store::outbox::FeedState;

/// Whether the bucket is as it was left.
fn is_intact(state: &FeedState, bucket: &Bucket) -> bool {
    !state.filling && state.position == Some(bucket.position()) && counts(state, 0, bucket.values())
}

/// Whether the bucket has a value for each secret and a head; secrets on their way out may be there or not.
fn counts(state: &FeedState, more: i64, values: i64) -> bool {
    let least = state.secrets + more + 1;
    (least..=least + state.removals).contains(&values)
}

impl Writer<'_> {
    /// Mends the bucket if it has to be. Says whether a head is needed.
    pub(super) async fn mend(&mut self) -> Result<bool, FeedError> {
        if is_intact(&self.state, &self.bucket) {
            return Ok(false);
        }
        self.is_doubtful = true;
        let is = self.bucket.position();
        let foreign = self.state.position.filter(|was| !self.state.filling && was.created == is.created);
        let after =
            foreign.map(|was| was.sequence).filter(|was| (1..=FOREIGN_MAX).contains(&(is.sequence - was)));
        if let Some(after) = after
            && self.answer(after).await?
        {
            return Ok(true);
        }
        self.fill().await?;
        Ok(true)
    }

    /// Puts what others wrote right by what Postgres has. False if more than that is wrong.
    async fn answer(&mut self, after: i64) -> Result<bool, FeedError> {
        self.learn_version().await?;
        let (mut hashes, mut junk) = (Vec::new(), Vec::new());
        for key in self.bucket.written_after(after).await? {
            match hash_of(&key) {
                Some(hash) => hashes.push(hash),
                None if key == FEED_HEAD_KEY => {}
                None => junk.push(key),
            }
        }
        let found = self.relay.feed_again(&hashes).await?;
        let nobodys = hashes.iter().filter(|hash| !found.iter().any(|(found, _)| found == *hash));
        let nobodys: Vec<SecretHash> = nobodys.copied().collect();
        for key in &junk {
            self.bucket.forget(key).await?;
        }
        self.disown(&nobodys).await?;
        let new = found.iter().filter(|(_, is_fed)| !is_fed).count();
        if !counts(&self.state, i64::try_from(new).unwrap_or(i64::MAX), self.bucket.values()) {
            return Ok(false);
        }
        let values = found.len() + junk.len() + nobodys.len();
        tracing::warn!(
            values,
            "somebody else wrote to the key feed's bucket: writing the true entries again"
        );
        self.metrics.foreign(values);
        self.relay.relayed(0, self.bucket.position()).await?;
        Ok(true)
    }

    /// Writes everything that the bucket lacks, and takes out what is not ours. What waits in the outbox goes
    /// first; no head covers anything until the end.
    async fn fill(&mut self) -> Result<(), FeedError> {
        self.learn_version().await?;
        let had_forgotten = self.state.position.is_some();
        let was_empty = self.bucket.values() == 0;
        self.is_doubtful = !was_empty;
        self.relay.fill_begins().await?;
        self.state = self.relay.state().await?;
        let head = signed_head(&self.head(0), self.signing);
        self.bucket.send(FEED_HEAD_KEY, head).await?;
        self.bucket.settle().await?;
        let mut after = 0;
        loop {
            self.relay.relayed(0, self.bucket.position()).await?;
            self.drain().await?;
            let mut entries = self.relay.written(after, CHUNK).await?;
            let Some(last) = entries.last() else { break };
            after = last.feed_version;
            entries.iter_mut().for_each(|entry| entry.is_new = was_empty);
            self.append(&entries).await?;
            self.bucket.settle().await?;
        }
        if !was_empty {
            self.weed().await?;
        }
        self.relay.fill_ends().await?;
        self.state = self.relay.state().await?;
        if had_forgotten {
            tracing::warn!("the key feed's bucket had forgotten: filled it again from Postgres");
            self.metrics.refilled();
        }
        Ok(())
    }

    /// Takes out whatever Postgres does not have.
    async fn weed(&mut self) -> Result<(), FeedError> {
        for keys in self.bucket.keys().await?.chunks(CHUNK) {
            let hashes: Vec<SecretHash> = keys.iter().filter_map(|key| hash_of(key)).collect();
            let fed: std::collections::HashSet<String> =
                self.relay.fed(&hashes).await?.iter().map(SecretHash::to_string).collect();
            let nobodys = self.relay.nobodys(&hashes).await?;
            self.disown(&nobodys).await?;
            let nobodys: std::collections::HashSet<String> =
                nobodys.iter().map(SecretHash::to_string).collect();
            for key in keys.iter().filter(|key| !fed.contains(*key) && !nobodys.contains(*key)) {
                self.bucket.forget(key).await?;
            }
        }
        Ok(())
    }

    /// Takes out what is of no secret in Postgres. What we signed nevertheless was made after the copy that Postgres
    /// was restored from: edges know it and do not forget, so it becomes a tombstone, which stays.
    async fn disown(&mut self, hashes: &[SecretHash]) -> Result<(), FeedError> {
        let mut signed = Vec::new();
        for hash in hashes {
            let key = hash.to_string();
            let value = self.bucket.value(&key).await?;
            let Some(entry) = value.and_then(|value| own_entry(hash, &value, self.signing)) else {
                self.bucket.forget(&key).await?;
                continue;
            };
            if entry.state() != PbState::Deleted {
                self.bucket.send(&key, signed_tombstone(hash, entry, self.signing)).await?;
            }
            signed.push(*hash);
        }
        self.bucket.settle().await?;
        self.relay.keep(&signed).await?;
        self.state.removals = self.relay.state().await?.removals;
        Ok(())
    }

    /// A bucket that knows higher feed versions than Postgres, which was restored, must not take lower ones.
    async fn learn_version(&mut self) -> Result<(), FeedError> {
        let head = self.bucket.value(FEED_HEAD_KEY).await?;
        if let Some(head) = head.and_then(|head| own_head(&head, self.signing)) {
            self.relay.beyond(head.feed_version).await?;
        }
        Ok(())
    }
}
