//! Every metric of the layer. Labels are bounded: outcomes, denials and reasons, never a workspace, a key or a path.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use domain::{Denial, Outcome};
use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Histogram, Meter},
};

use crate::{
    feed::{FeedState, Source},
    limit::{Figures, RateLimits},
    problem::Problem,
    quota::Quota,
    spool::Spool,
    verdict::Feed,
};

/// Upper bounds of the buckets of how long calls take, in seconds.
const DURATION_BOUNDS_S: [f64; 13] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// The instruments that calls touch; the others are observed when they are asked for.
#[derive(Debug)]
pub(crate) struct Metrics {
    requests: Arc<Requests>,
    /// From the first byte of a call to the last of its answer, the API's time included.
    duration: Histogram<f64>,
    /// Refused calls that are on nobody's record, by reason.
    unattributed: Counter<u64>,
}

impl Metrics {
    /// Makes all instruments; spool, feed and limits are watched as long as they live.
    pub(crate) fn new(
        spool: &Arc<Spool>,
        feed: &Arc<FeedState>,
        limits: &Arc<RateLimits>,
        quota: &Arc<Quota>,
    ) -> Self {
        let meter = global::meter("keymeter");
        observe_spool(&meter, &Arc::downgrade(spool));
        observe_feed(&meter, Arc::downgrade(feed));
        observe_limits(&meter, &Arc::downgrade(limits));
        observe_quota(&meter, Arc::downgrade(quota));
        Self {
            requests: observe_requests(&meter),
            duration: meter
                .f64_histogram("keymeter_edge_request_duration")
                .with_unit("s")
                .with_description("From the first byte of a call with a known key to the last of its answer.")
                .with_boundaries(DURATION_BOUNDS_S.to_vec())
                .build(),
            unattributed: meter
                .u64_counter("keymeter_edge_unattributed_requests")
                .with_description(
                    "Calls refused without a known key, by reason; no tenant's data counts them.",
                )
                .build(),
        }
    }

    /// A call is on record.
    pub(crate) fn answered(&self, status_code: u16, denial: Option<Denial>, took: Duration) {
        self.requests.0[Requests::place(Outcome::of(status_code), denial)].fetch_add(1, Relaxed);
        self.duration.record(took.as_secs_f64(), &[]);
    }

    /// A call was refused that belongs to nobody.
    pub(crate) fn unattributed(&self, problem: Problem) {
        self.unattributed.add(1, &[KeyValue::new("reason", problem.slug())]);
    }
}

/// How many denials there are, and none.
const DENIALS: usize = Denial::ALL.len() + 1;

/// Calls on record by outcome and denial: every call adds to it, so it is an array and no map of labels.
#[derive(Debug, Default)]
struct Requests([AtomicU64; Outcome::ALL.len() * DENIALS]);

impl Requests {
    fn place(outcome: Outcome, denial: Option<Denial>) -> usize {
        outcome as usize * DENIALS + denial.map_or(0, |denial| denial as usize + 1)
    }
}

fn observe_requests(meter: &Meter) -> Arc<Requests> {
    let requests = Arc::<Requests>::default();
    let watched = requests.clone();
    meter
        .u64_observable_counter("keymeter_edge_requests")
        .with_description("Calls with a known key, by outcome and by why the edge refused.")
        .with_callback(move |counter| {
            let denials = || [None].into_iter().chain(Denial::ALL.iter().copied().map(Some));
            let all =
                Outcome::ALL.into_iter().flat_map(|outcome| denials().map(move |denial| (outcome, denial)));
            for (outcome, denial) in all {
                let calls = watched.0[Requests::place(outcome, denial)].load(Relaxed);
                if calls > 0 {
                    let labels = [
                        KeyValue::new("outcome", outcome.as_str()),
                        KeyValue::new("denial", denial.map_or("", Denial::as_str)),
                    ];
                    counter.observe(calls, &labels);
                }
            }
        })
        .build();
    requests
}

fn observe_quota(meter: &Meter, quota: Weak<Quota>) {
    meter
        .u64_observable_counter("keymeter_edge_beyond_quota")
        .with_description(
            "Calls beyond the quota of their workspace, which are counted later; the log names the workspace.",
        )
        .with_callback(move |counter| {
            if let Some(quota) = quota.upgrade() {
                counter.observe(quota.beyond(), &[]);
            }
        })
        .build();
}

/// Name, description, value.
type Figure = (&'static str, &'static str, fn(&Spool) -> u64);

fn observe_spool(meter: &Meter, spool: &Weak<Spool>) {
    let figures: [Figure; 4] = [
        ("keymeter_edge_spool_bytes", "Bytes of the spool on the disk.", |spool| spool.stats().bytes),
        (
            "keymeter_edge_spool_bytes_max",
            "Bytes of the spool above which the oldest events are lost.",
            Spool::bytes_max,
        ),
        ("keymeter_edge_spool_segments", "Segments of the spool.", |spool| spool.stats().segments),
        ("keymeter_edge_spool_failing", "1 while the spool cannot be written.", |spool| {
            u64::from(spool.stats().failing.is_some())
        }),
    ];
    for (name, description, figure) in figures {
        let spool = spool.clone();
        meter
            .u64_observable_gauge(name)
            .with_description(description)
            .with_callback(move |gauge| {
                if let Some(spool) = spool.upgrade() {
                    gauge.observe(figure(&spool), &[]);
                }
            })
            .build();
    }
    let counts: [Figure; 2] = [
        (
            "keymeter_edge_lost_events",
            "Events lost by number: dropped by a full spool or never written.",
            |spool| spool.stats().lost_events,
        ),
        ("keymeter_edge_spool_write_errors", "Writes to the spool that failed.", |spool| {
            spool.stats().write_errors
        }),
    ];
    for (name, description, count) in counts {
        let spool = spool.clone();
        meter
            .u64_observable_counter(name)
            .with_description(description)
            .with_callback(move |counter| {
                if let Some(spool) = spool.upgrade() {
                    counter.observe(count(&spool), &[]);
                }
            })
            .build();
    }
    let spool = spool.clone();
    meter
        .f64_observable_gauge("keymeter_edge_unpublished_age")
        .with_unit("s")
        .with_description("Age of the oldest ended call that may not be published yet.")
        .with_callback(move |gauge| {
            if let Some(clearance) = spool.upgrade().and_then(|spool| spool.clearance()) {
                gauge.observe((time::OffsetDateTime::now_utc() - clearance.until).as_seconds_f64(), &[]);
            }
        })
        .build();
}

fn observe_feed(meter: &Meter, feed: Weak<FeedState>) {
    let state = feed.clone();
    meter
        .f64_observable_gauge("keymeter_edge_feed_age")
        .with_unit("s")
        .with_description(
            "Time since the list of keys was last known to be current; absent before the first.",
        )
        .with_callback(move |gauge| {
            if let Some(age) = state.upgrade().and_then(|feed| feed.age()) {
                gauge.observe(age.as_secs_f64(), &[]);
            }
        })
        .build();
    let version = feed.clone();
    meter
        .u64_observable_gauge("keymeter_edge_feed_version")
        .with_description("Highest version of the key feed that calls are verified with.")
        .with_callback(move |gauge| {
            if let Some(feed) = version.upgrade() {
                gauge.observe(feed.version(), &[]);
            }
        })
        .build();
    let source = feed.clone();
    meter
        .u64_observable_gauge("keymeter_edge_feed_source")
        .with_description("1 for the source that the list of keys comes from now; 0 for the others.")
        .with_callback(move |gauge| {
            if let Some(feed) = source.upgrade() {
                let now = feed.source();
                for source in [Source::Nats, Source::Keys] {
                    let label = KeyValue::new("source", source.as_str());
                    gauge.observe(u64::from(now == Some(source)), &[label]);
                }
            }
        })
        .build();
    meter
        .u64_observable_gauge("keymeter_edge_feed_stale")
        .with_description("1 while calls are decided by a list of keys that is too old, as was chosen.")
        .with_callback(move |gauge| {
            if let Some(feed) = feed.upgrade() {
                gauge.observe(u64::from(feed.feed() == Feed::Stale), &[]);
            }
        })
        .build();
}

/// Name, description, whether it only grows, value.
type LimitFigure = (&'static str, &'static str, bool, fn(&Figures) -> u64);

fn observe_limits(meter: &Meter, limits: &Weak<RateLimits>) {
    let figures: [LimitFigure; 8] = [
        ("keymeter_edge_limit_keys", "Keys with something used of a rate limit.", false, |now| now.keys),
        (
            "keymeter_edge_limit_peers",
            "Other edges that said something of rate limits in the last 5 s.",
            false,
            |now| now.peers,
        ),
        (
            "keymeter_edge_limit_local",
            "1 while this edge counts rate limits alone, since the others cannot be told.",
            false,
            |now| now.is_local.into(),
        ),
        ("keymeter_edge_limit_save_failing", "1 while what is used cannot be saved.", false, |now| {
            now.is_save_failing.into()
        }),
        ("keymeter_edge_limit_uses_sent", "Uses of rate limits told to other edges.", true, |now| now.sent),
        ("keymeter_edge_limit_uses_received", "Uses of rate limits heard of other edges.", true, |now| {
            now.heard
        }),
        (
            "keymeter_edge_limit_uses_refused",
            "Uses or messages that were not taken: unreadable, of a start that is over, or too many.",
            true,
            |now| now.refused,
        ),
        ("keymeter_edge_limit_gaps", "Lost messages that were noticed and asked for again.", true, |now| {
            now.gaps
        }),
    ];
    for (name, description, is_count, figure) in figures {
        let limits = limits.clone();
        let value = move || limits.upgrade().map(|limits| figure(&limits.figures()));
        if is_count {
            let counter = meter.u64_observable_counter(name).with_description(description);
            counter
                .with_callback(move |counter| value().iter().for_each(|value| counter.observe(*value, &[])))
                .build();
        } else {
            let gauge = meter.u64_observable_gauge(name).with_description(description);
            gauge
                .with_callback(move |gauge| value().iter().for_each(|value| gauge.observe(*value, &[])))
                .build();
        }
    }
    let limits = limits.clone();
    meter
        .f64_observable_gauge("keymeter_edge_limit_gossip_age")
        .with_unit("s")
        .with_description("Time since a message of this edge's own last came back; absent before the first.")
        .with_callback(move |gauge| {
            if let Some(age) = limits.upgrade().and_then(|limits| limits.figures().age) {
                gauge.observe(age.as_secs_f64(), &[]);
            }
        })
        .build();
}
