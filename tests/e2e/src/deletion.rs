//! Deletion: at once, for good, and without a loss of history.

use proto::usage::Request;

use crate::{stack::Stack, usage::last_day};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_key_is_refused_and_its_usage_stays() {
    let stack = Stack::start().await;
    let (key, other) = (stack.make_key("Old partner").await, stack.make_key("New partner").await);
    let client = stack.client(&key.secret);
    for _ in 0..5 {
        assert_eq!(client.get("/v1/orders").await.status, 200);
    }

    stack.delete_key(&key).await;
    let refused = client.get("/v1/orders").await;
    assert_eq!(refused.status, 401);
    assert_eq!(refused.problem()["denial"], "deleted");
    assert!(refused.headers.contains_key("www-authenticate"));
    assert_eq!(stack.client(&other.secret).get("/v1/orders").await.status, 200);

    stack.complete().await;
    let (counts, _) = stack.summary(last_day(&[key.id()])).await;
    assert_eq!((counts.completed_count, counts.failed_count), (5, 1));
    let log = stack.log(last_day(&[key.id()])).await;
    let denials: Vec<_> =
        log.iter().map(|Request { denial, origin, .. }| (denial.as_str(), origin.as_str())).collect();
    assert_eq!(denials[0], ("deleted", "edge"));
    assert!(denials[1..].iter().all(|denial| *denial == ("", "upstream")), "{denials:?}");
    assert_eq!(stack.total(last_day(&[other.id()])).await, 1);
}
