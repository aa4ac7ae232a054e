//! Whether the batches of a watch are those of this watch, whole and in order. Pure; signatures are checked by whoever
//! asks: a good one of a batch is one for all before it in the same watch.

use aws_lc_rs::digest::{SHA256, digest};
use proto::events::FeedBatch;

/// The batches of one watch up to now.
#[derive(Debug)]
pub(crate) struct Chain {
    watch: Vec<u8>,
    previous: Vec<u8>,
    version: u64,
    is_whole: bool,
    elapsed_us: Option<u64>,
}

/// Why a batch is not the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    /// It is of another watch, so perhaps played back.
    #[error("a batch is of another watch")]
    Watch,
    /// One before it is missing, or was changed.
    #[error("a batch does not follow the one before it")]
    Previous,
    /// It does not go on where the one before it ended.
    #[error("a batch goes on at another version of the feed")]
    Version,
    /// It is no later than the one before it.
    #[error("a batch is older than one before it")]
    Time,
}

impl Chain {
    /// Nothing yet of a watch that goes on after a version; 0 is the beginning.
    pub(crate) fn begins(watch: Vec<u8>, after: u64) -> Self {
        Self { watch, previous: Vec::new(), version: after, is_whole: after > 0, elapsed_us: None }
    }

    /// Takes the next batch; `encoded` is what was signed.
    ///
    /// # Errors
    /// If it is not the next one.
    pub(crate) fn follows(&mut self, batch: &FeedBatch, encoded: &[u8]) -> Result<(), Broken> {
        if batch.watch != self.watch {
            return Err(Broken::Watch);
        }
        if batch.previous != self.previous {
            return Err(Broken::Previous);
        }
        let moves = batch.feed_version != batch.from_version;
        let is_partial_again = batch.is_partial && (self.is_whole || moves);
        if batch.from_version != self.version || batch.feed_version < self.version || is_partial_again {
            return Err(Broken::Version);
        }
        if batch.is_current {
            if self.elapsed_us.is_some_and(|last| batch.elapsed_us <= last) {
                return Err(Broken::Time);
            }
            self.elapsed_us = Some(batch.elapsed_us);
        }
        self.version = batch.feed_version;
        self.is_whole |= !batch.is_partial;
        if changes(batch) {
            self.previous = digest(&SHA256, encoded).as_ref().to_vec();
        }
        Ok(())
    }

    /// Of which watch.
    pub(crate) fn watch(&self) -> &[u8] {
        &self.watch
    }

    /// The version that all batches together go up to; none of use before they are whole.
    pub(crate) const fn version(&self) -> u64 {
        self.version
    }

    /// Everything up to the version has been there.
    pub(crate) const fn is_whole(&self) -> bool {
        self.is_whole
    }
}

/// Whether a batch is a link of the chain, and no mere sign of life.
pub(crate) fn changes(batch: &FeedBatch) -> bool {
    !batch.entries.is_empty() || batch.feed_version != batch.from_version
}

#[cfg(test)]
pub(crate) mod tests {
    use prost::Message as _;
    use proto::events::HashedFeedEntry;
    use rstest::rstest;

    use super::*;

    /// Batches as keys makes them.
    #[derive(Debug, Default)]
    pub(crate) struct Maker {
        pub(crate) watch: Vec<u8>,
        pub(crate) previous: Vec<u8>,
        pub(crate) version: u64,
        pub(crate) elapsed_us: u64,
    }

    impl Maker {
        pub(crate) fn next(&mut self, batch: FeedBatch) -> FeedBatch {
            self.elapsed_us += 1;
            let batch = FeedBatch {
                watch: self.watch.clone(),
                previous: self.previous.clone(),
                from_version: self.version,
                elapsed_us: self.elapsed_us,
                ..batch
            };
            self.version = batch.feed_version;
            if changes(&batch) {
                self.previous = digest(&SHA256, &batch.encode_to_vec()).as_ref().to_vec();
            }
            batch
        }
    }

    fn some() -> Vec<HashedFeedEntry> {
        vec![HashedFeedEntry::default()]
    }

    /// Two parts, the last of which makes it whole; a sign of life; a change.
    fn batches() -> Vec<FeedBatch> {
        let mut maker = Maker { watch: vec![7; 16], ..Maker::default() };
        [
            FeedBatch { entries: some(), is_partial: true, ..FeedBatch::default() },
            FeedBatch { entries: some(), is_partial: true, ..FeedBatch::default() },
            FeedBatch { feed_version: 5, ..FeedBatch::default() },
            FeedBatch { feed_version: 5, is_current: true, ..FeedBatch::default() },
            FeedBatch { feed_version: 6, entries: some(), is_current: true, ..FeedBatch::default() },
        ]
        .map(|batch| maker.next(batch))
        .into()
    }

    fn check(batches: &[FeedBatch]) -> Result<Chain, Broken> {
        let mut chain = Chain::begins(vec![7; 16], 0);
        for batch in batches {
            chain.follows(batch, &batch.encode_to_vec())?;
        }
        Ok(chain)
    }

    #[test]
    fn a_watch_is_whole_once_its_last_part_is_there() {
        let batches = batches();
        assert!(!check(&batches[..2]).unwrap().is_whole());
        let chain = check(&batches[..3]).unwrap();
        assert_eq!((chain.is_whole(), chain.version()), (true, 5));
        assert_eq!(check(&batches).unwrap().version(), 6);
        assert!(Chain::begins(vec![1], 9).is_whole());
    }

    #[rstest]
    #[case::of_another_watch(|batches: &mut Vec<FeedBatch>| batches[4].watch = vec![8; 16], Broken::Watch)]
    #[case::a_missing_part(|batches: &mut Vec<FeedBatch>| _ = batches.remove(1), Broken::Previous)]
    #[case::the_last_part_missing(|batches: &mut Vec<FeedBatch>| _ = batches.remove(2), Broken::Previous)]
    #[case::a_changed_part(|batches: &mut Vec<FeedBatch>| batches[0].entries.clear(), Broken::Previous)]
    #[case::swapped(|batches: &mut Vec<FeedBatch>| batches.swap(0, 1), Broken::Previous)]
    #[case::from_elsewhere(|batches: &mut Vec<FeedBatch>| batches[3].from_version = 4, Broken::Version)]
    #[case::back(|batches: &mut Vec<FeedBatch>| batches[3].feed_version = 4, Broken::Version)]
    #[case::partial_again(|batches: &mut Vec<FeedBatch>| batches[4].is_partial = true, Broken::Version)]
    #[case::an_old_sign_of_life(|batches: &mut Vec<FeedBatch>| batches[4].elapsed_us = 4, Broken::Time)]
    fn what_is_not_the_next_is_told(#[case] change: fn(&mut Vec<FeedBatch>), #[case] broken: Broken) {
        let mut batches = batches();
        change(&mut batches);
        assert_eq!(check(&batches).map(|_| ()), Err(broken));
    }
}
