//! Several secrets for one key, and a key that is switched off and on.

use domain::{Secret, SecretId};
use parts::eventually;
use prost_types::Duration;
use proto::{
    events,
    keys::{
        CreateKeyResponse, DeleteKeyRequest, DisableKeyRequest, EnableKeyRequest, GetKeyRequest, Key,
        KeyState, RetireSecretRequest, RevealKeyRequest, RotateKeyRequest, RotateKeyResponse,
        VerificationCode, VerifyKeyRequest,
    },
};
use tonic::{Code, Status};

use crate::harness::{Running, bearer, field, reason};

fn seconds(seconds: i64) -> Option<Duration> {
    Some(Duration { seconds, nanos: 0 })
}

/// What the tests do with one key.
struct Hand<'a> {
    run: &'a Running,
    name: String,
}

impl<'a> Hand<'a> {
    async fn make(run: &'a Running) -> (Self, CreateKeyResponse) {
        let made = run.make("a").await;
        (Self { run, name: made.key.as_ref().unwrap().name.clone() }, made)
    }

    async fn rotate(&self, overlap_s: i64) -> Result<RotateKeyResponse, Status> {
        self.ask_rotation(|request| request.overlap = seconds(overlap_s)).await
    }

    async fn ask_rotation(
        &self,
        change: impl FnOnce(&mut RotateKeyRequest),
    ) -> Result<RotateKeyResponse, Status> {
        let mut request =
            RotateKeyRequest { name: self.name.clone(), overlap: seconds(60), ..Default::default() };
        change(&mut request);
        Ok(self.run.keys().rotate_key(self.run.ask(request)).await?.into_inner())
    }

    async fn retire(&self, name: &str, etag: &str) -> Result<(Key, u64), Status> {
        let request = RetireSecretRequest { name: name.into(), etag: etag.into(), ..Default::default() };
        let retired = self.run.keys().retire_secret(self.run.ask(request)).await?.into_inner();
        Ok((retired.key.unwrap(), retired.version))
    }

    async fn disable(&self, etag: &str) -> Result<(Key, u64), Status> {
        let request = DisableKeyRequest { name: self.name.clone(), etag: etag.into(), ..Default::default() };
        let disabled = self.run.keys().disable_key(self.run.ask(request)).await?.into_inner();
        Ok((disabled.key.unwrap(), disabled.version))
    }

    async fn enable(&self, etag: &str) -> Result<Key, Status> {
        let request = EnableKeyRequest { name: self.name.clone(), etag: etag.into() };
        Ok(self.run.keys().enable_key(self.run.ask(request)).await?.into_inner().key.unwrap())
    }

    async fn get(&self) -> Key {
        let request = self.run.ask(GetKeyRequest { name: self.name.clone() });
        self.run.keys().get_key(request).await.unwrap().into_inner()
    }

    async fn reveal(&self) -> Result<String, Status> {
        let request = self.run.ask(RevealKeyRequest { name: self.name.clone() });
        Ok(self.run.keys().reveal_key(request).await?.into_inner().secret)
    }

    async fn verify(&self, secret: &str) -> VerificationCode {
        let request = VerifyKeyRequest { parent: self.run.workspace.clone(), secret: secret.into() };
        let verified = self.run.keys().verify_key(self.run.ask(request)).await.unwrap().into_inner();
        assert_eq!(verified.valid, verified.code() == VerificationCode::Valid);
        verified.code()
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T, Status>) -> (Code, String) {
    let error = result.unwrap_err();
    (error.code(), reason(&error))
}

#[tokio::test]
async fn a_rotated_key_has_two_secrets_until_the_old_one_is_cut() {
    let run = Running::start().await;
    let (hand, made) = Hand::make(&run).await;
    let first = made.key.unwrap();
    let rotated = hand.rotate(3_600).await.unwrap();
    let key = rotated.key.unwrap();
    assert_eq!((key.name.as_str(), rotated.version), (first.name.as_str(), 2), "it is the same key");
    assert_eq!(rotated.retired_secrets, [first.secrets[0].name.clone()]);
    assert_ne!(rotated.secret, made.secret);
    assert_eq!(Secret::parse(&rotated.secret).unwrap().start(), key.start);
    assert_eq!(key.secrets.len(), 2);
    assert_eq!((key.secrets[0].start.as_str(), key.secrets[0].retire_time), (key.start.as_str(), None));
    assert_eq!(key.secrets[1].name, first.secrets[0].name);
    assert!(key.secrets[1].retire_time.is_some());
    assert_eq!(hand.get().await, key);
    for secret in [&made.secret, &rotated.secret] {
        assert_eq!(hand.verify(secret).await, VerificationCode::Valid);
        run.fed(secret, |entry| entry.version == 2).await;
    }
    assert_eq!(hand.reveal().await.unwrap(), rotated.secret);

    assert_eq!(refused(hand.retire(&key.secrets[0].name, "").await), current());
    assert_eq!(refused(hand.retire(&key.secrets[1].name, &first.etag).await).0, Code::Aborted);
    let (cut, version) = hand.retire(&key.secrets[1].name, &key.etag).await.unwrap();
    assert_eq!((version, cut.secrets.len()), (3, 2), "it is shown for a while");
    assert_eq!(hand.verify(&made.secret).await, VerificationCode::SecretRetired);
    assert_eq!(hand.verify(&rotated.secret).await, VerificationCode::Valid);
    let again = hand.retire(&key.secrets[1].name, &key.etag).await.unwrap();
    assert_eq!(again, (cut, 3), "again, with the old etag");
    let copies = "select key_version from secrets where sealed is not null";
    assert_eq!(run.postgres.query(copies), "2\n", "its copy is destroyed");
}

fn current() -> (Code, String) {
    (Code::FailedPrecondition, "CURRENT_SECRET".into())
}

#[tokio::test]
async fn an_overlap_ends_by_itself() {
    let run = Running::start().await;
    let (hand, made) = Hand::make(&run).await;
    let rotated = hand.rotate(2).await.unwrap();
    let retired = async || hand.verify(&made.secret).await == VerificationCode::SecretRetired;
    eventually("the overlap ends", retired).await;
    assert_eq!(hand.verify(&rotated.secret).await, VerificationCode::Valid);
    let copies = "select count(sealed) from secrets";
    assert_eq!(run.postgres.query(copies), "2\n");
    keys::sweep::sweep(&run.store(), time::OffsetDateTime::now_utc()).await.unwrap();
    assert_eq!(run.postgres.query(copies), "1\n", "the sweep destroys its copy");
    assert_eq!(hand.reveal().await.unwrap(), rotated.secret);

    let at_once = hand.rotate(0).await.unwrap();
    assert_eq!(hand.verify(&rotated.secret).await, VerificationCode::SecretRetired);
    assert_eq!(run.postgres.query(copies), "1\n", "a copy ends with its secret");
    assert_eq!(hand.reveal().await.unwrap(), at_once.secret);
}

#[tokio::test]
async fn five_secrets_work_at_once() {
    let run = Running::start().await;
    let (hand, made) = Hand::make(&run).await;
    let mut secrets = vec![made.secret];
    for _ in 0..4 {
        secrets.push(hand.rotate(3_600).await.unwrap().secret);
    }
    let full = (Code::FailedPrecondition, "TOO_MANY_SECRETS".to_owned());
    assert_eq!(refused(hand.rotate(1).await), full);
    for secret in &secrets {
        assert_eq!(hand.verify(secret).await, VerificationCode::Valid);
    }
    let oldest = hand.get().await.secrets.pop().unwrap().name;
    hand.retire(&oldest, "").await.unwrap();
    let fifth = hand.rotate(60).await.unwrap();
    assert_eq!(fifth.retired_secrets.len(), 4, "those that would have worked longer");
    let alone = hand.rotate(0).await.unwrap();
    assert_eq!(alone.retired_secrets.len(), 5);
    for secret in secrets.iter().chain([&fifth.secret]) {
        assert_eq!(hand.verify(secret).await, VerificationCode::SecretRetired);
    }
    assert_eq!(hand.verify(&alone.secret).await, VerificationCode::Valid);
}

#[tokio::test]
async fn a_repeated_rotation_is_one_secret() {
    let run = Running::start().await;
    let (hand, made) = Hand::make(&run).await;
    let etag = made.key.unwrap().etag;
    let rotate = async |idempotency_key: &str, overlap_s: i64| {
        hand.ask_rotation(|request| {
            request.idempotency_key = idempotency_key.into();
            request.overlap = seconds(overlap_s);
            request.etag.clone_from(&etag);
        })
        .await
    };
    let at_once = futures_util::future::join_all((0..6).map(|_| rotate("once", 60))).await;
    let first = at_once[0].as_ref().unwrap();
    assert!(
        at_once.iter().all(|rotated| rotated.as_ref().unwrap() == first),
        "one secret, though the etag is old"
    );
    assert_eq!(run.postgres.query("select count(*) from secrets"), "2\n");
    let reused = (Code::AlreadyExists, "IDEMPOTENCY_KEY_REUSED".to_owned());
    assert_eq!(refused(rotate("once", 61).await), reused);
    assert_eq!(refused(rotate("other", 60).await).0, Code::Aborted);
    let create = proto::keys::CreateKeyRequest {
        parent: run.workspace.clone(),
        key: Some(Key { display_name: "a".into(), ..Key::default() }),
        idempotency_key: "once".into(),
    };
    assert_eq!(refused(run.keys().create_key(run.ask(create)).await), reused);

    // What was made later does not change the answer, but a secret that retired is not shown again.
    hand.rotate(0).await.unwrap();
    let again = rotate("once", 60).await.unwrap();
    assert_eq!((again.secret.as_str(), &again.retired_secrets), ("", &first.retired_secrets));
}

#[tokio::test]
async fn a_disabled_key_is_refused_until_it_is_enabled() {
    let run = Running::start().await;
    let (hand, made) = Hand::make(&run).await;
    let key = made.key.unwrap();
    let (disabled, version) = hand.disable(&key.etag).await.unwrap();
    assert_eq!((disabled.state(), version), (KeyState::Disabled, 2));
    assert_eq!(hand.verify(&made.secret).await, VerificationCode::Disabled);
    run.fed(&made.secret, |entry| entry.version == 2).await;
    assert_eq!(hand.disable(&key.etag).await.unwrap(), (disabled.clone(), 2), "again, with the old etag");
    assert_eq!(refused(hand.enable(&key.etag).await).0, Code::Aborted);
    let rotated = hand.rotate(60).await.unwrap();
    assert_eq!(
        hand.verify(&rotated.secret).await,
        VerificationCode::Disabled,
        "a new secret is no way around"
    );
    let enabled = hand.enable("").await.unwrap();
    assert_eq!(enabled.state(), KeyState::Active);
    assert_eq!(hand.enable("old").await.unwrap(), enabled);
    for secret in [&made.secret, &rotated.secret] {
        assert_eq!(hand.verify(secret).await, VerificationCode::Valid);
        run.fed(secret, |entry| entry.version == 4 && entry.state() == events::KeyState::Active).await;
    }

    let request = DeleteKeyRequest { name: hand.name.clone(), ..Default::default() };
    run.keys().delete_key(run.ask(request)).await.unwrap();
    let deleted = (Code::FailedPrecondition, "KEY_DELETED".to_owned());
    assert_eq!(refused(hand.disable("").await), deleted);
    assert_eq!(refused(hand.enable("").await), deleted);
    assert_eq!(refused(hand.rotate(0).await), deleted);
    assert_eq!(refused(hand.retire(&key.secrets[0].name, "").await), deleted);
    for secret in [&made.secret, &rotated.secret] {
        assert_eq!(hand.verify(secret).await, VerificationCode::Deleted);
    }
    assert_eq!(run.postgres.query("select count(sealed) from secrets"), "0\n", "no copy outlives the key");
}

#[tokio::test]
async fn what_is_asked_is_checked() {
    let run = Running::start().await;
    let (hand, _) = Hand::make(&run).await;
    for bad in [None, seconds(-1), seconds(30 * 86_400 + 1), Some(Duration { seconds: 1, nanos: -1 })] {
        let error = hand.ask_rotation(|request| request.overlap = bad).await.unwrap_err();
        assert_eq!(field(&error), "overlap");
    }
    let error = hand.ask_rotation(|request| request.idempotency_key = "x".repeat(65)).await.unwrap_err();
    assert_eq!(field(&error), "idempotency_key");
    assert_eq!(field(&hand.ask_rotation(|request| request.name.clear()).await.unwrap_err()), "name");
    assert_eq!(field(&hand.retire(&hand.name, "").await.unwrap_err()), "name", "a key is no secret");
    let never = format!("{}/secrets/{}", hand.name, SecretId::generate());
    let error = hand.retire(&never, "").await.unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (Code::NotFound, &*format!("no secret has the name {never}"))
    );
    for (seconds, nanos) in [(10, 1_000), (-1, 0)] {
        let receipt_timeout = Some(Duration { seconds, nanos });
        let disable = DisableKeyRequest { name: hand.name.clone(), receipt_timeout, ..Default::default() };
        let error = run.keys().disable_key(run.ask(disable)).await.unwrap_err();
        assert_eq!(field(&error), "receipt_timeout");
        let delete = DeleteKeyRequest { name: hand.name.clone(), receipt_timeout, ..Default::default() };
        assert_eq!(field(&run.keys().delete_key(run.ask(delete)).await.unwrap_err()), "receipt_timeout");
        let retire = RetireSecretRequest { name: never.clone(), receipt_timeout, ..Default::default() };
        assert_eq!(field(&run.keys().retire_secret(run.ask(retire)).await.unwrap_err()), "receipt_timeout");
    }
    assert_eq!(run.postgres.query("select version from keys"), "1\n");
}

#[tokio::test]
async fn another_workspace_changes_nothing() {
    let run = Running::start().await;
    let (_, stranger) = run.add_tenant("eve@example.org").await;
    let (hand, made) = Hand::make(&run).await;
    let key = made.key.unwrap();
    let name = || hand.name.clone();
    let errors = [
        run.keys()
            .disable_key(bearer(&stranger, DisableKeyRequest { name: name(), ..Default::default() }))
            .await
            .err(),
        run.keys()
            .enable_key(bearer(&stranger, EnableKeyRequest { name: name(), ..Default::default() }))
            .await
            .err(),
        run.keys()
            .rotate_key(bearer(&stranger, RotateKeyRequest { name: name(), ..Default::default() }))
            .await
            .err(),
        run.keys()
            .retire_secret(bearer(
                &stranger,
                RetireSecretRequest { name: key.secrets[0].name.clone(), ..Default::default() },
            ))
            .await
            .err(),
    ];
    let (no_key, no_secret) = (("key", &key.name), ("secret", &key.secrets[0].name));
    for (error, (what, name)) in errors.into_iter().zip([no_key, no_key, no_key, no_secret]) {
        let error = error.unwrap();
        let expected = format!("no {what} has the name {name}");
        assert_eq!((error.code(), error.message()), (Code::NotFound, &*expected));
    }
    assert_eq!(hand.get().await, key);
}

#[tokio::test]
async fn the_eleventh_reveal_waits() {
    let run = Running::start().await;
    let (hand, made) = Hand::make(&run).await;
    let at_once = futures_util::future::join_all((0..12).map(|_| hand.reveal())).await;
    let (good, refused): (Vec<_>, Vec<_>) = at_once.into_iter().partition(Result::is_ok);
    assert_eq!((good.len(), refused.len()), (10, 2));
    assert!(good.iter().all(|secret| *secret.as_ref().unwrap() == made.secret));
    let error = refused[0].as_ref().unwrap_err();
    assert_eq!((error.code(), reason(error).as_str()), (Code::ResourceExhausted, "TOO_MANY_REVEALS"));
    let wait = tonic_types::StatusExt::get_details_retry_info(error).unwrap().retry_delay.unwrap();
    assert!(wait.as_secs() > 500 && wait.as_secs() <= 600);
    assert_eq!(run.postgres.query("select count(*) from audit_entries where action = 'reveal_key'"), "10\n");
    let _ = run.postgres.query("update audit_entries set entry_time = entry_time - interval '10 minutes'");
    assert_eq!(hand.reveal().await.unwrap(), made.secret);
}
