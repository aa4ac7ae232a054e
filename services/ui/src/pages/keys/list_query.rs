//! The address of the list of keys, both ways: which keys, in which order, which page. Pure: calls nothing.

use proto::keys::{Environment, KeyFilter, KeyHygiene, KeyOrder, KeyState, ListKeysRequest};

use super::errors::FormErrors;

/// A choice of a field: its value in the address, its label, what it means.
type Choice<T> = (&'static str, &'static str, T);

static ENVIRONMENTS: [Choice<Environment>; 3] = [
    ("", "Any", Environment::Unspecified),
    ("live", "Live", Environment::Live),
    ("test", "Test", Environment::Test),
];
static STATES: [Choice<Option<KeyState>>; 6] = [
    ("", "Not deleted", None),
    ("active", "Active", Some(KeyState::Active)),
    ("disabled", "Disabled", Some(KeyState::Disabled)),
    ("expired", "Expired", Some(KeyState::Expired)),
    ("deleted", "Deleted", Some(KeyState::Deleted)),
    (WITH_DELETED, "All", None),
];
static HYGIENE: [Choice<Option<KeyHygiene>>; 9] = [
    ("", "Anything", None),
    ("never_used", "Never used", Some(KeyHygiene::NeverUsed)),
    ("unused_30_days", "Unused for 30 days", Some(KeyHygiene::Unused30Days)),
    ("unused_90_days", "Unused for 90 days", Some(KeyHygiene::Unused90Days)),
    ("no_expiry", "No expiry", Some(KeyHygiene::NoExpiry)),
    ("expires_soon", "Expires within 7 days", Some(KeyHygiene::ExpiresSoon)),
    ("many_addresses", "Many addresses", Some(KeyHygiene::ManyAddresses)),
    ("exposed", "Exposed", Some(KeyHygiene::Exposed)),
    ("several_secrets", "Several secrets", Some(KeyHygiene::SeveralSecrets)),
];
static SORTS: [Choice<KeyOrder>; 4] = [
    ("", "Newest", KeyOrder::CreateTimeDesc),
    ("name", "Name", KeyOrder::DisplayName),
    ("last_used", "Last used", KeyOrder::LastUsedTimeDesc),
    ("expiry", "Next to expire", KeyOrder::ExpireTime),
];
/// The state that means keys in all of them.
const WITH_DELETED: &str = "all";
/// Longest value of a field that is kept, in characters: a little more than keys takes, so that it can say so.
const VALUE_CHARS_MAX: usize = 300;

/// A choice in a list of choices: value, label, whether it is chosen.
pub(crate) type Options = Vec<(&'static str, &'static str, bool)>;

/// The address as it was typed, right or wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ListQuery {
    /// Words of names.
    pub(crate) search: String,
    environment: String,
    /// `name=value`
    pub(crate) tag: String,
    state: String,
    hygiene: String,
    sort: String,
    /// Where the list goes on.
    pub(crate) page_token: String,
}

impl ListQuery {
    /// The fields of a query string; unknown names are left out.
    #[must_use]
    pub(crate) fn read(query: &str) -> Self {
        let mut read = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            // Tokens are longer than what people type.
            if name == "page_token" {
                read.page_token = value.into_owned();
                continue;
            }
            let value: String = value.trim().chars().take(VALUE_CHARS_MAX).collect();
            match name.as_ref() {
                "search" => read.search = value,
                "environment" => read.environment = value,
                "tag" => read.tag = value,
                "state" => read.state = value,
                "hygiene" => read.hygiene = value,
                "sort" => read.sort = value,
                _ => {}
            }
        }
        read
    }

    /// What to ask keys for, but for the workspace and the size of a page.
    ///
    /// # Errors
    /// What is no choice, place by place.
    pub(crate) fn to_request(&self) -> Result<ListKeysRequest, FormErrors> {
        let mut errors = FormErrors::default();
        let environment = choice(&ENVIRONMENTS, "environment", &self.environment, &mut errors);
        let state = choice(&STATES, "state", &self.state, &mut errors).flatten();
        let hygiene = choice(&HYGIENE, "hygiene", &self.hygiene, &mut errors).flatten();
        let order_by = choice(&SORTS, "sort", &self.sort, &mut errors);
        let tag = self.tag.split_once('=').map(|(name, value)| (name.trim().into(), value.trim().into()));
        if tag.is_none() && !self.tag.is_empty() {
            errors.note("tag", "Write a tag as name=value, such as team=payments.");
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(ListKeysRequest {
            page_token: self.page_token.clone(),
            show_deleted: self.shows_deleted(),
            filter: Some(KeyFilter {
                search: self.search.clone(),
                environment: environment.unwrap_or_default().into(),
                tags: tag.into_iter().collect(),
                states: state.into_iter().map(Into::into).collect(),
                hygiene: hygiene.into_iter().map(Into::into).collect(),
                ..KeyFilter::default()
            }),
            order_by: order_by.unwrap_or_default().into(),
            ..ListKeysRequest::default()
        })
    }

    /// The address of the same list at `page_token`; empty is its first page.
    #[must_use]
    pub(crate) fn link(&self, page_token: &str) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in [
            ("search", self.search.as_str()),
            ("environment", &self.environment),
            ("tag", &self.tag),
            ("state", &self.state),
            ("hygiene", &self.hygiene),
            ("sort", &self.sort),
            ("page_token", page_token),
        ] {
            if !value.is_empty() {
                query.append_pair(name, value);
            }
        }
        let query = query.finish();
        if query.is_empty() { "/keys".to_owned() } else { format!("/keys?{query}") }
    }

    /// The same list with deleted keys, or without them.
    #[must_use]
    pub(crate) fn toggle_deleted(&self) -> String {
        let state = if self.shows_deleted() { "" } else { WITH_DELETED }.to_owned();
        Self { state, ..self.clone() }.link("")
    }

    /// Whether keys are listed in every state.
    #[must_use]
    pub(crate) fn shows_deleted(&self) -> bool {
        self.state == WITH_DELETED
    }

    /// Whether some keys are left out because of what was typed.
    #[must_use]
    pub(crate) fn is_narrowed(&self) -> bool {
        let all = Self { sort: self.sort.clone(), page_token: self.page_token.clone(), ..Self::default() };
        *self != all && !(self.shows_deleted() && *self == Self { state: self.state.clone(), ..all })
    }

    /// Environments to choose from.
    #[must_use]
    pub(crate) fn environments(&self) -> Options {
        options(&ENVIRONMENTS, &self.environment)
    }

    /// States to choose from.
    #[must_use]
    pub(crate) fn states(&self) -> Options {
        options(&STATES, &self.state)
    }

    /// What may be amiss with keys.
    #[must_use]
    pub(crate) fn hygienes(&self) -> Options {
        options(&HYGIENE, &self.hygiene)
    }

    /// Orders to choose from.
    #[must_use]
    pub(crate) fn sorts(&self) -> Options {
        options(&SORTS, &self.sort)
    }
}

fn choice<T: Copy>(choices: &[Choice<T>], place: &str, value: &str, errors: &mut FormErrors) -> Option<T> {
    let found = choices.iter().find(|(name, _, _)| *name == value).map(|(_, _, meaning)| *meaning);
    if found.is_none() {
        errors.note(place, "Choose one of the list.");
    }
    found
}

fn options<T>(choices: &[Choice<T>], value: &str) -> Options {
    choices.iter().map(|(name, label, _)| (*name, *label, *name == value)).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const ALL: &str = "search=a%26b&environment=test&tag=team%3Dpay&state=disabled&hygiene=exposed&sort=name";

    #[test]
    fn everything_is_in_the_address_both_ways() {
        let query = ListQuery::read(ALL);
        assert_eq!(query.link(""), format!("/keys?{ALL}"));
        assert_eq!(query.link("b&c=d"), format!("/keys?{ALL}&page_token=b%26c%3Dd"));
        let request = query.to_request().unwrap();
        let filter = request.filter.clone().unwrap();
        assert_eq!((filter.search.as_str(), filter.environment()), ("a&b", Environment::Test));
        assert_eq!(filter.tags["team"], "pay");
        assert_eq!(filter.states, [i32::from(KeyState::Disabled)]);
        assert_eq!(filter.hygiene, [i32::from(KeyHygiene::Exposed)]);
        assert_eq!(request.order_by(), KeyOrder::DisplayName);
        assert!(query.is_narrowed() && !request.show_deleted);
    }

    #[test]
    fn an_address_without_anything_is_the_newest_keys() {
        let query = ListQuery::read("search=&environment=&other=1");
        assert_eq!((query.link(""), query.is_narrowed()), ("/keys".to_owned(), false));
        assert_eq!(query.to_request().unwrap().order_by(), KeyOrder::CreateTimeDesc);
        assert_eq!(query.toggle_deleted(), "/keys?state=all");
        let every = ListQuery::read("state=all&sort=name");
        assert!(every.to_request().unwrap().show_deleted && !every.is_narrowed());
        assert_eq!(every.toggle_deleted(), "/keys?sort=name");
    }

    #[rstest]
    #[case("environment=moon", "environment")]
    #[case("state=gone", "state")]
    #[case("hygiene=dirty", "hygiene")]
    #[case("sort=size", "sort")]
    #[case("tag=team", "tag")]
    fn what_is_no_choice_is_said_at_its_place(#[case] query: &str, #[case] place: &str) {
        assert!(ListQuery::read(query).to_request().unwrap_err().at(place).is_some());
    }
}
