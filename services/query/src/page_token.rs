//! Where another page of the log, the next part of a file or the rest of a tail begins, as an opaque text that fits one
//! question only.
//!
//! Not secret and not signed: whoever makes one up gets another place in calls that are open to them anyway.

use aws_lc_rs::digest;
use data_encoding::BASE64URL_NOPAD;
use domain::RequestId;
use prost::Message as _;
use proto::{status, usage as pb};
use tonic::Status;
use uuid::Uuid;

use crate::sql::{Position, Since};

/// First byte; another one is another kind or format.
const PAGE: u8 = 2;
const PART: u8 = 3;
const TAIL: u8 = 4;
const QUESTION_BYTES: usize = 16;
/// Longest token of a tail: its shards have ten bytes each.
const TAIL_SHARDS_MAX: usize = 1_000;

/// What a token is bound to: parent, filter and what else a question has, hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Question([u8; QUESTION_BYTES]);

impl Question {
    pub(crate) fn of(parent: &str, filter: Option<&pb::UsageFilter>, kind: i32) -> Self {
        let request = pb::ListRequestsRequest {
            parent: parent.to_owned(),
            filter: filter.cloned(),
            order: kind,
            ..Default::default()
        };
        let hash = digest::digest(&digest::SHA256, &request.encode_to_vec());
        let mut question = [0; QUESTION_BYTES];
        question.copy_from_slice(&hash.as_ref()[..QUESTION_BYTES]);
        Self(question)
    }
}

/// A page of the log: behind a position, or before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) position: Position,
    pub(crate) is_backward: bool,
}

/// A part of a file: behind a call, of those that were written by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FilePlace {
    pub(crate) after: (Uuid, Position),
    pub(crate) written_ms: i64,
    pub(crate) part: u32,
    pub(crate) row_count: u64,
}

/// The token of another page.
pub(crate) fn write(page: Page, question: Question) -> String {
    let mut bytes = head(PAGE, question);
    bytes.push(page.is_backward.into());
    put_position(&mut bytes, page.position);
    BASE64URL_NOPAD.encode(&bytes)
}

/// The page in `token`; `None` for the first page.
///
/// # Errors
/// `INVALID_ARGUMENT` on `page_token` if it is none of ours, or of another question.
pub(crate) fn read(token: &str, question: Question) -> Result<Option<Page>, Status> {
    let Some(mut bytes) = Bytes::open("page_token", token, PAGE, question)? else { return Ok(None) };
    let page = (|| {
        let is_backward = match bytes.take::<1>()? {
            [0] => false,
            [1] => true,
            _ => return None,
        };
        let position = bytes.position()?;
        bytes.is_at_end().then_some(Page { position, is_backward })
    })();
    page.map(Some).ok_or_else(|| foreign("page_token"))
}

/// The token of the next part of a file.
pub(crate) fn write_part(place: FilePlace, question: Question) -> String {
    let mut bytes = head(PART, question);
    bytes.extend(place.after.0.as_bytes());
    put_position(&mut bytes, place.after.1);
    bytes.extend(place.written_ms.to_be_bytes());
    bytes.extend(place.part.to_be_bytes());
    bytes.extend(place.row_count.to_be_bytes());
    BASE64URL_NOPAD.encode(&bytes)
}

/// The part in `token`; `None` for the first part.
///
/// # Errors
/// `INVALID_ARGUMENT` on `resume_token` if it is none of ours, or of another question.
pub(crate) fn read_part(token: &str, question: Question) -> Result<Option<FilePlace>, Status> {
    let Some(mut bytes) = Bytes::open("resume_token", token, PART, question)? else { return Ok(None) };
    let place = (|| {
        let after = (Uuid::from_bytes(bytes.take()?), bytes.position()?);
        let written_ms = i64::from_be_bytes(bytes.take()?);
        let part = u32::from_be_bytes(bytes.take()?);
        let row_count = u64::from_be_bytes(bytes.take()?);
        bytes.is_at_end().then_some(FilePlace { after, written_ms, part, row_count })
    })();
    place.map(Some).ok_or_else(|| foreign("resume_token"))
}

/// The token of the rest of a tail.
pub(crate) fn write_tail(since: &Since, question: Question) -> String {
    let mut bytes = head(TAIL, question);
    bytes.extend(since.start_ms.to_be_bytes());
    for (shard, ms) in &since.shards {
        bytes.extend(shard.to_be_bytes());
        bytes.extend(ms.to_be_bytes());
    }
    BASE64URL_NOPAD.encode(&bytes)
}

/// Where the tail in `token` goes on; `None` for a new one.
///
/// # Errors
/// `INVALID_ARGUMENT` on `resume_token` if it is none of ours, or of another question.
pub(crate) fn read_tail(token: &str, question: Question) -> Result<Option<Since>, Status> {
    let Some(mut bytes) = Bytes::open("resume_token", token, TAIL, question)? else { return Ok(None) };
    let since = (|| {
        let mut since = Since { start_ms: i64::from_be_bytes(bytes.take()?), shards: Vec::new() };
        while !bytes.is_at_end() && since.shards.len() < TAIL_SHARDS_MAX {
            since.shards.push((u16::from_be_bytes(bytes.take()?), i64::from_be_bytes(bytes.take()?)));
        }
        bytes.is_at_end().then_some(since)
    })();
    since.map(Some).ok_or_else(|| foreign("resume_token"))
}

fn head(kind: u8, question: Question) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(question.0);
    bytes
}

fn put_position(bytes: &mut Vec<u8>, position: Position) {
    bytes.extend(position.occurred_at_ms.to_be_bytes());
    bytes.extend(position.request_id.as_bytes());
}

fn foreign(field: &str) -> Status {
    status::invalid(field, "is not a token that this service gave for such a question")
}

/// What is left of a token.
struct Bytes {
    bytes: Vec<u8>,
    at: usize,
}

impl Bytes {
    /// Behind its head; `None` if the token is empty.
    fn open(field: &str, token: &str, kind: u8, question: Question) -> Result<Option<Self>, Status> {
        if token.is_empty() {
            return Ok(None);
        }
        let bytes = BASE64URL_NOPAD.decode(token.as_bytes()).map_err(|_| foreign(field))?;
        let mut bytes = Self { bytes, at: 0 };
        if bytes.take() != Some([kind]) {
            return Err(foreign(field));
        }
        match bytes.take() {
            Some(asked) if asked == question.0 => Ok(Some(bytes)),
            Some(_) => Err(status::invalid(field, "belongs to another question; start again without it")),
            None => Err(foreign(field)),
        }
    }

    fn take<const LENGTH: usize>(&mut self) -> Option<[u8; LENGTH]> {
        let taken = self.bytes.get(self.at..self.at + LENGTH)?.try_into().ok()?;
        self.at += LENGTH;
        Some(taken)
    }

    fn position(&mut self) -> Option<Position> {
        let occurred_at_ms = i64::from_be_bytes(self.take()?);
        Some(Position { occurred_at_ms, request_id: RequestId::from_uuid(Uuid::from_bytes(self.take()?)) })
    }

    const fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(methods: &[&str]) -> pb::UsageFilter {
        pb::UsageFilter { methods: methods.iter().map(|m| (*m).to_owned()).collect(), ..Default::default() }
    }

    fn position() -> Position {
        Position { occurred_at_ms: -5, request_id: RequestId::generate() }
    }

    fn question() -> Question {
        Question::of("workspaces/a", Some(&filter(&["GET"])), 0)
    }

    #[test]
    fn a_token_fits_its_own_question_only() {
        let page = Page { position: position(), is_backward: true };
        let token = write(page, question());
        assert_eq!(read(&token, question()).unwrap(), Some(page));
        assert_eq!(read("", question()).unwrap(), None);
        for other in [
            Question::of("workspaces/b", Some(&filter(&["GET"])), 0),
            Question::of("workspaces/a", Some(&filter(&["GET", "PUT"])), 0),
            Question::of("workspaces/a", None, 0),
            Question::of("workspaces/a", Some(&filter(&["GET"])), 1),
        ] {
            assert!(read(&token, other).unwrap_err().message().contains("another question"));
        }
        assert!(read_part(&token, question()).is_err() && read_tail(&token, question()).is_err());
    }

    #[test]
    fn parts_and_tails_are_read_back() {
        let place =
            FilePlace { after: (Uuid::now_v7(), position()), written_ms: 9, part: 7, row_count: u64::MAX };
        assert_eq!(read_part(&write_part(place, question()), question()).unwrap(), Some(place));
        for shards in [vec![], vec![(0, -1), (65_535, i64::MAX)]] {
            let since = Since { start_ms: 5, shards };
            assert_eq!(read_tail(&write_tail(&since, question()), question()).unwrap(), Some(since));
        }
    }

    #[test]
    fn garbage_is_refused() {
        let good = write(Page { position: position(), is_backward: false }, question());
        let other_kind = format!("B{}", &good[1..]);
        for bad in ["x", "====", "é", &good[1..], &format!("{good}AAAA"), &other_kind, &"A".repeat(10_000)] {
            let status = read(bad, question()).unwrap_err();
            assert!(status.message().starts_with("page_token: "), "{bad}: {status}");
            assert!(read_part(bad, question()).is_err() && read_tail(bad, question()).is_err());
        }
    }
}
