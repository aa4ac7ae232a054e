//! The steps of a request's path one by one, for benches: on a full table and on a real spool. Hidden, and no part
//! of what the layer promises.

use std::{
    convert::Infallible,
    future::ready,
    hint::black_box,
    path::Path,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use domain::{AddressStorage, EdgeId, Environment, KeyId, KeyState, Origin, Secret, SecretId, WorkspaceId};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use proto::events as pb;
use time::OffsetDateTime;
use tower::{Layer as _, Service as _, service_fn};

use crate::{
    capture::Recorder,
    credential,
    feed::{FeedState, Source, WhenFeedLost},
    forwarded::ForwardedHeader,
    key_table::{KeyEntry, KeyTable, Policy},
    layer::{Arrival, EdgeLayer, Shared},
    limit::{KeyLimits, RateLimits},
    metrics::Metrics,
    network,
    quota::Quota,
    route::Routes,
    routes::RouteTemplates,
    scopes::RequiredScopes,
    spool::{Limits, Spool},
    verdict::{Asked, Verdict, decide},
};

/// How long the keys of a bench are current.
const FEED_LOST_AFTER: std::time::Duration = std::time::Duration::from_secs(86_400);
/// As many as an edge has by default.
const SHARDS: u16 = 4;
/// Room of a bench's spool, in bytes; what is older goes.
const LIMITS: Limits = Limits { bytes_max: 256 << 20, segment_bytes_max: 8 << 20 };

/// A table full of keys, and requests with secrets that are in it or not.
pub struct Verifying {
    table: KeyTable,
    feed: FeedState,
    secrets: Vec<Secret>,
}

impl Verifying {
    /// A table of so many keys.
    #[must_use]
    pub fn new(keys: usize) -> Self {
        let secrets: Vec<Secret> = (0..keys).map(|_| Secret::generate(Environment::Live)).collect();
        let table = KeyTable::default();
        table.merge(secrets.iter().map(|secret| (secret.hash(), entry())));
        let feed = FeedState::new(FEED_LOST_AFTER, WhenFeedLost::Refuse);
        feed.is_current_at(tokio::time::Instant::now(), Source::Nats);
        Self { table, feed, secrets }
    }

    /// The headers of a request with a secret of the table; neighbouring numbers are far from each other in it.
    #[must_use]
    pub fn hit(&self, number: usize) -> HeaderMap {
        let at = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % self.secrets.len();
        headers(&self.secrets[at])
    }

    /// The headers of a request with a well-formed secret that no key has.
    #[must_use]
    pub fn miss(&self) -> HeaderMap {
        headers(&Secret::generate(Environment::Live))
    }

    /// Whether a call is admitted: parse, checksum, hash, lookup, verdict.
    #[must_use]
    pub fn verify(&self, headers: &HeaderMap) -> bool {
        let Ok((hash, _)) = credential::extract(headers) else { return false };
        let peer = Some([127, 0, 0, 1].into());
        let client = network::client(peer, headers, &[], ForwardedHeader::default());
        let asked = Asked { at: OffsetDateTime::now_utc(), client, scope: None, is_foreign: false };
        matches!(decide(self.table.get(&hash), self.feed.feed(), asked), Verdict::Admit(_))
    }
}

/// Calls of keys with a limit that all of them use.
pub struct Limiting {
    limits: RateLimits,
    entries: Vec<KeyEntry>,
}

/// A key that was found.
pub struct Found(KeyEntry);

impl Limiting {
    /// So many keys, each called once before.
    ///
    /// # Panics
    /// If the folder can not be used.
    #[must_use]
    pub fn new(keys: usize, folder: &Path) -> Self {
        let limits = RateLimits::open(folder, EdgeId::generate(), 1).expect("the folder can be used");
        let entries: Vec<KeyEntry> = (0..keys).map(|_| limited()).collect();
        let began = Instant::now();
        for entry in &entries {
            let _ = limits.check(entry, began);
        }
        Self { limits, entries }
    }

    /// A key as verification hands it on; neighbouring numbers are far from each other.
    #[must_use]
    pub fn key(&self, number: usize) -> Found {
        Found(self.entries[number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % self.entries.len()].clone())
    }

    /// Whether a call with it is admitted.
    #[must_use]
    pub fn check(&self, key: &Found) -> bool {
        self.limits.check(&key.0, Instant::now()).is_some_and(|checked| checked.denial().is_none())
    }
}

/// Calls that are written down.
pub struct Capturing {
    shared: Arc<Shared>,
    entry: KeyEntry,
    secret: Secret,
}

impl Capturing {
    /// A spool in `folder`.
    ///
    /// # Panics
    /// If the folder can not be used.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        let spool = Arc::new(Spool::open(folder, LIMITS).expect("the folder can be used"));
        let (feed, table) =
            (Arc::new(FeedState::new(FEED_LOST_AFTER, WhenFeedLost::Refuse)), Arc::<KeyTable>::default());
        let (secret, entry) = (Secret::generate(Environment::Live), limited());
        table.merge([(secret.hash(), entry.clone())]);
        feed.is_current_at(tokio::time::Instant::now(), Source::Nats);
        let limits = RateLimits::open(folder, spool.edge_id(), spool.boot_epoch());
        let limits = Arc::new(limits.expect("the folder can be used"));
        let quota = Arc::new(Quota::new(u32::MAX));
        let recorder = Recorder {
            metrics: Metrics::new(&spool, &feed, &limits, &quota),
            spool,
            shards: SHARDS,
            quota,
            is_cutting: false.into(),
        };
        let shared = Shared {
            table,
            feed,
            limits,
            recorder: Arc::new(recorder),
            routes: Routes::new(RouteTemplates::default(), 1000),
            region: "eu-1".into(),
            required_scopes: RequiredScopes::default(),
            trusted_proxies: Vec::new(),
            forwarded_header: ForwardedHeader::default(),
            resource_id_header: None,
            environment: None,
            forward_credentials: false,
        };
        Self { shared: Arc::new(shared), entry, secret }
    }

    /// A request as wrk sends it, with what a tracing client adds.
    #[must_use]
    pub fn request(&self, number: usize) -> Request<()> {
        let mut request =
            Request::get(format!("/v1/orders/{number}/items")).body(()).expect("a good address");
        *request.headers_mut() = headers(&self.secret);
        let trace = HeaderValue::from_static("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        request.headers_mut().insert("traceparent", trace);
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static("acme-orders/4.2 (linux)"));
        request
    }

    /// A whole call as the layer records it: its event before the answer, its end after.
    pub fn record(&self, request: &Request<()>) {
        let arrival = Arrival::now();
        let client =
            network::client(Some([127, 0, 0, 1].into()), request.headers(), &[], ForwardedHeader::default());
        let call = self.shared.begin(request, &[], &self.entry, client, None, arrival);
        poll_to_end(call.answered(200, Origin::Upstream, None));
        drop(black_box(call));
    }

    /// A call through the whole layer, to a service that answers at once. Returns the answer's status.
    #[must_use]
    pub fn call(&self, request: Request<()>) -> StatusCode {
        let inner = service_fn(|_| ready(Ok::<_, Infallible>(Response::new(Full::from("ok")))));
        let mut service = EdgeLayer(self.shared.clone()).layer(inner);
        let answer = poll_to_end(service.call(request));
        let (head, body) = answer.unwrap_or_else(|never| match never {}).into_parts();
        let body = poll_to_end(body.collect());
        drop(black_box(body));
        head.status
    }
}

/// What comes of a future that waits for nothing but its turn.
fn poll_to_end<T>(future: impl Future<Output = T>) -> T {
    let (mut future, mut cx) = (pin!(future), Context::from_waker(Waker::noop()));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
    }
}

fn entry() -> KeyEntry {
    KeyEntry {
        workspace_id: WorkspaceId::generate(),
        key_id: KeyId::generate(),
        secret_id: SecretId::generate(),
        version: 1,
        feed_version: 1,
        state: KeyState::Active,
        address_storage: AddressStorage::Whole,
        policy: None,
    }
}

/// With a limit that is never reached.
fn limited() -> KeyEntry {
    let limit = pb::RateLimit { name: "minute".into(), requests: 1_000_000_000, window_s: 60 };
    let policy = Policy { limits: KeyLimits::read(&[limit]), ..Policy::default() };
    KeyEntry { policy: Some(Arc::new(policy)), ..entry() }
}

fn headers(secret: &Secret) -> HeaderMap {
    let bearer = HeaderValue::try_from(format!("Bearer {}", secret.reveal())).expect("a secret is ASCII");
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(header::HOST, HeaderValue::from_static("api.example.com"));
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(header::AUTHORIZATION, bearer);
    headers
}
