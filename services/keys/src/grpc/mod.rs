//! The gRPC face: reads requests, calls the use cases, writes answers. Holds no rule of its own; who may call
//! what, the gate before it has checked.

use std::{pin::Pin, sync::Arc, time::Duration};

use access::Claims;
use futures_util::{Stream, StreamExt as _};
use proto::keys::{
    audit_service_server::AuditServiceServer, keys_service_server::KeysServiceServer,
    members_service_server::MembersServiceServer, service_tokens_service_server::ServiceTokensServiceServer,
    sessions_service_server::SessionsServiceServer, workspaces_service_server::WorkspacesServiceServer,
};
use time::OffsetDateTime;
use tonic::{Request, Response, Status, service::Routes};

use crate::{
    acks::Acks, audit::Audit, caller::Caller, error::Error, feed::watches::Watches, fields,
    invitations::Invitations, lifecycle::Keys, members::Members, metrics::Metrics, receipts::Receipts,
    service_tokens::ServiceTokens, sessions::Sessions, signing::SigningCell, store::Store,
    workspaces::Workspaces,
};

mod audit;
mod keys;
mod keys_wire;
mod members;
mod provider;
mod service_tokens;
mod sessions;
mod status;
mod wire;
mod workspaces;

/// Full names of the services, for `grpc.health.v1`.
pub const SERVICE_NAMES: &[&str] = &[
    "keymeter.keys.v1.AuditService",
    "keymeter.keys.v1.KeysService",
    "keymeter.keys.v1.MembersService",
    "keymeter.keys.v1.ServiceTokensService",
    "keymeter.keys.v1.SessionsService",
    "keymeter.keys.v1.WorkspacesService",
];

/// Longest time for one call: a caller hears that Postgres is away rather than nothing.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// What the services work with.
pub struct Parts {
    /// Use cases of keys.
    pub keys: Keys,
    /// Use cases of workspaces.
    pub workspaces: Workspaces,
    /// Use cases of sessions.
    pub sessions: Sessions,
    /// For the use cases that need nothing else.
    pub store: Store,
    /// Filled once the service has prepared itself.
    pub signing: Arc<SigningCell>,
    /// Says which edges refuse what was withdrawn.
    pub receipts: Receipts,
    /// The key feed over gRPC.
    pub watches: Watches,
    /// What edges say over gRPC.
    pub acks: Acks,
    /// Counts.
    pub metrics: Metrics,
}

/// All services.
#[must_use]
pub fn routes(parts: Parts) -> Routes {
    let Parts { keys, workspaces, sessions, store, signing, receipts, watches, acks, metrics } = parts;
    let members =
        members::Rpc { members: Members::new(store.clone()), invitations: Invitations::new(store.clone()) };
    let service_tokens = service_tokens::Rpc { service_tokens: ServiceTokens::new(store.clone()) };
    Routes::new(KeysServiceServer::new(keys::Rpc { keys, receipts, watches, acks, metrics: metrics.clone() }))
        .add_service(WorkspacesServiceServer::new(workspaces::Rpc { workspaces, store: store.clone() }))
        .add_service(MembersServiceServer::new(members))
        .add_service(ServiceTokensServiceServer::new(service_tokens))
        .add_service(AuditServiceServer::new(audit::Rpc { audit: Audit::new(store) }))
        .add_service(SessionsServiceServer::new(sessions::Rpc { sessions, signing, metrics }))
}

/// Who calls, as the gate before all services has found.
fn identify<T>(request: &Request<T>) -> Result<(Claims, Caller), Status> {
    let Some(claims) = request.extensions().get::<Claims>().cloned() else {
        tracing::error!("a call came past the gate");
        return Err(proto::status::internal());
    };
    let address = request.remote_addr().map(|address| address.ip());
    let caller = Caller { actor: claims.subject.to_string(), address };
    Ok((claims, caller))
}

/// The answer of a use case, in time or not.
async fn answer<T>(call: impl Future<Output = Result<T, Error>>) -> Result<Response<T>, Status> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(answer)) => Ok(Response::new(answer)),
        Ok(Err(error)) => Err(status::status(error)),
        Err(_) => Err(proto::status::unavailable("Postgres", status::RETRY_AFTER)),
    }
}

/// Messages as they come.
type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Chunks as messages, but for empty ones.
fn messages<T: Send + 'static>(
    chunks: impl Stream<Item = Result<Vec<u8>, Error>> + Send + 'static,
    message: impl Fn(Vec<u8>) -> T + Send + 'static,
) -> Messages<T> {
    Box::pin(chunks.filter_map(move |chunk| {
        let chunk = match chunk {
            Ok(lines) if lines.is_empty() => None,
            Ok(lines) => Some(Ok(message(lines))),
            Err(error) => Some(Err(status::status(error))),
        };
        std::future::ready(chunk)
    }))
}

/// The time of a call, as Postgres keeps it.
fn now() -> OffsetDateTime {
    fields::to_micros(OffsetDateTime::now_utc())
}

/// A required message field.
fn required<T>(field: &'static str, value: Option<T>) -> Result<T, Error> {
    value.ok_or_else(|| Error::invalid(field, "must be given"))
}
