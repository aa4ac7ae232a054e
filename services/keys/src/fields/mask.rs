//! What an update asks for: the fields in its mask, or without one those that are set.

use prost_types::FieldMask;
use proto::keys::Key;

use super::{allowed_networks, description, display_name, owner, rate_limits, scopes, tags, time};
use crate::{
    error::Error,
    key::{Changes, Expiry},
};

/// What an update can change.
const CHANGEABLE: [&str; 8] = [
    "display_name",
    "description",
    "expire_time",
    "tags",
    "owner",
    "scopes",
    "allowed_networks",
    "rate_limits",
];
/// What stands in a key and no update can change.
const FIXED: [&str; 12] = [
    "name",
    "environment",
    "state",
    "start",
    "create_time",
    "update_time",
    "delete_time",
    "last_used_time",
    "etag",
    "secrets",
    "expose_time",
    "address_count",
];

/// The changes that an update asks for: what its mask names, or without a mask what is set.
///
/// # Errors
/// A bad value, or `update_mask` for a path that is unknown or can not be changed.
pub fn changes(key: &Key, mask: Option<&FieldMask>) -> Result<Changes, Error> {
    let no_mask = FieldMask::default();
    let paths = &mask.unwrap_or(&no_mask).paths;
    for path in paths {
        if FIXED.contains(&path.as_str()) {
            return Err(Error::invalid("update_mask", format!("{path} can not be changed")));
        }
        if path != "*" && !CHANGEABLE.contains(&path.as_str()) {
            return Err(Error::invalid("update_mask", "names a field that a key does not have"));
        }
    }
    let named = |path: &str| paths.iter().any(|named| named == path);
    let asked = |path: &str, is_set: bool| if paths.is_empty() { is_set } else { named("*") || named(path) };
    let mut changes = Changes::default();
    if asked("display_name", !key.display_name.is_empty()) {
        changes.display_name = Some(display_name("key.display_name", &key.display_name)?);
    }
    if asked("description", !key.description.is_empty()) {
        changes.description = Some(description("key.description", &key.description)?);
    }
    if asked("expire_time", key.expire_time.is_some()) {
        changes.expire_time = Some(Expiry::from(time("key.expire_time", key.expire_time.as_ref())?));
    }
    if asked("tags", !key.tags.is_empty()) {
        changes.tags = Some(tags("key.tags", &key.tags)?);
    }
    // Once it has an owner a key keeps one, so `*` without an owner leaves it.
    if named("owner") || !key.owner.is_empty() && asked("owner", true) {
        changes.owner = Some(owner("key.owner", &key.owner)?);
    }
    if asked("scopes", !key.scopes.is_empty()) {
        changes.scopes = Some(scopes("key.scopes", &key.scopes)?);
    }
    if asked("allowed_networks", !key.allowed_networks.is_empty()) {
        changes.allowed_networks = Some(allowed_networks("key.allowed_networks", &key.allowed_networks)?);
    }
    if asked("rate_limits", !key.rate_limits.is_empty()) {
        changes.rate_limits = Some(rate_limits("key.rate_limits", &key.rate_limits)?);
    }
    Ok(changes)
}

/// Whether each of `known` is to be changed: what the mask names, `*` for all, or without a mask what is set.
///
/// # Errors
/// `update_mask` for a path that is not known.
pub fn masked<const N: usize>(
    mask: Option<&FieldMask>,
    known: [(&str, bool); N],
) -> Result<[bool; N], Error> {
    let no_mask = FieldMask::default();
    let paths = &mask.unwrap_or(&no_mask).paths;
    if let Some(path) = paths.iter().find(|path| *path != "*" && known.iter().all(|(name, _)| name != path)) {
        return Err(Error::invalid("update_mask", format!("{} can not be changed", path.escape_debug())));
    }
    let asked = |path: &str| paths.iter().any(|asked| asked == path || asked == "*");
    Ok(known.map(|(path, is_set)| if paths.is_empty() { is_set } else { asked(path) }))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use prost_types::Timestamp;
    use rstest::rstest;

    use super::*;

    fn mask(paths: &[&str]) -> Option<FieldMask> {
        Some(FieldMask { paths: paths.iter().map(|&path| path.to_owned()).collect() })
    }

    fn full() -> Key {
        Key {
            display_name: "a".into(),
            description: "b".into(),
            expire_time: Some(Timestamp { seconds: 9, nanos: 0 }),
            tags: HashMap::from([("a".into(), "b".into())]),
            owner: "acc_00000000000000000000000000".into(),
            scopes: vec!["a".into()],
            allowed_networks: vec!["192.0.2.0/24".into()],
            rate_limits: vec![proto::keys::RateLimit {
                name: "a".into(),
                requests: 1,
                window: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
            }],
            ..Key::default()
        }
    }

    /// Names of the fields that change.
    fn changed(changes: &Changes) -> Vec<&'static str> {
        let is_set = [
            changes.display_name.is_some(),
            changes.description.is_some(),
            changes.expire_time.is_some(),
            changes.tags.is_some(),
            changes.owner.is_some(),
            changes.scopes.is_some(),
            changes.allowed_networks.is_some(),
            changes.rate_limits.is_some(),
        ];
        CHANGEABLE.into_iter().zip(is_set).filter_map(|(path, is_set)| is_set.then_some(path)).collect()
    }

    #[test]
    fn a_mask_says_what_changes() {
        for path in CHANGEABLE {
            assert_eq!(changed(&changes(&full(), mask(&[path]).as_ref()).unwrap()), [path]);
        }
        for all in [None, mask(&[]), mask(&["*"]), mask(&CHANGEABLE), mask(&["owner", "*"])] {
            assert_eq!(changed(&changes(&full(), all.as_ref()).unwrap()), CHANGEABLE);
        }
        let two = changes(&full(), mask(&["rate_limits", "scopes"]).as_ref()).unwrap();
        assert_eq!(changed(&two), ["scopes", "rate_limits"]);
        assert!(changes(&Key::default(), None).unwrap().is_empty());
    }

    #[test]
    fn a_star_clears_what_is_not_set_and_no_mask_leaves_it() {
        let key = Key { display_name: "a".into(), ..Key::default() };
        let all = changes(&key, mask(&["*"]).as_ref()).unwrap();
        assert_eq!((all.description, all.expire_time), (Some(String::new()), Some(Expiry::Never)));
        assert_eq!((all.scopes, all.owner), (Some(vec![]), None));
        assert_eq!(changed(&changes(&key, None).unwrap()), ["display_name"]);
        assert!(changes(&Key::default(), mask(&["*"]).as_ref()).is_err(), "a name can not be cleared");
        assert!(changes(&key, mask(&["owner"]).as_ref()).is_err(), "an owner can not be cleared");
    }

    #[rstest]
    #[case("environment")]
    #[case("state")]
    #[case("etag")]
    #[case("secrets")]
    #[case("nothing")]
    #[case("")]
    #[case("display_name.x")]
    fn other_paths_are_refused(#[case] path: &str) {
        let error = changes(&full(), mask(&["display_name", path]).as_ref()).unwrap_err();
        assert!(matches!(error, Error::Invalid { field: "update_mask", .. }));
    }
}
