//! The session's cookie, and the access tokens that it is traded for. Holds no account and no password; the
//! truth about a session is in keys.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use aws_lc_rs::digest;
use axum_extra::extract::cookie::{Cookie, CookieJar};
use domain::WorkspaceId;
use proto::{
    keys::{
        AccessToken, GetProviderRequest, GetWorkspaceRequest, ListWorkspacesRequest, ProviderAnswer,
        ReauthenticateByProviderRequest, ReauthenticateRequest, RefreshRequest, RefreshResponse, Role,
        SignInMethod, SignOutRequest,
    },
    resource::{parse_workspace_name, workspace_name},
};
use time::{Duration, OffsetDateTime};
use tonic::{
    Code, Status,
    metadata::{Ascii, MetadataValue},
};

use crate::{
    clients::{self, Clients},
    cookies::{CHOICE_AGE, cookie},
    visit::Reference,
};

/// Access tokens kept; beyond that the one that ends first goes.
const CACHED_MAX: usize = 10_000;
/// An access token is not used in its last half minute, so that it does not end on its way.
const RENEW_BEFORE: Duration = Duration::seconds(30);
/// How long a browser keeps the cookie: the longest life of a session.
const COOKIE_AGE: Duration = Duration::days(30);
/// Longest cookie that is looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 512;
/// The cookie that says which of the person's workspaces is shown. It lets nobody in: keys checks it.
const WORKSPACE_COOKIE: &str = "keymeter_workspace";
/// Longest wait for the name of the provider, without which the page for signing in is shown too.
const PROVIDER_DEADLINE: std::time::Duration = std::time::Duration::from_secs(2);
/// Workspaces to switch between, at most.
const WORKSPACES_MAX: i32 = 100;

/// What the browser holds; whoever has it is signed in.
#[derive(Clone)]
pub(crate) struct SessionToken(String);

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionToken")
    }
}

/// Who is signed in, for the few minutes that an access token lasts.
#[derive(Clone)]
pub(crate) struct Access {
    /// `Bearer <token>`
    pub(crate) bearer: MetadataValue<Ascii>,
    /// Whose keys are shown.
    pub(crate) workspace_id: WorkspaceId,
    /// The workspace's name for people.
    pub(crate) workspace: String,
    /// The workspaces that the account is in, by their names.
    pub(crate) workspaces: Vec<(WorkspaceId, String)>,
    /// What the account may do in the workspace.
    pub(crate) role: Role,
    /// The account's address.
    pub(crate) email: String,
    /// Whether the session was begun at the provider.
    pub(crate) by_provider: bool,
    /// The workspace that was asked for; the one above may be another.
    wanted: Option<WorkspaceId>,
    expires: OffsetDateTime,
}

/// Cookies and the cache of access tokens.
pub(crate) struct Sessions {
    clients: Clients,
    secure: bool,
    cache: Mutex<HashMap<[u8; 32], Arc<Access>>>,
}

impl Sessions {
    /// `secure` if pages are served over https.
    pub(crate) fn new(clients: Clients, secure: bool) -> Self {
        Self { clients, secure, cache: Mutex::default() }
    }

    /// The session that a request's cookies name.
    #[must_use]
    pub(crate) fn token(&self, jar: &CookieJar) -> Option<SessionToken> {
        let value = jar.get(self.cookie_name())?.value();
        let plausible =
            (1..=TOKEN_BYTES_MAX).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_graphic());
        plausible.then(|| SessionToken(value.to_owned()))
    }

    /// The cookie that starts a session.
    #[must_use]
    pub(crate) fn cookie(&self, session_token: String) -> Cookie<'static> {
        cookie(self.cookie_name(), session_token, COOKIE_AGE, self.secure)
    }

    /// The cookie that keeps the choice of a workspace.
    #[must_use]
    pub(crate) fn workspace_cookie(&self, workspace_id: WorkspaceId) -> Cookie<'static> {
        cookie(WORKSPACE_COOKIE, workspace_id.to_string(), CHOICE_AGE, self.secure)
    }

    /// The cookie that ends one.
    #[must_use]
    pub(crate) fn end_cookie(&self) -> Cookie<'static> {
        let mut cookie = self.cookie(String::new());
        cookie.set_max_age(Duration::ZERO);
        cookie
    }

    /// Browsers take the `__Host-` prefix only from https, and then only without a domain and for all paths.
    const fn cookie_name(&self) -> &'static str {
        if self.secure { "__Host-keymeter" } else { "keymeter_session" }
    }

    /// An access token of a session, from memory or from keys, for the wanted workspace; for the account's first
    /// one if it is not in that one any more.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` if the session has ended, `PERMISSION_DENIED` if the account is in no workspace;
    /// whatever else keys says.
    pub(crate) async fn access(
        &self,
        token: &SessionToken,
        wanted: Option<WorkspaceId>,
        reference: &Reference,
    ) -> Result<Arc<Access>, Status> {
        if let Some(access) = self.cached(&hash(token), wanted, OffsetDateTime::now_utc()) {
            return Ok(access);
        }
        let access = Arc::new(self.refresh(token, wanted, reference).await?);
        self.keep(token, &access);
        Ok(access)
    }

    /// Drops the access token of a session, so that the next request asks keys anew.
    pub(crate) fn forget(&self, token: &SessionToken) {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).remove(&hash(token));
    }

    /// An access token that says that the person gave the password just now.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` if the password is wrong or the session has ended; whatever else keys says.
    pub(crate) async fn reauthenticate(
        &self,
        token: &SessionToken,
        access: &Access,
        password: String,
        reference: &Reference,
    ) -> Result<Arc<Access>, Status> {
        let message = ReauthenticateRequest {
            session_token: token.0.clone(),
            password,
            workspace: workspace_name(access.workspace_id),
        };
        let request = clients::open(message, reference);
        let answer = self.clients.sessions.clone().reauthenticate(request).await?.into_inner();
        self.proved(token, access, answer.access_token)
    }

    /// An access token that says that the person signed in at the provider just now.
    ///
    /// # Errors
    /// As keys says.
    pub(crate) async fn reauthenticate_by_provider(
        &self,
        token: &SessionToken,
        access: &Access,
        answer: ProviderAnswer,
        reference: &Reference,
    ) -> Result<Arc<Access>, Status> {
        let message = ReauthenticateByProviderRequest {
            session_token: token.0.clone(),
            answer: Some(answer),
            workspace: workspace_name(access.workspace_id),
        };
        let request = clients::open(message, reference);
        let answer = self.clients.sessions.clone().reauthenticate_by_provider(request).await?.into_inner();
        self.proved(token, access, answer.access_token)
    }

    /// The name of the provider that people may sign in at, if there is one and keys says so in time.
    pub(crate) async fn provider(&self, reference: &Reference) -> Option<String> {
        let mut request = clients::open(GetProviderRequest {}, reference);
        request.set_timeout(PROVIDER_DEADLINE);
        let answer = self.clients.sessions.clone().get_provider(request).await.ok()?;
        Some(answer.into_inner().display_name).filter(|name| !name.is_empty())
    }

    fn proved(
        &self,
        token: &SessionToken,
        access: &Access,
        fresh: Option<AccessToken>,
    ) -> Result<Arc<Access>, Status> {
        let (bearer, expires) = bearer(fresh)?;
        let access = Arc::new(Access { bearer, expires, ..access.clone() });
        self.keep(token, &access);
        Ok(access)
    }

    /// Ends a session.
    ///
    /// # Errors
    /// What keys says; the session's access token is forgotten in any case.
    pub(crate) async fn end(&self, token: &SessionToken, reference: &Reference) -> Result<(), Status> {
        self.forget(token);
        let request = clients::open(SignOutRequest { session_token: token.0.clone() }, reference);
        self.clients.sessions.clone().sign_out(request).await.map(drop)
    }

    fn cached(
        &self,
        hash: &[u8; 32],
        wanted: Option<WorkspaceId>,
        now: OffsetDateTime,
    ) -> Option<Arc<Access>> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let good = |access: &&Arc<Access>| access.wanted == wanted && now < access.expires - RENEW_BEFORE;
        cache.get(hash).filter(good).cloned()
    }

    fn keep(&self, token: &SessionToken, access: &Arc<Access>) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        make_room(&mut cache, OffsetDateTime::now_utc());
        cache.insert(hash(token), Arc::clone(access));
    }

    async fn refresh(
        &self,
        token: &SessionToken,
        wanted: Option<WorkspaceId>,
        reference: &Reference,
    ) -> Result<Access, Status> {
        let answer = match self.ask(token, wanted, reference).await {
            Err(status) if wanted.is_some() && status.code() == Code::PermissionDenied => {
                self.ask(token, None, reference).await?
            }
            answer => answer?,
        };
        let workspace_id =
            parse_workspace_name(&answer.workspace).map_err(|error| Status::internal(error.to_string()))?;
        let (role, by_provider) = (answer.role(), answer.sign_in_method() == SignInMethod::Provider);
        let (bearer, expires) = bearer(answer.access_token)?;
        let workspace = workspace_id.to_string();
        let (workspaces, email) = (Vec::new(), answer.email);
        let mut access =
            Access { bearer, workspace_id, workspace, workspaces, role, email, by_provider, wanted, expires };
        self.name_workspaces(&mut access, reference).await;
        Ok(access)
    }

    async fn ask(
        &self,
        token: &SessionToken,
        wanted: Option<WorkspaceId>,
        reference: &Reference,
    ) -> Result<RefreshResponse, Status> {
        let workspace = wanted.map(workspace_name).unwrap_or_default();
        let message = RefreshRequest { session_token: token.0.clone(), workspace };
        let answer = self.clients.sessions.clone().refresh(clients::open(message, reference)).await?;
        Ok(answer.into_inner())
    }

    /// Without its name the workspace is shown by its id, and without the list there is none to switch to.
    async fn name_workspaces(&self, access: &mut Access, reference: &Reference) {
        let get = GetWorkspaceRequest { name: workspace_name(access.workspace_id) };
        let get = clients::authorized(get, access, reference);
        let list = ListWorkspacesRequest { page_size: WORKSPACES_MAX, ..ListWorkspacesRequest::default() };
        let list = clients::authorized(list, access, reference);
        let mut client = self.clients.workspaces.clone();
        let mut other = client.clone();
        let (own, all) = tokio::join!(client.get_workspace(get), other.list_workspaces(list));
        if let Ok(own) = own {
            access.workspace = own.into_inner().display_name;
        }
        if let Ok(all) = all {
            let named = all.into_inner().workspaces.into_iter();
            access.workspaces = named
                .filter_map(|each| Some((parse_workspace_name(&each.name).ok()?, each.display_name)))
                .collect();
        }
    }
}

/// The workspace that a request's cookies ask for.
#[must_use]
pub(crate) fn wanted(jar: &CookieJar) -> Option<WorkspaceId> {
    jar.get(WORKSPACE_COOKIE)?.value().parse().ok()
}

/// What goes into the metadata of calls, and until when.
fn bearer(token: Option<AccessToken>) -> Result<(MetadataValue<Ascii>, OffsetDateTime), Status> {
    let token = token.unwrap_or_default();
    let mut bearer: MetadataValue<Ascii> =
        format!("Bearer {}", token.token).parse().map_err(|_| Status::internal("not a token"))?;
    bearer.set_sensitive(true);
    let expires = token.expire_time.as_ref().and_then(proto::timestamp::from_proto);
    Ok((bearer, expires.ok_or_else(|| Status::internal("a token without an end"))?))
}

fn make_room(cache: &mut HashMap<[u8; 32], Arc<Access>>, now: OffsetDateTime) {
    if cache.len() < CACHED_MAX {
        return;
    }
    cache.retain(|_, access| now < access.expires);
    if cache.len() >= CACHED_MAX
        && let Some(first) = cache.iter().min_by_key(|(_, access)| access.expires).map(|(hash, _)| *hash)
    {
        cache.remove(&first);
    }
}

/// What the cache knows a session by: a copy of its keys signs nobody in.
fn hash(token: &SessionToken) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, token.0.as_bytes());
    digest.as_ref().try_into().expect("SHA-256 gives 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_bounded_and_drops_what_ends_first() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let access = |seconds| {
            Arc::new(Access {
                bearer: MetadataValue::from_static("Bearer x"),
                workspace_id: WorkspaceId::generate(),
                workspace: String::new(),
                workspaces: Vec::new(),
                role: Role::Viewer,
                email: String::new(),
                by_provider: false,
                wanted: None,
                expires: now + Duration::seconds(seconds),
            })
        };
        let key = |at: i64| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&at.to_le_bytes());
            key
        };
        let full = i64::try_from(CACHED_MAX).unwrap();
        let mut cache: HashMap<_, _> = (1..=full).map(|at| (key(at), access(at))).collect();
        make_room(&mut cache, now);
        assert_eq!((cache.len(), cache.contains_key(&key(1))), (CACHED_MAX - 1, false));
        cache.insert(key(0), access(1));
        make_room(&mut cache, now + Duration::seconds(100));
        assert_eq!(cache.len(), CACHED_MAX - 100, "what has ended goes first");
    }
}
