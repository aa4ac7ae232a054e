//! Lists of keys: what they can be narrowed to and sorted by, page after page.

use std::collections::HashMap;

use proto::{
    keys::{
        CreateKeyRequest, DeleteKeyRequest, DisableKeyRequest, Environment, Key, KeyFilter, KeyHygiene,
        KeyOrder, KeyState, ListKeysRequest, RotateKeyRequest,
    },
    timestamp::to_proto,
};
use time::{Duration, OffsetDateTime};

use crate::harness::{Running, bearer, field, key_id};

/// Keys and who they are, by their names of display.
struct Ring {
    run: Running,
    keys: HashMap<String, Key>,
}

impl Ring {
    async fn start() -> Self {
        Self { run: Running::start().await, keys: HashMap::new() }
    }

    async fn add(&mut self, key: Key) {
        let (name, token) = (key.display_name.clone(), self.run.admin.clone());
        let request =
            CreateKeyRequest { parent: self.run.workspace.clone(), key: Some(key), ..Default::default() };
        let made = self.run.keys().create_key(bearer(&token, request)).await.unwrap().into_inner();
        self.keys.insert(name, made.key.unwrap());
    }

    async fn add_all(&mut self, names: &[&str]) {
        for name in names {
            self.add(Key { display_name: (*name).into(), ..Key::default() }).await;
        }
    }

    /// Changes a key's rows behind the service's back.
    fn set(&self, table: &str, name: &str, set: &str) {
        let id = key_id(&self.keys[name]).as_uuid();
        let _ = self.run.postgres.query(&format!("update {table} set {set} where key_id = '{id}'"));
    }

    fn used(&self, name: &str, ago: &str) {
        self.set("key_activity", name, &format!("last_used_time = now() - interval '{ago}'"));
    }

    /// Names of display of all pages of a list; the same whatever the size of a page.
    async fn list(&self, change: impl Fn(&mut ListKeysRequest)) -> Vec<String> {
        let mut lists = Vec::new();
        for page_size in [0, 1, 2, 3] {
            let (mut names, mut page_token) = (Vec::new(), String::new());
            loop {
                let parent = self.run.workspace.clone();
                let mut request = ListKeysRequest { parent, page_size, page_token, ..Default::default() };
                change(&mut request);
                let page = self.run.keys().list_keys(self.run.ask(request)).await.unwrap().into_inner();
                assert!(page_size == 0 || page.keys.len() <= usize::try_from(page_size).unwrap());
                names.extend(page.keys.into_iter().map(|key| key.display_name));
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    break;
                }
            }
            lists.push(names);
        }
        assert!(lists.iter().all(|names| *names == lists[0]), "{lists:?}");
        lists.swap_remove(0)
    }

    async fn filter(&self, filter: KeyFilter) -> Vec<String> {
        self.list(|request| request.filter = Some(filter.clone())).await
    }

    async fn search(&self, text: &str) -> Vec<String> {
        self.filter(KeyFilter { search: text.into(), ..KeyFilter::default() }).await
    }

    async fn hygiene(&self, hygiene: &[KeyHygiene]) -> Vec<String> {
        let hygiene = hygiene.iter().map(|hygiene| (*hygiene).into()).collect();
        self.filter(KeyFilter { hygiene, ..KeyFilter::default() }).await
    }
}

#[tokio::test]
async fn every_order_has_every_key_once() {
    let mut ring = Ring::start().await;
    ring.add_all(&["b", "A", "ä", "same", "same"]).await;
    let soon = OffsetDateTime::now_utc() + Duration::HOUR;
    for (name, expire_time) in [("c", soon + Duration::HOUR), ("d", soon), ("e", soon)] {
        let expire_time = Some(to_proto(expire_time));
        ring.add(Key { display_name: name.into(), expire_time, ..Key::default() }).await;
    }
    ring.used("A", "1 hour");
    ring.used("c", "1 minute");
    ring.used("e", "1 day");
    let order = async |order: KeyOrder| ring.list(|request| request.order_by = order.into()).await;
    let newest_first = ["e", "d", "c", "same", "same", "ä", "A", "b"];
    assert_eq!(order(KeyOrder::Unspecified).await, newest_first);
    assert_eq!(order(KeyOrder::CreateTimeDesc).await, newest_first);
    assert_eq!(order(KeyOrder::DisplayName).await, ["A", "b", "c", "d", "e", "same", "same", "ä"]);
    assert_eq!(order(KeyOrder::LastUsedTimeDesc).await, ["c", "A", "e", "d", "same", "same", "ä", "b"]);
    assert_eq!(order(KeyOrder::ExpireTime).await, ["d", "e", "c", "b", "A", "ä", "same", "same"]);
    let all = ring.run.postgres.query("select count(*), count(distinct key_id) from key_activity");
    assert_eq!(all, "8\t8\n");
}

#[tokio::test]
async fn words_find_keys() {
    let mut ring = Ring::start().await;
    let keys =
        [("Billing service", "nightly run, 2nd try"), ("payroll", "x'; drop table keys --"), ("Zürich", "")];
    for (display_name, description) in keys {
        let (display_name, description) = (display_name.into(), description.into());
        ring.add(Key { display_name, description, ..Key::default() }).await;
    }
    for (text, expected) in [
        ("bill", &["Billing service"][..]),
        ("BILLING", &["Billing service"]),
        ("serv night", &["Billing service"]),
        ("2nd", &["Billing service"]),
        ("illing", &[]),
        ("bill payroll", &[]),
        ("' | drop:*", &["payroll"]),
        ("drop!&(table)", &["payroll"]),
        ("zür", &["Zürich"]),
        ("km_live", &["Zürich", "payroll", "Billing service"]),
        (&"x".repeat(90), &[]),
    ] {
        assert_eq!(ring.search(text).await, expected, "{text}");
    }
    for key in ring.keys.values() {
        assert_eq!(ring.search(&key.start).await.join(","), key.display_name, "by its start");
    }
    // Longer than any word of the index can be.
    ring.add(Key { display_name: "long".into(), description: "y".repeat(1_000), ..Key::default() }).await;
    assert_eq!(ring.search(&"y".repeat(60)).await, ["long"]);
}

#[tokio::test]
async fn fields_and_states_narrow_the_list() {
    let mut ring = Ring::start().await;
    let tagged = |tags: &[(&str, &str)]| tags.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    ring.add(Key {
        display_name: "a".into(),
        tags: tagged(&[("team", "x"), ("env", "p")]),
        ..Key::default()
    })
    .await;
    let environment = Environment::Test.into();
    ring.add(Key { display_name: "b".into(), environment, tags: tagged(&[("team", "x")]), ..Key::default() })
        .await;
    ring.add_all(&["disabled", "expired", "deleted"]).await;
    let owner = ring.keys["a"].owner.clone();
    ring.set("keys", "disabled", "owner = 'svc_00000000000000000000000000'");
    ring.set("keys", "expired", "expire_time = now() - interval '1 hour'");
    let disable = DisableKeyRequest { name: ring.keys["disabled"].name.clone(), ..Default::default() };
    ring.run.keys().disable_key(ring.run.ask(disable)).await.unwrap();
    let delete = DeleteKeyRequest { name: ring.keys["deleted"].name.clone(), ..Default::default() };
    ring.run.keys().delete_key(ring.run.ask(delete)).await.unwrap();

    let with = async |tags: &[(&str, &str)]| {
        ring.filter(KeyFilter { tags: tagged(tags), ..KeyFilter::default() }).await
    };
    assert_eq!(with(&[("team", "x")]).await, ["b", "a"]);
    assert_eq!(with(&[("team", "x"), ("env", "p")]).await, ["a"]);
    assert!(with(&[("team", "y")]).await.is_empty());
    let environments = [(Environment::Test, &["b"][..]), (Environment::Live, &["expired", "disabled", "a"])];
    for (environment, expected) in environments {
        let filter = KeyFilter { environment: environment.into(), ..KeyFilter::default() };
        assert_eq!(ring.filter(filter).await, expected);
    }
    let filter = KeyFilter { owner, ..KeyFilter::default() };
    assert_eq!(ring.filter(filter).await, ["expired", "b", "a"]);
    let states = async |states: &[KeyState]| {
        let states = states.iter().map(|state| (*state).into()).collect();
        ring.filter(KeyFilter { states, ..KeyFilter::default() }).await
    };
    use KeyState::{Active, Deleted, Disabled, Expired};
    assert_eq!(states(&[]).await, ["expired", "disabled", "b", "a"]);
    assert_eq!(states(&[Active]).await, ["b", "a"]);
    assert_eq!(states(&[Expired]).await, ["expired"]);
    assert_eq!(states(&[Disabled]).await, ["disabled"]);
    assert_eq!(states(&[Deleted]).await, ["deleted"]);
    assert_eq!(states(&[Deleted, Active]).await, ["deleted", "b", "a"]);
    assert_eq!(states(&[Active, Expired, Disabled, Deleted]).await.len(), 5);
    assert_eq!(ring.list(|request| request.show_deleted = true).await.len(), 5);
}

#[tokio::test]
async fn hygiene_finds_what_is_amiss() {
    let mut ring = Ring::start().await;
    let now = OffsetDateTime::now_utc();
    for (name, days) in [("soon", 6), ("later", 8)] {
        let expire_time = Some(to_proto(now + Duration::days(days)));
        ring.add(Key { display_name: name.into(), expire_time, ..Key::default() }).await;
    }
    ring.add_all(&["new", "old", "used", "lately"]).await;
    for name in ["old", "used", "lately"] {
        ring.set("keys", name, "create_time = create_time - interval '100 days'");
    }
    ring.used("used", "40 days");
    ring.used("lately", "1 day");
    ring.set("key_activity", "lately", "address_count = 5");
    ring.set("key_activity", "used", "address_count = 4");
    ring.set("keys", "new", "expose_time = now()");
    for (name, seconds) in [("new", 60), ("old", 0)] {
        let overlap = Some(prost_types::Duration { seconds, nanos: 0 });
        let rotate = RotateKeyRequest { name: ring.keys[name].name.clone(), overlap, ..Default::default() };
        ring.run.keys().rotate_key(ring.run.ask(rotate)).await.unwrap();
    }
    use KeyHygiene as H;
    for (hygiene, expected) in [
        (&[H::NeverUsed][..], &["new", "later", "soon", "old"][..]),
        (&[H::Unused30Days], &["used", "old"]),
        (&[H::Unused90Days], &["old"]),
        (&[H::NoExpiry], &["new", "lately", "used", "old"]),
        (&[H::ExpiresSoon], &["soon"]),
        (&[H::ManyAddresses], &["lately"]),
        (&[H::Exposed], &["new"]),
        (&[H::SeveralSecrets], &["new"]),
        (&[H::NeverUsed, H::NoExpiry], &["new", "old"]),
        (&[H::ManyAddresses, H::Exposed], &[]),
    ] {
        assert_eq!(ring.hygiene(hygiene).await, expected, "{hygiene:?}");
    }
    let filter = KeyFilter { hygiene: vec![H::NoExpiry.into()], ..KeyFilter::default() };
    let by_use = ring.list(|request| {
        request.filter = Some(filter.clone());
        request.order_by = KeyOrder::LastUsedTimeDesc.into();
    });
    assert_eq!(by_use.await, ["lately", "used", "old", "new"]);
}

#[tokio::test]
async fn bad_questions_name_their_field() {
    let mut ring = Ring::start().await;
    ring.add_all(&["a", "b"]).await;
    let parent = || ring.run.workspace.clone();
    let list = async |request: ListKeysRequest| ring.run.keys().list_keys(ring.run.ask(request)).await;
    let bad = [
        ("filter.search", KeyFilter { search: "x".repeat(101), ..KeyFilter::default() }),
        ("filter.search", KeyFilter { search: "--".into(), ..KeyFilter::default() }),
        ("filter.search", KeyFilter { search: "a b c d e f g h i j k".into(), ..KeyFilter::default() }),
        ("filter.environment", KeyFilter { environment: 9, ..KeyFilter::default() }),
        (
            "filter.tags",
            KeyFilter { tags: HashMap::from([(String::new(), String::new())]), ..KeyFilter::default() },
        ),
        ("filter.owner", KeyFilter { owner: "ada".into(), ..KeyFilter::default() }),
        ("filter.states", KeyFilter { states: vec![0], ..KeyFilter::default() }),
        ("filter.states", KeyFilter { states: vec![9], ..KeyFilter::default() }),
        ("filter.hygiene", KeyFilter { hygiene: vec![0], ..KeyFilter::default() }),
    ];
    for (expected, filter) in bad {
        let request = ListKeysRequest { parent: parent(), filter: Some(filter), ..Default::default() };
        assert_eq!(field(&list(request).await.unwrap_err()), expected);
    }
    let request = ListKeysRequest { parent: parent(), order_by: 9, ..Default::default() };
    assert_eq!(field(&list(request).await.unwrap_err()), "order_by");

    // A page's token goes on with its own question only.
    let first = ListKeysRequest { parent: parent(), page_size: 1, ..Default::default() };
    let page_token = list(first.clone()).await.unwrap().into_inner().next_page_token;
    let next = ListKeysRequest { page_token, ..first };
    assert!(list(next.clone()).await.is_ok());
    let filter = Some(KeyFilter { search: "a".into(), ..KeyFilter::default() });
    for other in [
        ListKeysRequest { order_by: KeyOrder::DisplayName.into(), ..next.clone() },
        ListKeysRequest { filter, ..next.clone() },
        ListKeysRequest { show_deleted: true, ..next },
    ] {
        assert_eq!(field(&list(other).await.unwrap_err()), "page_token");
    }
}
