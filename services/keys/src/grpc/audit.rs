//! `keymeter.keys.v1.AuditService`.

use domain::WorkspaceId;
use futures_util::TryStreamExt as _;
use proto::{
    keys as pb, keys::audit_service_server::AuditService, resource::parse_key_name, timestamp::to_proto,
};
use serde_json::Value;
use tonic::{Request, Response, Status};

use super::{Messages, answer, identify, messages, now};
use crate::{
    audit::{self, Audit},
    error::Error,
    fields, page,
    store::trail::{Entry, Filter, Target},
};

/// Longest text that a filter may have, in bytes.
const TEXT_BYTES_MAX: usize = 256;

/// The service.
pub(super) struct Rpc {
    pub(super) audit: Audit,
}

#[tonic::async_trait]
impl AuditService for Rpc {
    async fn list_audit_entries(
        &self,
        request: Request<pb::ListAuditEntriesRequest>,
    ) -> Result<Response<pb::ListAuditEntriesResponse>, Status> {
        let (claims, _) = identify(&request)?;
        let request = request.into_inner();
        let workspace_id = claims.workspace(&request.parent)?;
        answer(async {
            let size = page::size(request.page_size)?;
            let filter = filter(workspace_id, request.filter)?;
            let list = format!("audit entries of {workspace_id} {filter:?}");
            let before = page::position::<i64>(&list, &request.page_token)?;
            let (entries, last) = self.audit.list(workspace_id, &filter, before, size, now()).await?;
            Ok(pb::ListAuditEntriesResponse {
                audit_entries: entries.into_iter().map(|entry| to_wire(workspace_id, entry)).collect(),
                next_page_token: last.map(|last| page::token(&list, &last)).unwrap_or_default(),
            })
        })
        .await
    }

    type ExportAuditEntriesStream = Messages<pb::ExportAuditEntriesResponse>;

    async fn export_audit_entries(
        &self,
        request: Request<pb::ExportAuditEntriesRequest>,
    ) -> Result<Response<Self::ExportAuditEntriesStream>, Status> {
        let (claims, _) = identify(&request)?;
        let request = request.into_inner();
        let workspace_id = claims.workspace(&request.parent)?;
        answer(async {
            let filter = filter(workspace_id, request.filter)?;
            let chunks = self.audit.clone().chunks(workspace_id, filter, now());
            let lines = chunks.map_ok(move |entries| {
                audit::lines(entries.into_iter().map(|entry| audit::to_json(workspace_id, entry)))
            });
            Ok(messages(lines, |ndjson| pb::ExportAuditEntriesResponse { ndjson }))
        })
        .await
    }
}

fn filter(workspace_id: WorkspaceId, asked: Option<pb::AuditFilter>) -> Result<Filter, Error> {
    let asked = asked.unwrap_or_default();
    let text = |field, text: String| match text.len() {
        0 => Ok(None),
        1..=TEXT_BYTES_MAX if !text.contains('\0') => Ok(Some(text)),
        _ => Err(Error::invalid(field, "must have at most 256 bytes, none of them zero")),
    };
    let resource = text("filter.resource", asked.resource)?.map(|name| {
        let key = parse_key_name(&name).ok().filter(|(of, _)| *of == workspace_id);
        Target { key_id: key.map(|(_, key_id)| key_id), name }
    });
    let filter = Filter {
        actor: text("filter.actor", asked.actor)?,
        action: text("filter.action", asked.action)?,
        resource,
        from: fields::time("filter.from", asked.from.as_ref())?,
        to: fields::time("filter.to", asked.to.as_ref())?,
    };
    if filter.from.zip(filter.to).is_some_and(|(from, to)| to <= from) {
        return Err(Error::invalid("filter.to", "must be after filter.from"));
    }
    Ok(filter)
}

fn to_wire(workspace_id: WorkspaceId, entry: Entry) -> pb::AuditEntry {
    let json = |value: Option<Value>| value.map(|value| value.to_string()).unwrap_or_default();
    pb::AuditEntry {
        name: audit::name(workspace_id, entry.sequence),
        entry_time: Some(to_proto(entry.time)),
        action: entry.action,
        resource: entry.resource,
        actor: entry.actor,
        from_address: entry.from_address.unwrap_or_default(),
        before_json: json(entry.before),
        after_json: json(entry.after),
    }
}
