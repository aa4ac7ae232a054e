//! The audit log under the real filter, as a list and as a stream.

use prost_types::Timestamp;
use proto::{keys as k, resource};
use time::Duration;
use tonic::{Request, Response, Status};

use crate::{
    fake_team::cut,
    fakes::{Fakes, ago},
};

type Answer<T> = Result<Response<T>, Status>;

impl Fakes {
    /// An entry a minute ago, newer than all before it.
    pub(crate) fn add_entry(&self, action: &str, child: &str, change: impl FnOnce(&mut k::AuditEntry)) {
        self.change(|state| {
            let number = state.team.entries.len() + 1;
            let mut entry = k::AuditEntry {
                name: resource::audit_entry_name(state.workspace_id, &number.to_string()),
                entry_time: Some(ago(Duration::MINUTE)),
                action: action.to_owned(),
                resource: format!("{}/{child}", resource::workspace_name(state.workspace_id)),
                actor: state.team.members[0].name.rsplit('/').next().unwrap().to_owned(),
                from_address: "192.0.2.7".to_owned(),
                ..k::AuditEntry::default()
            };
            change(&mut entry);
            state.team.entries.insert(0, entry);
        });
    }

    fn entries(&self, filter: Option<k::AuditFilter>) -> Vec<k::AuditEntry> {
        let filter = filter.unwrap_or_default();
        let at = |time: &Option<Timestamp>| time.as_ref().map(|time| (time.seconds, time.nanos));
        let any = |wanted: &str, value: &str| wanted.is_empty() || wanted == value;
        let mut entries = self.change(|state| state.team.entries.clone());
        entries.retain(|entry| {
            any(&filter.actor, &entry.actor)
                && any(&filter.action, &entry.action)
                && any(&filter.resource, &entry.resource)
                && at(&filter.from) <= at(&entry.entry_time)
                && filter.to.is_none_or(|to| at(&entry.entry_time) < at(&Some(to)))
        });
        entries
    }
}

#[tonic::async_trait]
impl k::audit_service_server::AuditService for Fakes {
    async fn list_audit_entries(
        &self,
        request: Request<k::ListAuditEntriesRequest>,
    ) -> Answer<k::ListAuditEntriesResponse> {
        self.admit("ListAuditEntries", &request, &request.get_ref().parent)?;
        let request = request.into_inner();
        let all = self.entries(request.filter);
        let (audit_entries, next_page_token) = cut(&all, request.page_size, &request.page_token)?;
        Ok(Response::new(k::ListAuditEntriesResponse { audit_entries, next_page_token }))
    }

    type ExportAuditEntriesStream =
        tokio_stream::Iter<std::vec::IntoIter<Result<k::ExportAuditEntriesResponse, Status>>>;

    async fn export_audit_entries(
        &self,
        request: Request<k::ExportAuditEntriesRequest>,
    ) -> Answer<Self::ExportAuditEntriesStream> {
        self.admit("ExportAuditEntries", &request, &request.get_ref().parent)?;
        let lines = self.entries(request.into_inner().filter).into_iter();
        let lines = lines.map(|entry| format!("{{\"action\":\"{}\"}}\n", entry.action).into_bytes());
        let chunks: Vec<_> = lines.map(|ndjson| Ok(k::ExportAuditEntriesResponse { ndjson })).collect();
        Ok(Response::new(tokio_stream::iter(chunks)))
    }
}
