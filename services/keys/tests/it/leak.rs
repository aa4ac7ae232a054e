//! Who steals a dump of Postgres, or the key-encryption key, or a dump without its data keys and the key, has no
//! secret; who steals all has them all. Nothing sealed opens in another place.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use domain::{KeyId, Secret, WorkspaceId};
use keys::seal::{CopyPlace, Kek, Keyring, Wrapped};
use proto::keys::{CreateKeyRequest, Key};

use crate::harness::{Running, bearer};

const KEK: [u8; 32] = [0x5a; 32];

/// One row with a sealed copy.
#[derive(Clone)]
struct Sealed {
    place: CopyPlace,
    bytes: Vec<u8>,
}

/// What a thief has.
struct Loot {
    /// Every value of every table, as text and as bytes.
    text: String,
    copies: Vec<Sealed>,
    data_keys: Vec<(WorkspaceId, Wrapped)>,
}

fn bytes(hex: &str) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(hex.trim_start_matches("\\x").as_bytes()).unwrap()
}

fn uuid(text: &str) -> uuid::Uuid {
    uuid::Uuid::parse_str(text).unwrap()
}

/// All tables as their owner, as a dump has them.
fn dump(run: &Running) -> Loot {
    let tables = run.postgres.query("select tablename from pg_tables where schemaname = 'public'");
    let text =
        tables.lines().map(|table| run.postgres.query(&format!("select * from \"{table}\""))).collect();
    let rows = run.postgres.query(
        "select k.workspace_id, key_id, key_version, sealed from secrets join keys k using (key_id)
         where sealed is not null order by 1, 2",
    );
    let copy = |line: &str| {
        let columns: Vec<&str> = line.split('\t').collect();
        let place = CopyPlace {
            workspace_id: WorkspaceId::from_uuid(uuid(columns[0])),
            key_id: KeyId::from_uuid(uuid(columns[1])),
            key_version: columns[2].parse().unwrap(),
        };
        Sealed { place, bytes: bytes(columns[3]) }
    };
    let copies = rows.lines().map(copy).collect();
    let rows =
        run.postgres.query("select workspace_id, kek_id, wrapped_key from workspace_data_keys order by 1");
    let data_key = |line: &str| {
        let columns: Vec<&str> = line.split('\t').collect();
        let wrapped = Wrapped { kek_id: columns[1].to_owned(), bytes: bytes(columns[2]) };
        (WorkspaceId::from_uuid(uuid(columns[0])), wrapped)
    };
    Loot { text, copies, data_keys: rows.lines().map(data_key).collect() }
}

/// The secrets that open, by the product's own way.
async fn open_all(loot: &Loot, kek: &Kek) -> Vec<Secret> {
    let mut opened = vec![];
    for (workspace_id, wrapped) in &loot.data_keys {
        let Ok(data_key) = kek.data_key(*workspace_id, Some(wrapped)).await else { continue };
        for copy in loot.copies.iter().filter(|copy| copy.place.workspace_id == *workspace_id) {
            opened.extend(data_key.open_copy(copy.place, &copy.bytes).ok().flatten());
        }
    }
    opened
}

/// Tries every 32 bytes of what was stolen as a key, on every copy.
fn open_by_force(loot: &Loot, stolen: &[Vec<u8>]) -> usize {
    let aad = |place: &CopyPlace| {
        let version = place.key_version.to_be_bytes();
        [&b"secret"[..], place.workspace_id.as_bytes(), place.key_id.as_bytes(), &version].concat()
    };
    let windows = stolen.iter().flat_map(|bytes| bytes.windows(32));
    let mut opened = 0;
    for key in windows {
        let key = RandomizedNonceKey::new(&AES_256_GCM, key).unwrap();
        for copy in &loot.copies {
            let nonce = Nonce::try_assume_unique_for_key(&copy.bytes[1..13]).unwrap();
            let mut text = copy.bytes[13..].to_vec();
            opened += usize::from(key.open_in_place(nonce, Aad::from(aad(&copy.place)), &mut text).is_ok());
        }
    }
    opened
}

async fn two_workspaces(run: &Running) -> Vec<String> {
    let (foreign, stranger) = run.add_tenant("eve@example.org").await;
    let mut secrets = vec![];
    for number in 0..10 {
        secrets.push(run.make(&format!("key {number}")).await.secret);
        let key = Some(Key { display_name: "theirs".into(), ..Key::default() });
        let create = CreateKeyRequest { parent: foreign.clone(), key, ..Default::default() };
        secrets.push(run.keys().create_key(bearer(&stranger, create)).await.unwrap().into_inner().secret);
    }
    secrets.sort();
    secrets
}

#[tokio::test]
async fn only_a_dump_and_the_key_together_tell_secrets() {
    let run = Running::start().await;
    let secrets = two_workspaces(&run).await;
    let mut loot = dump(&run);
    assert_eq!((loot.copies.len(), loot.data_keys.len()), (20, 2));
    assert!(loot.text.contains(&secrets[0][..12]), "the search would find them");
    for secret in &secrets {
        let body = &secret[12..];
        for form in [
            body.to_owned(),
            data_encoding::HEXLOWER.encode(body.as_bytes()),
            data_encoding::BASE64.encode(secret.as_bytes()),
        ] {
            assert!(!loot.text.contains(&form));
        }
    }

    // The dump alone: with a key of the thief's own, and with every 32 bytes in it as a key.
    let every_bytes: Vec<Vec<u8>> =
        loot.text.split(['\t', '\n']).filter(|value| value.starts_with("\\x")).map(bytes).collect();
    assert!(every_bytes.len() > 60);
    let own = Kek::new(Keyring::of(&[1; 32]));
    assert_eq!((open_all(&loot, &own).await.len(), open_by_force(&loot, &every_bytes)), (0, 0));

    // A dump without the data keys, and the key-encryption key.
    let kek = Kek::new(Keyring::of(&KEK));
    let data_keys = std::mem::take(&mut loot.data_keys);
    assert_eq!((open_all(&loot, &kek).await.len(), open_by_force(&loot, &[KEK.to_vec()])), (0, 0));

    // The key-encryption key alone.
    let nothing = Loot { text: String::new(), copies: vec![], data_keys: vec![] };
    assert!(open_all(&nothing, &kek).await.is_empty());
    let file = std::fs::read(run.folder.path().join("kek")).unwrap();
    assert!(secrets.iter().all(|secret| !String::from_utf8_lossy(&file).contains(&secret[12..])));

    loot.data_keys = data_keys;
    let mut opened: Vec<String> =
        open_all(&loot, &kek).await.into_iter().map(|secret| secret.reveal().to_owned()).collect();
    opened.sort();
    assert_eq!(opened, secrets, "the dump and the key together tell them all: keep them apart");
}

#[tokio::test]
async fn nothing_sealed_opens_elsewhere_or_changed() {
    let run = Running::start().await;
    let _ = two_workspaces(&run).await;
    let (loot, kek) = (dump(&run), Kek::new(Keyring::of(&KEK)));
    let mut keys = vec![];
    for (workspace_id, wrapped) in &loot.data_keys {
        keys.push((*workspace_id, kek.data_key(*workspace_id, Some(wrapped)).await.unwrap()));
    }
    let opens = |place: CopyPlace, bytes: &[u8]| {
        let (_, key) = keys.iter().find(|(id, _)| *id == place.workspace_id).unwrap();
        key.open_copy(place, bytes).is_ok()
    };
    let mut refused = 0;
    let mut refuse = |place: CopyPlace, bytes: &[u8]| {
        assert!(!opens(place, bytes));
        refused += 1;
    };
    for (one, copy) in loot.copies.iter().enumerate() {
        assert!(opens(copy.place, &copy.bytes));
        for (other, target) in loot.copies.iter().enumerate().filter(|(other, _)| *other != one) {
            assert_ne!(one, other);
            refuse(target.place, &copy.bytes);
            refuse(CopyPlace { key_id: target.place.key_id, ..copy.place }, &copy.bytes);
        }
        for (workspace_id, _) in keys.iter().filter(|(id, _)| *id != copy.place.workspace_id) {
            refuse(CopyPlace { workspace_id: *workspace_id, ..copy.place }, &copy.bytes);
        }
        for key_version in [0, 2, 3, -1, i64::MAX] {
            refuse(CopyPlace { key_version, ..copy.place }, &copy.bytes);
        }
        for bit in 0..copy.bytes.len() * 8 {
            let mut flipped = copy.bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            refuse(copy.place, &flipped);
        }
    }
    let bits = loot.copies.iter().map(|copy| copy.bytes.len() * 8).sum::<usize>();
    assert_eq!(refused, 20 * 19 * 2 + 20 + 20 * 5 + bits);

    let ((one, wrapped), (other, _)) = (&loot.data_keys[0], &loot.data_keys[1]);
    assert!(kek.data_key(*other, Some(wrapped)).await.is_err(), "data keys of two workspaces are swapped");
    for bit in 0..wrapped.bytes.len() * 8 {
        let mut flipped = wrapped.clone();
        flipped.bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(kek.data_key(*one, Some(&flipped)).await.is_err());
    }
}
