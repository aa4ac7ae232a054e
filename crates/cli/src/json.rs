//! Messages as JSON, field for field under their names in the protos: enum values in lower case without the
//! enum's name (`active`), times in RFC 3339, lengths in seconds, 64-bit numbers as numbers; what is unset is null.

use std::sync::LazyLock;

use data_encoding::BASE64;
use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage as _,
    Value as Field,
};
use serde_json::{Map, Value, json};
use time::format_description::well_known::Rfc3339;

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(proto::DESCRIPTORS).expect("the build has made the descriptors"));

/// The message `name`, `keymeter.keys.v1.Key`, as JSON.
///
/// # Panics
/// If there is no message of this name, or `message` is another one.
pub(crate) fn of(name: &str, message: &impl Message) -> Value {
    let descriptor = POOL.get_message_by_name(name).expect("a message of our protos");
    let bytes = message.encode_to_vec();
    let message =
        DynamicMessage::decode(descriptor.clone(), bytes.as_slice()).expect("a message is readable");
    object(&message, &descriptor)
}

fn object(message: &DynamicMessage, descriptor: &MessageDescriptor) -> Value {
    match descriptor.full_name() {
        "google.protobuf.Timestamp" => {
            return message.transcode_to().map_or(Value::Null, |at| timestamp(&at));
        }
        "google.protobuf.Duration" => {
            return message.transcode_to().map_or(Value::Null, |length| seconds(&length));
        }
        _ => {}
    }
    let mut object = Map::new();
    for field in descriptor.fields() {
        let is_unset = field.supports_presence() && !message.has_field(&field);
        let value =
            if is_unset { Value::Null } else { value(message.get_field(&field).as_ref(), &field.kind()) };
        object.insert(field.name().to_owned(), value);
    }
    Value::Object(object)
}

fn value(field: &Field, kind: &Kind) -> Value {
    match field {
        Field::Bool(flag) => json!(flag),
        Field::I32(number) => json!(number),
        Field::I64(number) => json!(number),
        Field::U32(number) => json!(number),
        Field::U64(number) => json!(number),
        Field::F32(number) => json!(number),
        Field::F64(number) => json!(number),
        Field::String(text) => json!(text),
        Field::Bytes(bytes) => json!(BASE64.encode(bytes)),
        Field::EnumNumber(number) => kind.as_enum().map_or(json!(number), |kind| named(*number, kind)),
        Field::Message(message) => object(message, &message.descriptor()),
        Field::List(values) => values.iter().map(|each| value(each, kind)).collect(),
        Field::Map(entries) => {
            let kind = kind.as_message().map(|entry| entry.map_entry_value_field().kind());
            let entry = |(name, field): (&MapKey, &Field)| {
                let name = name.as_str().map_or_else(|| format!("{name:?}"), str::to_owned);
                Some((name, value(field, kind.as_ref()?)))
            };
            // serde_json sorts the names.
            entries.iter().filter_map(entry).collect::<Map<_, _>>().into()
        }
    }
}

/// Every enum's first value is `…_UNSPECIFIED`, which tells what its names begin with.
fn named(number: i32, kind: &EnumDescriptor) -> Value {
    let unspecified = kind.default_value();
    let prefix = unspecified.name().strip_suffix("UNSPECIFIED").unwrap_or_default();
    kind.get_value(number).map_or(json!(number), |value| {
        let name = value.name();
        json!(name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase())
    })
}

fn timestamp(at: &prost_types::Timestamp) -> Value {
    proto::timestamp::from_proto(at).and_then(|at| at.format(&Rfc3339).ok()).map_or(Value::Null, Value::from)
}

#[expect(clippy::cast_precision_loss, reason = "nobody waits for 285 million years")]
fn seconds(length: &prost_types::Duration) -> Value {
    json!(length.seconds as f64 + f64::from(length.nanos) / 1e9)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proto::{
        keys::{Environment, Key, KeyState, RateLimit, Receipt, ReceiptState},
        usage::{Counts, Outcome, Request},
    };

    use super::*;

    #[test]
    fn a_message_is_told_field_for_field() {
        let window = Some(prost_types::Duration { seconds: 60, nanos: 0 });
        let key = Key {
            name: "workspaces/ws_1/keys/key_1".into(),
            environment: Environment::Test.into(),
            state: KeyState::Active.into(),
            create_time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 5_000_000 }),
            tags: HashMap::from([("team".into(), "pay".into())]),
            rate_limits: vec![RateLimit { name: "burst".into(), requests: 10, window }],
            ..Key::default()
        };
        let told = of("keymeter.keys.v1.Key", &key);
        assert_eq!(told["environment"], "test");
        assert_eq!(told["state"], "active");
        assert_eq!(told["create_time"], "2023-11-14T22:13:20.005Z");
        assert_eq!(told["expire_time"], Value::Null);
        assert_eq!(told["tags"], json!({"team": "pay"}));
        assert_eq!(told["rate_limits"], json!([{"name": "burst", "requests": 10, "window": 60.0}]));
        assert_eq!((&told["scopes"], &told["display_name"]), (&json!([]), &json!("")));
    }

    #[test]
    fn enums_and_large_numbers_keep_their_value() {
        let call = Request { outcome: Outcome::RateLimited.into(), ..Request::default() };
        assert_eq!(of("keymeter.usage.v1.Request", &call)["outcome"], "rate_limited");
        let counts = Counts { total_count: u64::MAX, ..Counts::default() };
        assert_eq!(of("keymeter.usage.v1.Counts", &counts)["total_count"], u64::MAX);
        let receipt = Receipt { state: ReceiptState::NotAwaited.into(), ..Receipt::default() };
        assert_eq!(of("keymeter.keys.v1.Receipt", &receipt)["state"], "not_awaited");
        let unknown = Receipt { state: 99, ..Receipt::default() };
        assert_eq!(of("keymeter.keys.v1.Receipt", &unknown)["state"], 99);
    }
}
