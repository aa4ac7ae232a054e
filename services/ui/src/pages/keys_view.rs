//! Keys as pages show them: from messages to texts, pure.

use domain::KeyId;
use proto::keys::{Environment, Key, KeyState};
use time::OffsetDateTime;

use crate::format::{Moment, Show};

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
    state: KeyState,
}

impl KeyView {
    /// The view of `key` at `now`; `None` if its name is none.
    #[must_use]
    pub(crate) fn new(key: &Key, now: OffsetDateTime) -> Option<Self> {
        let (_, id) = proto::resource::parse_key_name(&key.name).ok()?;
        let moment = |at: &Option<_>, show| Moment::of(at.as_ref(), show, now);
        Some(Self {
            id,
            display_name: key.display_name.clone(),
            description: key.description.clone(),
            start: key.start.clone(),
            environment: if key.environment() == Environment::Test { "Test" } else { "Live" },
            created: moment(&key.create_time, Show::Day),
            last_used: moment(&key.last_used_time, Show::Relative),
            deleted: moment(&key.delete_time, Show::Full),
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

/// Where the list leads.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ListLinks {
    /// Whether deleted keys are listed.
    pub(crate) show_deleted: bool,
    /// The other choice.
    pub(crate) toggle_deleted: String,
    /// The first page, from a later one.
    pub(crate) first: Option<String>,
    /// The next page.
    pub(crate) next: Option<String>,
}

impl ListLinks {
    /// The links of one page of the list.
    #[must_use]
    pub(crate) fn new(show_deleted: bool, page_token: &str, next_page_token: &str) -> Self {
        let next = || {
            let mut query = form_urlencoded::Serializer::new(String::new());
            if show_deleted {
                query.append_pair("deleted", "1");
            }
            format!("/keys?{}", query.append_pair("page_token", next_page_token).finish())
        };
        Self {
            show_deleted,
            toggle_deleted: Self::first(!show_deleted),
            first: (!page_token.is_empty()).then(|| Self::first(show_deleted)),
            next: (!next_page_token.is_empty()).then(next),
        }
    }

    /// The first page.
    #[must_use]
    pub(crate) fn first(show_deleted: bool) -> String {
        if show_deleted { "/keys?deleted=1".to_owned() } else { "/keys".to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use domain::WorkspaceId;
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_key_is_shown_by_its_texts() {
        let (workspace_id, id) = (WorkspaceId::generate(), KeyId::generate());
        let now = datetime!(2026-11-22 12:00 UTC);
        let key = Key {
            name: proto::resource::key_name(workspace_id, id),
            display_name: "Billing".into(),
            environment: Environment::Test.into(),
            state: KeyState::Expired.into(),
            last_used_time: Some(proto::timestamp::to_proto(now - time::Duration::MINUTE)),
            ..Key::default()
        };
        let view = KeyView::new(&key, now).unwrap();
        assert_eq!((view.environment, view.is_expired(), view.is_deleted()), ("Test", true, false));
        assert_eq!(view.last_used, Some(Moment::new(now - time::Duration::MINUTE, Show::Relative, now)));
        assert_eq!((view.created, view.deleted), (None, None));
        assert_eq!(KeyView::new(&Key { name: "keys/1".into(), ..key }, now), None);
    }

    #[test]
    fn links_keep_the_choice_and_escape_the_token() {
        let links = ListLinks::new(true, "a", "b&c=d");
        assert_eq!(links.next.as_deref(), Some("/keys?deleted=1&page_token=b%26c%3Dd"));
        assert_eq!(
            (links.first.as_deref(), links.toggle_deleted.as_str()),
            (Some("/keys?deleted=1"), "/keys")
        );
        let only = ListLinks::new(false, "", "");
        assert_eq!((only.first, only.next), (None, None));
    }
}
