//! What a batch tells of the use of keys. A call that the edge refused is no use. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv6Addr,
};

use domain::{KeyId, RequestEvent, SecretId, WorkspaceId, print::client_print};
use proto::{events as pb, timestamp::to_proto};
use time::OffsetDateTime;

use crate::erasures::Erased;

/// Most addresses told of a key at once.
const CLIENTS_MAX: usize = 64;
/// Most secrets told of a key at once; at most five work at the same time.
const SECRETS_MAX: usize = 64;

/// The newest calls of keys.
#[derive(Debug, Default)]
pub struct Activity(BTreeMap<(WorkspaceId, KeyId), Use>);

#[derive(Debug)]
struct Use {
    last_used_at: OffsetDateTime,
    secrets: BTreeMap<SecretId, OffsetDateTime>,
    clients: BTreeSet<Ipv6Addr>,
}

impl Activity {
    /// Takes a call in; `event.occurred_at` is the time that it is counted under.
    pub fn note(&mut self, event: &RequestEvent) {
        if event.denial.is_some() {
            return;
        }
        let at = event.occurred_at;
        let used = self.0.entry((event.workspace_id, event.key_id)).or_insert_with(|| Use {
            last_used_at: at,
            secrets: BTreeMap::new(),
            clients: BTreeSet::new(),
        });
        used.last_used_at = used.last_used_at.max(at);
        if used.secrets.len() < SECRETS_MAX || used.secrets.contains_key(&event.secret_id) {
            let newest = used.secrets.entry(event.secret_id).or_insert(at);
            *newest = at.max(*newest);
        }
        if used.clients.len() < CLIENTS_MAX {
            used.clients.insert(event.client_ip);
        }
    }

    /// Drops what is erased.
    pub fn forget(&mut self, erased: &Erased) {
        self.0.retain(|(workspace_id, _), used| !erased.covers_time(*workspace_id, used.last_used_at));
    }

    /// One message a key, in the order of ids.
    pub fn messages(&self) -> impl Iterator<Item = pb::KeyActivity> {
        self.0.iter().map(|((workspace_id, key_id), used)| pb::KeyActivity {
            workspace_id: workspace_id.as_bytes().to_vec(),
            key_id: key_id.as_bytes().to_vec(),
            last_used_at: Some(to_proto(used.last_used_at)),
            secrets: used.secrets.iter().map(secret).collect(),
            client_prints: used.clients.iter().map(|client| client_print(*client).to_vec()).collect(),
        })
    }
}

fn secret((secret_id, at): (&SecretId, &OffsetDateTime)) -> pb::SecretActivity {
    pb::SecretActivity { secret_id: secret_id.as_bytes().to_vec(), last_used_at: Some(to_proto(*at)) }
}

#[cfg(test)]
mod tests {
    use domain::{Denial, Id};
    use time::Duration;

    use super::*;
    use crate::example;

    #[test]
    fn the_newest_admitted_call_counts() {
        let base = RequestEvent { denial: None, ..example::event("edge_a", 1) };
        let (early, late) = (base.occurred_at, base.occurred_at + Duration::MINUTE);
        let second = SecretId::from_uuid(Id::<domain::id::KeyNoun>::generate().as_uuid());
        let mut activity = Activity::default();
        activity.note(&RequestEvent { occurred_at: late, ..base.clone() });
        activity.note(&base);
        activity.note(&RequestEvent { secret_id: second, client_ip: Ipv6Addr::LOCALHOST, ..base.clone() });
        for denial in Denial::ALL {
            let occurred_at = late + Duration::HOUR;
            activity.note(&RequestEvent { denial: Some(*denial), occurred_at, ..base.clone() });
            let other = KeyId::generate();
            activity.note(&RequestEvent { denial: Some(*denial), key_id: other, ..base.clone() });
        }
        let [used] = &activity.messages().collect::<Vec<_>>()[..] else { panic!("one key was used") };
        assert_eq!(KeyId::from_slice(&used.key_id), Some(base.key_id));
        assert_eq!(WorkspaceId::from_slice(&used.workspace_id), Some(base.workspace_id));
        assert_eq!(used.last_used_at, Some(to_proto(late)));
        let expected = BTreeMap::from([(base.secret_id, late), (second, early)]);
        assert_eq!(used.secrets, expected.iter().map(secret).collect::<Vec<_>>());
        assert_eq!(used.client_prints.len(), 2);
        assert!(used.client_prints.contains(&client_print(base.client_ip).to_vec()));
    }

    #[test]
    fn addresses_have_a_limit() {
        let base = RequestEvent { denial: None, ..example::event("edge_a", 1) };
        let mut activity = Activity::default();
        for client in 0..100_u128 {
            activity.note(&RequestEvent { client_ip: client.into(), ..base.clone() });
        }
        assert_eq!(activity.messages().next().unwrap().client_prints.len(), CLIENTS_MAX);
    }
}
