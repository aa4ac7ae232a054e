//! What of a log on the disk is believed: all of it as it was written, or nothing.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use domain::{Id, KeyState, SecretHash};
use prost::Message as _;
use proto::{
    events::{FeedBatch, HashedFeedEntry, KeyFeedEntry, KeyState as PbState},
    nats::FEED_WATCH_PURPOSE,
    timestamp::to_proto,
};
use rstest::rstest;

use super::{load::Loaded, *};
use crate::{
    chain::{Chain, changes, tests::Maker},
    feed_keys::{FeedKeys, tests::signed},
    key_table::KeyTable,
};

const NOW_AT: OffsetDateTime = time::macros::datetime!(2026-11-22 06:00 UTC);

/// Where the frames of a log start and end.
type Frames = [(usize, usize)];

/// A keys service and the folder of an edge.
struct Scene {
    pair: Ed25519KeyPair,
    keys: FeedKeys,
    folder: tempfile::TempDir,
    secret: [SecretHash; 2],
    ids: [domain::KeyId; 2],
}

impl Scene {
    fn set() -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let line = format!("k1 {}\n", data_encoding::BASE64.encode(pair.public_key().as_ref()));
        let secret = ["kept", "deleted"].map(SecretHash::of);
        let folder = tempfile::tempdir().unwrap();
        Self { pair, keys: line.parse().unwrap(), folder, secret, ids: [Id::generate(), Id::generate()] }
    }

    fn entry(&self, which: usize, feed_version: u64, state: PbState) -> HashedFeedEntry {
        let entry = KeyFeedEntry {
            workspace_id: vec![1; 16],
            key_id: self.ids[which].as_bytes().to_vec(),
            secret_id: vec![3; 16],
            version: feed_version,
            feed_version,
            state: state.into(),
            ..KeyFeedEntry::default()
        };
        HashedFeedEntry { secret_hash: self.secret[which].as_bytes().to_vec(), entry: Some(entry) }
    }

    /// Takes the batches of a watch as an edge does, at a time.
    fn watch(&self, log: &FeedLog, watch: u8, after: u64, batches: Vec<FeedBatch>, at: OffsetDateTime) {
        let mut maker = Maker { watch: vec![watch; 16], version: after, ..Maker::default() };
        let mut chain = Chain::begins(maker.watch.clone(), after);
        log.begin(after).unwrap();
        for batch in batches {
            let batch = maker.next(FeedBatch { sent_at: Some(to_proto(at)), ..batch });
            chain.follows(&batch, &batch.encode_to_vec()).unwrap();
            let value = signed(&self.pair, "k1", FEED_WATCH_PURPOSE, &batch);
            if changes(&batch) {
                log.append(&value, chain.version(), chain.is_whole()).unwrap();
            }
            if batch.is_current {
                log.inner().now_at = None;
                log.is_current(&value, at).unwrap();
            }
            log.mark(chain.version()).unwrap();
        }
    }

    /// Two keys that work, then a second watch in which one of them is deleted.
    fn write(&self) {
        let log = FeedLog::open(self.folder.path()).unwrap();
        let parts = vec![
            FeedBatch {
                entries: vec![self.entry(0, 1, PbState::Active)],
                is_partial: true,
                ..FeedBatch::default()
            },
            FeedBatch {
                entries: vec![self.entry(1, 2, PbState::Active)],
                is_partial: true,
                ..FeedBatch::default()
            },
            FeedBatch { feed_version: 2, ..FeedBatch::default() },
            FeedBatch { feed_version: 2, is_current: true, ..FeedBatch::default() },
        ];
        self.watch(&log, 1, 0, parts, NOW_AT - time::Duration::MINUTE);
        assert_eq!(log.goes_on_after(), Some(2));
        let deleted = vec![self.entry(1, 3, PbState::Deleted)];
        let changes = vec![
            FeedBatch { entries: deleted, feed_version: 3, is_current: true, ..FeedBatch::default() },
            FeedBatch { feed_version: 3, is_current: true, ..FeedBatch::default() },
        ];
        self.watch(&log, 2, 2, changes, NOW_AT - time::Duration::seconds(5));
    }

    fn load(&self) -> Option<Loaded> {
        self.load_at(NOW_AT)
    }

    fn load_at(&self, now: OffsetDateTime) -> Option<Loaded> {
        FeedLog::open(self.folder.path()).unwrap().load(&self.keys, now)
    }

    fn read(&self, file: &str) -> Vec<u8> {
        fs::read(self.folder.path().join(file)).unwrap()
    }

    fn put(&self, file: &str, content: &[u8]) {
        fs::write(self.folder.path().join(file), content).unwrap();
    }

    fn states(&self, table: &KeyTable) -> [Option<KeyState>; 2] {
        self.secret.each_ref().map(|hash| table.get(hash).map(|entry| entry.state))
    }

    /// Where each frame of the log starts, and where it ends.
    fn frames(&self) -> Vec<(usize, usize)> {
        let log = self.read(LOG);
        let mut at = MAGIC.len();
        let mut frames = Vec::new();
        while at < log.len() {
            let length = u32::from_le_bytes(*log[at..].first_chunk().unwrap()) as usize;
            frames.push((at, at + 8 + length));
            at += 8 + length;
        }
        frames
    }
}

#[test]
fn what_was_written_is_read_with_its_age() {
    let scene = Scene::set();
    assert!(scene.load().is_none());
    scene.write();
    let loaded = scene.load().unwrap();
    assert_eq!((loaded.version, loaded.age), (3, Duration::from_secs(5)));
    assert_eq!(scene.states(&loaded.table), [Some(KeyState::Active), Some(KeyState::Deleted)]);
    // Our own clock went back: what is known is not younger than nothing.
    assert_eq!(scene.load_at(NOW_AT - time::Duration::HOUR).unwrap().age, Duration::ZERO);
}

#[test]
fn the_log_goes_on_after_a_start() {
    let scene = Scene::set();
    scene.write();
    let log = FeedLog::open(scene.folder.path()).unwrap();
    assert_eq!(log.load(&scene.keys, NOW_AT).unwrap().version, 3);
    assert_eq!(log.goes_on_after(), Some(3));
    let deleted = vec![scene.entry(0, 4, PbState::Deleted)];
    scene.watch(
        &log,
        3,
        3,
        vec![FeedBatch { entries: deleted, feed_version: 4, ..FeedBatch::default() }],
        NOW_AT,
    );
    let loaded = scene.load().unwrap();
    assert_eq!(scene.states(&loaded.table), [Some(KeyState::Deleted); 2]);
    // The last moment that is known to have been current stands before that.
    assert_eq!((loaded.version, loaded.age), (4, Duration::from_secs(5)));
}

#[test]
fn a_new_log_takes_the_old_one_s_place_only_when_it_is_whole() {
    let scene = Scene::set();
    scene.write();
    let log = FeedLog::open(scene.folder.path()).unwrap();
    assert!(log.load(&scene.keys, NOW_AT).is_some());
    let part = FeedBatch {
        entries: vec![scene.entry(0, 1, PbState::Active)],
        is_partial: true,
        ..FeedBatch::default()
    };
    scene.watch(&log, 4, 0, vec![part.clone()], NOW_AT);
    assert_eq!((log.goes_on_after(), scene.load().unwrap().version), (Some(3), 3));
    // Broken off: the next watch goes on with the old one.
    let more = FeedBatch {
        entries: vec![scene.entry(0, 4, PbState::Disabled)],
        feed_version: 4,
        ..FeedBatch::default()
    };
    scene.watch(&log, 5, 3, vec![more], NOW_AT);
    assert_eq!(scene.load().unwrap().version, 4);
    let before = scene.read(LOG).len();
    scene.watch(&log, 6, 0, vec![part, FeedBatch { feed_version: 5, ..FeedBatch::default() }], NOW_AT);
    assert_eq!((log.goes_on_after(), scene.load().unwrap().version), (Some(5), 5));
    assert!(scene.read(LOG).len() < before);
}

/// What whoever can write to the disk may try: the deleted key is never alive again while the log counts as fresh.
#[rstest]
#[case::a_flipped_byte(|_: &Scene, log: &mut Vec<u8>, frames: &Frames| { log[frames[1].0 + 20] ^= 1; fix(log, frames[1]); })]
#[case::the_deletion_cut_out(|_: &Scene, log: &mut Vec<u8>, frames: &Frames| { log.truncate(frames[3].0); })]
#[case::the_deletion_cut_out_and_the_mark_too(|scene: &Scene, log: &mut Vec<u8>, frames: &Frames| {
    log.truncate(frames[3].0);
    scene.put(MARK, &mark_bytes(2));
})]
#[case::a_part_cut_out(|_: &Scene, log: &mut Vec<u8>, frames: &Frames| _ = log.drain(frames[1].0..frames[1].1))]
#[case::parts_swapped(|_: &Scene, log: &mut Vec<u8>, frames: &Frames| {
    let first = log[frames[0].0..frames[0].1].to_vec();
    let second = log[frames[1].0..frames[1].1].to_vec();
    let swapped = [second, first].concat();
    log[frames[0].0..frames[1].1].copy_from_slice(&swapped);
})]
#[case::signed_by_another(|scene: &Scene, log: &mut Vec<u8>, _: &Frames| {
    let other = Scene { pair: Ed25519KeyPair::generate().unwrap(), folder: tempfile::tempdir().unwrap(), keys: scene.keys.clone(), ..Scene::set() };
    other.write();
    *log = other.read(LOG);
})]
#[case::a_watch_that_skips(|scene: &Scene, log: &mut Vec<u8>, frames: &Frames| {
    // A true signature of a watch that began later than this log ends.
    log.truncate(frames[3].0);
    let mut maker = Maker { watch: vec![9; 16], version: 3, ..Maker::default() };
    let batch = maker.next(FeedBatch { feed_version: 4, is_current: true, sent_at: Some(to_proto(NOW_AT)), ..FeedBatch::default() });
    let value = signed(&scene.pair, "k1", FEED_WATCH_PURPOSE, &batch);
    log.extend(frame(&value));
    scene.put(NOW, &[&MAGIC[..], &frame(&[&NOW_AT.unix_timestamp().to_le_bytes()[..], &value].concat())].concat());
})]
#[case::of_another_form(|_: &Scene, log: &mut Vec<u8>, _: &Frames| log[7] = 2)]
#[case::nothing(|_: &Scene, log: &mut Vec<u8>, _: &Frames| log.clear())]
fn tampering_revives_nothing(#[case] tamper: fn(&Scene, &mut Vec<u8>, &Frames)) {
    let scene = Scene::set();
    scene.write();
    let mut log = scene.read(LOG);
    tamper(&scene, &mut log, &scene.frames());
    scene.put(LOG, &log);
    if let Some(loaded) = scene.load() {
        let revived = scene.states(&loaded.table)[1] == Some(KeyState::Active);
        assert!(!revived || loaded.age > Duration::from_secs(86_400), "{loaded:?}");
    }
}

/// Everything fits but the signatures: of the first watch alone, and of the last one too.
#[test]
fn what_keys_did_not_sign_is_not_used() {
    let scene = Scene::set();
    scene.write();
    assert!(scene.load().is_some());
    let (log, frames) = (scene.read(LOG), scene.frames());
    // Somebody else makes a log of the same versions.
    let other = Ed25519KeyPair::generate().unwrap();
    let forged = Scene { pair: other, folder: tempfile::tempdir().unwrap(), ..Scene::set() };
    forged.write();
    let (theirs, their_frames) = (forged.read(LOG), forged.frames());
    let first_watch_forged = [&theirs[..their_frames[3].0], &log[frames[3].0..]].concat();
    let last_watch_forged = [&log[..frames[3].0], &theirs[their_frames[3].0..]].concat();
    for log in [first_watch_forged, last_watch_forged, theirs] {
        scene.put(LOG, &log);
        assert!(scene.load().is_none());
    }
    scene.put(LOG, &log);
    assert!(scene.load().is_some());
}

/// Makes a frame's checksum right again, as somebody would who changes it.
fn fix(log: &mut [u8], (start, end): (usize, usize)) {
    let crc = crc32fast::hash(&log[start + 8..end]);
    log[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn an_older_snapshot_that_is_put_back_is_as_old_as_it_was_signed() {
    let scene = Scene::set();
    scene.write();
    // Both files as they were before the deletion, the own time in the latter as it would be now.
    let mut log = scene.read(LOG);
    log.truncate(scene.frames()[3].0);
    scene.put(LOG, &log);
    scene.put(MARK, &mark_bytes(2));
    let mut maker = Maker { watch: vec![1; 16], version: 2, ..Maker::default() };
    let sent_at = Some(to_proto(NOW_AT - time::Duration::MINUTE));
    let batch = maker.next(FeedBatch { feed_version: 2, is_current: true, sent_at, ..FeedBatch::default() });
    let value = signed(&scene.pair, "k1", FEED_WATCH_PURPOSE, &batch);
    let content = [&NOW_AT.unix_timestamp().to_le_bytes()[..], &value].concat();
    scene.put(NOW, &[&MAGIC[..], &frame(&content)].concat());
    assert_eq!(scene.load().unwrap().age, Duration::from_secs(60));
}

#[test]
fn what_a_killed_process_left_in_the_middle_is_cut_off() {
    let scene = Scene::set();
    scene.write();
    let log = scene.read(LOG);
    scene.put(LOG, &[&log[..], &log[MAGIC.len()..MAGIC.len() + 30]].concat());
    let opened = FeedLog::open(scene.folder.path()).unwrap();
    assert_eq!(opened.load(&scene.keys, NOW_AT).unwrap().version, 3);
    assert_eq!(scene.read(LOG), log);
}

#[test]
fn a_log_that_lags_behind_what_was_told_is_not_used() {
    let scene = Scene::set();
    scene.write();
    FeedLog::open(scene.folder.path()).unwrap().mark(4).unwrap();
    assert!(scene.load().is_none());
    let log = FeedLog::open(scene.folder.path()).unwrap();
    assert_eq!(log.marked(), 4);
    assert_eq!(log.goes_on_after(), Some(0), "a new one is begun");
}

#[test]
fn a_damaged_mark_is_none() {
    let scene = Scene::set();
    FeedLog::open(scene.folder.path()).unwrap().mark(u64::MAX).unwrap();
    assert_eq!(FeedLog::open(scene.folder.path()).unwrap().marked(), u64::MAX);
    let mut mark = scene.read(MARK);
    mark[10] ^= 1;
    scene.put(MARK, &mark);
    assert_eq!(FeedLog::open(scene.folder.path()).unwrap().marked(), 0);
}
