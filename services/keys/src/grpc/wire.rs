//! Conversions between the service's values and messages.

use domain::{Environment, KeyId, WorkspaceId};
use proto::{
    keys as pb,
    resource::{self, key_name, workspace_name},
    timestamp::to_proto,
};
use time::OffsetDateTime;
use tonic::Status;

use crate::{
    error::Error,
    key::Standing,
    receipts::{Receipt, SilentEdge, State},
    signing::Issued,
    store::{keys::Shown, workspaces::Workspace},
};

/// A key as it is at `now`.
pub(super) fn key(shown: Shown, now: OffsetDateTime) -> pb::Key {
    let Shown { key, last_used_time } = shown;
    let state = match key.standing(now) {
        Standing::Active => pb::KeyState::Active,
        Standing::Expired => pb::KeyState::Expired,
        Standing::Deleted => pb::KeyState::Deleted,
    };
    let environment = match key.environment {
        Environment::Live => pb::Environment::Live,
        Environment::Test => pb::Environment::Test,
    };
    pb::Key {
        name: key_name(key.workspace_id, key.key_id),
        etag: key.etag(now),
        display_name: key.display_name,
        description: key.description,
        environment: environment.into(),
        state: state.into(),
        start: key.start,
        create_time: Some(to_proto(key.create_time)),
        update_time: Some(to_proto(key.update_time)),
        expire_time: key.expire_time.map(to_proto),
        delete_time: key.delete_time.map(to_proto),
        last_used_time: last_used_time.map(to_proto),
        ..pb::Key::default()
    }
}

/// Which edges refuse what was withdrawn.
pub(super) fn receipt(receipt: Receipt) -> pb::Receipt {
    let silent = |silent: SilentEdge| pb::SilentEdge {
        edge_id: silent.edge_id,
        last_seen_time: Some(to_proto(silent.last_seen)),
        fails_closed_time: Some(to_proto(silent.fails_closed)),
    };
    let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    pb::Receipt {
        state: match receipt.state {
            State::Complete => pb::ReceiptState::Complete,
            State::Partial => pb::ReceiptState::Partial,
            State::NotAwaited => pb::ReceiptState::NotAwaited,
        }
        .into(),
        edges_refusing: count(receipt.edges_refusing),
        edges: count(receipt.edges),
        elapsed: receipt.elapsed.try_into().ok(),
        silent_edges: receipt.silent_edges.into_iter().map(silent).collect(),
    }
}

/// The environment that a request names; live if it names none.
pub(super) fn environment(field: &'static str, value: i32) -> Result<Environment, Error> {
    match pb::Environment::try_from(value) {
        Ok(pb::Environment::Unspecified | pb::Environment::Live) => Ok(Environment::Live),
        Ok(pb::Environment::Test) => Ok(Environment::Test),
        Err(_) => Err(Error::invalid(field, "must be ENVIRONMENT_LIVE or ENVIRONMENT_TEST")),
    }
}

/// The workspace and key of a name. Another workspace than the caller's is not found.
pub(super) fn own_key(
    field: &'static str,
    name: &str,
    claims: &access::Claims,
) -> Result<(WorkspaceId, KeyId), Status> {
    let (workspace_id, key_id) =
        resource::parse_key_name(name).map_err(|error| proto::status::invalid(field, error.to_string()))?;
    if claims.owns(workspace_id) {
        Ok((workspace_id, key_id))
    } else {
        Err(proto::status::not_found("key", name))
    }
}

/// A workspace.
pub(super) fn workspace(workspace: Workspace) -> pb::Workspace {
    pb::Workspace {
        name: workspace_name(workspace.workspace_id),
        display_name: workspace.display_name,
        create_time: Some(to_proto(workspace.create_time)),
    }
}

/// An access token.
pub(super) fn access_token(issued: Issued) -> pb::AccessToken {
    pb::AccessToken { token: issued.token, expire_time: Some(to_proto(issued.expire_time)) }
}
