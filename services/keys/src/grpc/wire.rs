//! Conversions between the service's values and messages.

use access::Role;
use domain::{AddressStorage, Environment, KeyId, Secret, SecretId, WorkspaceId};
use proto::{
    keys as pb,
    resource::{self, invitation_name, key_name, secret_name, workspace_name},
    timestamp::to_proto,
};
use time::OffsetDateTime;
use tonic::Status;

use crate::{
    error::Error,
    key::{Answer, KeySecret, RateLimit, Standing},
    lifecycle::Verdict,
    receipts::{Receipt, SilentEdge, State},
    signing::Issued,
    store::{invitations::Invitation, keys::Shown, workspaces::Workspace},
};

/// A key as it is at `now`.
pub(super) fn key(shown: Shown, now: OffsetDateTime) -> pb::Key {
    let Shown { key, usage } = shown;
    let environment = match key.environment {
        Environment::Live => pb::Environment::Live,
        Environment::Test => pb::Environment::Test,
    };
    let secret = |secret: &KeySecret| pb::Secret {
        name: secret_name(key.workspace_id, key.key_id, secret.secret_id),
        start: secret.start.clone(),
        create_time: Some(to_proto(secret.create_time)),
        retire_time: secret.retire_time.map(to_proto),
        last_used_time: usage.secrets.get(&secret.secret_id).copied().map(to_proto),
    };
    let rate_limit = |limit: &RateLimit| pb::RateLimit {
        name: limit.name.clone(),
        requests: limit.requests,
        window: Some(prost_types::Duration { seconds: limit.window_s.into(), nanos: 0 }),
    };
    pb::Key {
        name: key_name(key.workspace_id, key.key_id),
        etag: key.etag(now),
        environment: environment.into(),
        state: state(key.standing(now)).into(),
        create_time: Some(to_proto(key.create_time)),
        update_time: Some(to_proto(key.update_time)),
        expire_time: key.expire_time.map(to_proto),
        delete_time: key.delete_time.map(to_proto),
        expose_time: key.expose_time.map(to_proto),
        last_used_time: usage.last_used_time.map(to_proto),
        address_count: usage.address_count,
        owner: key.owner.map(|owner| owner.to_string()).unwrap_or_default(),
        allowed_networks: key.allowed_networks.iter().map(ToString::to_string).collect(),
        rate_limits: key.rate_limits.iter().map(rate_limit).collect(),
        secrets: key.secrets.iter().map(secret).collect(),
        display_name: key.display_name,
        description: key.description,
        start: key.start,
        tags: key.tags.into_iter().collect(),
        scopes: key.scopes,
    }
}

/// Which edges refuse what was withdrawn.
pub(super) fn receipt(receipt: Receipt) -> pb::Receipt {
    let silent = |silent: SilentEdge| pb::SilentEdge {
        edge_id: silent.edge_id,
        last_seen_time: Some(to_proto(silent.last_seen)),
        fails_closed_time: silent.fails_closed.map(to_proto),
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

fn state(standing: Standing) -> pb::KeyState {
    match standing {
        Standing::Active => pb::KeyState::Active,
        Standing::Expired => pb::KeyState::Expired,
        Standing::Deleted => pb::KeyState::Deleted,
        Standing::Disabled => pb::KeyState::Disabled,
    }
}

/// Whether a secret is good, and of which key.
pub(super) fn verification(verdict: Verdict, now: OffsetDateTime) -> pb::VerifyKeyResponse {
    use pb::VerificationCode as Code;
    let (code, shown) = match verdict {
        Verdict::Malformed => (Code::Malformed, None),
        Verdict::NotFound => (Code::NotFound, None),
        Verdict::Known(shown, secret_id) => {
            let code = match shown.key.answer(secret_id, now) {
                Answer::Good | Answer::Key(Standing::Active) => Code::Valid,
                Answer::Key(Standing::Expired) => Code::Expired,
                Answer::Key(Standing::Deleted) => Code::Deleted,
                Answer::Key(Standing::Disabled) => Code::Disabled,
                Answer::Retired => Code::SecretRetired,
            };
            (code, Some(*shown))
        }
    };
    pb::VerifyKeyResponse {
        valid: code == Code::Valid,
        code: code.into(),
        key: shown.map(|shown| key(shown, now)),
    }
}

/// A secret, for its owner; empty if there is none to show.
pub(super) fn secret(secret: Option<Secret>) -> String {
    secret.map(|secret| secret.reveal().to_owned()).unwrap_or_default()
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
    claims.own(field, "key", name, resource::parse_key_name)
}

/// The workspace, key and secret of a name. Another workspace than the caller's is not found.
pub(super) fn own_secret(
    field: &'static str,
    name: &str,
    claims: &access::Claims,
) -> Result<(WorkspaceId, KeyId, SecretId), Status> {
    let (workspace_id, (key_id, secret_id)) =
        claims.own(field, "secret", name, resource::parse_secret_name)?;
    Ok((workspace_id, key_id, secret_id))
}

/// A workspace.
pub(super) fn workspace(workspace: Workspace) -> pb::Workspace {
    pb::Workspace {
        name: workspace_name(workspace.workspace_id),
        display_name: workspace.display_name,
        create_time: Some(to_proto(workspace.create_time)),
        audit_retention_days: workspace.settings.audit_retention_days,
        disable_exposed_keys: workspace.settings.disable_exposed_keys,
        keep_copies: workspace.settings.keep_copies,
        suspend_time: workspace.suspend_time.map(to_proto),
        address_storage: match workspace.settings.address_storage {
            AddressStorage::Whole => pb::AddressStorage::Whole,
            AddressStorage::Truncated => pb::AddressStorage::Truncated,
            AddressStorage::None => pb::AddressStorage::None,
        }
        .into(),
        request_retention_days: workspace.settings.request_retention_days,
    }
}

/// A role of people.
pub(super) fn role(role: Role) -> pb::Role {
    match role {
        Role::Owner => pb::Role::Owner,
        Role::Admin => pb::Role::Admin,
        Role::Member => pb::Role::Member,
        Role::Viewer => pb::Role::Viewer,
        Role::LogViewer => pb::Role::LogViewer,
        Role::Service => pb::Role::Unspecified,
    }
}

/// The role that a request names.
pub(super) fn read_role(field: &'static str, value: i32) -> Result<Role, Error> {
    match pb::Role::try_from(value) {
        Ok(pb::Role::Owner) => Ok(Role::Owner),
        Ok(pb::Role::Admin) => Ok(Role::Admin),
        Ok(pb::Role::Member) => Ok(Role::Member),
        Ok(pb::Role::Viewer) => Ok(Role::Viewer),
        Ok(pb::Role::LogViewer) => Ok(Role::LogViewer),
        Ok(pb::Role::Unspecified) | Err(_) => {
            Err(Error::invalid(field, "must be ROLE_OWNER, _ADMIN, _MEMBER, _VIEWER or _LOG_VIEWER"))
        }
    }
}

/// An open invitation.
pub(super) fn invitation(invitation: Invitation) -> pb::Invitation {
    pb::Invitation {
        name: invitation_name(invitation.workspace_id, invitation.invitation_id),
        email: invitation.email,
        role: role(invitation.role).into(),
        create_time: Some(to_proto(invitation.create_time)),
        expire_time: Some(to_proto(invitation.expire_time)),
    }
}

/// An access token.
pub(super) fn access_token(issued: Issued) -> pb::AccessToken {
    pb::AccessToken { token: issued.token, expire_time: Some(to_proto(issued.expire_time)) }
}
