//! Pages of a list: how many rows, and the token of the next page. A token is bound to the request that it
//! came from. It is opaque but no secret: it only ever continues a list that the caller may see.

use data_encoding::BASE64URL_NOPAD;
use domain::{Id, id::Noun};
use serde::{Serialize, de::DeserializeOwned};
use time::OffsetDateTime;

use crate::{error::Error, token::sha256};

const SIZE_DEFAULT: usize = 50;
const SIZE_MAX: usize = 1_000;
/// Longest token looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 2_048;
const BINDING_BYTES: usize = 8;

/// How many rows a page has.
///
/// # Errors
/// `page_size` if it is negative.
pub fn size(page_size: i32) -> Result<usize, Error> {
    match usize::try_from(page_size) {
        Ok(0) => Ok(SIZE_DEFAULT),
        Ok(size) => Ok(size.min(SIZE_MAX)),
        Err(_) => Err(Error::invalid("page_size", "must not be negative")),
    }
}

/// The token of the page after `last`, for a request that `request` stands for.
#[must_use]
pub fn token<P: Serialize>(request: &str, last: &P) -> String {
    let mut bytes = binding(request);
    bytes.extend(serde_json::to_vec(last).expect("positions are plain data"));
    BASE64URL_NOPAD.encode(&bytes)
}

/// Where the page before ended; `None` for the first page.
///
/// # Errors
/// `page_token` if it is none, or of another request.
pub fn position<P: DeserializeOwned>(request: &str, token: &str) -> Result<Option<P>, Error> {
    if token.is_empty() {
        return Ok(None);
    }
    let bytes =
        (token.len() <= TOKEN_BYTES_MAX).then(|| BASE64URL_NOPAD.decode(token.as_bytes()).ok()).flatten();
    let position = bytes.as_deref().and_then(|bytes| {
        let (bound, position) = bytes.split_at_checked(BINDING_BYTES)?;
        (bound == binding(request)).then(|| serde_json::from_slice(position).ok())?
    });
    position.map(Some).ok_or_else(|| {
        Error::invalid("page_token", "is no next_page_token of the same request; start again without it")
    })
}

/// A page out of rows that were read with one more than it has, and where the next page starts if there is one.
pub fn cut<T, P>(mut rows: Vec<T>, size: usize, position: impl FnOnce(&T) -> P) -> (Vec<T>, Option<P>) {
    let more = rows.len() > size;
    rows.truncate(size);
    let last = rows.last().filter(|_| more).map(position);
    (rows, last)
}

/// Where a list by time goes on, as a token holds it: microseconds since 1970 and the id.
pub type Place = (i64, String);

/// The place of what was made at a time with an id.
#[must_use]
pub fn place<N: Noun>((time, id): (OffsetDateTime, Id<N>)) -> Place {
    (micros(time), id.to_string())
}

/// Reads a [`Place`].
///
/// # Errors
/// `page_token` if it is none.
pub fn read_place<N: Noun>((time, id): Place) -> Result<(OffsetDateTime, Id<N>), Error> {
    from_micros(time).zip(id.parse().ok()).ok_or_else(damaged)
}

/// Microseconds since 1970.
#[must_use]
pub fn micros(time: OffsetDateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX)
}

/// A time from microseconds since 1970; `None` if there is no such time.
#[must_use]
pub fn from_micros(micros: i64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000).ok()
}

/// The error of a token that was made by somebody else.
#[must_use]
pub fn damaged() -> Error {
    Error::invalid("page_token", "is damaged; start again without it")
}

fn binding(request: &str) -> Vec<u8> {
    sha256(request.as_bytes())[..BINDING_BYTES].to_vec()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0, Some(50))]
    #[case(1, Some(1))]
    #[case(1_000, Some(1_000))]
    #[case(1_001, Some(1_000))]
    #[case(i32::MAX, Some(1_000))]
    #[case(-1, None)]
    fn sizes(#[case] asked: i32, #[case] given: Option<usize>) {
        assert_eq!(size(asked).ok(), given);
    }

    #[test]
    fn a_token_continues_its_own_request_only() {
        let token = token("keys of a", &(17_i64, "x"));
        let read = |request: &str, token: &str| position::<(i64, String)>(request, token).map_err(|_| ());
        assert_eq!(read("keys of a", &token), Ok(Some((17, "x".into()))));
        assert_eq!(read("keys of a", ""), Ok(None));
        assert_eq!(read("keys of b", &token), Err(()));
        for bad in [&token[..token.len() - 2], &token[..4], "!", "é", "AAAA", &"A".repeat(5_000)] {
            assert_eq!(read("keys of a", bad), Err(()), "{bad}");
        }
        assert_eq!(position::<u8>("keys of a", &token).map_err(|_| ()), Err(()));
    }
}
