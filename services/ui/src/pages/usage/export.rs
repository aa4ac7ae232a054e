//! All calls that a filter means as a file, passed through as it comes; says how far it is to whoever asks.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Json,
    extract::{Path, RawPathParams, RawQuery},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use proto::{
    resource::workspace_name,
    usage::{ExportFormat, ExportRequestsRequest, ExportRequestsResponse},
};
use serde::Serialize;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Status, Streaming};

use super::{asked, load::get_summary, now_to_the_millisecond, tar};
use crate::{
    download,
    filters::field,
    problem::{Service, Stop},
    visit::Visit,
};

/// Exports whose progress is kept; the oldest goes first.
const KEPT_MAX: usize = 1_000;
/// Longest name of an export, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// Calls that one Parquet file holds.
const PARQUET_ROWS_MAX: u64 = 200_000;

/// How far the last exports are, by the name that the page gave them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exports(Arc<Mutex<VecDeque<(String, Progress)>>>);

/// How far an export is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Progress {
    /// Calls that are on their way to the reader.
    row_count: u64,
    /// Calls that there are.
    total_count: u64,
    is_done: bool,
    has_failed: bool,
}

impl Exports {
    fn change(&self, name: &str, change: impl FnOnce(&mut Progress)) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, progress)) = kept.iter_mut().find(|(other, _)| other == name) {
            return change(progress);
        }
        if kept.len() >= KEPT_MAX {
            kept.pop_front();
        }
        let mut progress = Progress::default();
        change(&mut progress);
        kept.push_back((name.to_owned(), progress));
    }

    fn of(&self, name: &str) -> Option<Progress> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|(other, _)| other == name).map(|(_, progress)| *progress)
    }
}

/// `GET /exports/{name}`: how far it is.
pub(crate) async fn progress(visit: Visit, Path(name): Path<String>) -> Result<Response, Stop> {
    let progress = visit.app.exports.of(&name).ok_or_else(|| visit.not_found())?;
    Ok(Json(progress).into_response())
}

/// `GET …/export`, with the filter, `format` and the `export` name that its progress is asked by.
pub(crate) async fn file(
    visit: Visit,
    params: RawPathParams,
    RawQuery(query): RawQuery,
) -> Result<Response, Stop> {
    let query = query.unwrap_or_default();
    let (_, filters) = asked(&visit, &params, &query)?;
    let now = now_to_the_millisecond();
    let filter = filters.to_proto(now);
    let summary = get_summary(&visit, &filter).await;
    let total_count = summary.map_err(|status| visit.stop(Service::Query, &status))?;
    let total_count = total_count.counts.unwrap_or_default().total_count;
    let (format, kind, ending) = match field(&query, "format").as_ref() {
        "csv" => (ExportFormat::Csv, "text/csv; charset=utf-8", "csv"),
        "ndjson" => (ExportFormat::Ndjson, download::NDJSON, "ndjson"),
        "parquet" if total_count <= PARQUET_ROWS_MAX => {
            (ExportFormat::Parquet, "application/vnd.apache.parquet", "parquet")
        }
        "parquet" => (ExportFormat::Parquet, "application/x-tar", "parquet.tar"),
        _ => return Err(visit.not_found()),
    };
    let request = visit.call(ExportRequestsRequest {
        parent: workspace_name(visit.access.workspace_id),
        filter: Some(filter),
        format: format.into(),
        resume_token: String::new(),
    });
    let pieces = visit.app.clients.usage.clone().export_requests(request).await;
    let pieces = pieces.map_err(|status| visit.stop(Service::Query, &status))?.into_inner();
    let name: String = field(&query, "export").chars().take(NAME_BYTES_MAX).collect();
    let exports = visit.app.exports.clone();
    exports.change(&name, |progress| progress.total_count = total_count);
    let told = told(pieces, exports, name);
    let name = format!("keymeter-requests-{}.{ending}", now.date());
    Ok(if ending == "parquet.tar" {
        download::file(Service::Query, (&name, kind), tar::parts(told), visit.reference)
    } else {
        let data = told.map(|piece| piece.map(|piece| piece.data));
        download::file(Service::Query, (&name, kind), data, visit.reference)
    })
}

/// A piece of the file.
pub(super) struct Piece {
    pub(super) data: Bytes,
    /// The part ends with it.
    pub(super) is_last_of_part: bool,
}

/// Pieces as they come, each noted. A stream that breaks off breaks the file off, so that nobody takes it for whole.
fn told(
    pieces: Streaming<ExportRequestsResponse>,
    exports: Exports,
    name: String,
) -> impl Stream<Item = Result<Piece, Status>> {
    pieces.map(move |piece| match piece {
        Ok(piece) => {
            let is_done = piece.freshness.is_some();
            exports.change(&name, |progress| {
                progress.row_count = progress.row_count.max(piece.row_count);
                progress.is_done = is_done;
            });
            Ok(Piece { data: piece.data, is_last_of_part: is_done || !piece.resume_token.is_empty() })
        }
        Err(status) => {
            exports.change(&name, |progress| progress.has_failed = true);
            Err(status)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_progress_of_few_exports_is_kept() {
        let exports = Exports::default();
        for at in 0..=KEPT_MAX {
            exports.change(&at.to_string(), |progress| progress.total_count = 7);
        }
        assert_eq!(exports.of("0"), None);
        exports.change("1", |progress| progress.row_count = 3);
        let progress = exports.of("1").unwrap();
        assert_eq!((progress.row_count, progress.total_count, progress.is_done), (3, 7, false));
    }
}
