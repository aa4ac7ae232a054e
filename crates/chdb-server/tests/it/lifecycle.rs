//! Starting, refusing to start, stopping.

use parts::{Service, eventually, free_port, libchdb};

use crate::support::Server;

async fn refused(environment: &[(&str, &str)], arguments: &[&str]) -> String {
    let mut service = Service::spawn_with("chdb-server", arguments, environment);
    let status = service.wait().await;
    assert!(!status.success(), "{}", service.log());
    service.log()
}

#[tokio::test]
async fn wrong_settings_are_refused_with_the_remedy() {
    let library = libchdb().to_string_lossy().into_owned();
    let address = format!("127.0.0.1:{}", free_port());
    let open = [("CHDB_LIBRARY", library.as_str()), ("CHDB_PATH", "data"), ("CHDB_LISTEN", "0.0.0.0:0")];
    let log = refused(&open, &[]).await;
    assert!(
        log.contains("CHDB_LISTEN=0.0.0.0:0 is not a loopback address") && log.contains("choose 127.0.0.1"),
        "{log}"
    );
    let log = refused(&[("CHDB_PATH", "data"), ("CHDB_LISTEN", &address)], &["--library", "nope.so"]).await;
    assert!(log.contains("CHDB_LIBRARY=nope.so is no file") && log.contains("unpack libchdb.so"), "{log}");
    let log = refused(&[("CHDB_PATH", "data")], &[]).await;
    assert!(log.contains("--library"), "{log}");
    let config =
        [("CHDB_LIBRARY", library.as_str()), ("CHDB_PATH", "data"), ("CHDB_CONFIG_FILE", "nope.xml")];
    assert!(refused(&config, &[]).await.contains("CHDB_CONFIG_FILE=nope.xml is no file"));
}

#[tokio::test]
async fn a_taken_port_or_folder_is_refused() {
    let server = Server::start().await;
    let library = libchdb().to_string_lossy().into_owned();
    let taken =
        [("CHDB_LIBRARY", library.as_str()), ("CHDB_PATH", "other"), ("CHDB_LISTEN", &server.address)];
    let log = refused(&taken, &[]).await;
    assert!(log.contains(&format!("CHDB_LISTEN={} can not be used", server.address)), "{log}");
    let address = format!("127.0.0.1:{}", free_port());
    let data = server.service.folder().join("data").to_string_lossy().into_owned();
    let taken = [("CHDB_LIBRARY", library.as_str()), ("CHDB_PATH", data.as_str()), ("CHDB_LISTEN", &address)];
    let log = refused(&taken, &[]).await;
    assert!(log.contains("is another process using it?"), "{log}");
    assert_eq!(server.query("select 1").await, "1\n");
}

#[tokio::test]
async fn help_tells_the_settings_and_the_limits() {
    let mut service = Service::spawn_with("chdb-server", &["--help"], &[]);
    assert!(service.wait().await.success());
    let help = service.log().split_whitespace().collect::<Vec<_>>().join(" ");
    for word in
        ["CHDB_LIBRARY", "CHDB_PATH", "CHDB_LISTEN", "127.0.0.1:8123", "not for production", "no users"]
    {
        assert!(help.contains(word), "{word}: {help}");
    }
}

#[tokio::test]
async fn a_stop_waits_for_running_statements() {
    let mut server = Server::start().await;
    let client = server.client();
    let sql = "select count() + sum(sleepEachRow(0.1)) from numbers(20) settings max_block_size = 1";
    let statement = tokio::spawn(async move { client.query(sql).fetch_one::<u64>().await });
    let running = "select count() from system.processes where query like '%sleepEachRow%'";
    eventually("it runs", async || server.query(running).await == "2\n").await;
    assert!(server.service.sigterm().await.success());
    assert_eq!(statement.await.unwrap().unwrap(), 20);
}

#[tokio::test]
async fn a_stop_cancels_what_does_not_end() {
    let mut server = Server::start_with(&[("CHDB_DRAIN_S", "0")]).await;
    let client = server.client();
    let endless = "select count() from system.numbers where not ignore(number)";
    let statement = tokio::spawn(async move { client.query(endless).fetch_one::<u64>().await });
    let running = "select count() from system.processes where query like '%not ignore%'";
    eventually("it runs", async || server.query(running).await == "2\n").await;
    // Of an insert whose client sends nothing more, nothing is written.
    server.query("create table t (a UInt8) engine = MergeTree order by a").await;
    let mut insert = server.begin_insert("query=insert+into+t+format+TSV&query_id=insert").await;
    crate::support::send_chunk(&mut insert, b"1\n").await;
    let inserting = "select count() from system.processes where query_id = 'insert'";
    eventually("the insert runs", async || server.query(inserting).await == "1\n").await;
    let status = server.service.sigterm().await;
    assert!(status.success(), "{status}\n{}", server.service.log());
    assert!(server.service.log().trim_end().ends_with("stopped"), "{}", server.service.log());
    let error = statement.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("QUERY_WAS_CANCELLED"), "{error}");
    server.service.restart();
    server.ready().await;
    assert_eq!(server.query("select count() from t").await, "0\n");
}
