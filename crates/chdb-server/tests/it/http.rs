//! HTTP as ClickHouse speaks it, without a client library.

use crate::support::Server;

#[tokio::test]
async fn probes_answer_ok_and_other_paths_do_not() {
    let server = Server::start().await;
    for path in ["/", "/ping", "/replicas_status"] {
        let answer = server.request("GET", path, "", b"").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "Ok.\n"), "{path}");
    }
    assert_eq!(server.request("GET", "/nope", "", b"").await.status, 404);
    assert_eq!(server.request("DELETE", "/?query=select+1", "", b"").await.status, 501);
}

#[tokio::test]
async fn the_text_may_be_in_the_url_the_body_or_both() {
    let server = Server::start().await;
    assert_eq!(server.request("GET", "/?query=select+1", "", b"").await.text(), "1\n");
    assert_eq!(server.post("", "select 2").await.text(), "2\n");
    assert_eq!(server.post("query=select+3", ", 4 -- end").await.text(), "3\t4\n");
    let boundary = "Content-Type: multipart/form-data; boundary=xyz\r\n";
    let field = |name: &str, value: &str| {
        format!("--xyz\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let form = field("query", "select {a:String}, {b:UInt8}") + &field("param_a", "x\\ty") + "--xyz--\r\n";
    let answer = server.request("POST", "/?param_b=5&default_format=TSVRaw", boundary, form.as_bytes()).await;
    assert_eq!(answer.text(), "x\ty\t5\n");
    let cut = server.request("POST", "/", boundary, &form.as_bytes()[..60]).await;
    assert_eq!((cut.status, cut.header("x-clickhouse-exception-code")), (400, "36"));
    let long = server.post("", format!("select '{}'", "x".repeat(2 << 20))).await;
    assert_eq!((long.status, long.header("x-clickhouse-exception-code")), (400, "62"));
    assert!(long.text().contains("Max query size"), "{}", long.text());
}

#[tokio::test]
async fn the_format_is_the_statement_s_or_the_default() {
    let server = Server::start().await;
    let sql = "select 1 as x, 'a' as y";
    assert_eq!(server.post("default_format=CSV", sql).await.text(), "1,\"a\"\n");
    let header = server.request("POST", "/", "X-ClickHouse-Format: JSONEachRow\r\n", sql.as_bytes()).await;
    assert_eq!(header.text(), "{\"x\":1,\"y\":\"a\"}\n");
    assert_eq!(header.header("content-type"), "application/x-ndjson; charset=UTF-8");
    let named = server.post("default_format=CSV", format!("{sql} format TSVWithNames;")).await;
    assert_eq!(
        (named.text().as_str(), named.header("x-clickhouse-format")),
        ("x\ty\n1\ta\n", "TSVWithNames")
    );
    // One document with one header, however many blocks: JSON is the strictest.
    let json = server.post("", "select number from numbers(300000) format JSON").await;
    let json: serde_json::Value = serde_json::from_slice(&json.body).unwrap();
    assert_eq!((&json["rows"], json["data"].as_array().unwrap().len()), (&300_000.into(), 300_000));
    for sql in [
        "select 1 settings max_threads = 1 format CSV settings max_block_size = 2",
        "with x as (select 1 as format) select format from x order by format desc limit 1 -- format TSV",
        "(select 1 union all select 1) intersect select 1 settings max_threads = 1;",
        "from system.one select 1 where 1 group by 1 having 1",
        "select 1 as `format x` format TSVRaw",
        "/* select 2 */ select $a$1$a$ # tail",
    ] {
        assert_eq!(server.query(sql).await, "1\n", "{sql}");
    }
    let empty = server.post("", "select number from numbers(0) format CSVWithNames").await;
    assert_eq!(empty.text(), "\"number\"\n");
}

#[tokio::test]
async fn answers_carry_clickhouse_s_headers() {
    let server = Server::start().await;
    server.query("create table t (a UInt64) engine = MergeTree order by a").await;
    let insert = server.post("query=insert+into+t+format+TSV&query_id=mine", "1\n2\n3\n").await;
    assert_eq!((insert.status, insert.header("x-clickhouse-query-id")), (200, "mine"));
    let summary: serde_json::Value = serde_json::from_str(insert.header("x-clickhouse-summary")).unwrap();
    assert_eq!(summary["written_rows"], "3");
    let select = server.post("", "select sum(a) from t").await;
    let summary: serde_json::Value = serde_json::from_str(select.header("x-clickhouse-summary")).unwrap();
    assert_eq!((&summary["read_rows"], &summary["written_rows"]), (&"3".into(), &"0".into()));
    assert_eq!(select.header("x-clickhouse-timezone"), server.query("select timezone()").await.trim_end());
    assert_eq!(
        select.header("x-clickhouse-server-display-name"),
        server.query("select displayName()").await.trim_end()
    );
    assert!(!select.header("x-clickhouse-query-id").is_empty());
}

#[tokio::test]
async fn exceptions_have_clickhouse_s_code_text_and_status() {
    let server = Server::start().await;
    let cases = [
        ("", "selec 1", 400, "62", "(SYNTAX_ERROR)"),
        ("", "select 1; select 2", 400, "62", "(SYNTAX_ERROR)"),
        ("", "select toUInt8('x')", 400, "6", "(CANNOT_PARSE_TEXT)"),
        ("", "select * from nope", 404, "60", "(UNKNOWN_TABLE)"),
        ("", "insert into nope values (1)", 404, "60", "(UNKNOWN_TABLE)"),
        ("database=nope", "select 1", 404, "81", "(UNKNOWN_DATABASE)"),
        ("nope=1", "select 1", 404, "115", "(UNKNOWN_SETTING)"),
        ("max_threads=many", "select 1", 400, "27", "(CANNOT_PARSE_INPUT_ASSERTION_FAILED)"),
        (
            "max_execution_time=0.1&max_block_size=1",
            "select sleepEachRow(0.1) from numbers(100)",
            408,
            "159",
            "(TIMEOUT_EXCEEDED)",
        ),
        ("", "select throwIf(1)", 500, "395", "(FUNCTION_THROW_IF_VALUE_IS_NON_ZERO)"),
        ("", "select {a:UInt8}", 500, "456", "(UNKNOWN_QUERY_PARAMETER)"),
        ("", "select 1 into outfile '/tmp/x'", 501, "48", "(NOT_IMPLEMENTED)"),
        ("session_id=s", "create temporary table x (a UInt8)", 501, "48", "keeps no sessions"),
        ("session_id=s&session_check=1", "select 1", 500, "372", "(SESSION_NOT_FOUND)"),
        ("user=alice", "select 1", 403, "516", "(AUTHENTICATION_FAILED)"),
        (
            "query=select+1&decompress=1",
            "garbled, and longer than the head of a block",
            500,
            "271",
            "(CANNOT_DECOMPRESS)",
        ),
    ];
    for (url, sql, status, code, words) in cases {
        let answer = server.post(url, sql).await;
        let text = answer.text();
        assert_eq!(
            (answer.status, answer.header("x-clickhouse-exception-code")),
            (status, code),
            "{sql}: {text}"
        );
        assert!(text.starts_with(&format!("Code: {code}. DB::Exception: ")), "{text}");
        assert!(text.contains(words) && text.ends_with("(libchdb))\n"), "{text}");
    }
    let get = server.request("GET", "/?query=create+database+d", "", b"").await;
    assert_eq!((get.status, get.header("x-clickhouse-exception-code")), (500, "164"));
    let page = server.request("POST", "/", "Origin: http://evil.example\r\n", b"select 1").await;
    assert_eq!((page.status, page.header("x-clickhouse-exception-code")), (403, "516"));
    let rebound = "POST / HTTP/1.0\r\nHost: evil.example:8123\r\nContent-Length: 8\r\n\r\nselect 1";
    assert_eq!(server.raw(rebound.as_bytes()).await.status, 403);
}

#[tokio::test]
async fn an_exception_after_the_first_rows_is_tagged_and_breaks_the_body() {
    let server = Server::start().await;
    let answer = server.post("", "select throwIf(number = 3000000) from numbers(10000000)").await;
    assert_eq!((answer.status, answer.whole), (200, false));
    let tag = answer.header("x-clickhouse-exception-tag");
    let text = answer.text();
    let (rows, exception) = text.split_once(&format!("\r\n__exception__\r\n{tag}\r\n")).unwrap();
    assert!(rows.starts_with("0\n0\n"));
    let (message, end) = exception
        .rsplit_once('\n')
        .map(|(head, _)| head.rsplit_once("\r\n").unwrap().0)
        .unwrap()
        .rsplit_once('\n')
        .unwrap();
    assert!(message.starts_with("Code: 395. "), "{message}");
    assert_eq!(end.trim_end(), format!("{} {tag}", message.len() + 1));
    let whole =
        server.post("wait_end_of_query=1", "select throwIf(number = 3000000) from numbers(10000000)").await;
    assert_eq!((whole.status, whole.header("x-clickhouse-exception-code"), whole.whole), (500, "395", true));
}

#[tokio::test]
async fn long_answers_stream() {
    let server = Server::start().await;
    let answer = server.post("", "select number from numbers(5000000)").await;
    assert!(answer.whole && answer.header("transfer-encoding") == "chunked");
    let lines = answer.text();
    assert!(lines.lines().enumerate().all(|(number, line)| line == number.to_string()));
    assert_eq!(lines.lines().count(), 5_000_000);
}

#[tokio::test]
async fn rows_of_any_size_stream_in() {
    let server = Server::start().await;
    server.query("create table t (a UInt64) engine = MergeTree order by a").await;
    // Inline data is cut at 1 MiB by the engine; ours is streamed.
    let rows: Vec<u8> = (0..3_000_000_u64).flat_map(u64::to_le_bytes).collect();
    let answer = server.post("", [b"insert into t format RowBinary\n", rows.as_slice()].concat()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = server.post("query=insert%20into%20t%20format%20RowBinary", &rows).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        server.query("select count(), sum(a), uniqExact(a) from t").await,
        "6000000\t8999997000000\t3000000\n"
    );
    let values = (0..200_000).map(|number| format!("({number})")).collect::<Vec<_>>().join(", ");
    server.query("truncate table t").await;
    assert_eq!(server.post("", format!("insert into t values {values};")).await.status, 200);
    assert_eq!(server.query("select count() from t").await, "200000\n");
}

/// What one side writes compressed, the other reads: ClickHouse's blocks and LZ4 frames; cut short, nothing of it.
#[tokio::test]
async fn compressed_answers_can_be_sent_back() {
    let server = Server::start().await;
    server.query("create table t (a UInt64, b String) engine = MergeTree order by a").await;
    let select = "select number as a, toString(number) as b from numbers(200000) format Native";
    let blocks = server.post("compress=1", select).await;
    assert_eq!((blocks.header("content-encoding"), blocks.body[16]), ("", 0x82));
    let frame = server.request("POST", "/", "Accept-Encoding: gzip, lz4;q=1\r\n", select.as_bytes()).await;
    assert_eq!((frame.header("content-encoding"), &frame.body[..4]), ("lz4", &[0x04, 0x22, 0x4d, 0x18][..]));
    let insert = "query=insert+into+t+format+Native";
    let ways = [(blocks.body, "&decompress=1", ""), (frame.body, "", "Content-Encoding: lz4\r\n")];
    for (body, url, header) in &ways {
        for end in [body.len() - 1, body.len() / 2] {
            let target = format!("/?{insert}{url}");
            let cut = server.request("POST", &target, header, &body[..end]).await;
            assert_eq!(
                (cut.status, cut.header("x-clickhouse-exception-code")),
                (500, "271"),
                "{}",
                cut.text()
            );
        }
        assert_eq!(server.query("select count() from t").await, "0\n");
        let whole = server.request("POST", &format!("/?{insert}{url}"), header, body).await;
        assert_eq!(whole.status, 200, "{}", whole.text());
        assert_eq!(
            server.query("select count(), sum(a), countIf(b = toString(a)) from t").await,
            "200000\t19999900000\t200000\n"
        );
        server.query("truncate table t").await;
    }
    // The statement may be inside, too.
    let inside = server.post("compress=1", "select 'select 7' format TSVRaw").await;
    assert_eq!(server.post("decompress=1", inside.body).await.text(), "7\n");
}
