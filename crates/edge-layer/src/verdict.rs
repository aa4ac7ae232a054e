//! May this call pass? Pure: what depends on time takes `now`.

use std::net::Ipv6Addr;

use domain::{Denial, KeyState};
use time::OffsetDateTime;

use crate::{
    key_table::{KeyEntry, Policy},
    scopes,
};

/// What the edge can say of its own knowledge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feed {
    /// The first snapshot has not come yet.
    NotReady,
    /// What is known is current.
    Live,
    /// Nothing was heard for too long.
    Lost,
    /// Nothing was heard for too long, and what is known is to be used all the same.
    Stale,
}

/// What the verdict depends on, beside the key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// When.
    pub(crate) at: OffsetDateTime,
    /// From where; `None` if that is not known.
    pub(crate) client: Option<Ipv6Addr>,
    /// What the route requires.
    pub(crate) scope: Option<&'a str>,
    /// The key is of another environment than the edge.
    pub(crate) is_foreign: bool,
}

/// What becomes of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// Decides. What is checked first is told first: deleted, feed lost, disabled, expired, secret retired,
/// environment, address, scope. A deleted key stays deleted, so that needs no current feed; all else does.
#[must_use]
pub(crate) fn decide(entry: Option<KeyEntry>, feed: Feed, asked: Asked<'_>) -> Verdict {
    let entry = match (entry, feed) {
        // A secret that is not known may be that of a new key.
        (_, Feed::NotReady) | (None, Feed::Lost | Feed::Stale) => return Verdict::Unsure,
        (None, Feed::Live) => return Verdict::Unknown,
        (Some(entry), _) => entry,
    };
    let denial = match (entry.state, feed) {
        (KeyState::Deleted, _) => Some(Denial::Deleted),
        (_, Feed::Lost | Feed::NotReady) => Some(Denial::FeedLost),
        (KeyState::Disabled, Feed::Live | Feed::Stale) => Some(Denial::Disabled),
        (KeyState::Active, Feed::Live | Feed::Stale) => denial_of(entry.policy.as_deref(), asked),
    };
    match denial {
        Some(denial) => Verdict::Refuse(entry, denial),
        None => Verdict::Admit(entry),
    }
}

fn denial_of(policy: Option<&Policy>, asked: Asked<'_>) -> Option<Denial> {
    let Some(policy) = policy else {
        let missing = asked.scope.map(|_| Denial::ScopeMissing);
        return if asked.is_foreign { Some(Denial::EnvironmentMismatch) } else { missing };
    };
    let has_passed = |end: Option<OffsetDateTime>| end.is_some_and(|end| end <= asked.at);
    let is_inside = |client| policy.networks.iter().any(|network| network.contains(client));
    if has_passed(policy.expires_at) {
        Some(Denial::Expired)
    } else if has_passed(policy.retires_at) {
        Some(Denial::SecretRetired)
    } else if asked.is_foreign {
        Some(Denial::EnvironmentMismatch)
    } else if !policy.networks.is_empty() && !asked.client.is_some_and(is_inside) {
        Some(Denial::IpNotAllowed)
    } else if asked.scope.is_some_and(|scope| !scopes::has(&policy.scopes, scope)) {
        Some(Denial::ScopeMissing)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use domain::Id;
    use rstest::rstest;
    use time::Duration;

    use super::*;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;
    const PAST: OffsetDateTime = NOW.saturating_sub(Duration::DAY);
    const NEXT: OffsetDateTime = NOW.saturating_add(Duration::MILLISECOND);

    fn entry(state: KeyState, policy: Policy) -> KeyEntry {
        KeyEntry {
            workspace_id: Id::generate(),
            key_id: Id::generate(),
            secret_id: Id::generate(),
            version: 1,
            feed_version: 1,
            state,
            address_storage: domain::AddressStorage::default(),
            policy: (policy != Policy::default()).then(|| Arc::new(policy)),
        }
    }

    /// Each row has everything that the rows below it have, and is told first.
    #[rstest]
    #[case(KeyState::Deleted, Feed::Lost, PAST, PAST, "2001:db8::", "none", Some(Denial::Deleted))]
    #[case(KeyState::Deleted, Feed::Live, PAST, PAST, "2001:db8::", "none", Some(Denial::Deleted))]
    #[case(KeyState::Disabled, Feed::Lost, PAST, PAST, "2001:db8::", "none", Some(Denial::FeedLost))]
    #[case(KeyState::Active, Feed::Lost, PAST, PAST, "2001:db8::", "none", Some(Denial::FeedLost))]
    #[case(KeyState::Disabled, Feed::Live, PAST, PAST, "2001:db8::", "none", Some(Denial::Disabled))]
    #[case(KeyState::Active, Feed::Live, PAST, PAST, "2001:db8::", "none", Some(Denial::Expired))]
    #[case(KeyState::Active, Feed::Live, NOW, PAST, "2001:db8::", "none", Some(Denial::Expired))]
    #[case(KeyState::Active, Feed::Live, NEXT, PAST, "2001:db8::", "none", Some(Denial::SecretRetired))]
    #[case(KeyState::Active, Feed::Live, NEXT, NOW, "2001:db8::", "none", Some(Denial::SecretRetired))]
    #[case(KeyState::Active, Feed::Live, NEXT, NEXT, "2001:db8::", "none", Some(Denial::IpNotAllowed))]
    #[case(KeyState::Active, Feed::Live, NEXT, NEXT, "192.0.2.7", "none", Some(Denial::ScopeMissing))]
    #[case(KeyState::Active, Feed::Live, NEXT, NEXT, "192.0.2.7", "orders:read", None)]
    #[case(KeyState::Active, Feed::Lost, NEXT, NEXT, "192.0.2.7", "orders:read", Some(Denial::FeedLost))]
    #[case(KeyState::Deleted, Feed::Stale, NEXT, NEXT, "192.0.2.7", "orders:read", Some(Denial::Deleted))]
    #[case(KeyState::Disabled, Feed::Stale, NEXT, NEXT, "192.0.2.7", "orders:read", Some(Denial::Disabled))]
    #[case(KeyState::Active, Feed::Stale, PAST, NEXT, "192.0.2.7", "orders:read", Some(Denial::Expired))]
    #[case(KeyState::Active, Feed::Stale, NEXT, NEXT, "192.0.2.7", "orders:read", None)]
    fn the_first_that_holds_is_told(
        #[case] state: KeyState,
        #[case] feed: Feed,
        #[case] expires_at: OffsetDateTime,
        #[case] retires_at: OffsetDateTime,
        #[case] client: std::net::IpAddr,
        #[case] scope: &str,
        #[case] denial: Option<Denial>,
    ) {
        let policy = Policy {
            expires_at: Some(expires_at),
            retires_at: Some(retires_at),
            networks: ["192.0.2.0/24".parse().unwrap()].into(),
            scopes: ["orders:*".into()].into(),
            ..Policy::default()
        };
        let entry = entry(state, policy);
        let client = Some(crate::network::mapped(client));
        let asked = Asked { at: NOW, client, scope: Some(scope), is_foreign: false };
        let wanted = match denial {
            Some(denial) => Verdict::Refuse(entry.clone(), denial),
            None => Verdict::Admit(entry.clone()),
        };
        assert_eq!(decide(Some(entry.clone()), feed, asked), wanted);
        assert_eq!(decide(Some(entry), Feed::NotReady, asked), Verdict::Unsure);
    }

    #[test]
    fn an_unknown_address_is_outside_of_every_network() {
        let asked = Asked { at: NOW, client: None, scope: None, is_foreign: false };
        let bound = Policy { networks: ["::/0".parse().unwrap()].into(), ..Policy::default() };
        let bound = entry(KeyState::Active, bound);
        let free = entry(KeyState::Active, Policy::default());
        let refused = Verdict::Refuse(bound.clone(), Denial::IpNotAllowed);
        assert_eq!(decide(Some(bound), Feed::Live, asked), refused);
        assert_eq!(decide(Some(free.clone()), Feed::Live, asked), Verdict::Admit(free));
    }

    #[test]
    fn a_key_without_scopes_has_none() {
        let asked = Asked { at: NOW, client: None, scope: Some("orders:read"), is_foreign: false };
        let free = entry(KeyState::Active, Policy::default());
        let refused = Verdict::Refuse(free.clone(), Denial::ScopeMissing);
        assert_eq!(decide(Some(free), Feed::Live, asked), refused);
    }

    #[test]
    fn a_key_of_another_environment_is_told_so_before_its_address() {
        let asked = Asked { at: NOW, client: None, scope: Some("orders:read"), is_foreign: true };
        let of = |policy| {
            let entry = entry(KeyState::Active, policy);
            match decide(Some(entry), Feed::Live, asked) {
                Verdict::Refuse(_, denial) => denial,
                other => panic!("{other:?}"),
            }
        };
        let bound = Policy { networks: ["192.0.2.0/24".parse().unwrap()].into(), ..Policy::default() };
        assert_eq!(of(Policy::default()), Denial::EnvironmentMismatch);
        assert_eq!(of(bound), Denial::EnvironmentMismatch);
        assert_eq!(of(Policy { retires_at: Some(PAST), ..Policy::default() }), Denial::SecretRetired);
        assert_eq!(decide(None, Feed::Live, asked), Verdict::Unknown);
    }

    #[test]
    fn unknown_secrets() {
        let asked = Asked { at: NOW, client: None, scope: None, is_foreign: false };
        assert_eq!(decide(None, Feed::Live, asked), Verdict::Unknown);
        assert_eq!(decide(None, Feed::Lost, asked), Verdict::Unsure);
        assert_eq!(decide(None, Feed::Stale, asked), Verdict::Unsure);
        assert_eq!(decide(None, Feed::NotReady, asked), Verdict::Unsure);
    }
}
