//! The chunked coding (RFC 9112, section 7.1), read strictly: lines end with CR LF, sizes are hexadecimal digits
//! alone. Pure.

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Longest line of a chunk's size with its extensions, in bytes.
const SIZE_LINE_BYTES_MAX: usize = 4096;
/// Longest trailers, in bytes.
const TRAILERS_BYTES_MAX: usize = 16 * 1024;
/// Most trailers.
const TRAILERS_MAX: usize = 64;
/// Digits of the largest size: more than any body has, and no overflow.
const SIZE_DIGITS_MAX: usize = 15;

/// Takes a body apart.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    End,
}

/// What comes next in a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Bytes of the body.
    Data(Bytes),
    /// The trailers, after which it ends.
    Trailers(HeaderMap),
    /// The end.
    End,
    /// More must be read first.
    Missing,
}

/// A body that is not chunked as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the chunks of the body are malformed")]
pub(crate) struct Malformed;

impl Decoder {
    /// The next piece; what it was read from is taken out of `buffer`.
    pub(crate) fn next(&mut self, buffer: &mut BytesMut) -> Result<Piece, Malformed> {
        loop {
            match self.state {
                State::Size => match line(buffer, SIZE_LINE_BYTES_MAX)? {
                    None => return Ok(Piece::Missing),
                    Some(line) => {
                        let size = size(&line)?;
                        self.state = if size == 0 { State::Trailers } else { State::Data(size) };
                    }
                },
                State::Data(_) if buffer.is_empty() => return Ok(Piece::Missing),
                State::Data(left) => {
                    let count = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
                    let left = left - count as u64;
                    self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
                    return Ok(Piece::Data(buffer.split_to(count).freeze()));
                }
                State::DataEnd if buffer.len() < 2 => return Ok(Piece::Missing),
                State::DataEnd => {
                    if !buffer.starts_with(b"\r\n") {
                        return Err(Malformed);
                    }
                    buffer.advance(2);
                    self.state = State::Size;
                }
                State::Trailers => {
                    let Some(trailers) = trailers(buffer)? else { return Ok(Piece::Missing) };
                    self.state = State::End;
                    if !trailers.is_empty() {
                        return Ok(Piece::Trailers(trailers));
                    }
                }
                State::End => return Ok(Piece::End),
            }
        }
    }
}

/// What stands before a chunk of `size` bytes; what stands after it is CR LF.
pub(crate) fn write_size(out: &mut Vec<u8>, size: usize) {
    out.extend_from_slice(format!("{size:x}\r\n").as_bytes());
}

/// The end of a body.
pub(crate) fn write_end(out: &mut Vec<u8>, trailers: Option<&HeaderMap>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        super::head::write_field(out, name, value);
    }
    out.extend_from_slice(b"\r\n");
}

/// The next line without its end; `None` if it is not all there.
fn line(buffer: &mut BytesMut, bytes_max: usize) -> Result<Option<BytesMut>, Malformed> {
    let Some(end) = buffer.iter().position(|byte| *byte == b'\n') else {
        return if buffer.len() > bytes_max { Err(Malformed) } else { Ok(None) };
    };
    if end == 0 || end > bytes_max || buffer[end - 1] != b'\r' {
        return Err(Malformed);
    }
    let mut line = buffer.split_to(end + 1);
    line.truncate(end - 1);
    Ok(Some(line))
}

fn size(line: &[u8]) -> Result<u64, Malformed> {
    if line.contains(&b'\r') {
        return Err(Malformed);
    }
    let end = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    let (digits, rest) = line.split_at(end);
    let is_extension = rest.trim_ascii_start().first().is_none_or(|byte| *byte == b';');
    if digits.is_empty() || digits.len() > SIZE_DIGITS_MAX || !is_extension {
        return Err(Malformed);
    }
    let digits = str::from_utf8(digits).map_err(|_| Malformed)?;
    u64::from_str_radix(digits, 16).map_err(|_| Malformed)
}

/// The trailers once they are all there.
fn trailers(buffer: &mut BytesMut) -> Result<Option<HeaderMap>, Malformed> {
    let mut fields = [httparse::EMPTY_HEADER; TRAILERS_MAX];
    let (length, trailers) = match httparse::parse_headers(buffer, &mut fields) {
        Ok(httparse::Status::Complete((length, fields))) => {
            let pairs = fields.iter().map(|field| {
                let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed)?;
                Ok((name, HeaderValue::from_bytes(field.value).map_err(|_| Malformed)?))
            });
            (length, pairs.collect::<Result<HeaderMap, Malformed>>()?)
        }
        Ok(httparse::Status::Partial) if buffer.len() <= TRAILERS_BYTES_MAX => return Ok(None),
        Ok(httparse::Status::Partial) | Err(_) => return Err(Malformed),
    };
    buffer.advance(length);
    Ok(Some(trailers))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    /// Decodes `sent` as it comes in pieces of `step` bytes.
    fn decode(sent: &[u8], step: usize) -> Result<(Vec<u8>, Option<HeaderMap>, usize), Malformed> {
        let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::new());
        let (mut body, mut trailers) = (Vec::new(), None);
        let mut sent = sent.chunks(step);
        loop {
            match decoder.next(&mut buffer)? {
                Piece::Data(data) => body.extend_from_slice(&data),
                Piece::Trailers(all) => trailers = Some(all),
                Piece::End => {
                    return Ok((body, trailers, buffer.len() + sent.map(<[u8]>::len).sum::<usize>()));
                }
                Piece::Missing => match sent.next() {
                    Some(more) => buffer.extend_from_slice(more),
                    None => return Err(Malformed),
                },
            }
        }
    }

    #[rstest]
    #[case::extension(b"5;name=value\r\nhello\r\n0\r\n\r\n", b"hello")]
    #[case::space_before_extension(b"5 ;x\r\nhello\r\n0\r\n\r\n", b"hello")]
    #[case::zeros(b"0005\r\nhello\r\n000\r\n\r\n", b"hello")]
    #[case::capital(b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789")]
    #[case::empty(b"0\r\n\r\n", b"")]
    fn reads(#[case] sent: &[u8], #[case] body: &[u8]) {
        for step in 1..=sent.len() {
            assert_eq!(decode(sent, step), Ok((body.to_vec(), None, 0)));
        }
    }

    #[rstest]
    #[case::bare_lf(b"5\nhello\r\n0\r\n\r\n")]
    #[case::bare_cr(b"5\rhello\r\n0\r\n\r\n")]
    #[case::cr_in_extension(b"5;\rx\r\nhello\r\n0\r\n\r\n")]
    #[case::sign(b"+5\r\nhello\r\n0\r\n\r\n")]
    #[case::prefix(b"0x5\r\nhello\r\n0\r\n\r\n")]
    #[case::space_before(b" 5\r\nhello\r\n0\r\n\r\n")]
    #[case::no_size(b"\r\nhello\r\n0\r\n\r\n")]
    #[case::negative(b"-1\r\nhello\r\n0\r\n\r\n")]
    #[case::overflow(b"10000000000000005\r\nhello\r\n0\r\n\r\n")]
    #[case::too_long(b"5\r\nhello!\r\n0\r\n\r\n")]
    #[case::too_short(b"5\r\nhell\r\n0\r\n\r\n")]
    #[case::cut(b"5\r\nhello\r\n0\r\n")]
    #[case::bad_trailer(b"0\r\nno colon\r\n\r\n")]
    fn refuses(#[case] sent: &[u8]) {
        for step in 1..=sent.len() {
            assert_eq!(decode(sent, step), Err(Malformed), "in pieces of {step}");
        }
    }

    #[test]
    fn endless_lines_are_refused() {
        let size = [b"5;".as_slice(), &[b'x'; 5000]].concat();
        assert_eq!(decode(&size, 1000), Err(Malformed));
        let trailers = [b"0\r\nx-a: ".as_slice(), &[b'x'; 20_000]].concat();
        assert_eq!(decode(&trailers, 1000), Err(Malformed));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..8),
            trailer in prop::option::of("[a-z0-9 ]{1,20}"),
            step in 1..200_usize,
            more in 0..20_usize,
        ) {
            let trailers = trailer.map(|value| {
                HeaderMap::from_iter([(HeaderName::from_static("x-sum"), value.trim().parse().unwrap())])
            });
            let mut sent = Vec::new();
            for piece in &pieces {
                write_size(&mut sent, piece.len());
                sent.extend_from_slice(piece);
                sent.extend_from_slice(b"\r\n");
            }
            write_end(&mut sent, trailers.as_ref());
            sent.extend(std::iter::repeat_n(b'x', more));
            prop_assert_eq!(decode(&sent, step), Ok((pieces.concat(), trailers, more)));
        }
    }
}
