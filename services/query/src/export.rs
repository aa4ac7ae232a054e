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
    sql::{self, Part, Position},
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

/// Where a part ends.
enum End {
    /// With this call, and others follow.
    At((Uuid, Position)),
    /// With the file.
    Last { row_count: u64 },
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

    /// Answers until the file is whole or the caller has gone. Where the next part ends is asked while one is sent.
    pub(crate) async fn run(self, mut call: Call, answers: Answers) -> Result<(), Status> {
        let ends = call.deadline;
        let horizon = call.horizon().await?;
        let plan = Plan::of_calls(&self.filter.range, horizon.calls_from_ms(self.workspace_id, call.now));
        let mut number = self.from.map_or(0, |from| from.part);
        let mut row_count = self.from.map_or(0, |from| from.row_count);
        let written_ms = self.from.map_or(log::ms(call.now), |from| from.written_ms);
        let part_behind =
            |after| Part { condition: &self.filter.condition, span: plan.live(), after, written_ms };
        let mut part = part_behind(self.from.map(|from| from.after));
        call.deadline = ends.min(Instant::now() + PART_MAX);
        let mut end = self.end_of(&call, &part).await?;
        loop {
            call.deadline = ends.min(Instant::now() + PART_MAX);
            let place = match end {
                End::Last { row_count: rows } => {
                    let sent = self.send_part(&call, &part, None, number, &answers).await?;
                    let Some(data) = sent else { return Ok(()) };
                    let freshness = call.freshness(&horizon, self.workspace_id, &self.filter.range, &plan);
                    let answer = pb::ExportRequestsResponse {
                        data,
                        part: number,
                        row_count: row_count + rows,
                        freshness: Some(freshness),
                        ..Default::default()
                    };
                    // Who has gone needs no answer.
                    let _ = answers.send(Ok(answer)).await;
                    return Ok(());
                }
                End::At(place) => place,
            };
            let next = part_behind(Some(place));
            let (sent, next_end) = tokio::try_join!(
                self.send_part(&call, &part, Some(place), number, &answers),
                self.end_of(&call, &next),
            )?;
            let Some(data) = sent else { return Ok(()) };
            row_count += u64::from(PART_ROWS);
            let goes_on = FilePlace { after: place, written_ms, part: number + 1, row_count };
            let resume_token = page_token::write_part(goes_on, self.question);
            let answer = pb::ExportRequestsResponse {
                data,
                part: number,
                row_count,
                resume_token,
                ..Default::default()
            };
            if answers.send(Ok(answer)).await.is_err() {
                return Ok(());
            }
            (number, part, end) = (number + 1, next, next_end);
        }
    }

    async fn end_of(&self, call: &Call, part: &Part<'_>) -> Result<End, Status> {
        let statement = sql::export_end(self.workspace_id, part, PART_ROWS);
        if let Some(row) = call.rows::<PlaceRow>(self.workspace_id, statement).await?.pop() {
            return Ok(End::At(place_of(&row)));
        }
        let statement = sql::export_count(self.workspace_id, part);
        let row_count = call.rows::<u64>(self.workspace_id, statement).await?.pop().unwrap_or(0);
        Ok(End::Last { row_count })
    }

    /// Sends a part but for its last piece, which it returns; `None` if the caller has gone.
    async fn send_part(
        &self,
        call: &Call,
        part: &Part<'_>,
        end: Option<(Uuid, Position)>,
        number: u32,
        answers: &Answers,
    ) -> Result<Option<Bytes>, Status> {
        let format = match self.format {
            pb::ExportFormat::Csv if number == 0 => "CSVWithNames",
            pb::ExportFormat::Csv => "CSV",
            pb::ExportFormat::Parquet => "Parquet",
            pb::ExportFormat::Arrow => "ArrowStream",
            pb::ExportFormat::Ndjson | pb::ExportFormat::Unspecified => "JSONEachRow",
        };
        let statement = sql::export(self.workspace_id, part, end);
        let mut file = call.store.file(self.workspace_id, statement, format, call.deadline).await?;
        let mut piece = BytesMut::new();
        while let Some(bytes) = file.next().await? {
            piece.extend_from_slice(&bytes);
            while piece.len() > DATA_BYTES_MAX {
                let data = piece.split_to(DATA_BYTES_MAX).freeze();
                let answer = pb::ExportRequestsResponse { data, part: number, ..Default::default() };
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
