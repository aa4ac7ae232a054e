//! All calls that a filter means, to a file or standard output, piece by piece: goes on behind a break by itself, and
//! with the same command after the process ended.

use std::time::Duration;

use proto::usage::{
    ExportFormat, ExportRequestsRequest, ExportRequestsResponse, Freshness, GetSummaryRequest, UsageFilter,
};
use serde_json::json;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status, Streaming};

use crate::{
    arguments::Export,
    clients::Clients,
    export_file::{Asked, File},
    failure::{Exit, Failure, Service},
    screen::Screen,
    tail::is_break,
    usage::trust,
    words::{bytes, count},
};

/// A part may take query two minutes; after this long it is gone.
const SILENCE_MAX: Duration = Duration::from_secs(130);
/// How long it is tried to go on, and the pause between two tries.
const BREAK_MAX: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(1);
/// Time between two words on how far it is.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// Where the pieces go.
enum Target {
    File(File),
    /// Standard output, which takes nothing back: how many bytes of the part it has.
    Stdout {
        part_bytes: u64,
    },
}

/// How far it is.
struct Progress {
    total_count: Option<u64>,
    row_count: u64,
    byte_count: u64,
    told: Option<Instant>,
}

/// Writes the export, or goes on with it.
pub(crate) async fn run(clients: &mut Clients, asked: &Export, screen: &Screen) -> Result<(), Failure> {
    let format = format(asked)?;
    let parent = clients.workspace().await?;
    let range = asked.period.range(OffsetDateTime::now_utc());
    let filter = asked.which.filter(clients, range).await?;
    let mut request = ExportRequestsRequest {
        parent,
        filter: Some(filter),
        format: format.into(),
        resume_token: String::new(),
    };
    let mut progress = Progress { total_count: None, row_count: 0, byte_count: 0, told: None };
    let mut target = match &asked.file {
        None => Target::Stdout { part_bytes: 0 },
        Some(path) => {
            let file = File::open(path, &Asked::new(&request, &asked.period), &mut request, asked.force)?;
            if !request.resume_token.is_empty() {
                screen.note(&format!("Going on behind {} calls.", count(file.row_count())));
            }
            progress.row_count = file.row_count();
            Target::File(file)
        }
    };
    progress.total_count = total_count(clients, request.filter.as_ref()).await;
    let freshness = match &target {
        Target::File(_) => tokio::select! {
            ended = copy(clients, &mut request, &mut target, &mut progress, screen) => ended,
            _ = tokio::signal::ctrl_c() => {
                let why = format!("stopped after {}; the same command goes on", progress.words());
                Err(Failure::new(Exit::Interrupted, why))
            }
        },
        // Ctrl-C ends it as any program: nothing of it is ours to keep.
        Target::Stdout { .. } => copy(clients, &mut request, &mut target, &mut progress, screen).await,
    };
    screen.progress("");
    let freshness = freshness?;
    let files = match target {
        Target::File(file) => file.finish()?,
        Target::Stdout { .. } => Vec::new(),
    };
    let names: Vec<_> = files.iter().map(|path| path.display().to_string()).collect();
    if screen.is_json && !names.is_empty() {
        return screen.document(&json!({ "files": names, "row_count": progress.row_count }));
    }
    let place = if names.is_empty() { String::new() } else { format!(" in {}", names.join(", ")) };
    screen.note(&format!("Exported {}{place}.", progress.words()));
    trust(Some(&freshness), screen);
    Ok(())
}

/// The format that was asked for, or that of the file's ending.
fn format(asked: &Export) -> Result<ExportFormat, Failure> {
    if let Some(format) = asked.format {
        return Ok(format);
    }
    let Some(file) = &asked.file else { return Ok(ExportFormat::Csv) };
    match file.extension().and_then(|ending| ending.to_str()) {
        Some("csv") => Ok(ExportFormat::Csv),
        Some("ndjson" | "jsonl") => Ok(ExportFormat::Ndjson),
        Some("parquet") => Ok(ExportFormat::Parquet),
        Some("arrow" | "arrows") => Ok(ExportFormat::Arrow),
        _ => Err(Failure::usage(
            "--format is needed where the file's ending does not tell: csv, ndjson, parquet, arrow",
        )),
    }
}

/// Of how many calls, where whoever asks may know.
async fn total_count(clients: &mut Clients, filter: Option<&UsageFilter>) -> Option<u64> {
    let question = GetSummaryRequest {
        parent: clients.workspace().await.ok()?,
        filter: filter.cloned(),
        ..GetSummaryRequest::default()
    };
    let client = clients.usage.clone();
    let answer =
        clients.read(Service::Query, question, async |call| client.clone().get_summary(call).await).await;
    Some(answer.ok()?.counts?.total_count)
}

/// Copies all that is left, over breaks.
async fn copy(
    clients: &mut Clients,
    request: &mut ExportRequestsRequest,
    target: &mut Target,
    progress: &mut Progress,
    screen: &Screen,
) -> Result<Freshness, Failure> {
    let mut heard = Instant::now();
    loop {
        let status = match pieces(clients, request).await? {
            Ok(mut pieces) => {
                match copy_until_break(&mut pieces, request, target, progress, screen, &mut heard).await? {
                    Ok(freshness) => return Ok(freshness),
                    Err(status) => status,
                }
            }
            Err(status) => status,
        };
        match status.code() {
            Code::Unauthenticated if heard.elapsed() < BREAK_MAX => clients.forget_access(),
            code if is_break(code) && heard.elapsed() < BREAK_MAX => {}
            _ => return Err(clients.failure(Service::Query, &status)),
        }
        target.begin_part_again().map_err(|failure| failure.with(status.message()))?;
        sleep(PAUSE).await;
    }
}

async fn pieces(
    clients: &mut Clients,
    request: &ExportRequestsRequest,
) -> Result<Result<Streaming<ExportRequestsResponse>, Status>, Failure> {
    let call = clients.signed(request.clone()).await?;
    let mut client = clients.usage.clone();
    let answer = timeout(SILENCE_MAX, client.export_requests(call)).await;
    Ok(answer
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))
        .map(tonic::Response::into_inner))
}

/// Copies pieces until the last one, or until the stream broke off: why.
async fn copy_until_break(
    pieces: &mut Streaming<ExportRequestsResponse>,
    request: &mut ExportRequestsRequest,
    target: &mut Target,
    progress: &mut Progress,
    screen: &Screen,
    heard: &mut Instant,
) -> Result<Result<Freshness, Status>, Failure> {
    loop {
        let piece = match timeout(SILENCE_MAX, pieces.message()).await {
            Ok(Ok(Some(piece))) => piece,
            Ok(Ok(None)) => return Ok(Err(Status::unavailable("the export broke off"))),
            Ok(Err(status)) => return Ok(Err(status)),
            Err(_) => return Ok(Err(Status::deadline_exceeded("no answer in time"))),
        };
        *heard = Instant::now();
        target.write(&piece.data, screen)?;
        progress.add(&piece, screen);
        if let Some(freshness) = piece.freshness {
            return Ok(Ok(freshness));
        }
        if !piece.resume_token.is_empty() {
            target.end_part(&piece, request.format())?;
            request.resume_token = piece.resume_token;
        }
    }
}

impl Target {
    fn write(&mut self, data: &[u8], screen: &Screen) -> Result<(), Failure> {
        match self {
            Self::File(file) => file.write(data),
            Self::Stdout { part_bytes } => {
                *part_bytes += data.len() as u64;
                screen.bytes(data)
            }
        }
    }

    /// A part is whole, and others follow.
    fn end_part(&mut self, piece: &ExportRequestsResponse, format: ExportFormat) -> Result<(), Failure> {
        match self {
            Self::File(file) => file.end_part(&piece.resume_token, piece.row_count),
            Self::Stdout { part_bytes } if is_one_document(format) => {
                *part_bytes = 0;
                Ok(())
            }
            Self::Stdout { .. } => {
                let why = format!(
                    "standard output takes one part of this format, and there are more than {} calls: give --file",
                    count(piece.row_count)
                );
                Err(Failure::new(Exit::Failed, why))
            }
        }
    }

    /// The stream broke off: the part comes again from its beginning.
    fn begin_part_again(&mut self) -> Result<(), Failure> {
        match self {
            Self::File(file) => file.begin_part_again(),
            Self::Stdout { part_bytes: 0 } => Ok(()),
            Self::Stdout { .. } => {
                let why = "the export broke off, and standard output takes nothing back: give --file";
                Err(Failure::new(Exit::Unreachable, why))
            }
        }
    }
}

/// Whether the parts of this format make one document one after the other.
pub(crate) const fn is_one_document(format: ExportFormat) -> bool {
    matches!(format, ExportFormat::Csv | ExportFormat::Ndjson)
}

impl Progress {
    fn add(&mut self, piece: &ExportRequestsResponse, screen: &Screen) {
        self.byte_count += piece.data.len() as u64;
        self.row_count = self.row_count.max(piece.row_count);
        if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            self.told = Some(Instant::now());
            screen.progress(&self.words());
        }
    }

    /// `200,000 of 1,234,567 calls, 12.3 MB`
    fn words(&self) -> String {
        let of = self.total_count.filter(|total| *total > self.row_count);
        let of = of.map_or_else(String::new, |total| format!(" of {}", count(total)));
        format!("{}{of} calls, {}", count(self.row_count), bytes(self.byte_count))
    }
}
