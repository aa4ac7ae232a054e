//! The engine's file of users, made from the very statements of `deploy/clickhouse`: libchdb takes no statements about users,
//! but holds what such a file says of its one user. Never says anything that those statements do not.

use std::{collections::BTreeMap, fmt::Write as _};

use domain::WorkspaceId;
use ingest::layout::Layout;

const POLICY: &str = "create row policy if not exists ";
const PROFILE: &str = "create settings profile if not exists keymeter_analyst settings ";
const NO_LIMITS: &str = "<quotas><default/></quotas>";

/// What the engine's user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rights {
    /// All, and no policy holds.
    Owner,
    /// All, but the analysts' policies hold.
    PoliciesAlone,
    /// An analyst's.
    Analyst,
}

/// Policies by database and table; a table named `*` is any.
type Policies = BTreeMap<String, BTreeMap<String, String>>;

/// The statements that make the analyst of a workspace, each on one line.
pub(super) fn statements(workspace: WorkspaceId) -> Vec<String> {
    let all = ingest::analyst::statements(&name(workspace), &"0".repeat(64), &Layout::default());
    all.iter().map(|sql| sql.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

fn name(workspace: WorkspaceId) -> String {
    format!("analyst_{}", workspace.as_uuid())
}

/// The file that lets the engine's user be the analyst of `workspace`, as far as `rights` says.
pub(super) fn file(workspace: WorkspaceId, rights: Rights) -> String {
    let all = statements(workspace);
    let policies = |role| policies(&all, role, &name(workspace));
    let views = format!(
        "<keymeter_views><no_password/><networks/><profile>views</profile><quota>default</quota>{}{}</keymeter_views>",
        grants(&all, "keymeter_views"),
        if rights == Rights::Owner { String::new() } else { filters(&policies("keymeter_views")) }
    );
    let (profile, granted) = match rights {
        Rights::Analyst => (profile(&all), grants(&all, "keymeter_analyst")),
        Rights::Owner | Rights::PoliciesAlone => (String::new(), String::new()),
    };
    let own = match rights {
        Rights::Owner => String::new(),
        Rights::PoliciesAlone | Rights::Analyst => filters(&policies("keymeter_analyst")),
    };
    user(&profile, &format!("{granted}{own}"), &views)
}

/// The file that gives the engine's user these rights and no others, as `grant … to <user>` says them.
pub(super) fn granted(statements: &[String], to: &str) -> String {
    user("", &grants(statements, to), "")
}

fn user(profile: &str, of_default: &str, others: &str) -> String {
    format!(
        "<clickhouse><profiles><default>{profile}</default><views/></profiles>{NO_LIMITS}<users>\
         <default><password></password><networks><ip>::/0</ip></networks><profile>default</profile>\
         <quota>default</quota>{of_default}</default>{others}</users></clickhouse>"
    )
}

/// `grant X on Y to <user>` without the user, who is the one it stands at.
fn grants(all: &[String], user: &str) -> String {
    let mut text = "<grants>".to_owned();
    let to = format!(" to {user}");
    for sql in all.iter().filter(|sql| sql.starts_with("grant ")) {
        let sql = sql.trim_end_matches(" with grant option");
        if let Some(right) = sql.strip_suffix(&to) {
            write!(text, "<query>{right}</query>").expect("memory takes it");
        }
    }
    text + "</grants>"
}

/// In a file a policy holds for the user that it stands at; who asks is `default`, so the name is put in.
fn policies(all: &[String], role: &str, analyst: &str) -> Policies {
    let mut policies = Policies::new();
    for sql in all.iter().filter_map(|sql| sql.strip_prefix(POLICY)) {
        let sql = sql.strip_suffix(&format!(" as permissive to {role}"));
        let Some((tables, filter)) = sql.and_then(|sql| sql.split_once(" for select using ")) else {
            continue;
        };
        let (_, tables) = tables.split_once(" on ").expect("a policy is on tables");
        for table in tables.split(", ") {
            let (database, table) = table.split_once('.').expect("a table is in a database");
            let filter = match database {
                "keymeter" => filter.replace("currentUser()", &format!("'{analyst}'")),
                _ => filter.to_owned(),
            };
            policies.entry(database.to_owned()).or_default().insert(table.to_owned(), filter);
        }
    }
    policies
}

fn filters(policies: &Policies) -> String {
    let mut text = "<databases>".to_owned();
    for (database, tables) in policies {
        write!(text, "<{database}>").expect("memory takes it");
        for (table, filter) in tables {
            // No name is any table.
            let table = if table == "*" { "" } else { table };
            write!(text, "<table name=\"{table}\"><filter>{filter}</filter></table>")
                .expect("memory takes it");
        }
        write!(text, "</{database}>").expect("memory takes it");
    }
    text + "</databases>"
}

/// `name = value const`, or `min x max y`.
fn profile(all: &[String]) -> String {
    let sql = all.iter().find_map(|sql| sql.strip_prefix(PROFILE)).expect("there is a profile");
    let (settings, _) = sql.split_once(" to ").expect("it is for a role");
    let (mut values, mut constraints) = (String::new(), String::new());
    for setting in settings.split(", ") {
        let (name, value) = setting.split_once(" = ").expect("a setting has a value");
        let mut words = value.split(' ');
        write!(values, "<{name}>{}</{name}>", words.next().expect("a value")).expect("memory takes it");
        write!(constraints, "<{name}>").expect("memory takes it");
        while let Some(word) = words.next() {
            match (word, words.next()) {
                ("const", None) => constraints.push_str("<const/>"),
                (limit @ ("min" | "max"), Some(bound)) => {
                    write!(constraints, "<{limit}>{bound}</{limit}>").expect("memory takes it");
                }
                other => panic!("no constraint: {other:?}"),
            }
        }
        write!(constraints, "</{name}>").expect("memory takes it");
    }
    format!("{values}<constraints>{constraints}</constraints>")
}
