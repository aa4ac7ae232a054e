//! Hostile filter values are values: they find exactly what is equal to them, and never break or widen a query.

use domain::{KeyId, WorkspaceId};
use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};
use proto::usage as pb;

use crate::{
    events::{self, Event},
    stack::{Stack, filter, some_days_ago, total},
};

const RANDOM_STRINGS: usize = 125_000;
const VALUES_PER_CALL: usize = 100;
const RANGE_MS: i64 = 86_400_000;

/// What has broken parsers of SQL, parameters, forms and tab-separated values.
fn classics() -> Vec<String> {
    let texts = [
        "'",
        "''",
        "\"",
        "`",
        "\\",
        "\\\\",
        "\\'",
        "'\\",
        "\\\\'",
        "\\0",
        "\\N",
        "\\t",
        "\\n",
        "\\x27",
        "\\u0027",
        "\t",
        "\n",
        "\r",
        "\r\n",
        "\0",
        "a\0b",
        "\u{1}",
        "\u{7f}",
        "\u{8}\u{c}\u{b}\u{7}\u{1b}",
        "%27",
        "%00",
        "?",
        "??",
        "{x:String}",
        "{workspace_id:UUID}",
        "{routes:Array(String)}",
        "{",
        "}",
        "{{",
        "}}",
        "[",
        "]",
        "[]",
        "['a']",
        "','",
        "'),('",
        "', '",
        "]'",
        "[''",
        ",",
        ";",
        "--",
        "-- \n",
        "/*",
        "*/",
        "#",
        "' or 1=1 --",
        "' or '1'='1",
        "') or (1=1",
        "'] or 1 or x in ['",
        "x') union all select * from keymeter.request_events --",
        "'; drop table keymeter.request_events; --",
        "\\'; drop table keymeter.request_events; --",
        "null",
        "NULL",
        "\\N\\N",
        "nan",
        "0x27",
        "0",
        "-1",
        "''::String",
        "é",
        "日本語",
        "🦀",
        "👩‍👩‍👧‍👦",
        "\u{202e}abc",
        "\u{feff}",
        "\u{0}\u{10ffff}",
        "ʼ",
        "＇",
        "--boundary\r\n",
        "\r\n--clickhouse-rs-",
        "Content-Disposition: form-data",
        "name=\"query\"",
        " ",
        "  a  ",
        "format Null",
        "settings readonly=0",
        "$$",
        "$a$b$a$",
        "\u{2028}",
        "\\b\\f\\r",
    ];
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn hostile(count: usize) -> Vec<String> {
    let piece = prop_oneof![
        proptest::sample::select(classics()),
        any::<char>().prop_map(String::from),
        proptest::string::string_regex("[ -~]{0,8}").expect("a fixed expression"),
    ];
    let text = prop::collection::vec(piece, 1..6).prop_map(|pieces| pieces.concat());
    let mut runner = TestRunner::deterministic();
    let mut texts: Vec<_> =
        (0..count).map(|_| text.new_tree(&mut runner).expect("nothing is rejected").current()).collect();
    texts.extend(classics());
    texts.extend(["'".repeat(200), "\\".repeat(255), "\0".repeat(100), "🦀".repeat(60)]);
    texts.sort();
    texts.dedup();
    // What an event can hold as a resource id.
    texts.retain(|text| text.len() <= 256);
    texts
}

#[tokio::test]
async fn a_hostile_value_finds_exactly_itself() {
    let stack = Stack::start().await;
    let (workspace_id, key_id, at) = (WorkspaceId::generate(), KeyId::generate(), some_days_ago());
    let texts = hostile(RANDOM_STRINGS);
    assert!(texts.len() > 100_000, "{}", texts.len());
    // Every other one is there; a neighbour's rows hold them all.
    let stored: Vec<&String> = texts.iter().step_by(2).collect();
    let call =
        |text: &String| Event { route: text.clone(), resource_id: text.clone(), ..Event::new(key_id, at) };
    for chunk in stored.chunks(5_000) {
        let calls: Vec<_> = chunk.iter().map(|text| call(text)).collect();
        events::insert(&stack.clickhouse, workspace_id, &calls).await;
    }
    for chunk in texts.chunks(5_000) {
        let calls: Vec<_> = chunk.iter().map(call).collect();
        events::insert(&stack.clickhouse, WorkspaceId::generate(), &calls).await;
    }

    let range = filter(at - RANGE_MS, at + RANGE_MS);
    let by_route = |texts: &[String]| pb::UsageFilter { routes: texts.to_vec(), ..range.clone() };
    let by_resource = |texts: &[String]| pb::UsageFilter { resource_ids: texts.to_vec(), ..range.clone() };
    let count = async |question: pb::UsageFilter| {
        let found = stack.summary(workspace_id, question.clone()).await;
        total(found.unwrap_or_else(|status| panic!("{status} for {question:?}")).counts)
    };
    for (number, chunk) in texts.chunks(VALUES_PER_CALL).enumerate() {
        let expected = (number * VALUES_PER_CALL..).take(chunk.len()).filter(|n| n % 2 == 0).count() as u64;
        assert_eq!(count(by_route(chunk)).await, expected, "{chunk:?}");
        assert_eq!(count(by_resource(chunk)).await, expected, "{chunk:?}");
    }
    // One by one, where nothing beside it hides what it does.
    for (number, text) in texts.iter().enumerate().step_by(1_009) {
        let one = std::slice::from_ref(text);
        let expected = u64::from(number % 2 == 0);
        assert_eq!(count(by_route(one)).await, expected, "{text:?}");
        let log = stack.log(workspace_id, &by_resource(one), 10).await;
        assert_eq!(log.len() as u64, expected, "{text:?}");
        assert!(log.iter().all(|request| request.resource_id == *text && request.route == *text));
    }
    let all = count(range.clone()).await;
    assert_eq!(all, stored.len() as u64, "nothing was dropped meanwhile");
}

#[tokio::test]
async fn a_value_of_any_length_or_a_hostile_method_is_no_error() {
    let stack = Stack::start().await;
    let (workspace_id, at) = (WorkspaceId::generate(), some_days_ago());
    let longest = Event { route: "'".repeat(1_024), ..Event::new(KeyId::generate(), at) };
    events::insert(&stack.clickhouse, workspace_id, &[longest]).await;
    let range = filter(at - RANGE_MS, at + RANGE_MS);
    let check = async |question: pb::UsageFilter, expected| {
        assert_eq!(total(stack.summary(workspace_id, question.clone()).await.unwrap().counts), expected);
        assert_eq!(stack.log(workspace_id, &question, 10).await.len() as u64, expected);
        let by_route = stack.breakdown(workspace_id, question, pb::Dimension::Route, 1).await.unwrap();
        assert_eq!(by_route.rows.len() as u64, expected);
    };
    let quotes = |bytes| vec!["'".repeat(bytes); 100];
    check(pb::UsageFilter { routes: quotes(1_024), ..range.clone() }, 1).await;
    check(pb::UsageFilter { routes: quotes(1_025), ..range.clone() }, 0).await;
    check(pb::UsageFilter { routes: vec!["x".repeat(3 << 20)], ..range.clone() }, 0).await;
    check(pb::UsageFilter { resource_ids: vec!["\\".repeat(3 << 20)], ..range.clone() }, 0).await;
    let methods: Vec<_> = classics().into_iter().filter(|text| text.len() <= 32).collect();
    for chunk in methods.chunks(VALUES_PER_CALL) {
        check(pb::UsageFilter { methods: chunk.to_vec(), ..range.clone() }, 0).await;
    }
}
