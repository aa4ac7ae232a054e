//! SIGTERM under load: each service drains, exits 0, and nothing is lost or counted twice.

use crate::{load::Load, stack::Stack};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_service_drains_and_nothing_is_lost_or_doubled() {
    let mut stack = Stack::start().await;
    let key = stack.make_key("Under load").await;
    let load = Load::start(&stack.client(&key.secret));
    for name in ["ingest", "keys", "query", "ui", "edge", "ingest", "edge"] {
        load.go_on().await;
        let service = match name {
            "ingest" => &mut stack.ingest,
            "keys" => &mut stack.keys,
            "query" => &mut stack.query,
            "ui" => &mut stack.ui,
            _ => &mut stack.edge,
        };
        let status = service.sigterm().await;
        assert!(status.success(), "{name}: {status}");
        service.restart();
        stack.ready().await;
    }
    load.go_on().await;
    let (answered, cut_off) = load.end().await;
    stack.assert_counted_once(&answered, cut_off).await;
}
