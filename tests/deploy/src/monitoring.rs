//! Alerts and dashboards: read and evaluated by the tools themselves. Each alert fires in one case, has its section in the
//! runbook, and asks for metrics that there are; each query of a dashboard runs.

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use parts::ClickHouse;
use serde_json::Value;

fn file(path: &str) -> PathBuf {
    parts::root().join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(file(path)).unwrap()
}

/// Debian's.
fn promtool(arguments: &[&str], file: &std::path::Path) {
    let output = Command::new("promtool").args(arguments).arg(file).output().expect("promtool runs");
    let said = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
    assert!(output.status.success(), "{said}");
}

/// The words after a mark, to the end of their line.
fn after(text: &str, mark: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix(mark))
        .map(|rest| rest.trim().to_owned())
        .collect()
}

/// The names of all alerts, in their order.
pub(crate) fn alerts() -> Vec<String> {
    after(&read("deploy/prometheus/alerts.yaml"), "- alert:")
}

/// Names of metrics in a text, without what Prometheus puts behind them.
fn metrics(text: &str) -> BTreeSet<String> {
    let is_name = |character: char| character.is_ascii_lowercase() || character == '_';
    let names = text.match_indices("keymeter_").map(|(at, _)| {
        let name = text[at..].split(|character| !is_name(character)).next().unwrap_or_default();
        ["_bucket", "_count", "_sum", "_total", "_seconds"]
            .iter()
            .fold(name, |name, suffix| name.strip_suffix(suffix).unwrap_or(name))
            .to_owned()
    });
    names.collect()
}

/// Queries of the dashboards by the kind of their data source.
fn queries(field: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(file("deploy/grafana/dashboards")).unwrap() {
        let board: Value = serde_json::from_str(&fs::read_to_string(entry.unwrap().path()).unwrap()).unwrap();
        let variables = board["templating"]["list"].as_array().unwrap().iter();
        let asking = variables.filter(|one| field == "rawSql" && one["type"] == "query");
        found.extend(asking.map(|one| ("a variable".to_owned(), one["query"].as_str().unwrap().to_owned())));
        for panel in board["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                if let Some(query) = target[field].as_str() {
                    found.push((format!("{} / {}", board["title"], panel["title"]), query.to_owned()));
                }
            }
        }
    }
    assert!(found.len() > 10, "{field}");
    found
}

#[test]
fn each_alert_fires_when_it_should_and_then_only() {
    promtool(&["check", "rules"], &file("deploy/prometheus/alerts.yaml"));
    promtool(&["check", "config"], &file("deploy/prometheus/scrape.yaml"));
    promtool(&["test", "rules"], &file("deploy/prometheus/alerts_test.yaml"));
    let tested = after(&read("deploy/prometheus/alerts_test.yaml"), "- name:");
    assert_eq!(tested, alerts());
    let mut explained = after(&read("docs/runbook.md"), "### Keymeter");
    let mut names: Vec<_> = alerts().iter().map(|name| name.replacen("Keymeter", "", 1)).collect();
    explained.sort();
    names.sort();
    assert_eq!(explained, names);
}

#[test]
fn alerts_and_dashboards_ask_for_metrics_that_there_are() {
    let sources = Command::new("git")
        .args(["grep", "-ho", "\"keymeter_[a-z_]*\"", "--", "crates/*.rs", "services/*.rs"])
        .current_dir(parts::root())
        .output()
        .unwrap();
    let known = metrics(&String::from_utf8(sources.stdout).unwrap());
    let mut asked = metrics(&read("deploy/prometheus/alerts.yaml"));
    asked.extend(queries("expr").iter().flat_map(|(_, query)| metrics(query)));
    // The unit is in the name of an instrument, or behind it.
    let is_known = |name: &String| known.contains(name) || known.contains(name.trim_end_matches("_bytes"));
    assert_eq!(asked.iter().filter(|name| !is_known(name)).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn dashboards_ask_prometheus_what_it_understands() {
    let folder = tempfile::tempdir().unwrap();
    let cases = queries("expr").into_iter().map(|(_, query)| {
        let query = query.replace("$__rate_interval", "5m");
        // Evaluated, whatever comes of it.
        format!("      - {{ expr: {}, eval_time: 0s }}\n", Value::from(format!("count(({query})) < 0")))
    });
    let text = format!("rule_files: []\ntests:\n  - promql_expr_test:\n{}", cases.collect::<String>());
    let tests = folder.path().join("tests.yaml");
    fs::write(&tests, text).unwrap();
    promtool(&["test", "rules"], &tests);
}

#[tokio::test]
async fn dashboards_ask_clickhouse_what_it_understands() {
    let clickhouse = ClickHouse::start().await;
    clickhouse.create_tables().await;
    for (panel, query) in queries("rawSql") {
        let mut query = query
            .replace("${key:singlequote}", "'', 'key_of_nobody'")
            .replace("$__fromTime", "toDateTime(0)");
        for (macro_name, put) in [
            ("$__timeFilter(", "(COLUMN >= toDateTime(0) and COLUMN <= now())"),
            ("$__timeInterval(", "toStartOfInterval(toDateTime(COLUMN), interval 60 second)"),
        ] {
            while let Some((before, rest)) = query.split_once(macro_name) {
                let (column, behind) = rest.split_once(')').unwrap();
                query = format!("{before}{}{behind}", put.replace("COLUMN", column));
            }
        }
        assert!(!query.contains('$'), "{panel}: {query}");
        clickhouse.try_query(&query).await.unwrap_or_else(|error| panic!("{panel}: {query}: {error}"));
    }
}
