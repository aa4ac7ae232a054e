//! Every metric of the layer. Labels are bounded: outcomes, denials and reasons, never a key or a path.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use domain::{Denial, Outcome};
use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Meter},
};

use crate::{feed::FeedState, problem::Problem, spool::Spool};

/// The instruments that calls touch; the others are observed when they are asked for.
#[derive(Debug)]
pub(crate) struct Metrics {
    requests: Arc<Requests>,
    /// Refused calls that are on nobody's record, by reason.
    unattributed: Counter<u64>,
}

impl Metrics {
    /// Makes all instruments; spool and feed are watched as long as they live.
    pub(crate) fn new(spool: &Arc<Spool>, feed: &Arc<FeedState>) -> Self {
        let meter = global::meter("keymeter");
        observe_spool(&meter, &Arc::downgrade(spool));
        observe_feed(&meter, Arc::downgrade(feed));
        Self {
            requests: observe_requests(&meter),
            unattributed: meter
                .u64_counter("keymeter_edge_unattributed_requests")
                .with_description(
                    "Calls refused without a known key, by reason; no tenant's data counts them.",
                )
                .build(),
        }
    }

    /// A call is on record.
    pub(crate) fn answered(&self, status_code: u16, denial: Option<Denial>) {
        self.requests.0[Requests::place(Outcome::of(status_code), denial)].fetch_add(1, Relaxed);
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

/// Name, description, value.
type Figure = (&'static str, &'static str, fn(&Spool) -> u64);

fn observe_spool(meter: &Meter, spool: &Weak<Spool>) {
    let figures: [Figure; 3] = [
        ("keymeter_edge_spool_bytes", "Bytes of the spool on the disk.", |spool| spool.stats().bytes),
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
    meter
        .u64_observable_gauge("keymeter_edge_feed_version")
        .with_description("Highest version of the key feed that calls are verified with.")
        .with_callback(move |gauge| {
            if let Some(feed) = feed.upgrade() {
                gauge.observe(feed.version(), &[]);
            }
        })
        .build();
}
