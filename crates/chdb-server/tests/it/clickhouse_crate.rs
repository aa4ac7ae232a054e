//! The official Rust client.

use clickhouse::{Client, Compression, Row, error::Error, native::builder::BlockBuilder};
use parts::eventually;
use serde::{Deserialize, Serialize};

use crate::support::Server;

#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
struct Call {
    id: u64,
    path: String,
}

fn calls(count: u64) -> Vec<Call> {
    (0..count).map(|id| Call { id, path: format!("/v1/orders/{id}") }).collect()
}

async fn table(client: &Client) {
    let create = "create table calls (id UInt64, path String) engine = MergeTree order by id";
    client.query(create).execute().await.unwrap();
}

async fn all(client: &Client) -> Vec<Call> {
    client.query("select ?fields from calls order by id").fetch_all().await.unwrap()
}

#[tokio::test]
async fn rows_go_in_and_out_with_and_without_compression() {
    let server = Server::start().await;
    for compression in [Compression::None, Compression::Lz4] {
        let client = server.client().with_compression(compression);
        table(&client).await;
        // More than one block each way.
        let rows = calls(200_000);
        let mut insert = client.insert::<Call>("calls").await.unwrap();
        for row in &rows {
            insert.write(row).await.unwrap();
        }
        insert.end().await.unwrap();
        assert!(all(&client).await == rows);
        assert_eq!(
            client.query("select ?fields from calls where id > 1e9").fetch_all::<Call>().await.unwrap(),
            []
        );
        client.query("drop table calls").execute().await.unwrap();
    }
}

#[tokio::test]
async fn an_inserter_flushes_by_its_limits() {
    let server = Server::start().await;
    let client = server.client();
    table(&client).await;
    let mut inserter = client.inserter::<Call>("calls").with_max_rows(1_000);
    for row in calls(5_500) {
        inserter.write(&row).await.unwrap();
        inserter.commit().await.unwrap();
    }
    inserter.end().await.unwrap();
    assert!(all(&client).await == calls(5_500));
}

#[tokio::test]
async fn native_blocks_go_in() {
    let server = Server::start().await;
    let client = server.client();
    table(&client).await;
    let rows = calls(100_000);
    let mut insert =
        client.insert_native("calls").with_setting("async_insert", "0").with_setting("query_id", "native-1");
    for rows in rows.chunks(30_000) {
        let mut block = BlockBuilder::new();
        block.upsert_column::<u64>("id").unwrap().add_all(rows.iter().map(|row| row.id)).unwrap();
        block
            .upsert_column::<&str>("path")
            .unwrap()
            .add_all(rows.iter().map(|row| row.path.as_str()))
            .unwrap();
        insert.write(&block.build().unwrap()).await.unwrap();
    }
    insert.end().await.unwrap();
    assert!(all(&client).await == rows);
}

#[tokio::test]
async fn parameters_reach_the_server_unchanged() {
    let server = Server::start().await;
    for text in ["", "it's", "a\tb\nc\\d", "'); drop table calls; --", "Ω≈ç", "{x:String}", "\\N"] {
        let query =
            server.client().query("select {text:String}, length({list:Array(String)}), {number:Int64}");
        let query = query.param("text", text).param("list", vec![text, text]).param("number", -7_i64);
        let row = query.fetch_one::<(String, u64, i64)>().await.unwrap();
        assert_eq!(row, (text.to_owned(), 2, -7));
    }
}

#[tokio::test]
async fn errors_say_what_the_engine_says() {
    let server = Server::start().await;
    let client = server.client();
    for compression in [Compression::None, Compression::Lz4] {
        let client = client.clone().with_compression(compression);
        let error = client.query("select * from nope").fetch_all::<Call>().await.unwrap_err();
        let Error::BadResponse(message) = &error else { panic!("{error:?}") };
        assert!(
            message.starts_with("Code: 60. DB::Exception:") && message.contains("(UNKNOWN_TABLE)"),
            "{message}"
        );
    }
    table(&client).await;
    let mut insert = client.insert_native("calls");
    let mut block = BlockBuilder::new();
    block.upsert_column::<&str>("id").unwrap().add_all(["seven"]).unwrap();
    insert.write(&block.build().unwrap()).await.unwrap();
    let error = insert.end().await.unwrap_err().to_string();
    assert!(error.contains("seven") && error.contains("DB::Exception"), "{error}");
    assert_eq!(all(&client).await, []);
}

#[tokio::test]
async fn an_error_after_the_first_rows_is_an_error() {
    let server = Server::start().await;
    for compression in [Compression::None, Compression::Lz4] {
        let client = server.client().with_compression(compression);
        let query = client.query("select throwIf(number = 3000000) from numbers(10000000)");
        let mut cursor = query.fetch::<u8>().unwrap();
        let mut rows = 0;
        let error = loop {
            match cursor.next().await {
                Ok(Some(_)) => rows += 1,
                Ok(None) => panic!("{rows} rows and no error"),
                Err(error) => break error,
            }
        };
        assert!((1..3_000_000).contains(&rows), "{rows}");
        let Error::BadResponse(message) = &error else { panic!("{error:?}") };
        assert!(message.contains("Code: 395.") && message.contains("FUNCTION_THROW_IF"), "{message}");
    }
}

#[tokio::test]
async fn a_dropped_insert_leaves_no_rows_and_no_query() {
    let server = Server::start().await;
    let client = server.client();
    table(&client).await;
    let mut insert = client.insert::<Call>("calls").await.unwrap();
    for row in calls(100_000) {
        insert.write(&row).await.unwrap();
    }
    eventually("the insert runs", async || {
        server.query("select count() from system.processes where query_kind = 'Insert'").await == "1\n"
    })
    .await;
    drop(insert);
    server.idle().await;
    assert_eq!(all(&client).await, []);
}
