//! gRPC clients of keys and query: they connect on first use, every call has a deadline.

use std::time::Duration;

use boot::{Health, Need};
use proto::{
    keys::{
        audit_service_client::AuditServiceClient, keys_service_client::KeysServiceClient,
        members_service_client::MembersServiceClient,
        service_tokens_service_client::ServiceTokensServiceClient,
        sessions_service_client::SessionsServiceClient, workspaces_service_client::WorkspacesServiceClient,
    },
    usage::usage_service_client::UsageServiceClient,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use trace::rpc;

use crate::{Config, HttpUrl, session::Access, visit::Reference};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Deadline of a call to keys.
const KEYS_DEADLINE: Duration = Duration::from_secs(10);
/// Deadline of a call to query: its own limit, and a little to say so.
const QUERY_DEADLINE: Duration = Duration::from_secs(31);
/// How often it is looked at whether keys and query can be reached.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// All clients; a clone shares the connections.
#[derive(Clone)]
pub(crate) struct Clients {
    /// Sign-in.
    pub(crate) sessions: SessionsServiceClient<rpc::Client<Channel>>,
    /// Workspaces.
    pub(crate) workspaces: WorkspacesServiceClient<rpc::Client<Channel>>,
    /// Members and invitations.
    pub(crate) members: MembersServiceClient<rpc::Client<Channel>>,
    /// Service tokens.
    pub(crate) service_tokens: ServiceTokensServiceClient<rpc::Client<Channel>>,
    /// The audit trail.
    pub(crate) audit: AuditServiceClient<rpc::Client<Channel>>,
    /// Keys.
    pub(crate) keys: KeysServiceClient<rpc::Client<Channel>>,
    /// Usage.
    pub(crate) usage: UsageServiceClient<rpc::Client<Channel>>,
    keys_channel: Channel,
    query_channel: Channel,
}

impl Clients {
    /// Clients of the addresses in `config`.
    pub(crate) fn new(config: &Config) -> anyhow::Result<Self> {
        let identity = config.identity.identity()?;
        let channel = |setting, url: &HttpUrl, deadline| {
            tls::channel(setting, url.uri(), identity.as_ref(), |endpoint| {
                endpoint
                    .connect_timeout(CONNECT_TIMEOUT)
                    .timeout(deadline)
                    .http2_keep_alive_interval(KEEPALIVE)
                    .keep_alive_while_idle(true)
            })
        };
        let keys_channel = channel("KEYMETER_UI_KEYS_URL", &config.keys_url, KEYS_DEADLINE)?;
        let query_channel = channel("KEYMETER_UI_QUERY_URL", &config.query_url, QUERY_DEADLINE)?;
        let keys = rpc::Client(keys_channel.clone());
        Ok(Self {
            sessions: SessionsServiceClient::new(keys.clone()),
            workspaces: WorkspacesServiceClient::new(keys.clone()),
            members: MembersServiceClient::new(keys.clone()),
            service_tokens: ServiceTokensServiceClient::new(keys.clone()),
            audit: AuditServiceClient::new(keys.clone()),
            keys: KeysServiceClient::new(keys),
            usage: UsageServiceClient::new(rpc::Client(query_channel.clone())),
            keys_channel,
            query_channel,
        })
    }

    /// Keeps `/readyz` true to whether both services answer. What they miss themselves is theirs to say: a page
    /// that explains it is better than no page.
    pub(crate) fn watch(&self, health: &Health, shutdown: &CancellationToken) {
        for (name, channel) in [("keys", &self.keys_channel), ("query", &self.query_channel)] {
            tokio::spawn(watch(health.need(name), channel.clone(), shutdown.clone()));
        }
    }
}

/// A call without an access token.
pub(crate) fn open<T>(message: T, reference: &Reference) -> Request<T> {
    let mut request = Request::new(message);
    if let Ok(value) = reference.as_str().parse() {
        request.metadata_mut().insert("x-request-id", value);
    }
    request
}

/// A call in the name of whoever signed in.
pub(crate) fn authorized<T>(message: T, access: &Access, reference: &Reference) -> Request<T> {
    let mut request = open(message, reference);
    request.metadata_mut().insert("authorization", access.bearer.clone());
    request
}

async fn watch(need: Need, channel: Channel, shutdown: CancellationToken) {
    let mut missing = None;
    loop {
        match answers(channel.clone()).await {
            Ok(()) => {
                need.up();
                if missing.take().is_some() {
                    tracing::info!(need = need.name(), "answers again");
                }
            }
            Err(reason) if missing.as_ref() == Some(&reason) => {}
            Err(reason) => {
                tracing::warn!(need = need.name(), reason, "does not answer; its pages say so");
                need.down(reason.clone());
                missing = Some(reason);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(WATCH_EVERY) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Whether a service answers at all.
async fn answers(channel: Channel) -> Result<(), String> {
    let mut request = Request::new(HealthCheckRequest::default());
    request.set_timeout(CONNECT_TIMEOUT);
    let mut client = HealthClient::new(channel);
    let answer = tokio::time::timeout(CONNECT_TIMEOUT * 2, client.check(request)).await;
    match answer {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(status)) => Err(reason(&status)),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

/// The innermost cause, which says more than `transport error`.
fn reason(status: &Status) -> String {
    let mut cause: &dyn std::error::Error = status;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
