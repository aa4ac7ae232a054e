//! Entries of the audit log as pages show them: each a sentence, and what changed. Pure; what it does not know it
//! shows as it came.

use std::collections::HashMap;

use proto::keys::AuditEntry;
use serde_json::{Map, Value};
use time::OffsetDateTime;

use crate::{
    format::{Moment, Show},
    roles,
};

/// What entries can say was done: the action, what to choose it by, and how its sentence goes on after the actor.
pub(crate) const ACTIONS: [(&str, &str, &str); 26] = [
    ("create_key", "Key generated", "generated the key"),
    ("update_key", "Key changed", "changed the key"),
    ("disable_key", "Key disabled", "disabled the key"),
    ("enable_key", "Key enabled", "enabled the key"),
    ("rotate_key", "Key rotated", "gave a new secret to the key"),
    ("retire_secret", "Secret retired", "retired a secret of the key"),
    ("expose_key", "Leak reported", "reported a leak of the key"),
    ("delete_key", "Key deleted", "deleted the key"),
    ("reveal_key", "Key copied", "was shown the secret of the key"),
    ("repeat_create_key", "New key shown again", "was shown once more the new key"),
    ("repeat_rotate_key", "New secret shown again", "was shown once more the new secret of the key"),
    ("receipt", "Receipt of a deletion", "was given a receipt that edges refuse the key"),
    ("create_invitation", "Person invited", "invited somebody"),
    ("accept_invitation", "Invitation accepted", "came in by an invitation"),
    ("link_identity", "Sign-in linked", "signed in at the provider for the first time as"),
    ("delete_invitation", "Invitation withdrawn", "withdrew an invitation"),
    ("update_member", "Role changed", "changed the role of"),
    ("remove_member", "Member removed", "removed"),
    ("erase_person", "Person erased", "erased the person behind"),
    ("create_service_token", "Service token made", "made the service token"),
    ("revoke_service_token", "Service token revoked", "revoked the service token"),
    ("create_workspace", "Workspace made", "made"),
    ("update_workspace", "Settings changed", "changed the settings of"),
    ("suspend_workspace", "Workspace suspended", "suspended"),
    ("resume_workspace", "Workspace resumed", "resumed"),
    ("export_workspace", "Workspace exported", "exported"),
];

/// Somebody or something, by a name where one is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// `acc_…`, `key_…`
    pub(crate) id: String,
    /// An address or a name of display; empty if none is known.
    pub(crate) label: String,
    /// Its page, if it has one.
    pub(crate) link: Option<String>,
}

/// One field that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// As in the proto.
    pub(crate) field: String,
    /// Before; `None` if there was nothing.
    pub(crate) before: Option<String>,
    /// After; `None` if there is nothing.
    pub(crate) after: Option<String>,
}

/// One entry.
#[derive(Debug, Clone)]
pub(crate) struct EntryView {
    /// When.
    pub(crate) at: Option<Moment>,
    /// Who.
    pub(crate) actor: Named,
    /// What the actor did, up to the object.
    pub(crate) verb: String,
    /// To what.
    pub(crate) object: Named,
    /// Whether the sentence names it: the id of an invitation says nothing to anybody.
    pub(crate) names_object: bool,
    /// The end of the sentence; may be empty.
    pub(crate) tail: String,
    /// `create_key`
    pub(crate) action: String,
    /// A resource name.
    pub(crate) resource: String,
    /// From where; empty if not over the network.
    pub(crate) address: String,
    /// Its place in the log.
    pub(crate) number: String,
    /// What changed.
    pub(crate) changes: Vec<Change>,
}

impl EntryView {
    /// The view of `entry` at `now`; `names` knows labels by ids.
    #[must_use]
    pub(crate) fn new(entry: &AuditEntry, names: &HashMap<String, String>, now: OffsetDateTime) -> Self {
        let (before, after) = (fields(&entry.before_json), fields(&entry.after_json));
        let known = ACTIONS.iter().find(|(action, _, _)| *action == entry.action);
        let verb =
            known.map_or_else(|| format!("did {} to", entry.action), |(_, _, verb)| (*verb).to_owned());
        let object_id = last(&entry.resource);
        let own_name = [&after, &before].into_iter().find_map(|fields| fields.get("display_name")?.as_str());
        let mut object = named(object_id, names);
        if object.label.is_empty() && !object_id.starts_with("ws_") {
            object.label = own_name.unwrap_or_default().to_owned();
        }
        object.link = link(object_id);
        Self {
            at: Moment::of(entry.entry_time.as_ref(), Show::Full, now),
            actor: named(&entry.actor, names),
            verb,
            names_object: known.is_none() || !object_id.starts_with("inv_"),
            object,
            tail: tail(&entry.action, &before, &after),
            action: entry.action.clone(),
            resource: entry.resource.clone(),
            address: entry.from_address.clone(),
            number: last(&entry.name).to_owned(),
            changes: changes(before, after),
        }
    }
}

fn named(id: &str, names: &HashMap<String, String>) -> Named {
    Named { id: id.to_owned(), label: names.get(id).cloned().unwrap_or_default(), link: None }
}

fn last(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or_default()
}

/// Only ids of the known form become part of an address.
fn link(id: &str) -> Option<String> {
    id.parse::<domain::KeyId>().ok().map(|key_id| format!("/keys/{key_id}/usage"))
}

fn fields(json: &str) -> Map<String, Value> {
    serde_json::from_str(json).unwrap_or_default()
}

fn tail(action: &str, before: &Map<String, Value>, after: &Map<String, Value>) -> String {
    let role = |fields: &Map<String, Value>| {
        let name = fields.get("role").and_then(Value::as_str).unwrap_or_default();
        roles::title(roles::named(name)).to_lowercase()
    };
    match action {
        "update_member" => format!("from {} to {}", role(before), role(after)),
        "create_invitation" | "accept_invitation" => format!("as {}", role(after)),
        "remove_member" => format!("who was {}", role(before)),
        _ => String::new(),
    }
}

/// Every field of both, in the order of names.
fn changes(mut before: Map<String, Value>, mut after: Map<String, Value>) -> Vec<Change> {
    let mut names: Vec<String> = before.keys().chain(after.keys()).cloned().collect();
    names.sort_unstable();
    names.dedup();
    let change = |field: String| Change {
        before: before.remove(&field).and_then(text),
        after: after.remove(&field).and_then(text),
        field,
    };
    names.into_iter().map(change).collect()
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            let texts: Vec<_> = items.iter().filter_map(Value::as_str).collect();
            Some(texts.join(", "))
        }
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(action: &str, resource: &str, before: &str, after: &str) -> EntryView {
        let entry = AuditEntry {
            name: "workspaces/ws_1/auditEntries/17".to_owned(),
            action: action.to_owned(),
            resource: resource.to_owned(),
            actor: "acc_1".to_owned(),
            before_json: before.to_owned(),
            after_json: after.to_owned(),
            ..AuditEntry::default()
        };
        let names = HashMap::from([("acc_1".to_owned(), "ada@example.com".to_owned())]);
        EntryView::new(&entry, &names, OffsetDateTime::UNIX_EPOCH)
    }

    #[test]
    fn an_entry_is_a_sentence() {
        let seen = view(
            "update_member",
            "workspaces/w/members/acc_2",
            r#"{"role":"member"}"#,
            r#"{"role":"viewer"}"#,
        );
        assert_eq!((seen.actor.label.as_str(), seen.object.id.as_str()), ("ada@example.com", "acc_2"));
        assert_eq!(format!("{} … {}", seen.verb, seen.tail), "changed the role of … from member to viewer");
        assert_eq!(seen.number, "17");
        let changed = &seen.changes[0];
        assert_eq!((changed.before.as_deref(), changed.after.as_deref()), (Some("member"), Some("viewer")));
    }

    #[test]
    fn a_key_has_its_name_and_its_page() {
        let id = domain::KeyId::generate();
        let seen =
            view("create_key", &format!("workspaces/w/keys/{id}"), "", r#"{"display_name":"Billing"}"#);
        assert_eq!(seen.object.label, "Billing");
        assert_eq!(seen.object.link, Some(format!("/keys/{id}/usage")));
        assert_eq!(view("create_key", "workspaces/w/keys/../../x", "", "").object.link, None);
    }

    #[test]
    fn an_invitation_is_not_named_by_its_id() {
        let seen = view("create_invitation", "workspaces/w/invitations/inv_1", "", r#"{"role":"viewer"}"#);
        assert_eq!(
            (seen.verb.as_str(), seen.names_object, seen.tail.as_str()),
            ("invited somebody", false, "as viewer")
        );
        assert!(view("paint_invitation", "workspaces/w/invitations/inv_1", "", "").names_object);
    }

    #[test]
    fn what_is_not_known_is_shown_as_it_came() {
        let seen = view("paint_key", "x", "not json", r#"{"a":[1,2],"b":null,"c":["x","y"]}"#);
        assert_eq!(seen.verb, "did paint_key to");
        let after: Vec<_> = seen.changes.iter().map(|change| change.after.as_deref()).collect();
        assert_eq!(after, [Some("[1,2]"), None, Some("x, y")]);
    }
}
