//! The module for pages, so that a site needs no build step: as it is in clients/browser.

use std::sync::LazyLock;

use axum::{
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};

const MODULE: &str = include_str!("../../clients/browser/session-sidecar.js");

/// What it is known again by, so that a browser that has it is not sent it again.
static TAG: LazyLock<String> = LazyLock::new(|| format!("\"{}\"", &blake3::hash(MODULE.as_bytes()).to_hex()[..32]));

pub(super) async fn module(headers: HeaderMap) -> Response {
    let about = [
        (header::CONTENT_TYPE, "text/javascript; charset=utf-8"),
        // A new version of the sidecar brings another one.
        (header::CACHE_CONTROL, "no-cache"),
        (header::ETAG, &**TAG),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    let known = headers.get_all(header::IF_NONE_MATCH).iter();
    let known = known
        .filter_map(|tags| tags.to_str().ok())
        .flat_map(|tags| tags.split(','));
    // A weak tag is as good here (RFC 9110 section 13.1.2); a proxy that compresses makes it one.
    if known
        .map(|tag| tag.trim().trim_start_matches("W/"))
        .any(|tag| tag == *TAG)
    {
        return (StatusCode::NOT_MODIFIED, about).into_response();
    }
    (about, MODULE).into_response()
}
