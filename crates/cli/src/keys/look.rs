//! Keys as they are: the list, and one of them in full.

use proto::{
    keys::{Environment, Key, KeyFilter, KeyState, ListKeysRequest, RateLimit},
    usage,
};
use serde_json::{Value, json};

use crate::{
    arguments::ListKeys,
    clients::Clients,
    failure::{Failure, Service},
    json, key_reference,
    screen::Screen,
    table::Table,
    words,
};

const PAGE_SIZE: u32 = 200;
const KEY: &str = "keymeter.keys.v1.Key";

/// Prints the keys that are asked for, page after page.
pub(crate) async fn list(clients: &mut Clients, asked: &ListKeys, screen: &Screen) -> Result<(), Failure> {
    let filter = KeyFilter {
        search: asked.search.clone().unwrap_or_default(),
        environment: asked.environment.map_or(Environment::Unspecified, Into::into).into(),
        tags: asked.tags.iter().cloned().collect(),
        owner: asked.owner.clone().unwrap_or_default(),
        states: asked.states.iter().map(|state| i32::from(*state)).collect(),
        hygiene: asked.hygiene.iter().map(|hygiene| i32::from(*hygiene)).collect(),
    };
    let mut list = ListKeysRequest {
        parent: clients.workspace().await?,
        filter: Some(filter),
        order_by: asked.order.into(),
        ..ListKeysRequest::default()
    };
    let limit = asked.limit as usize;
    let mut keys: Vec<Key> = Vec::new();
    loop {
        let missing = u32::try_from(limit - keys.len()).unwrap_or(PAGE_SIZE);
        list.page_size = i32::try_from(missing.min(PAGE_SIZE)).unwrap_or(0);
        let client = clients.keys.clone();
        let page = clients
            .read(Service::Keys, list.clone(), async |call| client.clone().list_keys(call).await)
            .await?;
        keys.extend(page.keys);
        list.page_token = page.next_page_token;
        if list.page_token.is_empty() || keys.len() >= limit {
            break;
        }
    }
    let has_more = !list.page_token.is_empty();
    if screen.is_json {
        let all = keys.iter().map(|key| json::of(KEY, key)).collect::<Value>();
        return screen.document(&json!({ "keys": all, "has_more": has_more }));
    }
    screen.table(&table(&keys, screen))?;
    if has_more {
        screen.note(&format!("There are more than {limit} keys: narrow them, or give a larger --limit."));
    }
    Ok(())
}

fn table(keys: &[Key], screen: &Screen) -> Table {
    let mut table = Table::new(&["ID", "NAME", "STATE", "SECRET", "CREATED", "LAST USED", "EXPIRES"]);
    for key in keys {
        table.row([
            id(key).to_owned(),
            key.display_name.clone(),
            state(key).to_owned(),
            format!("{}…", key.start),
            screen.time(key.create_time.as_ref(), ""),
            screen.time(key.last_used_time.as_ref(), "never"),
            screen.time(key.expire_time.as_ref(), "never"),
        ]);
    }
    table
}

/// Prints one key in full.
pub(crate) async fn show(clients: &mut Clients, reference: &str, screen: &Screen) -> Result<(), Failure> {
    let key = key_reference::find(clients, reference).await?;
    if screen.is_json {
        return screen.document(&json::of(KEY, &key));
    }
    screen.table(&details(&key, screen))
}

/// A line for each thing that is known.
pub(super) fn details(key: &Key, screen: &Screen) -> Table {
    let mut table = Table::new(&["", ""]);
    let mut row = |name: &str, value: String| {
        if !value.is_empty() {
            table.row([name.to_owned(), value]);
        }
    };
    let environment = if key.environment() == Environment::Test { "test" } else { "live" };
    row("id", id(key).to_owned());
    row("name", key.display_name.clone());
    row("description", key.description.clone());
    row("environment", environment.to_owned());
    row("state", state(key).to_owned());
    row("created", screen.time(key.create_time.as_ref(), ""));
    row("changed", screen.time(key.update_time.as_ref(), ""));
    row("expires", screen.time(key.expire_time.as_ref(), "never"));
    row("deleted", screen.time(key.delete_time.as_ref(), ""));
    row("last used", screen.time(key.last_used_time.as_ref(), "never"));
    row("addresses", if key.address_count > 0 { key.address_count.to_string() } else { String::new() });
    row("leak reported", screen.time(key.expose_time.as_ref(), ""));
    row("owner", key.owner.clone());
    let mut tags: Vec<_> = key.tags.iter().map(|(name, value)| format!("{name}={value}")).collect();
    tags.sort();
    row("tags", tags.join(", "));
    row("scopes", key.scopes.join(", "));
    row("networks", key.allowed_networks.join(", "));
    row("limits", key.rate_limits.iter().map(limit).collect::<Vec<_>>().join(", "));
    for secret in &key.secrets {
        let end = secret.retire_time.as_ref().map(|at| format!("retires {}, ", screen.time(Some(at), "")));
        let used = screen.time(secret.last_used_time.as_ref(), "never");
        row("secret", format!("{}…  {}last used {used}", secret.start, end.unwrap_or_default()));
    }
    row("etag", key.etag.clone());
    table
}

fn limit(limit: &RateLimit) -> String {
    let window = limit.window.as_ref().map_or(0, |window| window.seconds);
    let requests = words::count(u64::try_from(limit.requests).unwrap_or(0));
    format!("{}={requests} in {}", limit.name, words::length(time::Duration::seconds(window)))
}

/// `key_…`
pub(super) fn id(key: &Key) -> &str {
    key.name.rsplit('/').next().unwrap_or_default()
}

const fn state_name(state: KeyState) -> &'static str {
    match state {
        KeyState::Active => "active",
        KeyState::Expired => "expired",
        KeyState::Deleted => "deleted",
        KeyState::Disabled => "disabled",
        KeyState::Unspecified => "unknown",
    }
}

fn state(key: &Key) -> &'static str {
    state_name(key.state())
}

/// Names of the keys in a breakdown, where they may be read; ids say enough where not.
pub(crate) async fn names(clients: &mut Clients, rows: &[usage::BreakdownRow]) -> Vec<String> {
    const ASKED_MAX: usize = 50;
    let mut names = Vec::with_capacity(rows.len());
    for row in rows {
        let known =
            if names.len() < ASKED_MAX { key_reference::find(clients, &row.value).await.ok() } else { None };
        names.push(known.map_or_else(String::new, |key| key.display_name));
    }
    names
}
