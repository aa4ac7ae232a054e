//! What a key may be used for and from where, through the edge's own port.

use bytes::Bytes;
use domain::{Denial, Environment};
use http::{Request, Response};
use http_body_util::Full;
use parts::eventually;
use proto::{events as pb, timestamp};
use time::{Duration, OffsetDateTime};

use crate::world::{EdgeProcess, Key, World, echo, get, json, send, serve};

/// The denial of a call, empty if it reached the API.
async fn denial(request: Request<Full<Bytes>>) -> String {
    let response: Response<Bytes> = send(request).await;
    json(&response)["denial"].as_str().unwrap_or_default().to_owned()
}

/// Waits until calls with the key are refused so.
async fn until_denied(edge: &EdgeProcess, key: &Key, wanted: &str) {
    eventually(wanted, async || denial(get(&edge.url("/x"), key)).await == wanted).await;
}

#[tokio::test]
async fn refusals_are_on_the_account_of_the_key() {
    let world = World::start().await;
    let key = world.key().await;
    let edge = EdgeProcess::start(&world, serve(echo()).await, &[]).await;
    let retire_time = Some(timestamp::to_proto(OffsetDateTime::now_utc() - Duration::SECOND));
    let active = pb::KeyFeedEntry { version: 2, ..key.entry(pb::KeyState::Active) };
    let elsewhere = vec!["198.51.100.0/24".to_owned(), "2001:db8::/32".to_owned()];
    for (entry, wanted) in [
        (pb::KeyFeedEntry { version: 2, ..key.entry(pb::KeyState::Disabled) }, "disabled"),
        (pb::KeyFeedEntry { retire_time, ..active.clone() }, "secret_retired"),
        (pb::KeyFeedEntry { allowed_networks: elsewhere, ..active.clone() }, "ip_not_allowed"),
        (pb::KeyFeedEntry { allowed_networks: vec!["127.0.0.0/8".into()], ..active }, ""),
    ] {
        world.feed_entry(&key, entry).await;
        until_denied(&edge, &key, wanted).await;
    }
    let wanted = [Denial::Disabled, Denial::SecretRetired, Denial::IpNotAllowed];
    eventually("each is on record", async || {
        let events = world.events().await;
        let of_key = |denial| move |event: &&domain::RequestEvent| event.denial == Some(denial);
        wanted.iter().all(|denial| {
            events.values().find(of_key(*denial)).is_some_and(|event| {
                (event.key_id, event.secret_id) == (key.key_id, key.secret_id)
                    && event.status_code == denial.status_code()
            })
        })
    })
    .await;
}

#[tokio::test]
async fn a_forwarded_address_is_believed_from_trusted_proxies_only() {
    let world = World::start().await;
    let key = world.key().await;
    let entry = pb::KeyFeedEntry {
        version: 2,
        allowed_networks: vec!["198.51.100.0/24".into()],
        ..key.entry(pb::KeyState::Active)
    };
    world.feed_entry(&key, entry).await;
    let api = serve(echo()).await;
    let believing =
        EdgeProcess::start(&world, api, &[("KEYMETER_EDGE_TRUSTED_PROXIES", "10.0.0.0/8,127.0.0.1")]).await;
    let doubting = EdgeProcess::start(&world, api, &[]).await;
    let call = async |edge: &EdgeProcess, forwarded: &str| {
        let mut request = get(&edge.url("/x"), &key);
        request.headers_mut().insert("x-forwarded-for", forwarded.parse().unwrap());
        denial(request).await
    };
    assert_eq!(call(&believing, "198.51.100.7").await, "");
    assert_eq!(call(&believing, "203.0.113.9, 198.51.100.7, 10.1.2.3").await, "");
    assert_eq!(call(&believing, "198.51.100.7, 203.0.113.9").await, "ip_not_allowed");
    assert_eq!(call(&believing, "198.51.100.7, garbled").await, "ip_not_allowed");
    assert_eq!(call(&doubting, "198.51.100.7").await, "ip_not_allowed");
    let addresses: Vec<_> =
        world.events_of(5).await.iter().map(|event| event.client_ip.to_string()).collect();
    for (address, times) in
        [("::ffff:198.51.100.7", 2), ("::ffff:203.0.113.9", 1), ("::", 1), ("::ffff:127.0.0.1", 1)]
    {
        assert_eq!(addresses.iter().filter(|seen| *seen == address).count(), times, "{addresses:?}");
    }
}

#[tokio::test]
async fn forwarded_is_read_too_and_must_not_contradict() {
    let world = World::start().await;
    let key = world.key().await;
    let api = serve(echo()).await;
    let trusted = ("KEYMETER_EDGE_TRUSTED_PROXIES", "127.0.0.1");
    let either = EdgeProcess::start(&world, api, &[trusted]).await;
    let one = [trusted, ("KEYMETER_EDGE_FORWARDED_HEADER", "forwarded")];
    let one = EdgeProcess::start(&world, api, &one).await;
    let call = async |edge: &EdgeProcess, path: &str, headers: &[(&'static str, &str)]| {
        let mut request = get(&edge.url(path), &key);
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        assert_eq!(send(request).await.status(), 200);
    };
    call(&either, "/a", &[("forwarded", "for=\"[2001:db8::7]:4711\";proto=https")]).await;
    let both = [("forwarded", "for=203.0.113.9"), ("x-forwarded-for", "198.51.100.7")];
    call(&either, "/b", &both).await;
    call(&one, "/c", &both).await;
    let events = world.events_of(3).await;
    let of = |path: &str| events.iter().find(|event| event.path == path).unwrap().client_ip.to_string();
    assert_eq!(
        (of("/a"), of("/b"), of("/c")),
        ("2001:db8::7".into(), "::".into(), "::ffff:203.0.113.9".into())
    );
}

#[tokio::test]
async fn the_api_hears_of_a_caller_from_whom_the_edge_believes() {
    let world = World::start().await;
    let key = world.key().await;
    let api = serve(echo()).await;
    let believing = EdgeProcess::start(&world, api, &[("KEYMETER_EDGE_TRUSTED_PROXIES", "127.0.0.1")]).await;
    let doubting = EdgeProcess::start(&world, api, &[]).await;
    let call = async |edge: &EdgeProcess| {
        let mut request = get(&edge.url("/x"), &key);
        for (name, value) in [
            ("x-forwarded-for", "198.51.100.7"),
            ("x-forwarded-host", "other.example"),
            ("forwarded", "for=198.51.100.7"),
            ("x-real-ip", "198.51.100.7"),
        ] {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        json(&send(request).await)["headers"].take()
    };
    let seen = call(&believing).await;
    for (name, value) in [
        ("x-forwarded-for", "198.51.100.7, 127.0.0.1"),
        ("x-forwarded-host", "other.example"),
        ("forwarded", "for=198.51.100.7, for=127.0.0.1;proto=http"),
        ("x-real-ip", "198.51.100.7"),
    ] {
        assert_eq!(seen[name], value);
    }
    let seen = call(&doubting).await;
    for (name, value) in [("x-forwarded-for", "127.0.0.1"), ("x-forwarded-host", doubting.addr.as_str())] {
        assert_eq!(seen[name], value);
    }
    assert!(!seen.to_string().contains("198.51.100.7"), "{seen}");
}

#[tokio::test]
async fn a_key_of_another_environment_is_refused_on_its_account() {
    let world = World::start().await;
    let (live, test) = (world.key().await, world.key_of(Environment::Test).await);
    let setting = [("KEYMETER_EDGE_ENVIRONMENT", "test")];
    let edge = EdgeProcess::start(&world, serve(echo()).await, &setting).await;
    assert_eq!(denial(get(&edge.url("/x"), &test)).await, "");
    let response = send(get(&edge.url("/x"), &live)).await;
    assert_eq!(
        (response.status().as_u16(), json(&response)["denial"].as_str()),
        (403, Some("environment_mismatch"))
    );
    let events = world.events_of(2).await;
    let refused = events.iter().find(|event| event.key_id == live.key_id).unwrap();
    assert_eq!((refused.denial, refused.status_code), (Some(Denial::EnvironmentMismatch), 403));
}

#[tokio::test]
async fn a_route_admits_keys_that_have_its_scope() {
    let world = World::start().await;
    let (reader, nobody) = (world.key().await, world.key().await);
    let entry = pb::KeyFeedEntry {
        version: 2,
        scopes: vec!["orders:r*".into()],
        ..reader.entry(pb::KeyState::Active)
    };
    world.feed_entry(&reader, entry).await;
    let list = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&list, "# ours\nGET /v1/orders/{id} orders:read\n* /v1/orders orders:write\n").unwrap();
    let setting = [("KEYMETER_EDGE_REQUIRED_SCOPES", list.path().to_str().unwrap())];
    let edge = EdgeProcess::start(&world, serve(echo()).await, &setting).await;
    let call = async |key: &Key, path: &str| denial(get(&edge.url(path), key)).await;
    assert_eq!(call(&reader, "/v1/orders/17").await, "");
    assert_eq!(call(&reader, "/v1/orders").await, "scope_missing");
    assert_eq!(call(&reader, "/v1//%6frders").await, "scope_missing");
    assert_eq!(call(&nobody, "/v1/orders/17?x=/").await, "scope_missing");
    assert_eq!(call(&nobody, "/v1/elsewhere").await, "");
}

#[tokio::test]
async fn an_edge_starts_on_a_head_that_covers_everything() {
    let world = World::start().await;
    let key = world.key().await;
    let bucket = world.bucket(proto::nats::KEYS_BY_HASH_BUCKET).await;
    // Somebody else wrote after the head.
    bucket.put("foreign", Bytes::from_static(b"x")).await.unwrap();
    let upstream = format!("http://{}", serve(echo()).await);
    let mut edge = EdgeProcess::spawn(&world.nats.url(), &upstream, &[]).await;
    eventually("it listens", async || parts::get(&edge.addr, "/.keymeter/healthz").await.is_ok()).await;
    eventually("it has read the bucket", async || edge.service.log().contains("whose name is no hash")).await;
    assert_eq!(send(get(&edge.url("/x"), &key)).await.status(), 503);
    bucket.stream.purge().filter(format!("$KV.{}.foreign", proto::nats::KEYS_BY_HASH_BUCKET)).await.unwrap();
    world.write_head().await;
    edge.wait_ready().await;
    assert_eq!(send(get(&edge.url("/x"), &key)).await.status(), 200);
}
