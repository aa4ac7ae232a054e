//! A key's life at the edge: rotated without a gap, cut with a receipt, held to its networks, switched off and on.

use std::time::Duration;

use proto::{
    keys::{
        DisableKeyRequest, EnableKeyRequest, GetKeyRequest, Key, Receipt, ReceiptState, RetireSecretRequest,
        RotateKeyRequest, UpdateKeyRequest, keys_service_client::KeysServiceClient,
    },
    usage::{Dimension, UsageFilter},
};

use crate::{
    stack::{MadeKey, Stack},
    usage::last_day,
};

const WITHIN: Option<prost_types::Duration> = Some(prost_types::Duration { seconds: 10, nanos: 0 });

#[track_caller]
fn assert_complete(receipt: Option<Receipt>) {
    let receipt = receipt.unwrap();
    assert_eq!((receipt.state(), receipt.edges_refusing, receipt.edges), (ReceiptState::Complete, 1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_key_keeps_its_id_and_its_old_secret_ends_when_it_is_cut() {
    let stack = Stack::start().await;
    let mut keys = KeysServiceClient::new(stack.keys_channel().await);
    let old = stack.make_key("Orders").await;
    let call = async |key: &MadeKey| {
        let answer = stack.client(&key.secret).get("/v1/orders").await;
        let denial =
            if answer.status == 200 { String::new() } else { answer.problem()["denial"].to_string() };
        (answer.status.as_u16(), denial.replace('"', ""))
    };
    let good = (200, String::new());
    assert_eq!(call(&old).await, good);

    let overlap = Some(Duration::from_secs(3_600).try_into().unwrap());
    let rotate = RotateKeyRequest { name: old.name.clone(), overlap, ..RotateKeyRequest::default() };
    let rotated = keys.rotate_key(stack.signed(rotate).await).await.unwrap().into_inner();
    let new = MadeKey { name: old.name.clone(), secret: rotated.secret };
    stack.applied(&new, rotated.version).await;
    for key in [&old, &new, &new] {
        assert_eq!(call(key).await, good, "both work for an hour");
    }

    // With the receipt in hand the next call is refused: no waiting here.
    let [name] = &rotated.retired_secrets[..] else { panic!("one secret retires") };
    let retire =
        RetireSecretRequest { name: name.clone(), receipt_timeout: WITHIN, ..RetireSecretRequest::default() };
    let cut = keys.retire_secret(stack.signed(retire).await).await.unwrap().into_inner();
    assert_complete(cut.receipt);
    assert_eq!(call(&old).await, (401, "secret_retired".into()));
    assert_eq!(call(&new).await, good);

    // One key in all counts; which secret was sent is known of each call.
    stack.complete().await;
    let filter = last_day(&[old.id()]);
    let secrets = stack.totals(filter.clone(), Dimension::Secret).await;
    let old_id = name.rsplit('/').next().unwrap();
    assert_eq!((secrets.len(), secrets.values().sum::<u64>(), secrets[old_id]), (2, 6, 3));
    let refused = UsageFilter { denials: vec!["secret_retired".into()], ..filter };
    let addresses = stack.totals(refused, Dimension::ClientIp).await;
    assert_eq!(addresses.into_iter().collect::<Vec<_>>(), [("127.0.0.1".to_owned(), 1)]);

    // Who still sends it shows at the key as well; refused calls are no use.
    parts::eventually("both secrets' last use is known", async || {
        let get = stack.signed(GetKeyRequest { name: old.name.clone() }).await;
        let key = KeysServiceClient::new(stack.keys_channel().await).get_key(get).await.unwrap().into_inner();
        let used = key.secrets.iter().all(|secret| secret.last_used_time.is_some());
        (key.secrets.len() == 2 && used && key.address_count == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_held_to_its_networks_and_can_be_switched_off_and_on() {
    let stack = Stack::start().await;
    let mut keys = KeysServiceClient::new(stack.keys_channel().await);
    let key = stack.make_key("Office").await;
    let client = stack.client(&key.secret);
    let denial = async || {
        let answer = client.get("/v1/orders").await;
        (answer.status != 200).then(|| (answer.status.as_u16(), answer.problem()["denial"].to_string()))
    };
    let networks = async |keys: &mut KeysServiceClient<_>, networks: &[&str]| {
        let allowed_networks = networks.iter().map(|&network| network.to_owned()).collect();
        let changed = Key { name: key.name.clone(), allowed_networks, ..Key::default() };
        let update_mask = Some(prost_types::FieldMask { paths: vec!["allowed_networks".into()] });
        let update = UpdateKeyRequest { key: Some(changed), update_mask };
        keys.update_key(stack.signed(update).await).await.unwrap();
    };
    networks(&mut keys, &["192.0.2.0/24"]).await;
    stack.applied(&key, 2).await;
    assert_eq!(denial().await, Some((403, "\"ip_not_allowed\"".into())));
    networks(&mut keys, &["192.0.2.0/24", "127.0.0.0/8"]).await;
    stack.applied(&key, 3).await;
    assert_eq!(denial().await, None);

    let disable =
        DisableKeyRequest { name: key.name.clone(), receipt_timeout: WITHIN, ..DisableKeyRequest::default() };
    assert_complete(keys.disable_key(stack.signed(disable).await).await.unwrap().into_inner().receipt);
    assert_eq!(denial().await, Some((401, "\"disabled\"".into())));
    let enable = EnableKeyRequest { name: key.name.clone(), ..EnableKeyRequest::default() };
    let enabled = keys.enable_key(stack.signed(enable).await).await.unwrap().into_inner();
    stack.applied(&key, enabled.version).await;
    assert_eq!(denial().await, None);
}
