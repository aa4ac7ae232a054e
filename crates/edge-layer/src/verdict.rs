//! May this call pass? Pure: what depends on time takes `now`.

use domain::{Denial, KeyState};
use time::OffsetDateTime;

use crate::key_table::KeyEntry;

/// What the edge can say of its own knowledge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feed {
    /// The first snapshot has not come yet.
    NotReady,
    /// What is known is current.
    Live,
    /// Nothing was heard for too long.
    Lost,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes to the API.
    Admit(KeyEntry),
    /// Refused, on the key's account.
    Refuse(KeyEntry, Denial),
    /// Nobody's secret.
    Unknown,
    /// The edge cannot tell yet, or not any more, whose secret this is.
    Unsure,
}

/// Decides. A deleted key stays deleted, so that needs no current feed; all else does.
#[must_use]
pub(crate) fn decide(entry: Option<KeyEntry>, feed: Feed, now: OffsetDateTime) -> Verdict {
    match (entry, feed) {
        (_, Feed::NotReady) | (None, Feed::Lost) => Verdict::Unsure,
        (None, Feed::Live) => Verdict::Unknown,
        (Some(entry), _) if entry.state == KeyState::Deleted => Verdict::Refuse(entry, Denial::Deleted),
        (Some(entry), Feed::Lost) => Verdict::Refuse(entry, Denial::FeedLost),
        (Some(entry), Feed::Live) if entry.state == KeyState::Disabled => {
            Verdict::Refuse(entry, Denial::Disabled)
        }
        (Some(entry), Feed::Live) if entry.expires_at.is_some_and(|at| at <= now) => {
            Verdict::Refuse(entry, Denial::Expired)
        }
        (Some(entry), Feed::Live) => Verdict::Admit(entry),
    }
}

#[cfg(test)]
mod tests {
    use domain::Id;
    use rstest::rstest;
    use time::Duration;

    use super::*;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    #[rstest]
    #[case(KeyState::Active, None, Feed::Live, None)]
    #[case(KeyState::Active, Some(NOW + Duration::MILLISECOND), Feed::Live, None)]
    #[case(KeyState::Active, Some(NOW), Feed::Live, Some(Denial::Expired))]
    #[case(KeyState::Active, Some(NOW - Duration::DAY), Feed::Live, Some(Denial::Expired))]
    #[case(KeyState::Active, Some(NOW - Duration::DAY), Feed::Lost, Some(Denial::FeedLost))]
    #[case(KeyState::Active, None, Feed::Lost, Some(Denial::FeedLost))]
    #[case(KeyState::Deleted, None, Feed::Lost, Some(Denial::Deleted))]
    #[case(KeyState::Deleted, Some(NOW - Duration::DAY), Feed::Live, Some(Denial::Deleted))]
    fn known_keys(
        #[case] state: KeyState,
        #[case] expires_at: Option<OffsetDateTime>,
        #[case] feed: Feed,
        #[case] denial: Option<Denial>,
    ) {
        let entry = KeyEntry {
            workspace_id: Id::generate(),
            key_id: Id::generate(),
            secret_id: Id::generate(),
            version: 1,
            state,
            expires_at,
        };
        let wanted = denial.map_or(Verdict::Admit(entry), |denial| Verdict::Refuse(entry, denial));
        assert_eq!(decide(Some(entry), feed, NOW), wanted);
        assert_eq!(decide(Some(entry), Feed::NotReady, NOW), Verdict::Unsure);
    }

    #[test]
    fn unknown_secrets() {
        assert_eq!(decide(None, Feed::Live, NOW), Verdict::Unknown);
        assert_eq!(decide(None, Feed::Lost, NOW), Verdict::Unsure);
    }
}
