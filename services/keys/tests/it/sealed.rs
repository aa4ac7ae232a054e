//! Copies of secrets open where they were sealed and nowhere else; nothing else in Postgres tells a secret.

use proto::keys::{Key, RevealKeyRequest};
use tonic::{Code, Status};

use crate::harness::{EMAIL, PASSWORD, Running, key_id, sign_in, token_file};

async fn reveal(run: &Running, key: &Key) -> Result<String, Status> {
    let request = run.ask(RevealKeyRequest { name: key.name.clone() });
    Ok(run.keys().reveal_key(request).await?.into_inner().secret)
}

#[tokio::test]
async fn a_copy_that_was_moved_or_changed_is_refused() {
    let run = Running::start().await;
    let (one, other) = (run.make("one").await, run.make("other").await);
    let (one_key, other_key) = (one.key.unwrap(), other.key.unwrap());
    let check = async |change: &str, undo: &str| {
        let _ = run.postgres.query(change);
        let error = reveal(&run, &one_key).await.unwrap_err();
        assert_eq!(error.code(), Code::Internal, "{change}");
        assert!(!error.message().contains("seal"), "the cause is for the log");
        let _ = run.postgres.query(undo);
        assert_eq!(reveal(&run, &one_key).await.unwrap(), one.secret, "{undo}");
    };
    let id = key_id(&one_key).as_uuid();
    let other_id = key_id(&other_key).as_uuid();
    let swap = format!(
        "update secrets s set sealed = o.sealed from secrets o
         where s.key_id in ('{id}', '{other_id}') and o.key_id in ('{id}', '{other_id}') and s.key_id <> o.key_id"
    );
    check(&swap, &swap).await;
    let version =
        |by: i32| format!("update secrets set key_version = key_version + {by} where key_id = '{id}'");
    check(&version(1), &version(-1)).await;
    for byte in [0, 1, 13, 40, 72] {
        let flip = format!(
            "update secrets set sealed = set_byte(sealed, {byte}, get_byte(sealed, {byte}) # 1) where key_id = '{id}'"
        );
        check(&flip, &flip).await;
    }
    let _ = run.add_tenant("eve@example.org").await;
    let swap = "update workspace_data_keys d set wrapped_key = o.wrapped_key
                from workspace_data_keys o where o.workspace_id <> d.workspace_id";
    check(swap, swap).await;
    assert_eq!(reveal(&run, &other_key).await.unwrap(), other.secret);
    let audited = run.postgres.query("select count(*) from audit_entries where action = 'reveal_key'");
    let good = 1 + 1 + 5 + 1 + 1;
    assert_eq!(audited, format!("{good}\n"), "one entry for each secret that was shown");
}

#[tokio::test]
async fn a_workspace_without_a_copy_says_so() {
    let run = Running::start().await;
    let key = run.make("one").await.key.unwrap();
    let _ = run.postgres.query("update secrets set sealed = null");
    let error = reveal(&run, &key).await.unwrap_err();
    assert_eq!(
        (error.code(), crate::harness::reason(&error).as_str()),
        (Code::FailedPrecondition, "NO_COPY")
    );
}

#[tokio::test]
async fn nothing_secret_is_in_postgres_in_the_clear() {
    let run = Running::start().await;
    let made = run.make("one").await;
    let service_token = std::fs::read_to_string(token_file(&run.folder, EMAIL)).unwrap();
    let signed_in = sign_in(&mut run.sessions(), EMAIL).await.unwrap();
    let session_token = signed_in.session_token;
    let tables =
        run.postgres.query("select table_name from information_schema.tables where table_schema = 'public'");
    let mut seen = String::new();
    for table in tables.lines() {
        seen += &run.postgres.query(&format!("select t::text, convert_from('', 'UTF8') from \"{table}\" t"));
    }
    assert!(seen.contains(&made.key.unwrap().start), "the search would find it");
    let hex = |text: &str| data_encoding::HEXLOWER.encode(text.as_bytes());
    for secret in [&made.secret[12..], &service_token[6..], &session_token[6..], PASSWORD] {
        assert!(!seen.contains(secret) && !seen.contains(&hex(secret)));
    }
}
