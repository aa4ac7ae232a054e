//! All of `deploy/clickhouse/bypass.sql`, asked of the real engine: with the policies alone, and with an analyst's rights. What it
//! answers beside another workspace is held against what it answers where there is no other. Quotas are not tried.

use super::{
    engine::{self, LARGE, SMALL, Tenant},
    users::{self, Rights},
};

const LIST: &str = include_str!("../../../../../deploy/clickhouse/bypass.sql");
const KINDS: &[&str] = &["own", "hidden", "refused", "leaks", "outside", "shown"];
/// As many as there have to be.
const QUERIES_MIN: usize = 60;

#[derive(Debug)]
struct Query {
    kind: &'static str,
    name: &'static str,
    sql: &'static str,
}

/// What came of a query: rows, or the engine's text of an error.
type Answer = Result<String, String>;

fn list() -> Vec<Query> {
    let header = |line: &'static str| {
        let (kind, name) = line.strip_prefix("-- ")?.split_once(": ")?;
        KINDS.contains(&kind).then_some((kind, name))
    };
    let mut queries: Vec<Query> = Vec::new();
    let mut lines = LIST.lines();
    while let Some(line) = lines.next() {
        if let Some((kind, name)) = header(line) {
            let sql = lines.next().and_then(|sql| sql.strip_suffix(';'));
            queries.push(Query { kind, name, sql: sql.expect("a query stands on one line and ends there") });
        }
    }
    queries
}

/// What `own` gets with these rights beside `others`.
async fn asked(own: Tenant, beside: Tenant, others: &[Tenant], rights: Rights) -> Vec<Answer> {
    let tenants: Vec<_> = others.iter().copied().chain([own]).collect();
    let mut clickhouse = engine::filled(&tenants).await;
    clickhouse.restart_with_users(&users::file(own.workspace(), rights)).await;
    let mut answers = Vec::new();
    for query in list() {
        // Policies say nothing of other places; without rights that refuse it, the engine would go there.
        if query.kind == "outside" && rights != Rights::Analyst {
            answers.push(Err(String::new()));
            continue;
        }
        let sql = query.sql.replace("{other}", beside.uuid).replace("{them}", beside.marker);
        answers.push(clickhouse.try_query(&sql).await);
    }
    answers
}

/// Neither a value of `other` nor how many rows it or both have.
fn assert_tells_nothing(name: &str, answer: &Answer, own: Tenant, other: Tenant) {
    let Ok(answer) = answer else { return };
    assert!(!answer.contains(other.marker), "{name}: {answer}");
    let counts = [other.calls, 2 * other.calls, own.calls + other.calls, 2 * (own.calls + other.calls)];
    for word in answer.split(|c: char| !c.is_ascii_digit()) {
        assert!(!counts.iter().any(|count| count.to_string() == word), "{name}: {answer}");
    }
}

#[test]
fn the_list_is_long_and_has_every_kind() {
    let queries = list();
    assert!(queries.len() >= QUERIES_MIN);
    assert_eq!(queries.len(), LIST.lines().filter(|line| line.ends_with(';')).count(), "each has a kind");
    for kind in KINDS {
        assert!(queries.iter().any(|query| query.kind == *kind), "{kind}");
    }
    let mut names: Vec<_> = queries.iter().map(|query| query.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), queries.len(), "each has a name of its own");
}

#[tokio::test]
async fn an_analyst_gets_what_it_would_get_alone() {
    for (own, other) in [(SMALL, LARGE), (LARGE, SMALL)] {
        let beside = asked(own, other, &[other], Rights::Analyst).await;
        let alone = asked(own, other, &[], Rights::Analyst).await;
        for ((query, beside), alone) in list().into_iter().zip(beside).zip(alone) {
            let said = format!("{} of {}: {beside:?}, alone {alone:?}", query.name, own.marker);
            assert_tells_nothing(query.name, &beside, own, other);
            match query.kind {
                "own" | "hidden" => assert!(beside.is_ok() && beside == alone, "{said}"),
                "refused" | "leaks" | "outside" => assert!(beside.is_err() && beside == alone, "{said}"),
                // How much there is, where own rows and others' are in one granule, or in all.
                _ => assert!(beside != alone || own == LARGE, "{said}"),
            }
        }
    }
}

#[tokio::test]
async fn the_policies_alone_hold_but_for_what_the_list_says() {
    let mut leaks = Vec::new();
    for (own, other) in [(SMALL, LARGE), (LARGE, SMALL)] {
        let beside = asked(own, other, &[other], Rights::PoliciesAlone).await;
        let alone = asked(own, other, &[], Rights::PoliciesAlone).await;
        for ((query, beside), alone) in list().into_iter().zip(beside).zip(alone) {
            match query.kind {
                "own" | "refused" => {
                    assert_eq!(beside, alone, "{} of {}", query.name, own.marker);
                    assert_tells_nothing(query.name, &beside, own, other);
                }
                "hidden" | "leaks" if beside != alone => leaks.push(query.name),
                _ => {}
            }
        }
    }
    for query in list().into_iter().filter(|query| ["hidden", "leaks"].contains(&query.kind)) {
        assert!(leaks.contains(&query.name), "{} does not leak", query.name);
    }
}

/// So that the two tests above would notice.
#[tokio::test]
async fn without_policies_the_list_finds_the_other_workspace() {
    let beside = asked(SMALL, LARGE, &[LARGE], Rights::Owner).await;
    let alone = asked(SMALL, LARGE, &[], Rights::Owner).await;
    let own = list().into_iter().zip(beside.iter().zip(&alone)).filter(|(query, _)| query.kind == "own");
    let found = own.filter(|(_, (beside, alone))| beside != alone).count();
    assert!(found >= QUERIES_MIN / 2, "only {found} queries see it");
}

/// The policy word for word: who is asked for is then the engine's own user, `default`, whose name has nothing behind its eighth
/// letter, so that the workspace is the one of zeros.
#[tokio::test]
async fn the_policy_goes_by_who_asks() {
    const ZERO: Tenant = Tenant { uuid: "00000000-0000-0000-0000-000000000000", ..SMALL };
    let mut clickhouse = engine::filled(&[ZERO, LARGE]).await;
    let count = "select count() from keymeter.request_events";
    assert_eq!(clickhouse.query(count).await, "17856\n");
    let file = users::file(ZERO.workspace(), Rights::PoliciesAlone);
    let user = format!("'analyst_{}'", ZERO.uuid);
    assert!(file.contains(&user));
    clickhouse.restart_with_users(&file.replace(&user, "currentUser()")).await;
    assert_eq!(clickhouse.query(count).await, "2018\n");
    // A view asks with the rights of keymeter_views, and currentUser() is still who asked it.
    let analyst = users::file(ZERO.workspace(), Rights::Analyst).replace(&user, "currentUser()");
    let analyst = analyst.replace("not startsWith(currentUser(), 'analyst_') or", "");
    clickhouse.restart_with_users(&analyst).await;
    assert_eq!(clickhouse.query("select count() from keymeter.requests").await, "2018\n");
    assert!(clickhouse.try_query(count).await.unwrap_err().contains("ACCESS_DENIED"));
}
