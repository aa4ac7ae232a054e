//! Calls as they are written. Each insert of a shard carries one `ingested_at`, later than that of the shard's insert
//! before, which has ended by then; so behind the last one of each shard nothing comes that was not there yet, and at it
//! only what an insert into two months had not shown: those calls are known by their ids.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use domain::WorkspaceId;
use proto::{resource, status::invalid, timestamp, usage as pb};
use time::OffsetDateTime;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tonic::{Code, Status};
use uuid::Uuid;

use crate::{
    call::{CALL_MAX, Call, Cost},
    filter::Filter,
    log,
    page_token::{self, Question},
    plan::{Plan, Span},
    sql::{self, Since},
    store::{CallRow, TailEndRow},
};

/// Time between two looks, and the longest between two answers.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const ANSWER_EVERY: Duration = Duration::from_secs(10);
/// Most calls in one answer, and in one look; the rest is dropped, and counted.
const ANSWER_MAX: usize = 1_000;
const LOOK_MAX: u32 = 5_000;
/// No insert takes longer.
const INSERT_MAX_MS: i64 = 5 * 60 * 1000;
/// How far back a tail may begin.
const BACK_MAX: time::Duration = time::Duration::hours(1);

type Answers = mpsc::Sender<Result<pb::TailRequestsResponse, Status>>;

/// What has been sent.
struct Sent {
    since: Since,
    /// The calls at the last `ingested_at` of each shard.
    at_last: HashMap<u16, HashSet<Uuid>>,
}

/// A checked question.
pub(crate) struct Tail {
    workspace_id: WorkspaceId,
    filter: Filter,
    question: Question,
    sent: Sent,
}

impl Tail {
    /// # Errors
    /// `INVALID_ARGUMENT` with the field's name.
    pub(crate) fn new(call: &Call, request: pb::TailRequestsRequest) -> Result<Self, Status> {
        let workspace_id = call.claims.workspace(&request.parent)?;
        let question = Question::of(&resource::workspace_name(workspace_id), request.filter.as_ref(), -1);
        let filter = Filter::parse(request.filter)?;
        let start = match &request.ingested_from {
            None => call.now,
            Some(from) => timestamp::from_proto(from)
                .filter(|from| call.now - *from <= BACK_MAX)
                .ok_or_else(|| invalid("ingested_from", "must be a time, at most an hour ago"))?,
        };
        let since = page_token::read_tail(&request.resume_token, question)?
            .unwrap_or(Since { start_ms: log::ms(start), shards: Vec::new() });
        Ok(Self { workspace_id, filter, question, sent: Sent { since, at_last: HashMap::new() } })
    }

    /// Answers until the caller has gone, its deadline is over or its access token has expired.
    pub(crate) async fn run(mut self, mut call: Call, answers: Answers) -> Result<(), Status> {
        let ends = call.deadline;
        let mut answered = None::<Instant>;
        while Instant::now() < ends {
            if OffsetDateTime::now_utc() >= call.claims.expires {
                let why = "the access token has expired; go on with another one and the last resume_token";
                return Err(proto::status::error(Code::Unauthenticated, "TOKEN_EXPIRED", why));
            }
            call.deadline = ends.min(Instant::now() + CALL_MAX);
            call.cost = Cost::default();
            let before = page_token::write_tail(&self.sent.since, self.question);
            let (rows, dropped) = self.look(&call).await?;
            let is_due = answered.is_none_or(|at| at.elapsed() >= ANSWER_EVERY);
            if is_due || !rows.is_empty() {
                for answer in self.answers(&call, rows, dropped, before).await? {
                    if answers.send(Ok(answer)).await.is_err() {
                        return Ok(());
                    }
                }
                answered = Some(Instant::now());
            }
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                () = answers.closed() => return Ok(()),
            }
        }
        Ok(())
    }

    /// What was written since the last look, and how much more than that.
    async fn look(&mut self, call: &Call) -> Result<(Vec<CallRow>, u64), Status> {
        let Filter { range, condition } = &self.filter;
        let known = self.sent.at_last.values().map(HashSet::len).sum::<usize>();
        let limit = LOOK_MAX + 1 + u32::try_from(known).unwrap_or(LOOK_MAX);
        let statement = sql::tail(self.workspace_id, condition, Span::of(range), &self.sent.since, limit);
        let mut rows = call.rows::<CallRow>(self.workspace_id, statement).await?;
        rows.retain(|row| !self.sent.has(row));
        let mut dropped = 0;
        if rows.len() > LOOK_MAX as usize {
            let statement = sql::tail_ends(self.workspace_id, condition, Span::of(range), &self.sent.since);
            let ends = call.rows::<TailEndRow>(self.workspace_id, statement).await?;
            rows.truncate(LOOK_MAX as usize);
            let all = ends.iter().map(|end| end.call_count).sum::<u64>();
            dropped = all.saturating_sub((known + rows.len()) as u64);
            self.sent.skip_behind(&ends);
        } else {
            self.sent.add(&rows);
        }
        self.sent.forget(call.now_ms());
        rows.sort_by_key(CallRow::place);
        Ok((rows, dropped))
    }

    /// Only the last answer has a token behind all of them.
    async fn answers(
        &self,
        call: &Call,
        rows: Vec<CallRow>,
        dropped: u64,
        before: String,
    ) -> Result<Vec<pb::TailRequestsResponse>, Status> {
        let horizon = call.horizon().await?;
        let plan = Plan::of_calls(&self.filter.range, horizon.calls_from_ms(self.workspace_id, call.now));
        let freshness = call.freshness(&horizon, self.workspace_id, &self.filter.range, &plan);
        let requests = rows.into_iter().map(|row| log::to_wire(self.workspace_id, row));
        let requests = requests.collect::<Result<Vec<_>, _>>()?;
        let mut answers: Vec<_> = requests
            .chunks(ANSWER_MAX)
            .map(|chunk| pb::TailRequestsResponse {
                requests: chunk.to_vec(),
                resume_token: before.clone(),
                freshness: Some(freshness.clone()),
                dropped_count: 0,
            })
            .collect();
        if answers.is_empty() {
            answers.push(pb::TailRequestsResponse { freshness: Some(freshness), ..Default::default() });
        }
        if let Some(last) = answers.last_mut() {
            last.resume_token = page_token::write_tail(&self.sent.since, self.question);
            last.dropped_count = dropped;
        }
        Ok(answers)
    }
}

impl Sent {
    fn has(&self, row: &CallRow) -> bool {
        self.at_last.get(&row.shard).is_some_and(|ids| ids.contains(&row.request_id))
    }

    /// Rows that were not sent before.
    fn add(&mut self, rows: &[CallRow]) {
        for row in rows {
            let written_ms = log::ms(row.ingested_at);
            let last_ms = self.since.last_ms(row.shard);
            let ids = self.at_last.entry(row.shard).or_default();
            if *last_ms < written_ms {
                *last_ms = written_ms;
                ids.clear();
            }
            ids.insert(row.request_id);
        }
    }

    /// Goes on behind these, whatever of them was sent.
    fn skip_behind(&mut self, ends: &[TailEndRow]) {
        for end in ends {
            *self.since.last_ms(end.shard) = end.written_ms + 1;
        }
        self.at_last.clear();
    }

    /// An insert that began long ago has ended.
    fn forget(&mut self, now_ms: i64) {
        for (shard, last_ms) in &mut self.since.shards {
            if now_ms - *last_ms > INSERT_MAX_MS && self.at_last.remove(shard).is_some() {
                *last_ms += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_goes_on_behind_its_last_insert_once_that_is_over() {
        let mut sent =
            Sent { since: Since { start_ms: 5, shards: vec![(1, 1_000)] }, at_last: HashMap::new() };
        sent.at_last.insert(1, HashSet::from([Uuid::now_v7()]));
        sent.forget(1_000 + INSERT_MAX_MS);
        assert_eq!(sent.since.shards, [(1, 1_000)]);
        sent.forget(1_001 + INSERT_MAX_MS);
        assert_eq!((sent.since.shards.as_slice(), sent.at_last.len()), (&[(1, 1_001)][..], 0));
        sent.forget(i64::MAX / 2);
        assert_eq!(sent.since.shards, [(1, 1_001)], "it is behind it already");
        sent.skip_behind(&[TailEndRow { shard: 2, written_ms: 7, call_count: 1 }]);
        assert_eq!(sent.since.shards, [(1, 1_001), (2, 8)]);
    }
}
