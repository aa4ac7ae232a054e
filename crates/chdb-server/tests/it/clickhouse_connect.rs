//! The official Python client, with its defaults.

use std::process::Command;

use crate::support::Server;

#[tokio::test]
async fn python_s_client_works() {
    let server = Server::start().await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/python_client.py");
    let port = server.address.rsplit(':').next().unwrap().to_owned();
    let run = move || Command::new(parts::python()).args([script, &port]).output().unwrap();
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.ends_with("passed\n"), "{out}\n{err}");
}
