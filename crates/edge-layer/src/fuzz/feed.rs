//! What NATS hands over as the key feed, signed or not.

use std::sync::LazyLock;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use bolero::check;
use bytes::Bytes;
use domain::SecretHash;
use prost::Message as _;
use proto::{
    events as pb,
    nats::{FEED_HEAD_PURPOSE, feed_entry_purpose, feed_snapshot_purpose, signed_bytes},
};

use super::{INPUT_BYTES_MAX, ITERATIONS};
use crate::{
    feed_keys::FeedKeys,
    fill,
    key_table::KeyTable,
    snapshot,
    verdict::{Asked, Feed, decide},
};

static PAIR: LazyLock<Ed25519KeyPair> =
    LazyLock::new(|| Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("32 bytes are a seed"));
static KEYS: LazyLock<FeedKeys> = LazyLock::new(|| {
    let key = data_encoding::BASE64.encode(PAIR.public_key().as_ref());
    format!("k1 {key}").parse().expect("a good line")
});

#[test]
fn feed() {
    check!().with_iterations(ITERATIONS).with_max_len(INPUT_BYTES_MAX).for_each(|input: &[u8]| {
        let hash = SecretHash::of("x").to_string();
        // As a stranger wrote it: nothing of it is believed.
        let raw = Bytes::copy_from_slice(input);
        assert!(fill::read(&KEYS, &hash, &raw).is_none());
        assert!(KEYS.open::<pb::FeedHead>(FEED_HEAD_PURPOSE, input).is_none());
        assert!(snapshot::part(&KEYS, &pb::FeedHead::default(), 0, input).is_none());
        // As keys would have to sign it for us to look inside.
        let _ = KEYS.open::<pb::FeedHead>(FEED_HEAD_PURPOSE, &signed(FEED_HEAD_PURPOSE, input));
        let part = signed(&feed_snapshot_purpose("0"), input);
        let mut entries = snapshot::part(&KEYS, &pb::FeedHead::default(), 0, &part).unwrap_or_default().1;
        let entry = signed(&feed_entry_purpose(&hash), input);
        entries.extend(fill::read(&KEYS, &hash, &entry.into()));
        let (table, known) = (KeyTable::default(), entries.clone());
        table.merge(entries);
        for (hash, _) in known {
            let asked = Asked {
                at: time::OffsetDateTime::UNIX_EPOCH,
                client: None,
                scope: Some("a"),
                is_foreign: false,
            };
            drop(decide(table.get(&hash), Feed::Live, asked));
        }
    });
}

fn signed(purpose: &str, message: &[u8]) -> Vec<u8> {
    let signature = PAIR.sign(&signed_bytes(purpose, message)).as_ref().to_vec();
    pb::SignedFeedMessage { kid: "k1".into(), signature, message: message.to_vec() }.encode_to_vec()
}
