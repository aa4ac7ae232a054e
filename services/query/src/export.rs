//! Calls as a file, part by part. A part ends at a call, so that an export that broke off goes on behind the last part
//! that came whole; all parts are of the calls that were written when the first began.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use domain::{RequestId, WorkspaceId};
use proto::{resource, status::invalid, usage as pb};
use tokio::{sync::mpsc, time::Instant};
use tonic::Status;
use uuid::Uuid;

use crate::{
    call::Call,
    filter::Filter,
    log,
    page_token::{self, FilePlace, Question},
    plan::Plan,
    sql::{self, Part, Position, Statement},
    store::PlaceRow,
};

/// Calls of a part.
const PART_ROWS: u32 = 200_000;
/// Bytes of an answer.
const DATA_BYTES_MAX: usize = 1 << 20;
/// Longest time for one part.
const PART_MAX: Duration = Duration::from_secs(120);

type Answers = mpsc::Sender<Result<pb::ExportRequestsResponse, Status>>;

/// A checked question.
pub(crate) struct Export {
    workspace_id: WorkspaceId,
    filter: Filter,
    format: pb::ExportFormat,
    question: Question,
    from: Option<FilePlace>,
}

impl Export {
    /// # Errors
    /// `INVALID_ARGUMENT` with the field's name.
    pub(crate) fn new(call: &Call, request: pb::ExportRequestsRequest) -> Result<Self, Status> {
        let workspace_id = call.claims.workspace(&request.parent)?;
        let parent = resource::workspace_name(workspace_id);
        let question = Question::of(&parent, request.filter.as_ref(), request.format);
        let format = match pb::ExportFormat::try_from(request.format) {
            Ok(pb::ExportFormat::Unspecified) | Err(_) => {
                return Err(invalid("format", "must be NDJSON, CSV, PARQUET or ARROW"));
            }
            Ok(format) => format,
        };
        let filter = Filter::parse(request.filter)?;
        let from = page_token::read_part(&request.resume_token, question)?;
        Ok(Self { workspace_id, filter, format, question, from })
    }

    /// Answers until the file is whole or the caller has gone.
    pub(crate) async fn run(self, mut call: Call, answers: Answers) -> Result<(), Status> {
        let ends = call.deadline;
        let horizon = call.horizon().await?;
        let plan = Plan::of_calls(&self.filter.range, horizon.calls_from_ms(self.workspace_id, call.now));
        let mut number = self.from.map_or(0, |from| from.part);
        let mut row_count = self.from.map_or(0, |from| from.row_count);
        let written_ms = self.from.map_or(log::ms(call.now), |from| from.written_ms);
        let mut after = self.from.map(|from| from.after);
        loop {
            call.deadline = ends.min(Instant::now() + PART_MAX);
            let part = Part { condition: &self.filter.condition, span: plan.live(), after, written_ms };
            let statement = sql::export_end(self.workspace_id, &part, PART_ROWS);
            let end = call.rows::<PlaceRow>(self.workspace_id, statement).await?.pop();
            let end = end.map(|row| place_of(&row));
            let statement = sql::export(self.workspace_id, &part, end);
            let last = self.send_part(&call, statement, number, &answers).await?;
            let Some(data) = last else { return Ok(()) };
            let mut answer = pb::ExportRequestsResponse { data, part: number, ..Default::default() };
            let Some(end) = end else {
                let statement = sql::export_count(self.workspace_id, &part);
                row_count += call.rows::<u64>(self.workspace_id, statement).await?.pop().unwrap_or(0);
                answer.row_count = row_count;
                answer.freshness =
                    Some(call.freshness(&horizon, self.workspace_id, &self.filter.range, &plan));
                // Who has gone needs no answer.
                let _ = answers.send(Ok(answer)).await;
                return Ok(());
            };
            row_count += u64::from(PART_ROWS);
            number += 1;
            answer.row_count = row_count;
            let next = FilePlace { after: end, written_ms, part: number, row_count };
            answer.resume_token = page_token::write_part(next, self.question);
            if answers.send(Ok(answer)).await.is_err() {
                return Ok(());
            }
            after = Some(end);
        }
    }

    /// Sends a part but for its last piece, which it returns; `None` if the caller has gone.
    async fn send_part(
        &self,
        call: &Call,
        statement: Statement,
        part: u32,
        answers: &Answers,
    ) -> Result<Option<Bytes>, Status> {
        let format = match self.format {
            pb::ExportFormat::Csv if part == 0 => "CSVWithNames",
            pb::ExportFormat::Csv => "CSV",
            pb::ExportFormat::Parquet => "Parquet",
            pb::ExportFormat::Arrow => "ArrowStream",
            pb::ExportFormat::Ndjson | pb::ExportFormat::Unspecified => "JSONEachRow",
        };
        let mut file = call.store.file(self.workspace_id, statement, format, call.deadline).await?;
        let mut piece = BytesMut::new();
        while let Some(bytes) = file.next().await? {
            piece.extend_from_slice(&bytes);
            while piece.len() > DATA_BYTES_MAX {
                let data = piece.split_to(DATA_BYTES_MAX).freeze();
                let answer = pb::ExportRequestsResponse { data, part, ..Default::default() };
                if answers.send(Ok(answer)).await.is_err() {
                    return Ok(None);
                }
            }
        }
        Ok(Some(piece.freeze()))
    }
}

fn place_of(row: &PlaceRow) -> (Uuid, Position) {
    let request_id = RequestId::from_uuid(row.request_id);
    (row.key_id, Position { occurred_at_ms: row.occurred_at_ms, request_id })
}
