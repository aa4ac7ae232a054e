//! All metrics of this service.

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Meter},
};
use proto::keys::VerificationCode;

/// The instruments. Clones count together.
#[derive(Clone)]
pub struct Metrics {
    key_calls: Counter<u64>,
    verifications: Counter<u64>,
    sign_ins: Counter<u64>,
    feed_entries: Counter<u64>,
    feed_refills: Counter<u64>,
    feed_foreign_values: Counter<u64>,
    feed_version: Gauge<u64>,
    activity_messages: Counter<u64>,
}

/// What was done with a key.
#[derive(Debug, Clone, Copy)]
pub enum Change {
    /// Created, or found again by a repeated request.
    Created,
    /// Updated.
    Updated,
    /// Deleted, or found deleted.
    Deleted,
    /// Disabled, or found disabled.
    Disabled,
    /// Enabled, or found enabled.
    Enabled,
    /// Given a new secret, or found with it by a repeated request.
    Rotated,
    /// Rid of a secret, or found without it.
    SecretRetired,
    /// Reported as leaked.
    Exposed,
    /// Its secret was shown again.
    Revealed,
}

/// What came of an attempt to sign in.
#[derive(Debug, Clone, Copy)]
pub enum SignIn {
    /// A session was started.
    Good,
    /// Wrong e-mail or password, or nobody that the provider vouches for.
    Wrong,
    /// The provider gave no answer.
    ProviderAway,
    /// Not even looked at.
    Throttled,
}

/// What became of a message; exactly one for each.
#[derive(Debug, Clone, Copy)]
pub enum Fate {
    /// Postgres has it.
    Applied,
    /// Nobody can read it; it will not come again.
    Unreadable,
}

impl Metrics {
    /// Makes the instruments.
    #[must_use]
    pub fn new(meter: &Meter) -> Self {
        let counter =
            |name: &'static str, text: &'static str| meter.u64_counter(name).with_description(text).build();
        Self {
            key_calls: counter("keymeter_key_calls", "Successful calls on keys, by what they did"),
            verifications: counter("keymeter_key_verifications", "Verifications over gRPC, by their code"),
            sign_ins: counter("keymeter_sign_ins", "Attempts to sign in, by what came of them"),
            feed_entries: counter("keymeter_feed_entries", "Entries of the outbox that the bucket has"),
            feed_refills: counter("keymeter_feed_refills", "Times that the bucket was filled again"),
            feed_foreign_values: counter(
                "keymeter_feed_foreign_values",
                "Values of the bucket that somebody else wrote, and that were put right",
            ),
            feed_version: meter
                .u64_gauge("keymeter_feed_version")
                .with_description("The newest feed version that the bucket has")
                .build(),
            activity_messages: counter(
                "keymeter_key_activity_messages",
                "Messages on last uses, by their fate",
            ),
        }
    }

    /// A call on a key succeeded.
    pub fn changed(&self, change: Change) {
        let name = match change {
            Change::Created => "created",
            Change::Updated => "updated",
            Change::Deleted => "deleted",
            Change::Disabled => "disabled",
            Change::Enabled => "enabled",
            Change::Rotated => "rotated",
            Change::SecretRetired => "secret_retired",
            Change::Exposed => "exposed",
            Change::Revealed => "revealed",
        };
        self.key_calls.add(1, &[KeyValue::new("change", name)]);
    }

    /// A secret was verified.
    pub fn verified(&self, code: VerificationCode) {
        let name = match code {
            VerificationCode::Valid => "valid",
            VerificationCode::Malformed => "malformed",
            VerificationCode::NotFound => "not_found",
            VerificationCode::Expired => "expired",
            VerificationCode::Deleted => "deleted",
            VerificationCode::Disabled => "disabled",
            VerificationCode::SecretRetired => "secret_retired",
            VerificationCode::Unspecified => "unspecified",
        };
        self.verifications.add(1, &[KeyValue::new("code", name)]);
    }

    /// Somebody tried to sign in.
    pub fn signed_in(&self, result: SignIn) {
        let name = match result {
            SignIn::Good => "good",
            SignIn::Wrong => "wrong",
            SignIn::ProviderAway => "provider_away",
            SignIn::Throttled => "throttled",
        };
        self.sign_ins.add(1, &[KeyValue::new("result", name)]);
    }

    /// The bucket has that many more entries, up to a feed version.
    pub fn relayed(&self, entries: usize, feed_version: i64) {
        self.feed_entries.add(entries as u64, &[]);
        self.feed_version.record(feed_version.unsigned_abs(), &[]);
    }

    /// The bucket had forgotten and was filled again.
    pub fn refilled(&self) {
        self.feed_refills.add(1, &[]);
    }

    /// Somebody else had written that many values into the bucket.
    pub fn foreign(&self, values: usize) {
        self.feed_foreign_values.add(values as u64, &[]);
    }

    /// A message on last uses is done with.
    pub fn activity(&self, fate: Fate) {
        let name = match fate {
            Fate::Applied => "applied",
            Fate::Unreadable => "unreadable",
        };
        self.activity_messages.add(1, &[KeyValue::new("fate", name)]);
    }
}
