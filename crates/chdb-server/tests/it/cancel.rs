//! Statements end when they are killed and when their client has gone.

use std::time::Duration;

use parts::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Answer, Server, send_chunk};

/// Runs until it is stopped, and prints nothing before.
const ENDLESS: &str = "select count() from system.numbers where not ignore(number)";

async fn running(server: &Server, id: &str) {
    let sql = format!("select count() from system.processes where query_id = '{id}'");
    eventually("the statement runs", async || server.query(&sql).await == "1\n").await;
}

#[tokio::test]
async fn a_kill_ends_the_query_of_another_client() {
    let server = Server::start().await;
    let victim = server.post("query_id=batch-1", ENDLESS);
    let killer = async {
        running(&server, "batch-1").await;
        assert_eq!(server.query("kill query where query_id = 'none'").await, "");
        let test = server.query("kill query where query_id like 'batch%' test").await;
        assert!(test.contains("batch-1"), "{test}");
        running(&server, "batch-1").await;
        let killed =
            server.post("param_id=batch-1", "kill query where query_id = {id:String} sync format TSV").await;
        assert_eq!(killed.text(), format!("finished\tbatch-1\tdefault\t{ENDLESS}\n"));
        // `sync`: it is gone.
        assert_eq!(server.query("select count() from system.processes").await, "1\n");
    };
    let (victim, ()) = tokio::join!(victim, killer);
    assert_eq!(
        (victim.status, victim.header("x-clickhouse-exception-code")),
        (500, "394"),
        "{}",
        victim.text()
    );
    assert_eq!(victim.header("x-clickhouse-query-id"), "batch-1");
}

#[tokio::test]
async fn a_kill_ends_an_insert_that_waits_for_its_client() {
    let server = Server::start().await;
    server.query("create table t (a UInt64) engine = MergeTree order by a").await;
    let mut insert = server.begin_insert("query=insert+into+t+format+TSV&query_id=insert-1").await;
    send_chunk(&mut insert, b"1\n2\n3\n").await;
    running(&server, "insert-1").await;
    let process = "select query_kind, query from system.processes where query_id = 'insert-1'";
    assert_eq!(server.query(process).await, "Insert\tinsert into t FORMAT TSV\n");
    server.query("kill query where query_id like 'insert%' sync").await;
    // The client has sent nothing more, and learns of it all the same.
    let mut answer = vec![0; 4096];
    let count = insert.read(&mut answer).await.unwrap();
    let answer = Answer::parse(&answer[..count], true);
    assert_eq!(
        (answer.status, answer.header("x-clickhouse-exception-code")),
        (500, "394"),
        "{}",
        answer.text()
    );
    assert_eq!(server.query("select count() from t").await, "0\n");
}

#[tokio::test]
async fn a_client_that_goes_ends_its_query() {
    let server = Server::start().await;
    for (sql, reads) in [(ENDLESS, 0), ("select number from system.numbers", 1)] {
        let mut client = server.connect().await;
        let head = format!(
            "POST /?query_id=gone HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{sql}",
            sql.len()
        );
        client.write_all(head.as_bytes()).await.unwrap();
        running(&server, "gone").await;
        for _ in 0..reads {
            assert!(client.read(&mut [0; 4096]).await.unwrap() > 0);
        }
        drop(client);
        server.idle().await;
    }
}

#[tokio::test]
async fn an_insert_whose_client_goes_midway_writes_nothing() {
    let server = Server::start().await;
    server.query("create table t (a UInt64) engine = MergeTree order by a").await;
    for end in [&b""[..], b"0\r\nnot the end of a chunked body"] {
        let mut insert = server.begin_insert("query=insert+into+t+format+TSV&query_id=gone").await;
        send_chunk(&mut insert, &b"7\n".repeat(100_000)).await;
        running(&server, "gone").await;
        insert.write_all(end).await.unwrap();
        drop(insert);
        server.idle().await;
    }
    // A length that is never reached.
    let mut insert = server.connect().await;
    let head = "POST /?query=insert+into+t+format+TSV HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n1\n2\n";
    insert.write_all(head.as_bytes()).await.unwrap();
    insert.shutdown().await.unwrap();
    drop(insert);
    server.idle().await;
    assert_eq!(server.query("select count() from t").await, "0\n");
}

#[tokio::test]
async fn an_id_is_given_to_one_running_query_at_a_time() {
    let server = Server::start().await;
    let first = server.post("query_id=one", ENDLESS);
    let others = async {
        running(&server, "one").await;
        let second = server.post("query_id=one", "select 1").await;
        assert_eq!((second.status, second.header("x-clickhouse-exception-code")), (500, "216"));
        server.query("kill query where query_id = 'one'").await;
    };
    let _ = tokio::join!(first, others);
    assert_eq!(server.post("query_id=one", "select 1").await.text(), "1\n");
}

#[tokio::test]
async fn a_kill_needs_no_free_place() {
    let server = Server::start_with(&[("CHDB_CONNECTIONS", "1")]).await;
    let first = server.post("query_id=first", ENDLESS);
    let kill = eventually("the kill finds it", async || {
        let kill = server.query("kill query where query_id = 'first' sync");
        let killed = tokio::time::timeout(Duration::from_secs(60), kill).await;
        !killed.expect("a kill waits for no place").is_empty()
    });
    let (first, ()) = tokio::join!(first, kill);
    assert_eq!(first.header("x-clickhouse-exception-code"), "394");
    assert_eq!(server.query("select 1").await, "1\n");
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_the_engine_back() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let sql = "select number from system.numbers settings max_block_size = 1000";
    let head = format!(
        "POST /?query_id=slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{sql}",
        sql.len()
    );
    client.write_all(head.as_bytes()).await.unwrap();
    running(&server, "slow").await;
    let read = "select read_rows from system.processes where query_id = 'slow'";
    // It stands still once every buffer on the way is full.
    let (mut before, mut still) = (String::new(), 0);
    eventually("the query stands still", async || {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = server.query(read).await;
        still = if now == before { still + 1 } else { 0 };
        before = now;
        still == 3
    })
    .await;
    drop(client);
    server.idle().await;
}
