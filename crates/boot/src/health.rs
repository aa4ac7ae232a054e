//! Liveness and readiness. `/healthz` looks at nothing but the process; `/readyz` lists what is missing and
//! since when.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use axum::{Json, Router, http::StatusCode, routing::get};
use opentelemetry::{KeyValue, metrics::Meter};
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::sync::watch;

/// Missing until the first need is named, so that no process is ready before it has said what it needs.
const START: &str = "start";

/// The needs of one process, which names at least one.
#[derive(Clone)]
pub struct Health {
    missing: Arc<Mutex<BTreeMap<&'static str, Missing>>>,
    named: Arc<Mutex<BTreeSet<&'static str>>>,
    notes: Arc<Mutex<BTreeMap<&'static str, String>>>,
    ready: watch::Sender<bool>,
}

/// One thing that the process can not do its work without, `nats` for example.
#[derive(Clone)]
pub struct Need {
    name: &'static str,
    health: Health,
}

#[derive(Clone, Serialize)]
pub(crate) struct Missing {
    since: String,
    pub(crate) reason: String,
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    missing: BTreeMap<&'static str, Missing>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    notes: BTreeMap<&'static str, String>,
}

impl Default for Health {
    fn default() -> Self {
        let health = Self {
            missing: Arc::default(),
            named: Arc::default(),
            notes: Arc::default(),
            ready: watch::Sender::new(false),
        };
        Need { name: START, health: health.clone() }.down("starting");
        health
    }
}

impl Health {
    /// Names a need; it counts as missing until [`Need::up`].
    #[must_use]
    pub fn need(&self, name: &'static str) -> Need {
        let need = Need { name, health: self.clone() };
        self.named.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
        need.down("not reached yet");
        Need { name: START, health: self.clone() }.up();
        need
    }

    /// True while nothing is missing; changes are seen by the receiver.
    #[must_use]
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// `/healthz` and `/readyz`, to be merged into a service's own port as well.
    pub fn router(&self) -> Router {
        let health = self.clone();
        let readiness = move || {
            let (status, readiness) = health.readiness();
            std::future::ready((status, Json(readiness)))
        };
        Router::new().route("/healthz", get(|| std::future::ready("ok\n"))).route("/readyz", get(readiness))
    }

    /// Makes `keymeter_missing{need}`: 1 for each need that is missing, 0 for the others.
    pub(crate) fn observe(&self, meter: &Meter) {
        let health = self.clone();
        meter
            .u64_observable_gauge("keymeter_missing")
            .with_description("1 for what the process misses, 0 for what it has of what it needs.")
            .with_callback(move |gauge| {
                let missing = health.missing();
                for need in health.named.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                    let is_missing = missing.contains_key(need).into();
                    gauge.observe(is_missing, &[KeyValue::new("need", *need)]);
                }
            })
            .build();
    }

    fn readiness(&self) -> (StatusCode, Readiness) {
        let missing = self.missing();
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let status = if missing.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, Readiness { ready: missing.is_empty(), missing, notes })
    }

    pub(crate) fn missing(&self) -> BTreeMap<&'static str, Missing> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<&'static str, Missing>)) {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut missing);
        let ready = missing.is_empty();
        self.ready.send_if_modified(|was| std::mem::replace(was, ready) != ready);
    }
}

impl Need {
    /// The name that it was made with.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// It is there, and something is to be known of it; `/readyz` says so until it is down or up again.
    pub fn up_with(&self, note: String) {
        self.up();
        self.health.notes.lock().unwrap_or_else(PoisonError::into_inner).insert(self.name, note);
    }

    /// It is there.
    pub fn up(&self) {
        self.health.notes.lock().unwrap_or_else(PoisonError::into_inner).remove(self.name);
        self.health.change(|missing| {
            missing.remove(self.name);
        });
    }

    /// It is away; `reason` is a short sentence for the operator. Keeps the time of the first call in a row.
    pub fn down(&self, reason: impl Into<String>) {
        let since = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        let reason = reason.into();
        self.health.notes.lock().unwrap_or_else(PoisonError::into_inner).remove(self.name);
        self.health.change(|missing| {
            let since = missing.get(self.name).map_or(since, |known| known.since.clone());
            missing.insert(self.name, Missing { since, reason });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_need_is_up() {
        let health = Health::default();
        assert!(!*health.ready().borrow(), "nothing was asked for yet");
        let (nats, postgres) = (health.need("nats"), health.need("postgres"));
        assert!(!*health.ready().borrow());
        nats.up();
        postgres.up();
        assert!(*health.ready().borrow());
        nats.down("connection refused");
        let since = health.missing()["nats"].since.clone();
        nats.down("timed out");
        let missing = health.missing();
        assert_eq!((missing["nats"].reason.as_str(), &missing["nats"].since), ("timed out", &since));
        assert!(!*health.ready().borrow());
    }

    #[test]
    fn a_note_is_shown_until_it_is_out_of_date() {
        let health = Health::default();
        let keys = health.need("keys");
        let noted = || (health.readiness().0.as_u16(), health.readiness().1.notes.get("keys").cloned());
        keys.up_with("too old".into());
        assert_eq!(noted(), (200, Some("too old".into())));
        keys.up();
        assert_eq!(noted(), (200, None));
        keys.up_with("too old".into());
        keys.down("gone");
        assert_eq!(noted(), (503, None));
    }
}
