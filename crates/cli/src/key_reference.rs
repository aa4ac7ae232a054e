//! Which key is meant: by its id, its resource name, or its exact name if only one key has it.

use domain::KeyId;
use proto::{
    keys::{GetKeyRequest, Key, KeyFilter, KeyState, ListKeysRequest},
    resource::{key_name, parse_key_name},
};

use crate::{
    clients::Clients,
    failure::{Exit, Failure, Service},
};

/// Keys of one page, and pages that are looked through for a name.
const PAGE_SIZE: i32 = 200;
const PAGES_MAX: usize = 50;
/// Words of a search, as keys takes them.
const WORDS_MAX: usize = 10;
const SEARCH_CHARS_MAX: usize = 100;
/// Ids that are told where a name is that of several keys.
const TOLD_MAX: usize = 5;

/// The id of the key; asks only if a name was given.
pub(crate) async fn id(clients: &mut Clients, reference: &str) -> Result<KeyId, Failure> {
    match given(reference) {
        Some((_, id)) => Ok(id),
        None => id_of(&by_name(clients, reference).await?),
    }
}

/// The key as it is now.
pub(crate) async fn find(clients: &mut Clients, reference: &str) -> Result<Key, Failure> {
    let Some((name, id)) = given(reference) else { return by_name(clients, reference).await };
    let name = match name {
        Some(name) => name,
        None => key_name(clients.access().await?.workspace_id, id),
    };
    let client = clients.keys.clone();
    clients.read(Service::Keys, GetKeyRequest { name }, async |call| client.clone().get_key(call).await).await
}

/// `key_…`, or a resource name with its id.
fn given(reference: &str) -> Option<(Option<String>, KeyId)> {
    if let Ok(id) = reference.parse() {
        return Some((None, id));
    }
    parse_key_name(reference).ok().map(|(_, id)| (Some(reference.to_owned()), id))
}

/// The id in a key's resource name.
pub(crate) fn id_of(key: &Key) -> Result<KeyId, Failure> {
    let id = parse_key_name(&key.name).map(|(_, id)| id);
    id.map_err(|error| Failure::new(Exit::Failed, format!("keys named a key {}: {error}", key.name)))
}

async fn by_name(clients: &mut Clients, name: &str) -> Result<Key, Failure> {
    let mut found = Vec::new();
    let mut list = ListKeysRequest {
        parent: clients.workspace().await?,
        page_size: PAGE_SIZE,
        show_deleted: true,
        filter: Some(KeyFilter { search: search(name), ..KeyFilter::default() }),
        ..ListKeysRequest::default()
    };
    for _ in 0..PAGES_MAX {
        let client = clients.keys.clone();
        let page = clients
            .read(Service::Keys, list.clone(), async |call| client.clone().list_keys(call).await)
            .await?;
        found.extend(page.keys.into_iter().filter(|key| key.display_name == name));
        list.page_token = page.next_page_token;
        if list.page_token.is_empty() {
            return one_of(found, name);
        }
    }
    Err(Failure::usage(format!("too many keys have a name like {name:?}; give the id, key_…")))
}

/// The words of a name that find it, and perhaps others; nothing if it has none.
fn search(name: &str) -> String {
    let parts = |c: char| c.is_ascii() && !c.is_ascii_alphanumeric();
    let words = name.split(parts).filter(|word| !word.is_empty()).take(WORDS_MAX);
    words.collect::<Vec<_>>().join(" ").chars().take(SEARCH_CHARS_MAX).collect()
}

/// The only one that lives, or else the only one.
fn one_of(mut found: Vec<Key>, name: &str) -> Result<Key, Failure> {
    if found.iter().any(|key| key.state() != KeyState::Deleted) {
        found.retain(|key| key.state() != KeyState::Deleted);
    }
    if found.len() > 1 {
        let ids = found.iter().take(TOLD_MAX).filter_map(|key| key.name.rsplit('/').next());
        let ids = ids.collect::<Vec<_>>().join(", ");
        let why = format!("{} keys have the name {name:?}: {ids}; give one id", found.len());
        return Err(Failure::usage(why));
    }
    found.pop().ok_or_else(|| {
        Failure::new(
            Exit::NotFound,
            format!("no key has the id or the name {name:?}; see `keymeter keys list`"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str, state: KeyState) -> Key {
        Key { name: format!("workspaces/ws_1/keys/{id}"), state: state.into(), ..Key::default() }
    }

    #[test]
    fn a_living_key_goes_before_deleted_ones_of_its_name() {
        use KeyState::{Active, Deleted, Disabled};
        let id =
            |found: Vec<Key>| one_of(found, "A").map(|key| key.name.rsplit('/').next().unwrap().to_owned());
        assert_eq!(id(vec![key("1", Deleted), key("2", Active), key("3", Deleted)]).unwrap(), "2");
        assert_eq!(id(vec![key("1", Deleted)]).unwrap(), "1");
        assert_eq!(id(vec![]).unwrap_err().exit, Exit::NotFound);
        let several = id(vec![key("1", Active), key("2", Disabled)]).unwrap_err();
        assert_eq!(several.exit, Exit::Usage);
        assert_eq!(several.text(), Some("2 keys have the name \"A\": 1, 2; give one id"));
        assert_eq!(id(vec![key("1", Deleted), key("2", Deleted)]).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn ids_and_resource_names_need_no_search() {
        let id = KeyId::generate();
        assert_eq!(given(&id.to_string()), Some((None, id)));
        let name = key_name(domain::WorkspaceId::generate(), id);
        assert_eq!(given(&name), Some((Some(name.clone()), id)));
        assert_eq!(given("Orders"), None);
        assert_eq!(
            (search("Orders (EU) – 2"), search("–"), search("--")),
            ("Orders EU – 2".into(), "–".into(), String::new())
        );
    }
}
