//! Keys as pages show them: from messages to texts, pure.

use domain::KeyId;
use proto::{
    keys::{Environment, Key, KeyState},
    timestamp::from_proto,
};
use time::{Duration, OffsetDateTime};

use crate::format::{Moment, Show};

/// Before its end a key is said to expire.
const EXPIRES_SOON: Duration = Duration::days(7);
/// After so long without a call a key is said to be unused.
const UNUSED: Duration = Duration::days(90);
/// From so many addresses on they are said.
const ADDRESSES_MANY: i32 = 5;
/// Up to here addresses are counted.
const ADDRESSES_MAX: i32 = 64;

/// A short word on a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Badge {
    /// Names its colour; empty for none.
    pub(crate) hue: &'static str,
    /// The word.
    pub(crate) text: String,
}

/// One key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyView {
    /// `key_…`
    pub(crate) id: KeyId,
    /// What it is for.
    pub(crate) display_name: String,
    /// More of that; may be empty.
    pub(crate) description: String,
    /// The secret's first characters.
    pub(crate) start: String,
    /// `Live` or `Test`.
    pub(crate) environment: &'static str,
    /// When it was made.
    pub(crate) created: Option<Moment>,
    /// When it was last used; `None` if never.
    pub(crate) last_used: Option<Moment>,
    /// When it was deleted.
    pub(crate) deleted: Option<Moment>,
    /// Names and values, by name.
    pub(crate) tags: Vec<(String, String)>,
    /// What to know about it, the worst first.
    pub(crate) badges: Vec<Badge>,
    state: KeyState,
}

impl KeyView {
    /// The view of `key` at `now`; `None` if its name is none.
    #[must_use]
    pub(crate) fn new(key: &Key, now: OffsetDateTime) -> Option<Self> {
        let (_, id) = proto::resource::parse_key_name(&key.name).ok()?;
        let moment = |at: &Option<_>, show| Moment::of(at.as_ref(), show, now);
        let mut tags: Vec<_> = key.tags.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        tags.sort();
        Some(Self {
            id,
            display_name: key.display_name.clone(),
            description: key.description.clone(),
            start: key.start.clone(),
            environment: if key.environment() == Environment::Test { "Test" } else { "Live" },
            created: moment(&key.create_time, Show::Day),
            last_used: moment(&key.last_used_time, Show::Relative),
            deleted: moment(&key.delete_time, Show::Full),
            tags,
            badges: badges(key, now),
            state: key.state(),
        })
    }

    /// Whether it is gone for good.
    #[must_use]
    pub(crate) fn is_deleted(&self) -> bool {
        self.state == KeyState::Deleted
    }

    /// Whether its time is over.
    #[must_use]
    pub(crate) fn is_expired(&self) -> bool {
        self.state == KeyState::Expired
    }

    /// Whether it is switched off.
    #[must_use]
    pub(crate) fn is_disabled(&self) -> bool {
        self.state == KeyState::Disabled
    }

    /// The page of its usage.
    #[must_use]
    pub(crate) fn usage_link(&self) -> String {
        format!("/keys/{}/usage", self.id)
    }
}

/// Of a deleted key nothing else matters any more.
fn badges(key: &Key, now: OffsetDateTime) -> Vec<Badge> {
    let badge = |hue, text: &str| Badge { hue, text: text.to_owned() };
    if key.state() == KeyState::Deleted {
        return vec![badge("failed", "Deleted")];
    }
    let mut badges = Vec::new();
    if key.expose_time.is_some() {
        badges.push(badge("failed", "Exposed"));
    }
    match key.state() {
        KeyState::Disabled => badges.push(badge("limited", "Disabled")),
        KeyState::Expired => badges.push(badge("limited", "Expired")),
        _ => {}
    }
    let ends = key.expire_time.as_ref().and_then(from_proto).map(|end| end - now);
    if let Some(left) = ends.filter(|left| left.is_positive() && *left <= EXPIRES_SOON) {
        let text = match left.whole_days() {
            0 => "Expires within a day".to_owned(),
            1 => "Expires in 1 day".to_owned(),
            days => format!("Expires in {days} days"),
        };
        badges.push(badge("limited", &text));
    }
    let live = key.secrets.iter().filter(|secret| {
        secret.retire_time.as_ref().is_none_or(|end| from_proto(end).is_none_or(|end| end > now))
    });
    match live.count() {
        0 | 1 => {}
        live => badges.push(badge("", &format!("{live} secrets live"))),
    }
    match key.address_count {
        ADDRESSES_MAX.. => badges.push(badge("", &format!("{ADDRESSES_MAX} addresses or more"))),
        ADDRESSES_MANY.. => badges.push(badge("", &format!("{} addresses", key.address_count))),
        _ => {}
    }
    if key.last_used_time.as_ref().and_then(from_proto).is_some_and(|used| now - used >= UNUSED) {
        badges.push(badge("", "Unused for 90 days"));
    }
    badges
}

#[cfg(test)]
mod tests {
    use domain::WorkspaceId;
    use proto::{keys::Secret, timestamp::to_proto};
    use rstest::rstest;
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-22 12:00 UTC);

    fn key() -> Key {
        let name = proto::resource::key_name(WorkspaceId::generate(), KeyId::generate());
        Key { name, state: KeyState::Active.into(), ..Key::default() }
    }

    fn shown(key: &Key) -> String {
        let texts: Vec<_> = badges(key, NOW).into_iter().map(|badge| badge.text).collect();
        texts.join(", ")
    }

    #[test]
    fn a_key_is_shown_by_its_texts() {
        let key = Key {
            display_name: "Billing".into(),
            environment: Environment::Test.into(),
            state: KeyState::Expired.into(),
            last_used_time: Some(to_proto(NOW - Duration::MINUTE)),
            tags: [("team".to_owned(), "pay".to_owned()), ("app".to_owned(), "x".to_owned())].into(),
            ..key()
        };
        let view = KeyView::new(&key, NOW).unwrap();
        assert_eq!((view.environment, view.is_expired(), view.is_deleted()), ("Test", true, false));
        assert_eq!(view.last_used, Some(Moment::new(NOW - Duration::MINUTE, Show::Relative, NOW)));
        assert_eq!((view.created, view.deleted), (None, None));
        assert_eq!(view.tags[0].0, "app");
        assert_eq!(KeyView::new(&Key { name: "keys/1".into(), ..key }, NOW), None);
    }

    #[rstest]
    #[case(Duration::HOUR, "Expires within a day")]
    #[case(Duration::hours(25), "Expires in 1 day")]
    #[case(Duration::days(7), "Expires in 7 days")]
    #[case(Duration::days(8), "")]
    #[case(Duration::ZERO, "")]
    fn a_key_that_expires_soon_says_when(#[case] left: Duration, #[case] text: &str) {
        assert_eq!(shown(&Key { expire_time: Some(to_proto(NOW + left)), ..key() }), text);
    }

    #[test]
    fn each_thing_amiss_has_its_badge() {
        assert_eq!(shown(&key()), "");
        let secret =
            |end: Option<OffsetDateTime>| Secret { retire_time: end.map(to_proto), ..Secret::default() };
        let amiss = Key {
            expose_time: Some(to_proto(NOW)),
            state: KeyState::Disabled.into(),
            secrets: vec![secret(None), secret(Some(NOW + Duration::DAY)), secret(Some(NOW - Duration::DAY))],
            address_count: 5,
            last_used_time: Some(to_proto(NOW - Duration::days(90))),
            ..key()
        };
        assert_eq!(shown(&amiss), "Exposed, Disabled, 2 secrets live, 5 addresses, Unused for 90 days");
        let crowded = Key { address_count: 64, state: KeyState::Expired.into(), ..key() };
        assert_eq!(shown(&crowded), "Expired, 64 addresses or more");
        assert_eq!(shown(&Key { state: KeyState::Deleted.into(), ..amiss }), "Deleted");
    }
}
