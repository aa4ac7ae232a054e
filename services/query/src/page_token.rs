//! Where the next page of the log begins, as an opaque text that fits one workspace and one filter only.
//!
//! Not secret and not signed: whoever makes one up gets another place in a log that is open to them anyway.

use aws_lc_rs::digest;
use data_encoding::BASE64URL_NOPAD;
use domain::RequestId;
use prost::Message as _;
use proto::{status, usage as pb};
use tonic::Status;

use crate::sql::Position;

/// First byte; another one is another format.
const VERSION: u8 = 1;
const QUESTION_BYTES: usize = 16;
const TOKEN_BYTES: usize = 1 + 8 + 16 + QUESTION_BYTES;

/// What a token is bound to: parent and filter of a request, hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Question([u8; QUESTION_BYTES]);

impl Question {
    pub(crate) fn of(parent: &str, filter: Option<&pb::UsageFilter>) -> Self {
        let request =
            pb::GetSummaryRequest { parent: parent.to_owned(), filter: filter.cloned() }.encode_to_vec();
        let hash = digest::digest(&digest::SHA256, &request);
        let mut question = [0; QUESTION_BYTES];
        question.copy_from_slice(&hash.as_ref()[..QUESTION_BYTES]);
        Self(question)
    }
}

/// The token for the page after `position`.
pub(crate) fn write(position: Position, question: Question) -> String {
    let mut bytes = Vec::with_capacity(TOKEN_BYTES);
    bytes.push(VERSION);
    bytes.extend(position.occurred_at_ms.to_be_bytes());
    bytes.extend(position.request_id.as_bytes());
    bytes.extend(question.0);
    BASE64URL_NOPAD.encode(&bytes)
}

/// The position in `token`; `None` for the first page.
///
/// # Errors
/// `INVALID_ARGUMENT` on `page_token` if it is none of ours, or of another question.
pub(crate) fn read(token: &str, question: Question) -> Result<Option<Position>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    let bytes: [u8; TOKEN_BYTES] = BASE64URL_NOPAD
        .decode(token.as_bytes())
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .filter(|bytes: &[u8; TOKEN_BYTES]| bytes[0] == VERSION)
        .ok_or_else(|| status::invalid("page_token", "is not a next_page_token of this service"))?;
    let (at, rest) = bytes[1..].split_at(8);
    let (id, asked) = rest.split_at(16);
    if asked != question.0 {
        let why = "belongs to another parent or filter; start again without it";
        return Err(status::invalid("page_token", why));
    }
    Ok(Some(Position {
        occurred_at_ms: i64::from_be_bytes(at.try_into().expect("split at 8")),
        request_id: RequestId::from_slice(id).expect("split at 16"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(methods: &[&str]) -> pb::UsageFilter {
        pb::UsageFilter { methods: methods.iter().map(|m| (*m).to_owned()).collect(), ..Default::default() }
    }

    #[test]
    fn a_token_fits_its_own_question_only() {
        let position = Position { occurred_at_ms: -5, request_id: RequestId::generate() };
        let question = Question::of("workspaces/a", Some(&filter(&["GET"])));
        let token = write(position, question);
        assert_eq!(read(&token, question).unwrap(), Some(position));
        assert_eq!(read("", question).unwrap(), None);
        for other in [
            Question::of("workspaces/b", Some(&filter(&["GET"]))),
            Question::of("workspaces/a", Some(&filter(&["GET", "PUT"]))),
            Question::of("workspaces/a", None),
        ] {
            assert!(read(&token, other).unwrap_err().message().contains("another parent or filter"));
        }
    }

    #[test]
    fn garbage_is_refused() {
        let question = Question::of("workspaces/a", None);
        let good = write(Position { occurred_at_ms: 1, request_id: RequestId::generate() }, question);
        let other_version = format!("B{}", &good[1..]);
        for bad in ["x", "====", "é", &good[1..], &format!("{good}A"), &other_version, &"A".repeat(10_000)] {
            let status = read(bad, question).unwrap_err();
            assert!(status.message().starts_with("page_token: "), "{bad}: {status}");
        }
    }
}
