//! The demonstrated API as a process: what it answers, and that it ends when asked to.

use parts::{Answer, Service, eventually, free_port, get};

async fn start() -> (Service, String) {
    let addr = format!("127.0.0.1:{}", free_port());
    let service = Service::spawn_with("demo", &["api"], &[("KEYMETER_DEMO_ADDR", &addr)]);
    eventually("the API answers", async || get(&addr, "/healthz").await.is_ok()).await;
    (service, addr)
}

#[tokio::test]
async fn answers_by_the_catalogue_and_ends_when_asked_to() {
    let (mut api, addr) = start().await;
    let status = async |path: &str| get(&addr, path).await.unwrap().status;
    assert_eq!(status("/v1/orders").await, 200);
    assert_eq!(status("/v1/orders/1001").await, 200);
    assert_eq!(status("/v1/nothing").await, 404);
    assert_eq!(status("/v1/webhooks").await, 405);
    let Answer { body, .. } = get(&addr, "/v1/orders/1001").await.unwrap();
    assert_eq!(body, r#"{"currency":"EUR","id":1001,"total_cents":2099}"#);
    assert!(api.sigterm().await.success());
}

#[tokio::test]
async fn a_setting_that_nobody_knows_is_refused() {
    let mut api = Service::spawn_with("demo", &["api"], &[("KEYMETER_DEMO_ADR", "127.0.0.1:1")]);
    assert!(!api.wait().await.success());
    assert!(api.log().contains("KEYMETER_DEMO_ADR"), "{}", api.log());
}
