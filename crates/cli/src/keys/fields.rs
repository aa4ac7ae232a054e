//! Options of a key as its message, and which of them were given. Pure.

use proto::{
    keys::{Environment as Wire, Key},
    timestamp,
};
use time::OffsetDateTime;

use crate::{
    arguments::{Clear, Create, Edit, Environment, Fields},
    failure::Failure,
};

impl From<Environment> for Wire {
    fn from(environment: Environment) -> Self {
        match environment {
            Environment::Live => Self::Live,
            Environment::Test => Self::Test,
        }
    }
}

/// The key that is asked for.
pub(super) fn created(create: &Create, now: OffsetDateTime) -> Key {
    let environment = Wire::from(create.environment).into();
    Key { display_name: create.name.clone(), environment, ..key(&create.fields, now) }
}

/// The fields that are asked to change, and their names.
pub(super) fn edited(edit: &Edit, now: OffsetDateTime) -> Result<(Key, Vec<String>), Failure> {
    let fields = &edit.fields;
    let has = |clear| edit.clear.contains(&clear);
    let changes = [
        ("display_name", edit.name.is_some(), false),
        ("description", fields.description.is_some(), has(Clear::Description)),
        ("expire_time", fields.expires.is_some(), has(Clear::Expires)),
        ("tags", !fields.tags.is_empty(), has(Clear::Tags)),
        ("owner", fields.owner.is_some(), false),
        ("scopes", !fields.scopes.is_empty(), has(Clear::Scopes)),
        ("allowed_networks", !fields.networks.is_empty(), has(Clear::Networks)),
        ("rate_limits", !fields.rate_limits.is_empty(), has(Clear::RateLimits)),
    ];
    if let Some((field, ..)) = changes.iter().find(|(_, given, cleared)| *given && *cleared) {
        return Err(Failure::usage(format!("{field} can not be given and emptied by --clear at once")));
    }
    let paths = changes.iter().filter(|(_, given, cleared)| *given || *cleared);
    let paths: Vec<_> = paths.map(|(field, ..)| (*field).to_owned()).collect();
    if paths.is_empty() {
        return Err(Failure::usage("nothing to change; see `keymeter keys edit --help`"));
    }
    let display_name = edit.name.clone().unwrap_or_default();
    Ok((Key { display_name, ..key(fields, now) }, paths))
}

fn key(fields: &Fields, now: OffsetDateTime) -> Key {
    Key {
        description: fields.description.clone().unwrap_or_default(),
        expire_time: fields.expires.as_ref().map(|expires| timestamp::to_proto(expires.future(now))),
        tags: fields.tags.iter().cloned().collect(),
        owner: fields.owner.clone().unwrap_or_default(),
        scopes: fields.scopes.clone(),
        allowed_networks: fields.networks.clone(),
        rate_limits: fields.rate_limits.clone(),
        ..Key::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn edit(name: Option<&str>, fields: Fields, clear: Vec<Clear>) -> Edit {
        Edit { key: String::new(), name: name.map(str::to_owned), fields, clear }
    }

    #[test]
    fn only_what_is_given_changes() {
        let fields = Fields { expires: Some("90d".parse().unwrap()), ..Fields::default() };
        let (key, paths) = edited(&edit(Some("B"), fields, vec![Clear::Tags]), NOW).unwrap();
        assert_eq!(paths, ["display_name", "expire_time", "tags"]);
        assert_eq!((key.display_name.as_str(), key.expire_time.unwrap().seconds), ("B", 90 * 86_400));
    }

    #[test]
    fn nothing_and_both_are_refused() {
        assert!(edited(&edit(None, Fields::default(), vec![]), NOW).is_err());
        let both = Fields { scopes: vec!["a".into()], ..Fields::default() };
        let refused = edited(&edit(None, both, vec![Clear::Scopes]), NOW).unwrap_err();
        assert!(refused.text().unwrap().starts_with("scopes can not"));
    }
}
