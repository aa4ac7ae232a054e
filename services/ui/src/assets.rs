//! Styles, scripts and pictures inside the binary, under addresses that name their content, so that browsers
//! may keep them for good.

use std::{collections::HashMap, sync::LazyLock};

use axum::{
    extract::Path,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use data_encoding::HEXLOWER;
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "assets/"]
struct Files;

/// Name → address, `/assets/0123456789abcdef/app.css`.
static ADDRESSES: LazyLock<HashMap<String, String>> = LazyLock::new(|| {
    Files::iter()
        .filter_map(|name| {
            let hash = Files::get(&name)?.metadata.sha256_hash();
            Some((name.to_string(), format!("/assets/{}/{name}", HEXLOWER.encode(&hash[..8]))))
        })
        .collect()
});

/// The address of a file; a name that is not there is a dead link, which a test looks for.
#[must_use]
pub(crate) fn address(name: &str) -> &'static str {
    ADDRESSES.get(name).map_or("/assets/missing", String::as_str)
}

/// Serves one file. An old hash is not found: whoever has an old page has its old files in the cache.
pub(crate) async fn serve(Path((hash, name)): Path<(String, String)>) -> Response {
    let Some(file) = Files::get(&name).filter(|_| address(&name) == format!("/assets/{hash}/{name}")) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let kind = HeaderValue::from_str(file.metadata.mimetype());
    let kind = kind.unwrap_or(HeaderValue::from_static("application/octet-stream"));
    let keep = HeaderValue::from_static("public, max-age=31536000, immutable");
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, keep)], file.data).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_that_pages_name_is_there() {
        for name in ["app.css", "team.css", "app.js", "keys.js", "usage.js", "icon.svg"] {
            assert!(address(name).ends_with(name), "{name}");
        }
    }
}
