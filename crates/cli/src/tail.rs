//! Calls as they are written, until Ctrl-C: goes on with a new access token and behind a break, and says what was
//! left out.

use std::{collections::HashSet, time::Duration};

use proto::{
    timestamp,
    usage::{TailRequestsRequest, TailRequestsResponse},
};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};

use crate::{
    clients::Clients,
    failure::{Failure, Service},
    filter::Which,
    json,
    log::{REQUEST, table},
    screen::Screen,
};

/// Query answers at least every 10 s; after this long it is gone.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long it is tried to go on, and the pause between two tries.
const BREAK_MAX: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(1);
/// Calls that began so long ago still come when they end; and how long one can follow.
const BEFORE: time::Duration = time::Duration::hours(1);
const FOLLOW_MAX: time::Duration = time::Duration::days(390);

/// Prints calls until Ctrl-C, which is its good end.
pub(crate) async fn follow(clients: &mut Clients, which: &Which, screen: &Screen) -> Result<(), Failure> {
    tokio::select! {
        ended = print(clients, which, screen) => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn print(clients: &mut Clients, which: &Which, screen: &Screen) -> Result<(), Failure> {
    let now = OffsetDateTime::now_utc();
    let mut ask = TailRequestsRequest {
        parent: clients.workspace().await?,
        filter: Some(which.filter(clients, (now - BEFORE, now + FOLLOW_MAX)).await?),
        ingested_from: Some(timestamp::to_proto(now)),
        resume_token: String::new(),
    };
    let mut printed = Printed::default();
    let mut heard = Instant::now();
    loop {
        let status = once(clients, &mut ask, &mut printed, &mut heard, screen).await?;
        match status.code() {
            // An access token lasts for five minutes; one that was just made is refused for good.
            Code::Unauthenticated if heard.elapsed() < SILENCE_MAX => clients.forget_access(),
            code if is_break(code) && heard.elapsed() < BREAK_MAX => {}
            _ => return Err(clients.failure(Service::Query, &status)),
        }
        sleep(PAUSE).await;
    }
}

/// Whether the same question may be answered a moment later.
pub(crate) const fn is_break(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable | Code::Cancelled | Code::Unknown | Code::DeadlineExceeded | Code::Internal
    )
}

/// Follows until a break; why it broke.
async fn once(
    clients: &mut Clients,
    ask: &mut TailRequestsRequest,
    printed: &mut Printed,
    heard: &mut Instant,
    screen: &Screen,
) -> Result<Status, Failure> {
    let request = clients.signed(ask.clone()).await?;
    let mut client = clients.usage.clone();
    let mut answers = match timeout(SILENCE_MAX, client.tail_requests(request)).await {
        Ok(Ok(answers)) => answers.into_inner(),
        Ok(Err(status)) => return Ok(status),
        Err(_) => return Ok(Status::deadline_exceeded("no answer in time")),
    };
    loop {
        let answer = match timeout(SILENCE_MAX, answers.message()).await {
            Ok(Ok(Some(answer))) => answer,
            Ok(Ok(None)) => return Ok(Status::unavailable("query ended the stream")),
            Ok(Err(status)) => return Ok(status),
            Err(_) => return Ok(Status::deadline_exceeded("no answer in time")),
        };
        *heard = Instant::now();
        ask.resume_token.clone_from(&answer.resume_token);
        printed.print(answer, screen)?;
    }
}

/// What is on the screen already.
#[derive(Default)]
struct Printed {
    has_heads: bool,
    /// Calls of the last answers: those before a break may come again.
    last: HashSet<String>,
    before: HashSet<String>,
}

impl Printed {
    /// Calls that are remembered: as many as two looks of query can bring.
    const REMEMBERED_MAX: usize = 10_000;

    fn print(&mut self, answer: TailRequestsResponse, screen: &Screen) -> Result<(), Failure> {
        let mut requests = answer.requests;
        requests.retain(|request| self.is_new(&request.name));
        if screen.is_json {
            for request in &requests {
                screen.object(&json::of(REQUEST, request))?;
            }
        } else if !requests.is_empty() {
            screen.table(&table(&requests, !self.has_heads))?;
            self.has_heads = true;
        }
        if answer.dropped_count > 0 {
            screen
                .note(&format!("{} calls were left out, since too many came at once.", answer.dropped_count));
        }
        Ok(())
    }

    fn is_new(&mut self, name: &str) -> bool {
        if self.last.contains(name) || self.before.contains(name) {
            return false;
        }
        if self.last.len() >= Self::REMEMBERED_MAX {
            self.before = std::mem::take(&mut self.last);
        }
        self.last.insert(name.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_comes_again_is_printed_once() {
        let mut printed = Printed::default();
        assert!(printed.is_new("a"));
        assert!(!printed.is_new("a"));
        for at in 0..=2 * Printed::REMEMBERED_MAX {
            assert!(printed.is_new(&at.to_string()));
            assert!(!printed.is_new(&at.to_string()));
        }
        assert!(
            printed.last.len() <= Printed::REMEMBERED_MAX && printed.before.len() <= Printed::REMEMBERED_MAX
        );
    }
}
