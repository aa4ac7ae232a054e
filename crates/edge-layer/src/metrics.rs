//! Every metric of the layer. Labels are bounded: outcomes, denials and reasons, never a key or a path.

use std::sync::{Arc, Weak};

use domain::{Denial, Outcome};
use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Meter},
};

use crate::{
    feed::{FeedState, Source},
    problem::Problem,
    spool::Spool,
    verdict::Feed,
};

/// The instruments that calls touch; the others are observed when they are asked for.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// Calls on record by outcome and denial.
    requests: Counter<u64>,
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
            requests: meter
                .u64_counter("keymeter_edge_requests")
                .with_description("Calls with a known key, by outcome and by why the edge refused.")
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
    pub(crate) fn answered(&self, status_code: u16, denial: Option<Denial>) {
        let labels = [
            KeyValue::new("outcome", Outcome::of(status_code).as_str()),
            KeyValue::new("denial", denial.map_or("", Denial::as_str)),
        ];
        self.requests.add(1, &labels);
    }

    /// A call was refused that belongs to nobody.
    pub(crate) fn unattributed(&self, problem: Problem) {
        self.unattributed.add(1, &[KeyValue::new("reason", problem.slug())]);
    }
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
