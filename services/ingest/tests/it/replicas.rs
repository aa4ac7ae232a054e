//! What ingest keeps in NATS, put from one server on three while it is used, and the death of those who lead it.

use async_nats::jetstream;
use ingest::{bus::Bus, record::Record, trouble::Trouble};
use parts::{NatsCluster, eventually};
use proto::nats;

const SHARD: u16 = 0;

async fn connect(cluster: &NatsCluster, replicas: usize) -> Bus {
    Bus::connect(&nats_cluster::Servers::parse(&cluster.url()).expect("it names servers"), 64 << 20, replicas)
        .await
        .expect("NATS runs")
        .expect("it is new enough")
}

async fn publish(bus: &Bus, messages: std::ops::RangeInclusive<u64>) {
    for number in messages {
        eventually("a message is stored", async || {
            let subject = nats::request_events_subject(SHARD);
            bus.jetstream().publish(subject, number.to_string().into()).await.ok()?.await.ok()
        })
        .await;
    }
}

/// Every stream, buckets too, and how many servers hold it.
async fn all(bus: &Bus) -> Vec<(String, jetstream::stream::Info)> {
    use futures_util::TryStreamExt as _;
    let infos: Vec<_> = bus.jetstream().streams().try_collect().await.unwrap_or_default();
    infos.into_iter().map(|info: jetstream::stream::Info| (info.config.name.clone(), info)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_on_one_server_are_put_on_three_and_survive_their_leaders() {
    let mut cluster = NatsCluster::start().await;
    let bus = connect(&cluster, 1).await;
    let before = eventually("all is made", async || bus.ensure(SHARD).await.ok()).await;
    publish(&bus, 1..=10).await;
    let record = |epoch| Record { epoch, ..Record::default() };
    let first = bus.write_record(SHARD, &record(1), 0).await.unwrap();

    let bus = connect(&cluster, 3).await;
    let after = eventually("all is spread", async || bus.ensure(SHARD).await.ok()).await;
    assert_eq!((&after.incarnation, after.last_sequence), (&before.incarnation, 10));
    publish(&bus, 11..=20).await;
    eventually("three servers have everything", async || {
        let all = all(&bus).await;
        let is_whole = |info: &jetstream::stream::Info| {
            info.config.num_replicas == 3
                && info
                    .cluster
                    .as_ref()
                    .is_some_and(|it| it.replicas.len() == 2 && it.replicas.iter().all(|peer| peer.current))
        };
        all.len() == 6 && all.iter().all(|(_, info)| is_whole(info))
    })
    .await;
    assert_eq!(bus.record(SHARD).await.unwrap(), (Some(record(1)), first));

    let mut revision = first;
    for (epoch, led) in [(2, "KV_ingest_shards"), (3, "REQUEST_EVENTS_0")] {
        let (_, info) = all(&bus).await.into_iter().find(|(name, _)| name == led).unwrap();
        let leader = cluster.named(&info.cluster.unwrap().leader.unwrap());
        cluster.kill(leader).await;
        // As a worker does: what has no answer is looked at again.
        let (now, changed) = eventually("the record is changed", async || {
            let (known, at) = bus.record(SHARD).await.ok()?;
            if known == Some(record(epoch)) {
                return Some((known, at));
            }
            bus.write_record(SHARD, &record(epoch), at).await.ok().map(|at| (Some(record(epoch)), at))
        })
        .await;
        assert_eq!(now, Some(record(epoch)));
        let late = eventually("a late change has an answer", async || {
            match bus.write_record(SHARD, &record(1), revision).await {
                Err(Trouble::Nats(_)) => None,
                answer => Some(answer),
            }
        })
        .await;
        assert!(matches!(late, Err(Trouble::Lost)), "{late:?}");
        revision = changed;
        let state = eventually("the stream is kept", async || bus.stream_state(SHARD).await.ok()).await;
        assert_eq!((&state.incarnation, state.last_sequence), (&before.incarnation, 20), "{led}");
        cluster.restart(leader).await;
        cluster.settled().await;
    }
    let mut reader = eventually("it can be read", async || bus.read(SHARD, 0).await.ok()).await;
    for sequence in 1..=20 {
        let message = reader.next().await.unwrap();
        assert_eq!((message.sequence, message.payload), (sequence, sequence.to_string().into()));
    }
}
