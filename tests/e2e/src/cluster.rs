//! Beyond one machine: two of every service on three NATS servers. Each is killed, and a server of NATS cut off, under
//! load: no call is lost or doubled, new keys reach both edges, deleted ones stay refused.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, header};
use hyper_util::{client::legacy::Client as HttpClient, rt::TokioExecutor};
use parts::{NatsCluster, say};

use crate::{
    cluster_clients::Clients,
    cluster_stack::Twofold,
    stack::{ADMIN_EMAIL, ADMIN_PASSWORD, local},
};

/// The buckets and streams that everything rests on: the shards' records, a shard, the key feed.
const LED: [&str; 3] = ["KV_ingest_shards", "REQUEST_EVENTS_0", "KV_keys_by_hash"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_of_nats_are_killed_and_it_goes_on() {
    let mut twofold = Twofold::start(NatsCluster::start().await).await;
    let mut clients = Clients::start(&twofold).await;
    let mut key = clients.known_key(&twofold).await;
    for (by, led) in LED.into_iter().enumerate() {
        let server = twofold.leader_of(led).await;
        twofold.nats.kill(server).await;
        clients.go_on().await;
        key = clients.change_keys(&twofold, by % 2, &key).await;
        twofold.nats.restart(server).await;
        twofold.nats.settled().await;
        twofold.ready().await;
    }
    let answered = clients.assert_counted_once(&twofold).await;
    say(&format!("{answered} answered calls, each once, over the death of the leaders of {LED:?}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_nats_is_cut_off_and_it_goes_on() {
    let mut twofold = Twofold::start(NatsCluster::start_apart().await).await;
    let mut clients = Clients::start(&twofold).await;
    let mut key = clients.known_key(&twofold).await;
    // Its clients still reach it, though it can do nothing for them; then nobody does.
    for (by, is_from_all) in [false, true].into_iter().enumerate() {
        let server = twofold.leader_of(LED[2 * by]).await;
        if is_from_all {
            twofold.nats.cut_off_from_all(server);
        } else {
            twofold.nats.cut_off(server);
        }
        clients.go_on().await;
        key = clients.change_keys(&twofold, by, &key).await;
        twofold.nats.rejoin(server);
        twofold.nats.settled().await;
        twofold.ready().await;
    }
    let answered = clients.assert_counted_once(&twofold).await;
    say(&format!("{answered} answered calls, each once, over two servers of NATS that were cut off"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_each_service_is_killed_and_the_other_goes_on() {
    let mut twofold = Twofold::start(NatsCluster::start().await).await;
    let session = sign_in(&twofold, 0).await;
    let mut clients = Clients::start(&twofold).await;
    let mut key = clients.known_key(&twofold).await;
    for (dead, alive) in [(0, 1), (1, 0)] {
        clients.go_on().await;
        twofold.halves[dead].ingest.kill().await;
        twofold.halves[dead].query.kill().await;
        // What this half has counted before is told by the other, whoever wrote it.
        assert!(twofold.total(alive).await > 0);
        twofold.halves[dead].ingest.restart();
        twofold.halves[dead].query.restart();

        twofold.halves[dead].keys.kill().await;
        key = clients.change_keys(&twofold, alive, &key).await;
        twofold.halves[dead].keys.restart();

        twofold.halves[dead].ui.kill().await;
        assert_eq!(keys_page(&twofold, alive, &session).await, 200);
        twofold.halves[dead].ui.restart();

        twofold.halves[dead].edge.kill().await;
        twofold.halves[dead].edge.restart();
        twofold.ready().await;
    }
    clients.go_on().await;
    let answered = clients.assert_counted_once(&twofold).await;
    say(&format!("{answered} answered calls, each once, over the death of ten services"));
}

/// Signs in at the pages of a half; the session's cookie.
async fn sign_in(twofold: &Twofold, half: usize) -> String {
    let form =
        format!("email={}&password={}", ADMIN_EMAIL.replace('@', "%40"), ADMIN_PASSWORD.replace(' ', "+"));
    let request = Request::post(format!("http://{}/sign-in", local(twofold.halves[half].ports.ui)))
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Full::new(Bytes::from(form)))
        .unwrap();
    let answer =
        HttpClient::builder(TokioExecutor::new()).build_http::<Full<Bytes>>().request(request).await.unwrap();
    let cookie = answer.headers()[header::SET_COOKIE].to_str().unwrap();
    cookie.split(';').next().unwrap().to_owned()
}

/// How the pages of a half answer whoever has that session.
async fn keys_page(twofold: &Twofold, half: usize, session: &str) -> u16 {
    let request = Request::get(format!("http://{}/keys", local(twofold.halves[half].ports.ui)))
        .header(header::COOKIE, session)
        .body(Full::new(Bytes::new()))
        .unwrap();
    let answer =
        HttpClient::builder(TokioExecutor::new()).build_http::<Full<Bytes>>().request(request).await.unwrap();
    answer.status().as_u16()
}
