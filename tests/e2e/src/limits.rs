//! A rate limit from its key to every count.

use proto::{
    keys::{Key, RateLimit, UpdateKeyRequest, keys_service_client::KeysServiceClient},
    usage::{Dimension, Outcome, UsageFilter},
};

use crate::{stack::Stack, usage::last_day};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_above_a_limit_are_refused_and_counted_as_such() {
    let stack = Stack::start().await;
    let key = stack.make_key("Limited").await;
    let window = Some(prost_types::Duration { seconds: 86_400, nanos: 0 });
    let limit = RateLimit { name: "per-day".into(), requests: 3, window };
    let changed = Key { name: key.name.clone(), rate_limits: vec![limit], ..Key::default() };
    let update_mask = Some(prost_types::FieldMask { paths: vec!["rate_limits".into()] });
    let update = UpdateKeyRequest { key: Some(changed), update_mask };
    let mut keys = KeysServiceClient::new(stack.keys_channel().await);
    keys.update_key(stack.signed(update).await).await.unwrap();
    stack.applied(&key, 2).await;

    let client = stack.client(&key.secret);
    let mut statuses = Vec::new();
    for _ in 0..5 {
        let answer = client.get("/v1/orders").await;
        statuses.push(answer.status.as_u16());
        if answer.status == 429 {
            assert_eq!(answer.problem()["denial"], "rate_limited");
            assert_eq!(answer.problem()["violated-policies"][0], "per-day");
        }
    }
    assert_eq!(statuses, [200, 200, 200, 429, 429]);

    stack.complete().await;
    let filter = last_day(&[key.id()]);
    let (counts, _) = stack.summary(filter.clone()).await;
    assert_eq!((counts.completed_count, counts.rate_limited_count, counts.total_count), (3, 2, 5));
    let denials = stack.totals(filter.clone(), Dimension::Denial).await;
    assert_eq!(denials.get("rate_limited"), Some(&2));
    let limited = UsageFilter { outcomes: vec![Outcome::RateLimited.into()], ..filter.clone() };
    let refused = stack.log(limited).await;
    assert_eq!(refused.len(), 2);
    assert!(refused.iter().all(|call| {
        (call.limit_name.as_str(), call.limit_window_s, call.limit_remaining) == ("per-day", 86_400, 0)
    }));
    let completed = UsageFilter { outcomes: vec![Outcome::Completed.into()], ..filter };
    let mut left: Vec<_> = stack.log(completed).await.iter().map(|call| call.limit_remaining).collect();
    left.sort_unstable();
    assert_eq!(left, [0, 1, 2]);
}
