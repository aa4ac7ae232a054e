//! The audit log's filter in its URL, both ways. Pure; reads ids and addresses as people write them.

use std::collections::HashMap;

use domain::WorkspaceId;
use proto::{keys::AuditFilter, resource::workspace_name, timestamp};
use serde::Deserialize;
use time::{Date, macros::format_description};

use crate::violations::Violations;

/// Longest text of a field, in bytes; keys takes no more.
const TEXT_BYTES_MAX: usize = 256;

/// The fields as the URL has them, right or wrong, to be shown again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Fields {
    /// An e-mail address of a member, `acc_…`, `svc_…` or the name of a command.
    #[serde(default)]
    pub(crate) actor: String,
    /// `create_key`
    #[serde(default)]
    pub(crate) action: String,
    /// `key_…` or another id, or a resource name.
    #[serde(default)]
    pub(crate) resource: String,
    /// The first day, in UTC.
    #[serde(default)]
    pub(crate) from: String,
    /// The last day, in UTC.
    #[serde(default)]
    pub(crate) to: String,
    /// Where the list goes on.
    #[serde(default)]
    pub(crate) page_token: String,
}

impl Fields {
    /// The filter that the fields stand for. `accounts` knows ids by addresses.
    ///
    /// # Errors
    /// What is wrong, by field.
    pub(crate) fn filter(
        &self,
        workspace_id: WorkspaceId,
        accounts: &HashMap<String, String>,
    ) -> Result<AuditFilter, Violations> {
        let mut errors = Violations::default();
        for (field, text) in [("actor", &self.actor), ("action", &self.action), ("resource", &self.resource)]
        {
            if text.len() > TEXT_BYTES_MAX || text.contains('\0') {
                errors.add(field, "At most 256 bytes.");
            }
        }
        let actor = self.actor.trim();
        let account = accounts.get(&actor.to_lowercase());
        if actor.contains('@') && account.is_none() {
            errors.add("actor", "No member has this address. Write the id of somebody who has left, acc_….");
        }
        let from = day("from", &self.from, &mut errors);
        let to = day("to", &self.to, &mut errors);
        // The last day is in it to its end.
        let to = to.map(|day| day.next_day().unwrap_or(Date::MAX));
        if from.zip(to).is_some_and(|(from, to)| to <= from) {
            errors.add("to", "Must not be before the first day.");
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let midnight = |day: Date| timestamp::to_proto(day.midnight().assume_utc());
        Ok(AuditFilter {
            actor: account.map_or(actor, String::as_str).to_owned(),
            action: self.action.trim().to_owned(),
            resource: resource(workspace_id, self.resource.trim()),
            from: from.map(midnight),
            to: to.map(midnight),
        })
    }

    /// Whether there is a condition at all.
    #[must_use]
    pub(crate) fn is_narrow(&self) -> bool {
        [&self.actor, &self.action, &self.resource, &self.from, &self.to].iter().any(|text| !text.is_empty())
    }

    /// The URL's query of the page at `page_token`; the first page if it is empty.
    #[must_use]
    pub(crate) fn query(&self, page_token: &str) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        let fields = [
            ("actor", self.actor.as_str()),
            ("action", &self.action),
            ("resource", &self.resource),
            ("from", &self.from),
            ("to", &self.to),
            ("page_token", page_token),
        ];
        query.extend_pairs(fields.into_iter().filter(|(_, value)| !value.is_empty()));
        query.finish()
    }
}

/// An id as the name of what has it; other texts stay as they are.
fn resource(workspace_id: WorkspaceId, text: &str) -> String {
    let parent = workspace_name(workspace_id);
    if text.contains('/') {
        return text.to_owned();
    }
    match text.split_once('_').map(|(lead, _)| lead) {
        Some("key") => format!("{parent}/keys/{text}"),
        Some("acc") => format!("{parent}/members/{text}"),
        Some("inv") => format!("{parent}/invitations/{text}"),
        Some("svc") => format!("{parent}/serviceTokens/{text}"),
        Some("ws") => format!("workspaces/{text}"),
        _ => text.to_owned(),
    }
}

fn day(field: &str, text: &str, errors: &mut Violations) -> Option<Date> {
    if text.is_empty() {
        return None;
    }
    let day = Date::parse(text, format_description!("[year]-[month]-[day]")).ok();
    // Years that a time on the wire can not have are typing errors too.
    let day = day.filter(|day| (2000..=2999).contains(&day.year()));
    if day.is_none() {
        errors.add(field, "Write a day as 2026-11-22.");
    }
    day
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(change: impl FnOnce(&mut Fields)) -> Fields {
        let mut fields = Fields::default();
        change(&mut fields);
        fields
    }

    #[test]
    fn ids_and_addresses_are_read_as_people_write_them() {
        let workspace_id = WorkspaceId::generate();
        let accounts = HashMap::from([("ada@example.com".to_owned(), "acc_1".to_owned())]);
        let asked = fields(|f| {
            f.actor = " Ada@Example.com".to_owned();
            f.resource = "key_1".to_owned();
            (f.from, f.to) = ("2026-11-01".to_owned(), "2026-11-01".to_owned());
        });
        let filter = asked.filter(workspace_id, &accounts).unwrap();
        assert_eq!(filter.actor, "acc_1");
        assert_eq!(filter.resource, format!("workspaces/{workspace_id}/keys/key_1"));
        let (from, to) = (filter.from.unwrap().seconds, filter.to.unwrap().seconds);
        assert_eq!(to - from, 86_400, "both days are in it");
        let whole = fields(|f| f.resource = "workspaces/x/keys/y".to_owned());
        assert_eq!(whole.filter(workspace_id, &accounts).unwrap().resource, "workspaces/x/keys/y");
    }

    #[test]
    fn what_is_wrong_is_said_at_the_field() {
        let wrong = |change: fn(&mut Fields), field: &str| {
            let errors = fields(change).filter(WorkspaceId::generate(), &HashMap::new()).unwrap_err();
            errors.at(field).is_some()
        };
        assert!(wrong(|f| f.actor = "nobody@example.com".to_owned(), "actor"));
        assert!(wrong(|f| f.from = "yesterday".to_owned(), "from"));
        assert!(wrong(|f| f.to = "9999-12-31".to_owned(), "to"));
        assert!(wrong(|f| f.resource = "x".repeat(257), "resource"));
        let backwards = |f: &mut Fields| (f.from, f.to) = ("2026-11-02".to_owned(), "2026-11-01".to_owned());
        assert!(wrong(backwards, "to"));
    }

    #[test]
    fn the_query_leaves_out_what_is_empty() {
        let asked = fields(|f| f.action = "a&b".to_owned());
        assert_eq!(asked.query(""), "action=a%26b");
        assert_eq!(asked.query("t"), "action=a%26b&page_token=t");
        assert!(asked.is_narrow() && !Fields::default().is_narrow());
    }
}
