//! Protobuf read field by field, for what a generated decoder drops or refuses: fields of newer versions, numbers
//! that do not fit, whatever is readable of a broken message. Pure; never fails on what it has already said.

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number of variable length.
    Varint(u64),
    /// Eight bytes.
    Fixed64(u64),
    /// Text, bytes or a message.
    Bytes(&'a [u8]),
    /// Four bytes.
    Fixed32(u32),
}

/// A field as it stands in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// Its number in the `.proto` file.
    pub number: u64,
    /// What it holds.
    pub value: Value<'a>,
    /// All of its bytes, with its head.
    pub raw: &'a [u8],
}

/// The fields of a message up to the first place that is none.
#[must_use]
pub const fn fields(message: &[u8]) -> Fields<'_> {
    Fields { rest: message }
}

/// See [`fields`].
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl Fields<'_> {
    /// What could not be read: empty at the end of a whole message.
    #[must_use]
    pub const fn rest(&self) -> &[u8] {
        self.rest
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let start = self.rest;
        let (head, rest) = varint(start)?;
        let (value, rest) = match head & 7 {
            0 => varint(rest).map(|(value, rest)| (Value::Varint(value), rest))?,
            1 => {
                rest.split_first_chunk().map(|(at, rest)| (Value::Fixed64(u64::from_le_bytes(*at)), rest))?
            }
            2 => {
                let (length, rest) = varint(rest)?;
                let (bytes, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                (Value::Bytes(bytes), rest)
            }
            5 => {
                rest.split_first_chunk().map(|(at, rest)| (Value::Fixed32(u32::from_le_bytes(*at)), rest))?
            }
            _ => return None,
        };
        self.rest = rest;
        Some(Field { number: head >> 3, value, raw: &start[..start.len() - rest.len()] })
    }
}

/// The first of the named fields whose number does not fit into 32 bits. Of one that comes twice the last one counts,
/// as generated decoders have it.
#[must_use]
pub fn too_large(
    message: &[u8],
    unsigned: &[(u64, &'static str)],
    signed: &[(u64, &'static str)],
) -> Option<&'static str> {
    let named = || unsigned.iter().chain(signed);
    // A bit for each.
    let mut beyond = 0_u64;
    for Field { number, value, .. } in fields(message) {
        if let Value::Varint(value) = value
            && let Some(place) = named().position(|(named, _)| *named == number)
        {
            // A negative one has all 64 bits.
            let fits = if place < unsigned.len() {
                u32::try_from(value).is_ok()
            } else {
                i32::try_from(value.cast_signed()).is_ok()
            };
            beyond = beyond & !(1 << place) | u64::from(!fits) << place;
        }
    }
    named().nth(beyond.trailing_zeros() as usize).map(|(_, name)| *name)
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::example;

    #[test]
    fn a_whole_message_is_read_to_its_end() {
        let batch = example::batch("edge_a", 7, 3);
        let bytes = batch.encode_to_vec();
        let mut found = fields(&bytes);
        let numbers: Vec<u64> = found.by_ref().map(|field| field.number).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 5, 5]);
        assert_eq!(found.rest(), b"");
        assert_eq!(fields(&bytes).nth(3).unwrap().value, Value::Varint(7));
        let events: Vec<&[u8]> = fields(&bytes)
            .filter_map(|field| match field {
                Field { number: 5, value: Value::Bytes(bytes), .. } => Some(bytes),
                _ => None,
            })
            .collect();
        assert_eq!(events[2], batch.events[2].encode_to_vec());
    }

    #[test]
    fn a_broken_end_is_left() {
        let bytes = example::batch("edge_a", 7, 3).encode_to_vec();
        let mut found = fields(&bytes[..bytes.len() - 1]);
        assert_eq!(found.by_ref().count(), 6);
        assert!(!found.rest().is_empty());
    }

    proptest! {
        #[test]
        fn what_is_read_and_what_is_left_are_all(bytes: Vec<u8>) {
            let mut found = fields(&bytes);
            let mut all: Vec<u8> = found.by_ref().flat_map(|field| field.raw.to_vec()).collect();
            all.extend(found.rest());
            prop_assert_eq!(all, bytes);
        }
    }
}
