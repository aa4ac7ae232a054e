//! Parts of an export as files of a tar archive. Holds one part at a time, for its length comes before its bytes.

use bytes::{Bytes, BytesMut};
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

use super::export::Piece;

/// What an archive is made of.
const BLOCK: usize = 512;

/// The archive of parts `requests-0000.parquet`, `requests-0001.parquet`, ….
pub(super) fn parts(
    pieces: impl Stream<Item = Result<Piece, Status>>,
) -> impl Stream<Item = Result<Bytes, Status>> {
    let (mut part, mut number) = (BytesMut::new(), 0);
    let files = pieces.filter_map(move |piece| {
        let piece = match piece {
            Ok(piece) => piece,
            Err(status) => return Some(Err(status)),
        };
        part.extend_from_slice(&piece.data);
        piece.is_last_of_part.then(|| {
            let file = file(number, &part.split());
            number += 1;
            Ok(file)
        })
    });
    files.chain(tokio_stream::once(Ok(Bytes::from(vec![0; 2 * BLOCK]))))
}

fn file(number: u32, content: &[u8]) -> Bytes {
    let mut header = tar::Header::new_ustar();
    // A name this short always fits.
    let _ = header.set_path(format!("requests-{number:04}.parquet"));
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    let mut file = BytesMut::with_capacity(content.len() + 2 * BLOCK);
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(content);
    file.resize(file.len().next_multiple_of(BLOCK), 0);
    file.freeze()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[tokio::test]
    async fn parts_come_out_as_they_went_in() {
        let piece = |data: &'static [u8], is_last_of_part| {
            Ok(Piece { data: Bytes::from_static(data), is_last_of_part })
        };
        let pieces = tokio_stream::iter([piece(b"PAR", false), piece(b"1", true), piece(b"second", true)]);
        let archive: Vec<Bytes> = parts(pieces).map(Result::unwrap).collect().await;
        let archive = archive.concat();
        let mut archive = tar::Archive::new(archive.as_slice());
        let files = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            (entry.path().unwrap().display().to_string(), content)
        });
        let expected = [("requests-0000.parquet", "PAR1"), ("requests-0001.parquet", "second")];
        assert_eq!(
            files.collect::<Vec<_>>(),
            expected.map(|(name, text)| (name.to_owned(), text.to_owned()))
        );
    }
}
