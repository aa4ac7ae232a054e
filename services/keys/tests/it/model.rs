//! Any calls, from several clients, with connections that break and callers that give up in between: what Postgres
//! holds, what its events make, and a plain model of a key agree, and no secret is good that the model refuses.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
};

use access::{Claims, Role, Subject};
use domain::{AccountId, Environment, KeyId, WorkspaceId};
use keys::{
    caller::Caller,
    error::Error,
    fields::to_micros,
    key::{Answer, Changes, Expiry, Key, KeyEvent, Standing},
    lifecycle::{Asked, Keys, NewKey, Verdict},
    seal::Kek,
    signing::Signing,
    store::Store,
};
use parts::{Postgres, eventually};
use proptest::{prelude::*, test_runner::TestRunner};
use sqlx::PgPool;
use time::{Duration, OffsetDateTime};

use crate::harness::{EMAIL, ROLE, add_person};

mod book;

use book::{Book, Good, Op, Outcome, Seen};

const CASES: u32 = 12;
const STEPS_MAX: usize = 24;
const CLIENTS: usize = 3;

/// One call.
#[derive(Debug, Clone)]
struct Step {
    client: usize,
    /// Names the version that the client saw last, which may be an old one.
    with_etag: bool,
    op: Op,
    trouble: Trouble,
    /// How much later it is.
    seconds: i64,
}

/// What happens in the middle of a call, after it was polled some times.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    Nothing,
    GivenUp(u32),
    Disconnected(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let overlap = prop_oneof![Just(0), Just(10), Just(600), Just(86_400)].prop_map(Duration::seconds);
    let op = prop_oneof![
        3 => (0..3u8).prop_map(Op::Rename),
        2 => prop_oneof![Just(None), (-5..900i64).prop_map(Some)].prop_map(Op::Expire),
        2 => Just(Op::Disable),
        4 => Just(Op::Enable),
        8 => overlap.prop_map(Op::Rotate),
        3 => (0..6usize).prop_map(Op::Retire),
        1 => (0..6usize).prop_map(Op::Expose),
        1 => Just(Op::Delete),
    ];
    let trouble = prop_oneof![
        6 => Just(Trouble::Nothing),
        2 => (1..24u32).prop_map(Trouble::GivenUp),
        2 => (1..24u32).prop_map(Trouble::Disconnected),
    ];
    let seconds = prop_oneof![Just(0), 1..30i64, 300..900i64];
    let step = (0..CLIENTS, any::<bool>(), op, trouble, seconds).prop_map(
        |(client, with_etag, op, trouble, seconds)| Step { client, with_etag, op, trouble, seconds },
    );
    prop::collection::vec(step, 1..STEPS_MAX)
}

/// The service's use cases and a way to break its connections.
struct World {
    postgres: Postgres,
    keys: Keys,
    store: Store,
    killer: PgPool,
    claims: Claims,
    now: OffsetDateTime,
    reveals: usize,
}

impl World {
    async fn start() -> Self {
        let postgres = Postgres::start().await;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("kek"), "5a".repeat(32)).unwrap();
        let workspace_id = add_person(&postgres, &folder, EMAIL, "Analytical Engines").await;
        let _ = postgres.query("update workspaces set disable_exposed_keys = true");
        let store = Store::new(&postgres.url_as(ROLE).into(), None).unwrap();
        let kek = Kek::read(&folder.path().join("kek")).unwrap();
        Signing::open(&store, &kek).await.unwrap();
        let now = to_micros(OffsetDateTime::now_utc());
        let claims = Claims {
            subject: Subject::Account(AccountId::generate()),
            workspace_id,
            role: Role::Admin,
            scopes: vec![],
            authenticated: None,
            expires: now + Duration::DAY,
        };
        let keys = Keys::new(store.clone(), Arc::new(kek));
        let killer = PgPool::connect(&postgres.url()).await.unwrap();
        Self { postgres, keys, store, killer, claims, now, reveals: 0 }
    }

    fn workspace_id(&self) -> WorkspaceId {
        self.claims.workspace_id
    }

    /// The result of a call; `None` if it is not known, since the caller gave up or lost the connection.
    async fn troubled<T>(
        &self,
        trouble: Trouble,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Option<Result<T, Error>> {
        let mut call = pin!(call);
        let (Trouble::GivenUp(polls) | Trouble::Disconnected(polls)) = trouble else {
            return Some(call.await);
        };
        let mut left = polls;
        let early = poll_fn(|context| {
            if left == 0 {
                return Poll::Ready(None);
            }
            left -= 1;
            call.as_mut().poll(context).map(Some)
        });
        let result = match (early.await, trouble) {
            (Some(result), _) => result,
            (None, Trouble::Disconnected(_)) => {
                let sql = "select pg_terminate_backend(pid) from pg_stat_activity
                           where application_name = 'keymeter-keys'";
                sqlx::query(sql).execute(&self.killer).await.unwrap();
                call.await
            }
            (None, _) => return None,
        };
        Some(result).filter(|result| !matches!(result, Err(Error::Store(_))))
    }

    /// The key as it is once no call is under way.
    async fn settled(&self, key_id: KeyId) -> Key {
        let from = self.now - Duration::days(30);
        eventually("the key can be held", async || {
            let mut tx = self.store.begin().await.ok()?;
            tx.hold_key(self.workspace_id(), key_id, from).await.ok()?
        })
        .await
        .key
    }

    /// The current secret's text, from its copy.
    async fn reveal(&mut self, key_id: KeyId) -> String {
        self.reveals += 1;
        // Somebody else each time, since one person may not have so many.
        let caller = Caller { actor: format!("person {}", self.reveals), address: None };
        let asked = self.asked(key_id, "", &caller);
        self.keys.reveal(asked).await.unwrap().reveal().to_owned()
    }

    fn asked<'a>(&'a self, key_id: KeyId, etag: &'a str, caller: &'a Caller) -> Asked<'a> {
        let (workspace_id, claims, now) = (self.workspace_id(), &self.claims, self.now);
        Asked { workspace_id, key_id, etag, claims, caller, now }
    }

    /// Makes a key in spite of trouble: who heard nothing asks again.
    async fn make(&self, trouble: Trouble) -> (KeyId, Book) {
        let idempotency_key = Some(KeyId::generate().to_string());
        let new = NewKey { idempotency_key, ..NewKey::named("name 0", Environment::Live) };
        let caller = Caller { actor: "person".into(), address: None };
        let create = || self.keys.create(self.workspace_id(), new.clone(), (&self.claims, &caller), self.now);
        let _ = self.troubled(trouble, create()).await;
        let again = async || create().await.ok();
        let (shown, secret) = eventually("the key is made", again).await;
        let secret = book::Secret {
            id: shown.key.secrets[0].secret_id,
            text: secret.unwrap().reveal().to_owned(),
            end: None,
            exposed: false,
        };
        let book = Book {
            version: 1,
            name: "name 0".into(),
            expires: None,
            disabled: false,
            deleted: false,
            secrets: vec![secret],
        };
        (shown.key.key_id, book)
    }

    async fn call(&self, key_id: KeyId, op: &Op, etag: &str, book: &Book) -> Result<(), Error> {
        let caller = Caller { actor: "person".into(), address: None };
        let asked = self.asked(key_id, etag, &caller);
        let changes = |change: &dyn Fn(&mut Changes)| {
            let mut changes = Changes::default();
            change(&mut changes);
            changes
        };
        let place = |place: usize| &book.secrets[place % book.secrets.len()];
        match op {
            Op::Rename(name) => {
                let name = Some(format!("name {name}"));
                self.keys.update(asked, changes(&|changes| changes.display_name.clone_from(&name))).await?;
            }
            Op::Expire(after) => {
                let end = after.map(|after| self.now + Duration::seconds(after));
                let end = Some(Expiry::from(end));
                self.keys.update(asked, changes(&|changes| changes.expire_time = end)).await?;
            }
            Op::Disable => drop(self.keys.disable(asked).await?),
            Op::Enable => drop(self.keys.enable(asked).await?),
            Op::Delete => drop(self.keys.delete(asked).await?),
            Op::Rotate(overlap) => drop(self.keys.rotate(asked, *overlap, None).await?),
            Op::Retire(which) => drop(self.keys.retire_secret(asked, place(*which).id).await?),
            Op::Expose(which) => {
                let secret = domain::Secret::parse(&place(*which).text).unwrap();
                self.keys.expose(&secret, String::new(), String::new(), &caller, self.now).await?;
            }
        }
        Ok(())
    }

    /// Postgres, the events and the model agree on the key and on every secret.
    async fn check(&self, key_id: KeyId, book: &Book) {
        let key = self.settled(key_id).await;
        let secrets = key.secrets.iter().map(|secret| (secret.secret_id, secret.retire_time));
        let expected = book.secrets.iter().map(|secret| (secret.id, secret.end));
        assert_eq!(secrets.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        assert_eq!((key.version, &key.display_name), (book.version, &book.name));
        assert_eq!((key.expire_time, key.disable_time.is_some()), (book.expires, book.disabled));
        assert_eq!(key.delete_time.is_some(), book.deleted);
        assert_eq!(self.replay(key_id), key);
        for (place, secret) in book.secrets.iter().enumerate() {
            let verdict = self.keys.verify(self.workspace_id(), &secret.text, self.now).await.unwrap();
            let Verdict::Known(shown, secret_id) = verdict else { panic!("a secret is forgotten") };
            assert_eq!((shown.key.key_id, secret_id), (key_id, secret.id));
            let good = match shown.key.answer(secret_id, self.now) {
                Answer::Good => Good::Yes,
                Answer::Retired => Good::Retired,
                Answer::Key(Standing::Deleted) => Good::Deleted,
                Answer::Key(Standing::Disabled) => Good::Disabled,
                Answer::Key(Standing::Expired) => Good::Expired,
                Answer::Key(Standing::Active) => panic!("an active key is no refusal"),
            };
            assert_eq!(good, book.good(place, self.now));
        }
    }

    /// The key that its events make.
    fn replay(&self, key_id: KeyId) -> Key {
        let sql = format!(
            "select json_build_object('type', type, 'payload', payload), extract(epoch from event_time), version
             from key_events where key_id = '{}' order by version",
            key_id.as_uuid()
        );
        let mut key: Option<Key> = None;
        for line in self.postgres.query(&sql).lines() {
            let columns: Vec<&str> = line.split('\t').collect();
            let event: KeyEvent = serde_json::from_str(columns[0]).unwrap();
            let micros: i128 = columns[1].replace('.', "").parse().unwrap();
            let at = OffsetDateTime::from_unix_timestamp_nanos(micros * 1_000).unwrap();
            key = Some(match (key, &event) {
                (None, KeyEvent::Created(created)) => Key::created(self.workspace_id(), key_id, created, at),
                (Some(key), event) => key.after(event, at),
                (None, event) => panic!("the first event is {event:?}"),
            });
            assert_eq!(columns[2].parse(), Ok(key.as_ref().unwrap().version), "no version is left out");
        }
        key.unwrap()
    }
}

async fn run(world: &mut World, steps: &[Step]) {
    let first = steps.first().map_or(Trouble::Nothing, |step| step.trouble);
    let (key_id, mut book) = world.make(first).await;
    let mut clients: [Option<(String, Seen)>; CLIENTS] = [const { None }; CLIENTS];
    for Step { client, with_etag, op, trouble, seconds } in steps {
        world.now += Duration::seconds(*seconds);
        let etag = clients[*client].clone().filter(|_| *with_etag);
        let (text, seen) = etag.map_or((String::new(), None), |(text, seen)| (text, Some(seen)));
        let (expected, next) = book.after(op, seen, world.now);
        let result = world.troubled(*trouble, world.call(key_id, op, &text, &book)).await;
        let key = world.settled(key_id).await;
        let applied = match result {
            Some(result) => {
                assert_eq!(outcome(&result), expected, "{op:?} on {book:?}");
                true
            }
            // Nobody knows; but all of it was done or nothing.
            None => key.version != book.version,
        };
        if applied {
            book = next;
        }
        if book.secrets[0].text.is_empty() {
            book.secrets[0].id = key.secrets[0].secret_id;
            book.secrets[0].text = world.reveal(key_id).await;
        }
        world.check(key_id, &book).await;
        clients[*client] = Some((key.etag(world.now), book.seen(world.now)));
    }
}

fn outcome(result: &Result<(), Error>) -> Outcome {
    match result {
        Ok(()) => Outcome::Done,
        Err(Error::KeyDeleted) => Outcome::Deleted,
        Err(Error::StaleEtag) => Outcome::Stale,
        Err(Error::CurrentSecret) => Outcome::Current,
        Err(Error::TooManySecrets) => Outcome::TooMany,
        Err(Error::Invalid { field: "key.expire_time", .. }) => Outcome::Past,
        Err(error) => panic!("{error:?}"),
    }
}

#[test]
fn any_calls_leave_what_the_model_says() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let world = runtime.block_on(World::start());
    let world = std::cell::RefCell::new(world);
    let config = ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() };
    let tested = TestRunner::new(config).run(&steps(), |steps| {
        runtime.block_on(run(&mut world.borrow_mut(), &steps));
        Ok(())
    });
    if let Err(error) = tested {
        panic!("{error}");
    }
    let made =
        world.borrow().postgres.query("select count(*) >= 12, count(distinct key_id) = count(*) from keys");
    assert_eq!(made, "t\tt\n");
}
