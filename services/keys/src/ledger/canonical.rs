//! The one encoding of an entry that is hashed: fields in a fixed order, each with its length, JSON in one form.

use aws_lc_rs::digest;
use serde_json::Value;

use super::Hash;

/// A number in JSON that is no integer: Postgres may print it in another form than it was written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("JSON in a record must hold no other numbers than integers")]
pub struct NotCanonical;

/// Fields on their way into a hash.
pub(super) struct Content(digest::Context);

impl Content {
    /// Starts with what tells one kind of content from every other.
    pub(super) fn new(purpose: &str) -> Self {
        let mut content = Self(digest::Context::new(&digest::SHA256));
        content.bytes(purpose.as_bytes());
        content
    }

    /// A field: 1, the length as eight bytes, most significant first, and the bytes.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(&[1]);
        self.0.update(&(bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    /// A field that may be null, which is one 0.
    pub(super) fn optional(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.bytes(bytes),
            None => self.0.update(&[0]),
        }
    }

    /// A field of eight bytes, most significant first.
    pub(super) fn integer(&mut self, value: i64) {
        self.bytes(&value.to_be_bytes());
    }

    /// A field of canonical JSON.
    pub(super) fn json(&mut self, value: Option<&Value>) -> Result<(), NotCanonical> {
        let Some(value) = value else {
            self.optional(None);
            return Ok(());
        };
        let mut text = Vec::new();
        write(value, &mut text)?;
        self.bytes(&text);
        Ok(())
    }

    pub(super) fn finish(self) -> Hash {
        Hash::of_digest(&self.0.finish())
    }
}

/// No blanks, members in the order of their names' bytes, only the escapes that JSON asks for.
fn write(value: &Value, to: &mut Vec<u8>) -> Result<(), NotCanonical> {
    match value {
        Value::Null => to.extend_from_slice(b"null"),
        Value::Bool(true) => to.extend_from_slice(b"true"),
        Value::Bool(false) => to.extend_from_slice(b"false"),
        Value::Number(number) if number.is_i64() || number.is_u64() => {
            to.extend_from_slice(number.to_string().as_bytes());
        }
        Value::Number(_) => return Err(NotCanonical),
        Value::String(text) => string(text, to),
        Value::Array(values) => {
            to.push(b'[');
            for (place, value) in values.iter().enumerate() {
                if place > 0 {
                    to.push(b',');
                }
                write(value, to)?;
            }
            to.push(b']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| *name);
            to.push(b'{');
            for (place, (name, value)) in members.into_iter().enumerate() {
                if place > 0 {
                    to.push(b',');
                }
                string(name, to);
                to.push(b':');
                write(value, to)?;
            }
            to.push(b'}');
        }
    }
    Ok(())
}

fn string(text: &str, to: &mut Vec<u8>) {
    to.extend_from_slice(Value::from(text).to_string().as_bytes());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(value: &Value) -> Result<String, NotCanonical> {
        let mut text = Vec::new();
        write(value, &mut text)?;
        Ok(String::from_utf8(text).unwrap())
    }

    #[test]
    fn json_has_one_form() {
        let value: Value =
            serde_json::from_str(r#"{ "b": [1, null, true], "a": "\u00e4\u000a\u0001\"", "aa": {} }"#)
                .unwrap();
        assert_eq!(text(&value).unwrap(), "{\"a\":\"ä\\n\\u0001\\\"\",\"aa\":{},\"b\":[1,null,true]}");
        let extremes = json!([u64::MAX, i64::MIN]);
        assert_eq!(text(&extremes).unwrap(), "[18446744073709551615,-9223372036854775808]");
        assert_eq!(text(&json!([1.5])), Err(NotCanonical));
    }

    #[test]
    fn fields_do_not_run_into_each_other() {
        let hash = |fields: &[Option<&[u8]>]| {
            let mut content = Content::new("x");
            fields.iter().for_each(|field| content.optional(*field));
            content.finish()
        };
        let all = [
            hash(&[]),
            hash(&[None]),
            hash(&[Some(b"")]),
            hash(&[Some(b"ab"), Some(b"c")]),
            hash(&[Some(b"a"), Some(b"bc")]),
            hash(&[Some(b"abc")]),
            hash(&[Some(b"abc"), None]),
            hash(&[None, Some(b"abc")]),
            Content::new("y").finish(),
        ];
        for (place, one) in all.iter().enumerate() {
            assert!(all[place + 1..].iter().all(|other| other != one), "{place}");
        }
    }
}
