//! Other filters near one: with a value more, with one less, over another time. Pure.

use domain::Outcome;
use time::OffsetDateTime;

use super::{Filters, Keys, Period};

/// A condition that holds, and the way to be rid of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chip {
    /// What it is about.
    pub(crate) label: &'static str,
    /// What it asks for.
    pub(crate) value: String,
    /// The query string without it.
    pub(crate) without: String,
}

impl Filters {
    /// The query string of this filter with something changed, from the log's first page on.
    fn query_with(&self, change: impl FnOnce(&mut Self)) -> String {
        let mut other = self.clone();
        other.page_token.clear();
        change(&mut other);
        other.query()
    }

    /// Only calls of this method.
    #[must_use]
    pub(crate) fn query_of_method(&self, method: &str) -> String {
        self.query_with(|filters| filters.methods = vec![method.to_owned()])
    }

    /// Only calls with this status; `None` if it is none.
    #[must_use]
    pub(crate) fn query_of_status(&self, status_code: &str) -> Option<String> {
        let status_code = status_code.parse().ok()?;
        Some(self.query_with(|filters| filters.status_codes = vec![status_code]))
    }

    /// Only calls of this route.
    #[must_use]
    pub(crate) fn query_of_route(&self, route: &str) -> String {
        self.query_with(|filters| route.clone_into(&mut filters.route))
    }

    /// Only calls of this outcome.
    #[must_use]
    pub(crate) fn query_of_outcome(&self, outcome: Outcome) -> String {
        self.query_with(|filters| filters.outcomes = vec![outcome])
    }

    /// Only calls that name this resource.
    #[must_use]
    pub(crate) fn query_of_resource(&self, resource_id: &str) -> String {
        self.query_with(|filters| resource_id.clone_into(&mut filters.resource_id))
    }

    /// Only calls of a part of the time.
    #[must_use]
    pub(crate) fn query_between(&self, from: OffsetDateTime, to: OffsetDateTime) -> String {
        self.query_with(|filters| filters.period = Period::Between(from, to))
    }

    /// The same with its period held where it is at `now`.
    #[must_use]
    pub(crate) fn query_held(&self, now: OffsetDateTime) -> String {
        self.write(Some(now), "")
    }

    /// What holds beside the period.
    #[must_use]
    pub(crate) fn chips(&self) -> Vec<Chip> {
        let mut chips = Vec::new();
        let mut chip = |label, value: String, without: String| chips.push(Chip { label, value, without });
        if let Keys::Other(key_id) = self.keys {
            let keys = self.own.map_or(Keys::Every, Keys::Own);
            chip("API key", key_id.to_string(), self.query_with(|filters| filters.keys = keys));
        }
        for outcome in &self.outcomes {
            let without = self.query_with(|filters| filters.outcomes.retain(|other| other != outcome));
            chip("Status", outcome.as_str().replace('_', " "), without);
        }
        for method in &self.methods {
            let without = self.query_with(|filters| filters.methods.retain(|other| other != method));
            chip("Method", method.clone(), without);
        }
        for code in &self.status_codes {
            let without = self.query_with(|filters| filters.status_codes.retain(|other| other != code));
            chip("Response", code.to_string(), without);
        }
        if !self.route.is_empty() {
            chip("Endpoint", self.route.clone(), self.query_with(|filters| filters.route.clear()));
        }
        if !self.resource_id.is_empty() {
            let without = self.query_with(|filters| filters.resource_id.clear());
            chip("Resource", self.resource_id.clone(), without);
        }
        chips
    }
}

#[cfg(test)]
mod tests {
    use domain::KeyId;

    use super::{super::Fields, *};

    #[test]
    fn each_chip_takes_its_own_condition_away() {
        let own = KeyId::generate();
        let query =
            "range=1h&outcome=failed&method=GET&method=POST&status_code=429&route=%2Fv1&resource_id=7";
        let filters = Filters::parse(&Fields::read(query), own).unwrap();
        let chips = filters.chips();
        let said: Vec<_> = chips.iter().map(|chip| (chip.label, chip.value.as_str())).collect();
        let expected = [
            ("Status", "failed"),
            ("Method", "GET"),
            ("Method", "POST"),
            ("Response", "429"),
            ("Endpoint", "/v1"),
            ("Resource", "7"),
        ];
        assert_eq!(said, expected);
        for chip in &chips {
            let rest = Filters::parse(&Fields::read(&chip.without), own).unwrap().chips();
            let others: Vec<_> = chips.iter().filter(|other| *other != chip).map(|c| &c.value).collect();
            assert_eq!(rest.iter().map(|chip| &chip.value).collect::<Vec<_>>(), others);
        }
        let other = KeyId::generate();
        let of_other = Filters::parse(&Fields::read(&format!("key_id={other}")), own).unwrap();
        assert_eq!((of_other.chips()[0].label, of_other.chips()[0].without.as_str()), ("API key", ""));
    }

    #[test]
    fn a_workspace_has_every_key_without_saying_so() {
        let filters = Filters::parse(&Fields::default(), None).unwrap();
        assert_eq!((filters.keys, filters.query().as_str()), (Keys::Every, ""));
        assert_eq!(filters.query_of_method("GET"), "method=GET");
        assert_eq!(filters.query_of_status("Other"), None);
    }
}
