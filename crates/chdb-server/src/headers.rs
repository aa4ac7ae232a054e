//! The headers of an answer, as ClickHouse names them.

use hyper::{
    HeaderMap,
    header::{self, HeaderName, HeaderValue},
};
use serde_json::json;
use uuid::Uuid;

use crate::{engine::Counters, exception::Exception, request::Coding, server::Identity};

const DISPLAY_NAME: HeaderName = HeaderName::from_static("x-clickhouse-server-display-name");
const EXCEPTION_CODE: HeaderName = HeaderName::from_static("x-clickhouse-exception-code");
const EXCEPTION_TAG: HeaderName = HeaderName::from_static("x-clickhouse-exception-tag");
const FORMAT: HeaderName = HeaderName::from_static("x-clickhouse-format");
const QUERY_ID: HeaderName = HeaderName::from_static("x-clickhouse-query-id");
const SUMMARY: HeaderName = HeaderName::from_static("x-clickhouse-summary");
const TIMEZONE: HeaderName = HeaderName::from_static("x-clickhouse-timezone");

/// Headers of a statement that goes well, so far.
pub(crate) fn answer(headers: &mut HeaderMap, format: &str, coding: Coding, identity: &Identity) {
    set(headers, header::CONTENT_TYPE, content_type(format));
    set(headers, FORMAT, format);
    set(headers, TIMEZONE, &identity.timezone);
    set(headers, DISPLAY_NAME, &identity.name);
    if coding == Coding::Frame {
        set(headers, header::CONTENT_ENCODING, "lz4");
    }
}

/// Headers of a statement that failed.
pub(crate) fn error(headers: &mut HeaderMap, exception: &Exception, identity: &Identity) {
    set(headers, header::CONTENT_TYPE, "text/plain; charset=UTF-8");
    set(headers, EXCEPTION_CODE, &exception.code.to_string());
    set(headers, DISPLAY_NAME, &identity.name);
}

/// Names the statement.
pub(crate) fn query_id(headers: &mut HeaderMap, id: &str) {
    set(headers, QUERY_ID, id);
}

/// What the statement read and wrote; known only once it has ended.
pub(crate) fn summary(headers: &mut HeaderMap, counters: Counters) {
    let nanoseconds = (counters.elapsed_s * 1e9).max(0.0) as u64;
    let summary = json!({
        "read_rows": counters.read_rows.to_string(),
        "read_bytes": counters.read_bytes.to_string(),
        "written_rows": counters.written_rows.to_string(),
        "written_bytes": counters.written_bytes.to_string(),
        "elapsed_ns": nanoseconds.to_string(),
    });
    set(headers, SUMMARY, &summary.to_string());
}

/// A word that no rows hold, by which a client knows an exception among them.
pub(crate) fn exception_tag(headers: &mut HeaderMap) -> String {
    let tag: String = Uuid::new_v4().into_bytes().iter().map(|byte| char::from(b'a' + byte % 26)).collect();
    set(headers, EXCEPTION_TAG, &tag);
    tag
}

/// Leaves the header out if the value can not be one.
fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn content_type(format: &str) -> &'static str {
    match format {
        ""
        | "TabSeparated"
        | "TSV"
        | "TabSeparatedRaw"
        | "TSVRaw"
        | "TabSeparatedWithNames"
        | "TSVWithNames"
        | "TabSeparatedWithNamesAndTypes"
        | "TSVWithNamesAndTypes" => "text/tab-separated-values; charset=UTF-8",
        "CSV" => "text/csv; charset=UTF-8; header=absent",
        "CSVWithNames" | "CSVWithNamesAndTypes" => "text/csv; charset=UTF-8; header=present",
        "JSON"
        | "JSONStrings"
        | "JSONColumns"
        | "JSONColumnsWithMetadata"
        | "JSONCompact"
        | "JSONCompactColumns"
        | "JSONCompactStrings" => "application/json; charset=UTF-8",
        "JSONEachRow" | "JSONCompactEachRow" | "JSONStringsEachRow" | "JSONLines" | "NDJSON" => {
            "application/x-ndjson; charset=UTF-8"
        }
        "XML" => "application/xml; charset=UTF-8",
        "Native"
        | "RowBinary"
        | "RowBinaryWithNames"
        | "RowBinaryWithNamesAndTypes"
        | "Parquet"
        | "Arrow"
        | "ArrowStream"
        | "ORC"
        | "Avro"
        | "MsgPack" => "application/octet-stream",
        _ => "text/plain; charset=UTF-8",
    }
}
