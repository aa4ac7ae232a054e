//! `keys rebuild`: replays the events into an empty projection and tells how it differs from the real one, which it
//! never changes. Holds a page of events at a time.

use std::io::{self, Write as _};

use anyhow::ensure;
use domain::{KeyId, SecretId};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    config::Config,
    key::{Key, KeyEvent},
    store::{
        Store, StoreError, Tx,
        rebuild::{Difference, Replayed},
    },
};

const PAGE: i64 = 1_000;
/// Events between two words on how far it is.
const PROGRESS_EVERY: usize = 50_000;

/// Runs the command; an error if there is a difference.
///
/// # Errors
/// Postgres; any difference.
pub async fn run(config: &Config) -> anyhow::Result<()> {
    let store = Store::patient(&config.database_url, config.identity.identity()?.as_ref())?;
    store.check_version().await?;
    let mut found = 0_usize;
    let events = rebuild(&store, &mut |line| {
        found += 1;
        // A closed pipe does not end the count.
        let _ = writeln!(io::stdout(), "{line}");
    })
    .await?;
    store.close().await;
    writeln!(io::stdout(), "{events} events replayed, {found} differences")?;
    ensure!(found == 0, "the keys are not what their events make them");
    Ok(())
}

/// Replays all events and tells each difference, a line each; says how many events there are.
///
/// # Errors
/// Postgres; an event that can not be read.
pub async fn rebuild(store: &Store, tell: &mut (dyn FnMut(String) + Send)) -> Result<usize, StoreError> {
    let mut tx = store.begin_rebuild().await?;
    let (mut key, mut after, mut events): (Option<Key>, _, usize) = (None, None, 0);
    loop {
        let page = tx.events_after(after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some((last.key_id, last.version));
        for replayed in &page {
            key = replay(&mut tx, key.take(), replayed).await?;
            let in_order = key.as_ref().is_some_and(|key| key.version == replayed.version);
            if !in_order {
                tell(format!(
                    "{} version {}: an event before it is missing",
                    replayed.key_id, replayed.version
                ));
                key = None;
            }
            events += 1;
            if events.is_multiple_of(PROGRESS_EVERY) {
                // Nobody may be there to read it.
                let _ = writeln!(io::stderr(), "{events} events so far");
            }
        }
    }
    tx.differences(&mut |difference| describe(&difference).into_iter().for_each(&mut *tell)).await?;
    Ok(events)
}

/// The key after one more event, also in the projection; `None` if there is no key that it could happen to.
async fn replay(tx: &mut Tx, key: Option<Key>, replayed: &Replayed) -> Result<Option<Key>, StoreError> {
    let Replayed { workspace_id, key_id, time, event, .. } = replayed;
    let known = key.filter(|key| key.key_id == *key_id);
    let key = match (known, event) {
        (None, KeyEvent::Created(created)) => Key::created(*workspace_id, *key_id, created, *time),
        (None, _) => return Ok(None),
        (Some(key), event) => key.after(event, *time),
    };
    tx.project(&key).await?;
    if let KeyEvent::Created(_) | KeyEvent::Rotated(_) = event {
        let secret = key.secrets.first().ok_or(StoreError::Damaged("key event"))?;
        tx.add_secret(*key_id, secret, None).await?;
    }
    tx.project_secrets(&key).await?;
    Ok(Some(key))
}

/// A line for each field that differs.
fn describe(difference: &Difference) -> Vec<String> {
    let Difference { table, id, is, replayed } = difference;
    let name = name(table, *id);
    match (is, replayed) {
        (None, _) => vec![format!("{name} is missing")],
        (_, None) => vec![format!("{name} is there without events")],
        (Some(is), Some(replayed)) => {
            let fields =
                is.as_object().into_iter().flatten().filter(|(field, is)| replayed[field.as_str()] != **is);
            let line = |(field, is): (&String, &Value)| {
                format!("{name} {field} is {is}, its events say {}", replayed[field.as_str()])
            };
            fields.map(line).collect()
        }
    }
}

fn name(table: &str, id: Uuid) -> String {
    if table == "keys" { KeyId::from_uuid(id).to_string() } else { SecretId::from_uuid(id).to_string() }
}
