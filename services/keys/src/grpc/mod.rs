//! The gRPC face: reads requests, calls the use cases, writes answers. Holds no rule of its own.

use std::{sync::Arc, time::Duration};

use access::{Claims, Verifier};
use proto::keys::{
    keys_service_server::KeysServiceServer, sessions_service_server::SessionsServiceServer,
    workspaces_service_server::WorkspacesServiceServer,
};
use time::OffsetDateTime;
use tonic::{Request, Response, Status, service::Routes};

use crate::{
    caller::Caller, error::Error, fields, lifecycle::Keys, metrics::Metrics, sessions::Sessions,
    signing::SigningCell, workspaces::Workspaces,
};

mod keys;
mod keys_wire;
mod sessions;
mod status;
mod wire;
mod workspaces;

/// Full names of the services, for `grpc.health.v1`.
pub const SERVICE_NAMES: &[&str] = &[
    "keymeter.keys.v1.KeysService",
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
    /// Filled once the service has prepared itself.
    pub signing: Arc<SigningCell>,
    /// Checks access tokens.
    pub verifier: Verifier,
    /// Counts.
    pub metrics: Metrics,
}

/// The three services.
#[must_use]
pub fn routes(parts: Parts) -> Routes {
    let Parts { keys, workspaces, sessions, signing, verifier, metrics } = parts;
    Routes::new(KeysServiceServer::new(keys::Rpc {
        keys,
        verifier: verifier.clone(),
        metrics: metrics.clone(),
    }))
    .add_service(WorkspacesServiceServer::new(workspaces::Rpc { workspaces, verifier }))
    .add_service(SessionsServiceServer::new(sessions::Rpc { sessions, signing, metrics }))
}

/// Who calls, once, for all RPCs that take an access token.
fn identify<T>(verifier: &Verifier, request: &Request<T>) -> Result<(Claims, Caller), Status> {
    let claims = verifier.authenticate(request.metadata())?;
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

/// The time of a call, as Postgres keeps it.
fn now() -> OffsetDateTime {
    fields::to_micros(OffsetDateTime::now_utc())
}

/// A required message field.
fn required<T>(field: &'static str, value: Option<T>) -> Result<T, Error> {
    value.ok_or_else(|| Error::invalid(field, "must be given"))
}
