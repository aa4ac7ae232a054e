//! gRPC clients of keys and query: every call has a deadline and an access token, reads are tried again while a
//! service is away.

use std::{fs, path::Path, time::Duration};

use proto::{
    keys::{
        keys_service_client::KeysServiceClient, sessions_service_client::SessionsServiceClient,
        workspaces_service_client::WorkspacesServiceClient,
    },
    resource::workspace_name,
    usage::usage_service_client::UsageServiceClient,
};
use tonic::{
    Code, Request, Response, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Uri},
};

use crate::{
    access::{Access, Credentials},
    arguments::Connection,
    failure::{Failure, Service},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Deadline of a call to keys, beside what it waits for edges.
const KEYS_DEADLINE: Duration = Duration::from_secs(10);
/// Deadline of a call to query: its own limit, and a little to say so.
const QUERY_DEADLINE: Duration = Duration::from_secs(31);
/// How often a read is asked at most, and the pause before the second time; it doubles.
const READS_MAX: u32 = 4;
const PAUSE: Duration = Duration::from_millis(250);

/// All clients, and as whom they ask.
pub(crate) struct Clients {
    pub(crate) sessions: SessionsServiceClient<Channel>,
    pub(crate) workspaces: WorkspacesServiceClient<Channel>,
    pub(crate) keys: KeysServiceClient<Channel>,
    pub(crate) usage: UsageServiceClient<Channel>,
    pub(crate) connection: Connection,
    /// Who asks, once that is known.
    credentials: Option<Credentials>,
    access: Option<Access>,
}

impl Clients {
    /// Clients of the addresses; they connect on first use.
    pub(crate) fn new(connection: Connection) -> Result<Self, Failure> {
        let tls = tls(&connection)?;
        let keys = channel(&connection.keys_url, tls.as_ref())?;
        let query = channel(&connection.query_url, tls.as_ref())?;
        Ok(Self {
            sessions: SessionsServiceClient::new(keys.clone()),
            workspaces: WorkspacesServiceClient::new(keys.clone()),
            keys: KeysServiceClient::new(keys),
            usage: UsageServiceClient::new(query),
            connection,
            credentials: None,
            access: None,
        })
    }

    /// `workspaces/{workspace}`: whose keys and calls are meant.
    pub(crate) async fn workspace(&mut self) -> Result<String, Failure> {
        Ok(workspace_name(self.access().await?.workspace_id))
    }

    /// An access token, a new one if the last one is about to end.
    pub(crate) async fn access(&mut self) -> Result<&Access, Failure> {
        let known = self.access.take().filter(|access| access.is_good(time::OffsetDateTime::now_utc()));
        let access = match known {
            Some(access) => access,
            None => {
                let credentials = match self.credentials.take() {
                    Some(credentials) => credentials,
                    None => Credentials::find(&self.connection)?,
                };
                let access = credentials.trade(self).await;
                self.credentials = Some(credentials);
                access?
            }
        };
        Ok(self.access.insert(access))
    }

    /// Asks with this access token from now on.
    pub(crate) fn set_access(&mut self, access: Access) {
        self.access = Some(access);
    }

    /// Asks for another access token the next time, whatever the last one says of its end.
    pub(crate) fn forget_access(&mut self) {
        self.access = None;
    }

    /// A message in the name of whoever asks.
    pub(crate) async fn signed<Q>(&mut self, message: Q) -> Result<Request<Q>, Failure> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.access().await?.bearer.clone());
        Ok(request)
    }

    /// Asks for something that changes nothing: again while the service is away.
    pub(crate) async fn read<Q: Clone, A>(
        &mut self,
        service: Service,
        message: Q,
        rpc: impl AsyncFn(Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, Failure> {
        let mut pause = PAUSE;
        for asked in 1.. {
            let mut request = self.signed(message.clone()).await?;
            request.set_timeout(if service == Service::Keys { KEYS_DEADLINE } else { QUERY_DEADLINE });
            match rpc(request).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) if status.code() == Code::Unavailable && asked < READS_MAX => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Err(status) => return Err(self.failure(service, &status)),
            }
        }
        unreachable!("the last time returns")
    }

    /// Asks keys for a change, once; `more` is what it may wait for.
    pub(crate) async fn change<Q, A>(
        &mut self,
        message: Q,
        more: Duration,
        rpc: impl AsyncFnOnce(Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, Failure> {
        let mut request = self.signed(message).await?;
        request.set_timeout(KEYS_DEADLINE + more);
        let answer = rpc(request).await.map_err(|status| self.failure(Service::Keys, &status))?;
        Ok(answer.into_inner())
    }

    /// A call to keys by which one gets an access token, so without one.
    pub(crate) async fn open<Q, A>(
        &self,
        message: Q,
        rpc: impl AsyncFnOnce(SessionsServiceClient<Channel>, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, Failure> {
        let mut request = Request::new(message);
        request.set_timeout(KEYS_DEADLINE);
        let answer = rpc(self.sessions.clone(), request).await;
        Ok(answer.map_err(|status| self.failure(Service::Keys, &status))?.into_inner())
    }

    /// What a service's answer comes to.
    pub(crate) fn failure(&self, service: Service, status: &Status) -> Failure {
        let url = match service {
            Service::Keys => &self.connection.keys_url,
            Service::Query => &self.connection.query_url,
        };
        Failure::of(service, url.to_string().trim_end_matches('/'), status)
    }
}

fn channel(url: &Uri, tls: Option<&ClientTlsConfig>) -> Result<Channel, Failure> {
    let refused = |error: tonic::transport::Error| {
        let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        Failure::usage(format!(
            "{url}: {cause}; do --client-cert-file and --client-key-file belong together?"
        ))
    };
    let mut endpoint = Endpoint::from(url.clone())
        .user_agent(concat!("keymeter/", env!("CARGO_PKG_VERSION")))
        .map_err(refused)?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE);
    if url.scheme_str() == Some("https") {
        let tls = tls.cloned().unwrap_or_else(|| ClientTlsConfig::new().with_native_roots());
        endpoint = endpoint.tls_config(tls).map_err(refused)?;
    } else if tls.is_some() {
        let why =
            "certificates are of no use with http://, which sends everything in the clear; write https://";
        return Err(Failure::usage(format!("{url}: {why}")));
    }
    Ok(endpoint.connect_lazy())
}

/// What was asked for beyond the system's roots.
fn tls(connection: &Connection) -> Result<Option<ClientTlsConfig>, Failure> {
    // An authority's file without a certificate would be taken for one that trusts nobody.
    let read = |option: &str, path: &Path, what: &str| {
        let pem = fs::read_to_string(path).map_err(|error| Failure::file(option, path, &error))?;
        let has = pem
            .lines()
            .any(|line| line.starts_with("-----BEGIN ") && line.ends_with(&format!("{what}-----")));
        if has {
            Ok(pem)
        } else {
            Err(Failure::usage(format!("{option} {} has no {what} in PEM", path.display())))
        }
    };
    let (certificate, private_key) = ("CERTIFICATE", "PRIVATE KEY");
    let mut tls = ClientTlsConfig::new();
    tls = match &connection.ca_file {
        Some(path) => tls.ca_certificate(Certificate::from_pem(read("--ca-file", path, certificate)?)),
        None => tls.with_native_roots(),
    };
    tls = match (&connection.client_cert_file, &connection.client_key_file) {
        (Some(cert), Some(key)) => {
            let cert = read("--client-cert-file", cert, certificate)?;
            tls.identity(Identity::from_pem(cert, read("--client-key-file", key, private_key)?))
        }
        (None, None) => tls,
        _ => return Err(Failure::usage("--client-cert-file and --client-key-file go together; give both")),
    };
    let is_asked = connection.ca_file.is_some() || connection.client_cert_file.is_some();
    Ok(is_asked.then_some(tls))
}
