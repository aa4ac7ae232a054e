//! The audit trail as callers read it: a page, or all of it as lines of JSON; never what is older than the
//! workspace keeps.

use domain::WorkspaceId;
use futures_util::{Stream, stream};
use proto::resource::audit_entry_name;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    error::Error,
    page,
    store::{
        Store,
        trail::{Entry, Filter},
    },
};

/// Lines of one chunk of an export: far below the 4 MiB of a gRPC message.
pub const CHUNK_LINES: usize = 100;

/// The audit trails of all workspaces. Clones share everything.
#[derive(Clone)]
pub struct Audit {
    store: Store,
}

impl Audit {
    /// The trails in `store`.
    #[must_use]
    pub const fn new(store: Store) -> Self {
        Self { store }
    }

    /// A page of entries, newest first, and where the next one starts.
    ///
    /// # Errors
    /// No such workspace; Postgres.
    pub async fn list(
        &self,
        workspace_id: WorkspaceId,
        filter: &Filter,
        before: Option<i64>,
        size: usize,
        now: OffsetDateTime,
    ) -> Result<(Vec<Entry>, Option<i64>), Error> {
        let workspace = self.store.workspace(workspace_id).await?.ok_or_else(|| Error::NotFound {
            what: "workspace",
            name: proto::resource::workspace_name(workspace_id),
        })?;
        let since = now - Duration::days(workspace.settings.audit_retention_days.into());
        let entries = self.store.trail(workspace_id, filter, since, before, size + 1).await?;
        Ok(page::cut(entries, size, |entry| entry.sequence))
    }

    /// All entries that match, newest first, in chunks of at most [`CHUNK_LINES`].
    pub fn chunks(
        self,
        workspace_id: WorkspaceId,
        filter: Filter,
        now: OffsetDateTime,
    ) -> impl Stream<Item = Result<Vec<Entry>, Error>> + Send {
        stream::try_unfold((self, filter, Some(None)), move |(audit, filter, next)| async move {
            let Some(before) = next else { return Ok(None) };
            let (entries, last) = audit.list(workspace_id, &filter, before, CHUNK_LINES, now).await?;
            Ok(Some((entries, (audit, filter, last.map(Some)))))
        })
    }
}

/// An entry with the names that the proto gives its fields.
#[must_use]
pub fn to_json(workspace_id: WorkspaceId, entry: Entry) -> Value {
    let mut json = json!({
        "name": name(workspace_id, entry.sequence),
        "entry_time": entry.time.format(&Rfc3339).unwrap_or_default(),
        "action": entry.action,
        "resource": entry.resource,
        "actor": entry.actor,
    });
    let optional = [
        ("from_address", entry.from_address.map(Value::String)),
        ("before", entry.before),
        ("after", entry.after),
    ];
    for (field, value) in optional {
        if let Some(value) = value {
            json[field] = value;
        }
    }
    json
}

/// The resource name of an entry.
#[must_use]
pub fn name(workspace_id: WorkspaceId, sequence: i64) -> String {
    audit_entry_name(workspace_id, &sequence.to_string())
}

/// One line for each value.
pub fn lines(values: impl Iterator<Item = Value>) -> Vec<u8> {
    values.flat_map(|value| format!("{value}\n").into_bytes()).collect()
}
