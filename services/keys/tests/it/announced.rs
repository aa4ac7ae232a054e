//! Whoever wants to know hears what happens to keys: everything, in order, also what happened while NATS was away.

use std::time::Duration;

use async_nats::jetstream::{self, consumer::pull::OrderedConfig};
use futures_util::StreamExt as _;
use prost::Message as _;
use proto::{
    events::KeyEvent,
    keys::{DeleteKeyRequest, DisableKeyRequest, Key},
    nats::KEY_EVENTS_STREAM,
    resource::parse_workspace_name,
};

use crate::harness::{Running, key_id};

/// The first `count` announcements, which are waited for, with the last part of their subjects.
async fn announcements(run: &Running, count: usize) -> Vec<(String, KeyEvent)> {
    let context = jetstream::new(async_nats::connect(run.nats.url()).await.unwrap());
    let stream = loop {
        match context.get_stream(KEY_EVENTS_STREAM).await {
            Ok(stream) => break stream,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let consumer = stream.create_consumer(OrderedConfig::default()).await.unwrap();
    let messages = consumer.messages().await.unwrap().take(count);
    messages
        .map(|message| {
            let message = message.unwrap();
            let event = KeyEvent::decode(message.payload.clone()).unwrap();
            let workspace_id = domain::WorkspaceId::from_slice(&event.workspace_id).unwrap();
            let subject = message.subject.strip_prefix(&format!("key_events.{workspace_id}.")).unwrap();
            (subject.to_owned(), event)
        })
        .collect()
        .await
}

async fn end(run: &Running, key: &Key) {
    let disable = DisableKeyRequest { name: key.name.clone(), ..Default::default() };
    run.keys().disable_key(run.ask(disable)).await.unwrap();
    let delete = DeleteKeyRequest { name: key.name.clone(), ..Default::default() };
    run.keys().delete_key(run.ask(delete)).await.unwrap();
}

#[tokio::test]
async fn every_event_of_a_key_is_announced_in_order() {
    let run = Running::start().await;
    let first = run.make("first").await.key.unwrap();
    end(&run, &first).await;
    let second = run.make("second").await.key.unwrap();
    let told = announcements(&run, 4).await;
    let workspace_id = parse_workspace_name(&run.workspace).unwrap();
    let heard: Vec<_> = told
        .iter()
        .map(|(subject, event)| {
            assert_eq!((subject, &event.workspace_id[..]), (&event.r#type, &workspace_id.as_bytes()[..]));
            assert!(event.actor.starts_with("acc_") && event.event_time.is_some());
            (event.r#type.as_str(), event.sequence, event.version, event.key_id.as_slice())
        })
        .collect();
    let (first, second) = (key_id(&first), key_id(&second));
    let wanted = [
        ("created", 2, 1, &first.as_bytes()[..]),
        ("disabled", 3, 2, first.as_bytes()),
        ("deleted", 4, 3, first.as_bytes()),
        ("created", 5, 1, second.as_bytes()),
    ];
    assert_eq!(heard, wanted, "the chain's first entry is no key event");
}

#[tokio::test]
async fn what_happens_without_nats_is_announced_once_later() {
    let mut run = Running::start().await;
    let key = run.make("billing").await.key.unwrap();
    assert_eq!(announcements(&run, 1).await.len(), 1);
    run.nats.stop().await;
    end(&run, &key).await;
    run.nats.restart().await;
    let told = announcements(&run, 3).await;
    assert_eq!(
        told.iter().map(|(kind, _)| kind.as_str()).collect::<Vec<_>>(),
        ["created", "disabled", "deleted"]
    );

    // And as often as that: the next one is the fourth message.
    run.make("another").await;
    let told = announcements(&run, 4).await;
    assert_eq!((told[3].0.as_str(), told[3].1.sequence), ("created", 5));
}
