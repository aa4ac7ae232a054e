//! ClickHouse's compressed blocks (`compress=1`, `decompress=1`) and LZ4 frames (`Accept-Encoding`,
//! `Content-Encoding: lz4`). Never holds more than one block.

use std::io::{self, Read, Write as _};

use lz4_flex::{
    block,
    frame::{BlockSize, FrameDecoder, FrameEncoder, FrameInfo},
};

/// Uncompressed bytes in a block that is written.
const BLOCK_BYTES: usize = 1 << 20;
/// The largest block that is read, compressed or not.
const BLOCK_BYTES_MAX: usize = 128 << 20;
const CHECKSUM_BYTES: usize = 16;
/// Method, compressed size with this header, uncompressed size.
const HEADER_BYTES: usize = 9;
const METHOD_LZ4: u8 = 0x82;
const METHOD_NONE: u8 = 0x02;

/// How a response is compressed.
pub(crate) enum Encoder {
    /// Not at all.
    Identity,
    /// ClickHouse's own blocks.
    Blocks,
    /// One LZ4 frame, flushed block by block.
    Frame(Box<FrameEncoder<Vec<u8>>>),
}

impl Encoder {
    /// An encoder of one LZ4 frame.
    pub(crate) fn frame() -> Self {
        let info = FrameInfo::new().block_size(BlockSize::Max256KB);
        Self::Frame(Box::new(FrameEncoder::with_frame_info(info, Vec::new())))
    }

    /// The bytes that stand for `data` and whatever is still held back.
    pub(crate) fn encode(&mut self, data: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Identity => data,
            Self::Blocks => data.chunks(BLOCK_BYTES).flat_map(block).collect(),
            Self::Frame(encoder) => {
                let written = encoder.write_all(&data).and_then(|()| encoder.flush());
                written.expect("a vector takes everything");
                std::mem::take(encoder.get_mut())
            }
        }
    }

    /// The bytes that end the stream.
    pub(crate) fn finish(self) -> Vec<u8> {
        match self {
            Self::Identity | Self::Blocks => Vec::new(),
            Self::Frame(encoder) => encoder.finish().expect("a vector takes everything"),
        }
    }
}

fn block(data: &[u8]) -> Vec<u8> {
    let compressed = block::compress(data);
    let size = |bytes: usize| u32::try_from(bytes).expect("a block is far below 4 GiB").to_le_bytes();
    let mut bytes = vec![0; CHECKSUM_BYTES];
    bytes.push(METHOD_LZ4);
    bytes.extend(size(HEADER_BYTES + compressed.len()));
    bytes.extend(size(data.len()));
    bytes.extend(compressed);
    let checksum = checksum(&bytes[CHECKSUM_BYTES..]);
    bytes[..CHECKSUM_BYTES].copy_from_slice(&checksum);
    bytes
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    cityhash_rs::cityhash_102_128(bytes).rotate_right(64).to_le_bytes()
}

/// Reads ClickHouse's compressed blocks.
pub(crate) struct BlockReader<R> {
    source: R,
    block: Vec<u8>,
    at: usize,
}

impl<R: Read> BlockReader<R> {
    /// Nothing is read before the first byte is asked for.
    pub(crate) fn new(source: R) -> Self {
        Self { source, block: Vec::new(), at: 0 }
    }

    /// Reads the next block; false at the end.
    fn next_block(&mut self) -> io::Result<bool> {
        let mut head = [0; CHECKSUM_BYTES + HEADER_BYTES];
        let first = self.source.read(&mut head)?;
        if first == 0 {
            return Ok(false);
        }
        self.source.read_exact(&mut head[first..])?;
        let size = |at: usize| {
            let bytes = head[at..at + 4].try_into().expect("four bytes");
            usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX)
        };
        let (compressed, uncompressed) = (size(CHECKSUM_BYTES + 1), size(CHECKSUM_BYTES + 5));
        if compressed < HEADER_BYTES || compressed.max(uncompressed) > BLOCK_BYTES_MAX {
            return Err(garbled("impossible size of a compressed block"));
        }
        let mut body = head[CHECKSUM_BYTES..].to_vec();
        body.resize(compressed, 0);
        self.source.read_exact(&mut body[HEADER_BYTES..])?;
        if checksum(&body) != head[..CHECKSUM_BYTES] {
            return Err(garbled("checksum of a compressed block does not match"));
        }
        self.block = match body[0] {
            METHOD_LZ4 => block::decompress(&body[HEADER_BYTES..], uncompressed)
                .map_err(|error| garbled(&format!("a compressed block can not be read: {error}")))?,
            METHOD_NONE => body.split_off(HEADER_BYTES),
            method => {
                return Err(garbled(&format!("blocks with method {method:#04x} are not supported; use LZ4")));
            }
        };
        self.at = 0;
        Ok(true)
    }
}

impl<R: Read> Read for BlockReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.block.len() {
            if !self.next_block()? {
                return Ok(0);
            }
        }
        let count = buffer.len().min(self.block.len() - self.at);
        buffer[..count].copy_from_slice(&self.block[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// Reads LZ4 frames, and refuses one that is cut short: the decoder alone takes a cut between blocks for the end.
pub(crate) struct FrameReader<R: Read> {
    decoder: FrameDecoder<Counted<R>>,
    /// Bytes of the source that make whole frames.
    whole: u64,
}

impl<R: Read> FrameReader<R> {
    /// Nothing is read before the first byte is asked for.
    pub(crate) fn new(source: R) -> Self {
        Self { decoder: FrameDecoder::new(Counted { source, count: 0, ended: false }), whole: 0 }
    }
}

impl<R: Read> Read for FrameReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.decoder.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            let source = self.decoder.get_ref();
            if !source.ended {
                self.whole = source.count;
            } else if self.whole == source.count {
                return Ok(0);
            } else {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "an LZ4 frame is cut short"));
            }
        }
    }
}

/// Counts what is read, and remembers that there is no more.
struct Counted<R> {
    source: R,
    count: u64,
    ended: bool,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.ended |= count == 0 && !buffer.is_empty();
        self.count += count as u64;
        Ok(count)
    }
}

fn garbled(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> Vec<u8> {
        (0..3_000_000_u32).flat_map(|number| (number / 7).to_le_bytes()).collect()
    }

    #[test]
    fn blocks_read_back_as_written() {
        let mut read = Vec::new();
        BlockReader::new(Encoder::Blocks.encode(data()).as_slice()).read_to_end(&mut read).unwrap();
        assert!(read == data());
    }

    #[test]
    fn a_changed_byte_and_a_cut_block_are_refused() {
        let mut bytes = Encoder::Blocks.encode(b"hello".repeat(100));
        let cut = BlockReader::new(&bytes[..bytes.len() - 1]).read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
        *bytes.last_mut().unwrap() ^= 1;
        let changed = BlockReader::new(bytes.as_slice()).read_to_end(&mut Vec::new()).unwrap_err();
        assert!(changed.to_string().contains("checksum"), "{changed}");
    }

    #[test]
    fn a_frame_is_readable_after_each_piece() {
        let mut encoder = Encoder::frame();
        let mut bytes = encoder.encode(b"one".to_vec());
        let mut first = [0; 3];
        FrameReader::new(bytes.as_slice()).read_exact(&mut first).unwrap();
        assert_eq!(&first, b"one");
        bytes.extend(encoder.encode(data()));
        bytes.extend(encoder.finish());
        let mut read = Vec::new();
        FrameReader::new(bytes.as_slice()).read_to_end(&mut read).unwrap();
        assert!(read[..3] == *b"one" && read[3..] == data());
    }

    #[test]
    fn frames_follow_each_other_and_a_cut_one_is_refused() {
        let frame = |pieces: &[&str]| {
            let mut encoder = Encoder::frame();
            let mut bytes: Vec<_> =
                pieces.iter().flat_map(|piece| encoder.encode(piece.as_bytes().to_vec())).collect();
            bytes.extend(encoder.finish());
            bytes
        };
        let first = frame(&["one", "two"]);
        let bytes = [first.clone(), frame(&["three"])].concat();
        for end in 0..=bytes.len() {
            let mut read = String::new();
            let result = FrameReader::new(&bytes[..end]).read_to_string(&mut read);
            let whole = [0, first.len(), bytes.len()].contains(&end);
            assert_eq!(result.is_ok(), whole, "{end} of {} bytes: {read}", bytes.len());
        }
        let mut read = String::new();
        FrameReader::new(bytes.as_slice()).read_to_string(&mut read).unwrap();
        assert_eq!(read, "onetwothree");
    }
}
