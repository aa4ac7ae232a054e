//! A NATS that forgets under load: a consumer, a stream, its last seconds.

use std::time::Duration;

use parts::{asked, say, seed};
use proto::nats;

use crate::{
    crowd::Crowd,
    support::{Chance, Stage, example},
};

/// Under load, as often as `times` says: `disturb`, then all is well again; in the end each event is one row.
async fn disturbed(what: &str, times: &str, mut disturb: impl AsyncFnMut(&mut Stage)) {
    let times = asked(times, 2);
    let mut chance = Chance::new(seed());
    let mut stage = Stage::start().await;
    let mut crowd = Crowd::new(&stage, chance.below(u64::MAX)).await;
    for _ in 0..times {
        let moment = Duration::from_millis(chance.below(1_000));
        crowd
            .during(async {
                tokio::time::sleep(moment).await;
                disturb(&mut stage).await;
                stage.wait_ready().await;
            })
            .await;
    }
    crowd.assert_exact(&stage).await;
    say(&format!("{what} {times} times, {} events accepted, each one row", crowd.accepted()));
}

#[tokio::test]
async fn the_consumer_is_deleted() {
    Box::pin(disturbed("the consumer deleted", "KEYMETER_CHAOS_FORGETS", async |stage| {
        let name = nats::request_events_stream(example::SHARD);
        let stream = stage.jetstream().await.get_stream(name).await.unwrap();
        let before = takeovers(stage).await;
        let mut names = stream.consumer_names();
        let mut deleted = 0;
        while let Some(Ok(consumer)) = futures_util::StreamExt::next(&mut names).await {
            deleted += u32::from(stream.delete_consumer(&consumer).await.is_ok());
        }
        assert!(deleted > 0, "a worker reads by a consumer");
        parts::eventually("the shard is taken over", async || takeovers(stage).await > before).await;
    }))
    .await;
}

#[tokio::test]
async fn the_stream_is_made_anew() {
    Box::pin(disturbed(
        "the stream deleted and made anew, from sequence 1,",
        "KEYMETER_CHAOS_FORGETS",
        async |stage| {
            let (jetstream, name) = (stage.jetstream().await, nats::request_events_stream(example::SHARD));
            let before = takeovers(stage).await;
            jetstream.delete_stream(&name).await.unwrap();
            parts::eventually("the shard is taken over", async || takeovers(stage).await > before).await;
            parts::eventually("the stream counts from 1 again", async || {
                let mut stream = jetstream.get_stream(&name).await.ok()?;
                (stream.info().await.ok()?.state.first_sequence <= 1).then_some(())
            })
            .await;
        },
    ))
    .await;
}

#[tokio::test]
async fn nats_is_put_back_from_a_copy() {
    // Of what it took last, a part that is worth 2 minutes at full size.
    let age = Duration::from_secs(asked("KEYMETER_CHAOS_COPY_AGE_S", 1));
    disturbed(
        &format!("NATS put back from a copy {} s old", age.as_secs()),
        "KEYMETER_CHAOS_COPIES",
        async |stage| {
            let copy = stage.nats.copy();
            tokio::time::sleep(age).await;
            stage.nats.kill().await;
            stage.nats.put_back(&copy);
            stage.nats.restart().await;
        },
    )
    .await;
}

/// How often the shard was taken over by the process that runs.
async fn takeovers(stage: &Stage) -> u64 {
    let text = parts::get(&stage.health, "/metrics").await.map(|answer| answer.body).unwrap_or_default();
    let of_shard =
        |line: &&str| line.starts_with("keymeter_ingest_takeovers_total{") && line.contains("shard=\"1\"");
    let count = |line: &str| line.rsplit(' ').next()?.parse::<f64>().ok();
    text.lines().filter(of_shard).filter_map(count).sum::<f64>() as u64
}
