//! Nothing of one request reaches another: settings, parameters, databases, formats.

use std::fmt::Write as _;

use crate::support::Server;

#[tokio::test]
async fn what_a_request_sets_ends_with_it() {
    let server = Server::start_with(&[("CHDB_CONNECTIONS", "1")]).await;
    let state = "select getSetting('max_threads'), getSetting('max_result_rows'), currentDatabase(), \
                 getSetting('readonly'), getSetting('log_comment')";
    let before = server.query(state).await;
    server.query("create database other").await;
    server.query("create table other.t (a UInt64) engine = MergeTree order by a").await;
    let with = "max_threads=7&max_result_rows=99&database=other&log_comment=x&param_p=1";
    assert_eq!(server.post(with, state).await.text(), "7\t99\tother\t0\tx\n");
    assert_eq!(server.query(state).await, before);
    // Inserts take another way into the engine.
    assert_eq!(server.post(&format!("{with}&query=insert+into+t+format+TSV"), "1\n").await.status, 200);
    assert_eq!(server.query(state).await, before);
    server.query("set max_threads = 7").await;
    server.query("use other").await;
    server.query("create temporary table temporary_t (a UInt8)").await;
    server.query("select 1 settings max_threads = 7").await;
    server.request("GET", "/?query=select+1", "", b"").await;
    assert_eq!(server.post(with, "select throwIf(1)").await.status, 500);
    assert_eq!(server.query(state).await, before);
    assert_eq!(server.post("", "select * from temporary_t").await.status, 404);
    let param = server.post("", "select {p:UInt8}").await;
    assert_eq!(param.header("x-clickhouse-exception-code"), "456", "{}", param.text());
    assert_eq!(server.query("select 1 as x").await, "1\n", "the format of an earlier request");
}

#[tokio::test]
async fn requests_at_once_keep_their_own() {
    let server = Server::start().await;
    let mut create = String::new();
    for number in 0..4 {
        create.clear();
        write!(create, "create database d{number}").unwrap();
        server.query(&create).await;
    }
    let ask = async |task: usize| {
        for round in 0..50 {
            let (threads, value) = (task + 1, task * 1_000 + round);
            let url =
                format!("database=d{}&max_threads={threads}&param_value={value}&query_id=q{value}", task % 4);
            let sql = "select currentDatabase(), getSetting('max_threads'), {value:UInt32}, \
                       (select count() from system.processes where query_id = concat('q', toString({value:UInt32})))";
            let answer = server.post(&url, sql).await;
            assert_eq!(answer.text(), format!("d{}\t{threads}\t{value}\t1\n", task % 4));
        }
    };
    tokio::join!(ask(0), ask(1), ask(2), ask(3), ask(4), ask(5), ask(6), ask(7));
}

#[tokio::test]
async fn row_policies_of_a_users_file_hold() {
    let folder = tempfile::tempdir().unwrap();
    let users = "<clickhouse><profiles><default/></profiles><quotas><default/></quotas><users><default>\
        <password></password><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>\
        <databases><default><t><filter>a = 1</filter></t></default></databases></default></users></clickhouse>";
    let users_file = folder.path().join("users.xml");
    std::fs::write(&users_file, users).unwrap();
    let config = format!("<clickhouse><users_config>{}</users_config></clickhouse>", users_file.display());
    let config_file = folder.path().join("config.xml");
    std::fs::write(&config_file, config).unwrap();
    let server = Server::start_with(&[("CHDB_CONFIG_FILE", config_file.to_str().unwrap())]).await;
    server.query("create table t (a UInt64) engine = MergeTree order by a").await;
    server.query("insert into t values (1), (2)").await;
    assert_eq!(server.query("select a from t").await, "1\n");
}

#[tokio::test]
async fn rights_and_limits_of_a_users_file_hold() {
    let folder = tempfile::tempdir().unwrap();
    let users = "<clickhouse><profiles><default><readonly>2</readonly><max_threads>1</max_threads>\
        <constraints><max_threads><const/></max_threads></constraints></default></profiles><quotas><default/></quotas>\
        <users><default><password></password><networks><ip>::/0</ip></networks><profile>default</profile>\
        <quota>default</quota><grants><query>grant select on default.t</query></grants></default></users></clickhouse>";
    let users_file = folder.path().join("users.xml");
    std::fs::write(&users_file, users).unwrap();
    let config = format!("<clickhouse><users_config>{}</users_config></clickhouse>", users_file.display());
    let config_file = folder.path().join("chdb.xml");
    std::fs::write(&config_file, config).unwrap();
    let server = Server::start_with(&[("CHDB_CONFIG_FILE", config_file.to_str().unwrap())]).await;
    assert_eq!(server.query("show grants").await, "GRANT SELECT ON default.t TO default\n");
    for (refused, code) in [
        ("create table t (a UInt64) engine = MergeTree order by a", "497"),
        ("select * from file('/etc/passwd', LineAsString)", "497"),
        ("select 1 settings readonly = 0", "164"),
        ("select 1 settings max_threads = 2", "452"),
    ] {
        let answer = server.post("", refused).await;
        assert_eq!(answer.header("x-clickhouse-exception-code"), code, "{refused}: {}", answer.text());
    }
    assert_eq!(server.query("select 1 settings max_block_size = 7").await, "1\n");
}
