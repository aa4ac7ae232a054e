//! What a batch tells of the use of keys. A call that the edge refused is no use. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv6Addr,
};

use domain::{KeyId, SecretId, WorkspaceId, print::client_print};
use proto::{events as pb, timestamp::to_proto};
use time::OffsetDateTime;

use crate::{erasures::Erased, event::Event, rows::Caller};

/// Most addresses told of a key at once.
const CLIENTS_MAX: usize = 64;
/// Most secrets told of a key at once; at most five work at the same time.
const SECRETS_MAX: usize = 64;

/// The newest calls of keys, by the number that their callers have in a batch.
#[derive(Debug, Default)]
pub struct Activity(Vec<Option<Use>>);

/// The use of a key with one of its secrets.
#[derive(Debug)]
struct Use {
    caller: Caller,
    last_used_ns: i64,
    /// Where the last call came from: mostly the next one comes from there too.
    last_client: Ipv6Addr,
    clients: BTreeSet<Ipv6Addr>,
}

/// All that is told of a key.
#[derive(Default)]
struct Key<'a> {
    last_used_ns: Option<i64>,
    secrets: BTreeMap<SecretId, i64>,
    clients: BTreeSet<&'a Ipv6Addr>,
}

impl Activity {
    /// Takes a call in of the caller with that number; `event.occurred_at_ns` is the time that it is counted under.
    pub fn note(&mut self, number: u32, caller: Caller, event: &Event<'_>) {
        if event.denial.is_some() {
            return;
        }
        let (number, at, client) = (number as usize, event.occurred_at_ns, event.client_ip);
        if self.0.len() <= number {
            self.0.resize_with(number + 1, || None);
        }
        let Some(used) = &mut self.0[number] else {
            let clients = BTreeSet::from([client]);
            self.0[number] = Some(Use { caller, last_used_ns: at, last_client: client, clients });
            return;
        };
        used.last_used_ns = used.last_used_ns.max(at);
        if used.last_client != client && used.clients.len() < CLIENTS_MAX {
            used.clients.insert(client);
            used.last_client = client;
        }
    }

    /// Drops what is erased.
    pub fn forget(&mut self, erased: &Erased) {
        let covers = |used: &mut Use| erased.covers(used.caller.workspace_id, used.last_used_ns);
        self.0.iter_mut().for_each(|used| drop(used.take_if(covers)));
    }

    /// One message a key, in the order of ids.
    pub fn messages(&self) -> impl Iterator<Item = pb::KeyActivity> {
        let mut keys = BTreeMap::<(WorkspaceId, KeyId), Key<'_>>::new();
        for Use { caller, last_used_ns, clients, .. } in self.0.iter().flatten() {
            let key = keys.entry((caller.workspace_id, caller.key_id)).or_default();
            key.last_used_ns = key.last_used_ns.max(Some(*last_used_ns));
            if key.secrets.len() < SECRETS_MAX {
                key.secrets.insert(caller.secret_id, *last_used_ns);
            }
            let room = CLIENTS_MAX - key.clients.len();
            key.clients.extend(clients.iter().take(room));
        }
        keys.into_iter().map(|((workspace_id, key_id), key)| pb::KeyActivity {
            workspace_id: workspace_id.as_bytes().to_vec(),
            key_id: key_id.as_bytes().to_vec(),
            last_used_at: key.last_used_ns.map(at),
            secrets: key.secrets.iter().map(secret).collect(),
            client_prints: key.clients.into_iter().map(|client| client_print(*client).to_vec()).collect(),
        })
    }
}

fn at(nanos: i64) -> prost_types::Timestamp {
    to_proto(OffsetDateTime::from_unix_timestamp_nanos(nanos.into()).expect("each of its years is one"))
}

fn secret((secret_id, last_used_ns): (&SecretId, &i64)) -> pb::SecretActivity {
    pb::SecretActivity { secret_id: secret_id.as_bytes().to_vec(), last_used_at: Some(at(*last_used_ns)) }
}

#[cfg(test)]
mod tests {
    use domain::{Denial, Id, RequestEvent};
    use time::Duration;

    use super::*;
    use crate::{event::nanos, example};

    fn note(activity: &mut Activity, number: u32, event: &RequestEvent) {
        let RequestEvent { workspace_id, key_id, secret_id, .. } = *event;
        activity.note(number, Caller { workspace_id, key_id, secret_id }, &Event::from(event));
    }

    #[test]
    fn the_newest_admitted_call_counts() {
        let base = RequestEvent { denial: None, ..example::event("edge_a", 1) };
        let (early, late) = (base.occurred_at, base.occurred_at + Duration::MINUTE);
        let second = SecretId::from_uuid(Id::<domain::id::KeyNoun>::generate().as_uuid());
        let mut activity = Activity::default();
        note(&mut activity, 0, &RequestEvent { occurred_at: late, ..base.clone() });
        note(&mut activity, 0, &base);
        let with_second = RequestEvent { secret_id: second, client_ip: Ipv6Addr::LOCALHOST, ..base.clone() };
        note(&mut activity, 2, &with_second);
        for denial in Denial::ALL {
            let occurred_at = late + Duration::HOUR;
            note(&mut activity, 0, &RequestEvent { denial: Some(*denial), occurred_at, ..base.clone() });
            let other = KeyId::generate();
            note(&mut activity, 3, &RequestEvent { denial: Some(*denial), key_id: other, ..base.clone() });
        }
        let [used] = &activity.messages().collect::<Vec<_>>()[..] else { panic!("one key was used") };
        assert_eq!(KeyId::from_slice(&used.key_id), Some(base.key_id));
        assert_eq!(WorkspaceId::from_slice(&used.workspace_id), Some(base.workspace_id));
        assert_eq!(used.last_used_at, Some(to_proto(late)));
        let expected = BTreeMap::from([(base.secret_id, nanos(late)), (second, nanos(early))]);
        assert_eq!(used.secrets, expected.iter().map(secret).collect::<Vec<_>>());
        assert_eq!(used.client_prints.len(), 2);
        assert!(used.client_prints.contains(&client_print(base.client_ip).to_vec()));
    }

    #[test]
    fn addresses_have_a_limit() {
        let base = RequestEvent { denial: None, ..example::event("edge_a", 1) };
        let mut activity = Activity::default();
        for client in 0..100_u128 {
            note(&mut activity, 0, &RequestEvent { client_ip: client.into(), ..base.clone() });
        }
        assert_eq!(activity.messages().next().unwrap().client_prints.len(), CLIENTS_MAX);
    }
}
