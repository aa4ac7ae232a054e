//! Changes of a key that hand out no secret: edited, switched off and on, deleted.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use proto::keys::{DeleteKeyRequest, DisableKeyRequest, EnableKeyRequest, Key, Receipt, UpdateKeyRequest};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    fields,
    look::{details, id},
};
use crate::{
    arguments::{Delete, Edit, End},
    clients::Clients,
    failure::{Exit, Failure},
    json, key_reference, receipt,
    screen::Screen,
};

const KEY: &str = "keymeter.keys.v1.Key";

/// Changes what is given.
pub(crate) async fn edit(clients: &mut Clients, asked: &Edit, screen: &Screen) -> Result<(), Failure> {
    let (changed, paths) = fields::edited(asked, OffsetDateTime::now_utc())?;
    let key = key_reference::find(clients, &asked.key).await?;
    let changed = Key { name: key.name, ..changed };
    let update = UpdateKeyRequest { key: Some(changed), update_mask: Some(prost_types::FieldMask { paths }) };
    let mut client = clients.keys.clone();
    let key = clients.change(update, Duration::ZERO, async |call| client.update_key(call).await).await?;
    if screen.is_json { screen.document(&json::of(KEY, &key)) } else { screen.table(&details(&key, screen)) }
}

/// Switches a key off, with a receipt.
pub(crate) async fn disable(clients: &mut Clients, asked: &End, screen: &Screen) -> Result<(), Failure> {
    let key = key_reference::find(clients, &asked.key).await?;
    let (wait, receipt_timeout) = receipt_timeout(asked);
    let disable = DisableKeyRequest { name: key.name, receipt_timeout, ..DisableKeyRequest::default() };
    let mut client = clients.keys.clone();
    let answer = clients.change(disable, wait, async |call| client.disable_key(call).await).await?;
    withdrawn("Disabled", answer.key, answer.version, answer.receipt.as_ref(), screen)
}

/// Switches a key on.
pub(crate) async fn enable(clients: &mut Clients, reference: &str, screen: &Screen) -> Result<(), Failure> {
    let key = key_reference::find(clients, reference).await?;
    let enable = EnableKeyRequest { name: key.name, ..EnableKeyRequest::default() };
    let mut client = clients.keys.clone();
    let answer = clients.change(enable, Duration::ZERO, async |call| client.enable_key(call).await).await?;
    let key = answer.key.unwrap_or_default();
    if screen.is_json {
        return screen.document(&json!({ "key": json::of(KEY, &key), "version": answer.version }));
    }
    screen.line(&format!("Enabled {} ({}).", key.display_name, id(&key)))
}

/// Deletes a key, once its name was typed, with a receipt.
pub(crate) async fn delete(clients: &mut Clients, asked: &Delete, screen: &Screen) -> Result<(), Failure> {
    let key = key_reference::find(clients, &asked.end.key).await?;
    if !asked.yes {
        confirm(&key, screen)?;
    }
    let (wait, receipt_timeout) = receipt_timeout(&asked.end);
    let delete = DeleteKeyRequest { name: key.name, receipt_timeout, ..DeleteKeyRequest::default() };
    let mut client = clients.keys.clone();
    let answer = clients.change(delete, wait, async |call| client.delete_key(call).await).await?;
    withdrawn("Deleted", answer.key, answer.version, answer.receipt.as_ref(), screen)
}

/// How long to wait, for us and for keys.
fn receipt_timeout(asked: &End) -> (Duration, Option<prost_types::Duration>) {
    let wait = Duration::from_secs(asked.receipt_timeout.whole_seconds().unsigned_abs());
    let timeout = prost_types::Duration { seconds: asked.receipt_timeout.whole_seconds(), nanos: 0 };
    (wait, (!wait.is_zero()).then_some(timeout))
}

fn confirm(key: &Key, screen: &Screen) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage("nobody can be asked whether to delete the key: give --yes"));
    }
    screen.note(&details(key, screen).lines().join("\n"));
    screen.note("Calls with this key will be refused at once, and there is no way back.");
    let _ = write!(io::stderr(), "Type its name to delete it: ");
    let mut typed = String::new();
    io::stdin().read_line(&mut typed).map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
    if typed.trim() == key.display_name.trim() {
        Ok(())
    } else {
        Err(Failure::usage("that is not its name: nothing was deleted"))
    }
}

fn withdrawn(
    done: &str,
    key: Option<Key>,
    version: u64,
    receipt: Option<&Receipt>,
    screen: &Screen,
) -> Result<(), Failure> {
    let key = key.unwrap_or_default();
    let (text, result) = receipt::tell(receipt, screen);
    if screen.is_json {
        let receipt = receipt.map_or(Value::Null, |receipt| json::of("keymeter.keys.v1.Receipt", receipt));
        screen.document(&json!({ "key": json::of(KEY, &key), "version": version, "receipt": receipt }))?;
    } else {
        screen.line(&format!("{done} {} ({}): {text}.", key.display_name, id(&key)))?;
    }
    result
}
