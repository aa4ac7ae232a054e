//! Who may call which RPC: one row for each. What has no row is refused.

use proto::status;
use time::{Duration, OffsetDateTime};
use tonic::{Code, Status};

use crate::{
    Claims, Role, Scope,
    role::{Role as R, Scope as S},
};

/// How long ago a person may have given the password, or signed in anew at the provider, for what asks for it.
pub const FRESH_FOR: Duration = Duration::minutes(5);

/// One row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Full name, `keymeter.keys.v1.KeysService/CreateKey`; ends with `/*` for all RPCs of a service.
    pub rpc: &'static str,
    /// Who may call it.
    pub who: Who,
}

/// Who may call an RPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Everybody, without an access token.
    Public,
    /// Callers with a good access token.
    Holders {
        /// People of these roles.
        people: &'static [Role],
        /// And services.
        services: Services,
        /// Whether the person must have given the password in the last [`FRESH_FOR`].
        fresh: bool,
    },
    /// Edges with a good edge token, and nobody else.
    Edges,
}

/// Which services may call an RPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Services {
    /// None: people only.
    Never,
    /// All, whatever their scopes.
    All,
    /// Those with this scope.
    With(Scope),
}

const EVERYONE: &[Role] = &[R::Owner, R::Admin, R::Member, R::Viewer, R::LogViewer];
const WORKERS: &[Role] = &[R::Owner, R::Admin, R::Member];
const LOG_READERS: &[Role] = &[R::Owner, R::Admin, R::Member, R::LogViewer];
const ADMINS: &[Role] = &[R::Owner, R::Admin];
const OWNERS: &[Role] = &[R::Owner];

/// The table. Rules on single things, such as whose key it is, or that everybody may remove nobody but oneself, are the
/// handlers'.
pub const TABLE: &[Row] = &[
    public("grpc.health.v1.Health/*"),
    public("grpc.reflection.v1.ServerReflection/*"),
    public("keymeter.keys.v1.SessionsService/SignIn"),
    public("keymeter.keys.v1.SessionsService/Refresh"),
    public("keymeter.keys.v1.SessionsService/Reauthenticate"),
    public("keymeter.keys.v1.SessionsService/GetInvitation"),
    public("keymeter.keys.v1.SessionsService/AcceptInvitation"),
    public("keymeter.keys.v1.SessionsService/SignOut"),
    public("keymeter.keys.v1.SessionsService/GetProvider"),
    public("keymeter.keys.v1.SessionsService/BeginProviderSignIn"),
    public("keymeter.keys.v1.SessionsService/FinishProviderSignIn"),
    public("keymeter.keys.v1.SessionsService/ReauthenticateByProvider"),
    public("keymeter.keys.v1.SessionsService/ExchangeToken"),
    public("keymeter.keys.v1.SessionsService/ListSigningKeys"),
    row("keymeter.keys.v1.KeysService/CreateKey", WORKERS, Services::With(S::KeysWrite)),
    row("keymeter.keys.v1.KeysService/GetKey", EVERYONE, Services::With(S::KeysRead)),
    row("keymeter.keys.v1.KeysService/ListKeys", EVERYONE, Services::With(S::KeysRead)),
    row("keymeter.keys.v1.KeysService/UpdateKey", WORKERS, Services::With(S::KeysWrite)),
    row("keymeter.keys.v1.KeysService/DisableKey", WORKERS, Services::With(S::KeysWrite)),
    row("keymeter.keys.v1.KeysService/EnableKey", WORKERS, Services::With(S::KeysWrite)),
    row("keymeter.keys.v1.KeysService/RotateKey", WORKERS, Services::With(S::KeysWrite)),
    row("keymeter.keys.v1.KeysService/RetireSecret", WORKERS, Services::With(S::KeysWrite)),
    fresh("keymeter.keys.v1.KeysService/RevealKey", WORKERS),
    row("keymeter.keys.v1.KeysService/DeleteKey", WORKERS, Services::With(S::KeysWrite)),
    row("keymeter.keys.v1.KeysService/VerifyKey", WORKERS, Services::With(S::KeysVerify)),
    edges("keymeter.keys.v1.KeysService/WatchKeys"),
    edges("keymeter.keys.v1.KeysService/AckFeed"),
    row("keymeter.keys.v1.WorkspacesService/CreateWorkspace", EVERYONE, Services::Never),
    row("keymeter.keys.v1.WorkspacesService/GetWorkspace", EVERYONE, Services::All),
    row("keymeter.keys.v1.WorkspacesService/ListWorkspaces", EVERYONE, Services::All),
    row("keymeter.keys.v1.WorkspacesService/UpdateWorkspace", ADMINS, Services::Never),
    row("keymeter.keys.v1.WorkspacesService/SuspendWorkspace", OWNERS, Services::Never),
    row("keymeter.keys.v1.WorkspacesService/ResumeWorkspace", OWNERS, Services::Never),
    row("keymeter.keys.v1.WorkspacesService/ExportWorkspace", OWNERS, Services::Never),
    row("keymeter.keys.v1.WorkspacesService/DeleteWorkspace", OWNERS, Services::Never),
    row("keymeter.keys.v1.MembersService/ListMembers", EVERYONE, Services::With(S::MembersRead)),
    row("keymeter.keys.v1.MembersService/GetMember", EVERYONE, Services::With(S::MembersRead)),
    row("keymeter.keys.v1.MembersService/UpdateMember", ADMINS, Services::Never),
    row("keymeter.keys.v1.MembersService/RemoveMember", EVERYONE, Services::Never),
    row("keymeter.keys.v1.MembersService/CreateInvitation", ADMINS, Services::Never),
    row("keymeter.keys.v1.MembersService/ListInvitations", ADMINS, Services::Never),
    row("keymeter.keys.v1.MembersService/DeleteInvitation", ADMINS, Services::Never),
    row("keymeter.keys.v1.ServiceTokensService/CreateServiceToken", ADMINS, Services::Never),
    row("keymeter.keys.v1.ServiceTokensService/ListServiceTokens", ADMINS, Services::Never),
    row("keymeter.keys.v1.ServiceTokensService/RevokeServiceToken", ADMINS, Services::Never),
    row("keymeter.keys.v1.AuditService/ListAuditEntries", ADMINS, Services::With(S::AuditRead)),
    row("keymeter.keys.v1.AuditService/ExportAuditEntries", ADMINS, Services::With(S::AuditRead)),
    row("keymeter.usage.v1.UsageService/GetSummary", EVERYONE, Services::With(S::UsageRead)),
    row("keymeter.usage.v1.UsageService/GetBreakdown", EVERYONE, Services::With(S::UsageRead)),
    row("keymeter.usage.v1.UsageService/GetTimeSeries", EVERYONE, Services::With(S::UsageRead)),
    row("keymeter.usage.v1.UsageService/GetOverview", EVERYONE, Services::With(S::UsageRead)),
    row("keymeter.usage.v1.UsageService/GetLatency", EVERYONE, Services::With(S::UsageRead)),
    row("keymeter.usage.v1.UsageService/GetCallers", EVERYONE, Services::With(S::UsageRead)),
    row("keymeter.usage.v1.UsageService/ListKeyUsage", EVERYONE, Services::With(S::UsageRead)),
    row("keymeter.usage.v1.UsageService/ListRequests", LOG_READERS, Services::With(S::LogsRead)),
    row("keymeter.usage.v1.UsageService/GetRequest", LOG_READERS, Services::With(S::LogsRead)),
    row("keymeter.usage.v1.UsageService/TailRequests", LOG_READERS, Services::With(S::LogsRead)),
    row("keymeter.usage.v1.UsageService/ExportRequests", LOG_READERS, Services::With(S::LogsRead)),
];

const fn public(rpc: &'static str) -> Row {
    Row { rpc, who: Who::Public }
}

const fn row(rpc: &'static str, people: &'static [Role], services: Services) -> Row {
    Row { rpc, who: Who::Holders { people, services, fresh: false } }
}

const fn fresh(rpc: &'static str, people: &'static [Role]) -> Row {
    Row { rpc, who: Who::Holders { people, services: Services::Never, fresh: true } }
}

const fn edges(rpc: &'static str) -> Row {
    Row { rpc, who: Who::Edges }
}

/// Who may call the RPC with this path, `/keymeter.keys.v1.KeysService/CreateKey`.
///
/// # Errors
/// `UNIMPLEMENTED` if it has no row, as for an RPC that is not there.
pub fn who(path: &str) -> Result<Who, Status> {
    let name = path.strip_prefix('/').unwrap_or(path);
    let listed = |row: &&Row| match row.rpc.strip_suffix('*') {
        Some(service) => name.starts_with(service),
        None => name == row.rpc,
    };
    TABLE.iter().find(listed).map(|row| row.who).ok_or_else(|| {
        status::error(
            Code::Unimplemented,
            "RPC_NOT_LISTED",
            "this server has no such RPC; see its reflection",
        )
    })
}

impl Who {
    /// Whether the holder of a token may call, at `now`.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`, with what is missing.
    pub fn admit(&self, claims: &Claims, now: OffsetDateTime) -> Result<(), Status> {
        let (people, services, fresh) = match self {
            Self::Public => return Ok(()),
            Self::Edges => {
                return Err(denied(
                    "EDGES_ONLY",
                    "only an edge may do this, with a token that `keys edge-token` prints",
                ));
            }
            Self::Holders { people, services, fresh } => (people, services, fresh),
        };
        if claims.role == Role::Service {
            return admit_service(*services, &claims.scopes);
        }
        if !people.contains(&claims.role) {
            return Err(denied(
                "ROLE_NOT_ALLOWED",
                format!("the role {} may not do this; ask an owner of the workspace", claims.role),
            ));
        }
        let recent = claims.authenticated.is_some_and(|at| now < at + FRESH_FOR);
        if *fresh && !recent {
            return Err(denied(
                "REAUTHENTICATION_REQUIRED",
                "the password must have been given in the last 5 minutes; give it to SessionsService.Reauthenticate, \
                 or sign in again for ReauthenticateByProvider, and call again with that access token",
            ));
        }
        Ok(())
    }
}

fn admit_service(services: Services, scopes: &[String]) -> Result<(), Status> {
    match services {
        Services::All => Ok(()),
        Services::With(scope) if scopes.is_empty() || scopes.iter().any(|has| has == scope.as_str()) => {
            Ok(())
        }
        Services::With(scope) => Err(denied(
            "SCOPE_MISSING",
            format!("the service token lacks the scope {}; make one that has it", scope.as_str()),
        )),
        Services::Never => Err(denied(
            "PEOPLE_ONLY",
            "a service token can not do this; sign in as a person with SessionsService.SignIn",
        )),
    }
}

fn denied(reason: &str, message: impl Into<String>) -> Status {
    status::error(Code::PermissionDenied, reason, message)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use domain::{AccountId, ServiceTokenId, WorkspaceId};
    use prost::Message as _;
    use rstest::rstest;
    use time::macros::datetime;
    use tonic_types::StatusExt as _;

    use super::*;
    use crate::Subject;

    const NOW: OffsetDateTime = datetime!(2026-11-22 06:00 UTC);

    /// A new RPC without a row, a row twice, and a row of an RPC that is gone all fail here.
    #[test]
    fn every_rpc_has_exactly_one_row() {
        let files = prost_types::FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap().file;
        let mut defined = BTreeSet::new();
        for file in &files {
            for service in &file.service {
                for method in &service.method {
                    defined.insert(format!("{}.{}/{}", file.package(), service.name(), method.name()));
                }
            }
        }
        let listed: Vec<String> =
            TABLE.iter().map(|row| row.rpc.to_owned()).filter(|rpc| !rpc.starts_with("grpc.")).collect();
        assert_eq!(listed.iter().cloned().collect::<BTreeSet<_>>(), defined);
        assert_eq!(listed.len(), defined.len(), "no row twice");
        assert!(listed.iter().all(|rpc| !rpc.ends_with('*')), "each RPC of ours is named");
        assert_eq!(TABLE.iter().filter(|row| row.rpc.starts_with("grpc.")).count(), 2);
    }

    #[rstest]
    #[case("/keymeter.keys.v1.KeysService/DropEverything")]
    #[case("/keymeter.keys.v1.KeysService/")]
    #[case("/keymeter.keys.v1.KeysService/GetKey/")]
    #[case("//keymeter.keys.v1.KeysService/GetKey")]
    #[case("/grpc.health.v1.Healthy/Check")]
    #[case("/")]
    #[case("")]
    fn what_has_no_row_is_refused(#[case] path: &str) {
        let refused = who(path).unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented);
        assert_eq!(refused.get_details_error_info().unwrap().reason, "RPC_NOT_LISTED");
    }

    fn claims(role: Role, scopes: &[&str]) -> Claims {
        let service = Subject::Service(ServiceTokenId::generate());
        let person = Subject::Account(AccountId::generate());
        Claims {
            subject: if role == Role::Service { service } else { person },
            workspace_id: WorkspaceId::generate(),
            role,
            scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
            authenticated: None,
            expires: NOW,
        }
    }

    fn reason(rpc: &str, claims: &Claims) -> Option<String> {
        let admitted = who(&format!("/keymeter.{rpc}")).unwrap().admit(claims, NOW);
        admitted.err().map(|status| status.get_details_error_info().unwrap().reason)
    }

    #[test]
    fn roles_may_what_the_table_says() {
        let may = |rpc: &str| Role::ALL.map(|role| reason(rpc, &claims(role, &[])).is_none());
        // owner, admin, member, viewer, log_viewer, service
        assert_eq!(may("keys.v1.KeysService/CreateKey"), [true, true, true, false, false, true]);
        assert_eq!(may("keys.v1.KeysService/ListKeys"), [true; 6]);
        assert_eq!(may("keys.v1.MembersService/UpdateMember"), [true, true, false, false, false, false]);
        assert_eq!(
            may("keys.v1.WorkspacesService/DeleteWorkspace"),
            [true, false, false, false, false, false]
        );
        assert_eq!(may("keys.v1.AuditService/ListAuditEntries"), [true, true, false, false, false, true]);
        assert_eq!(may("usage.v1.UsageService/GetSummary"), [true; 6]);
        assert_eq!(may("usage.v1.UsageService/ListRequests"), [true, true, true, false, true, true]);
        assert_eq!(may("keys.v1.SessionsService/SignIn"), [true; 6]);
        assert_eq!(may("keys.v1.KeysService/WatchKeys"), [false; 6]);
        assert_eq!(may("keys.v1.KeysService/AckFeed"), [false; 6]);
        let refused = reason("keys.v1.KeysService/WatchKeys", &claims(Role::Owner, &[]));
        assert_eq!(refused.as_deref(), Some("EDGES_ONLY"));
    }

    #[rstest]
    #[case(&[], None)]
    #[case(&["keys.write"], None)]
    #[case(&["usage.read", "keys.write"], None)]
    #[case(&["keys.read"], Some("SCOPE_MISSING"))]
    #[case(&["keys.write "], Some("SCOPE_MISSING"))]
    #[case(&[""], Some("SCOPE_MISSING"))]
    fn scopes_narrow(#[case] scopes: &[&str], #[case] refused: Option<&str>) {
        let claims = claims(Role::Service, scopes);
        assert_eq!(reason("keys.v1.KeysService/CreateKey", &claims).as_deref(), refused);
        assert_eq!(reason("keys.v1.WorkspacesService/GetWorkspace", &claims), None);
        assert_eq!(reason("keys.v1.KeysService/RevealKey", &claims).as_deref(), Some("PEOPLE_ONLY"));
    }

    #[rstest]
    #[case(None, false)]
    #[case(Some(NOW), true)]
    #[case(Some(NOW - Duration::seconds(299)), true)]
    #[case(Some(NOW - Duration::minutes(5)), false)]
    fn a_reveal_asks_for_the_password(#[case] authenticated: Option<OffsetDateTime>, #[case] may: bool) {
        let claims = Claims { authenticated, ..claims(Role::Owner, &[]) };
        let refused = reason("keys.v1.KeysService/RevealKey", &claims);
        assert_eq!(refused.as_deref(), (!may).then_some("REAUTHENTICATION_REQUIRED"));
        let viewer = Claims { role: Role::Viewer, ..claims };
        assert_eq!(reason("keys.v1.KeysService/RevealKey", &viewer).as_deref(), Some("ROLE_NOT_ALLOWED"));
    }
}
