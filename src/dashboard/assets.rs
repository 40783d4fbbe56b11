//! The style sheet and the script, which are parts of the program.
//!
//! Each is served under a name that says what is in it, so that browsers keep it for good and never an old one.

use std::sync::LazyLock;

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::routing::get;
use sha2::{Digest as _, Sha256};

const STYLE: &str = include_str!("assets/style.css");
const SCRIPT: &str = include_str!("assets/script.js");
const ICON: &str = include_str!("assets/icon.svg");

static STYLE_PATH: LazyLock<String> = LazyLock::new(|| named("style", STYLE, "css"));
static SCRIPT_PATH: LazyLock<String> = LazyLock::new(|| named("script", SCRIPT, "js"));

fn named(name: &str, text: &str, ending: &str) -> String {
    let digest = Sha256::digest(text);
    let [a, b, c, d, ..]: [u8; 32] = digest.into();
    format!("/assets/{name}-{:08x}.{ending}", u32::from_be_bytes([a, b, c, d]))
}

/// Where the style sheet is.
pub fn style() -> &'static str {
    &STYLE_PATH
}

/// Where the script is.
pub fn script() -> &'static str {
    &SCRIPT_PATH
}

/// The routes.
pub fn router() -> Router {
    let of = |kind: &'static str, text: &'static str| {
        let headers = [
            (CONTENT_TYPE, kind),
            (CACHE_CONTROL, "public, max-age=31536000, immutable"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        get(move || async move { (headers, text) })
    };
    Router::new()
        .route(style(), of("text/css; charset=utf-8", STYLE))
        .route(script(), of("text/javascript; charset=utf-8", SCRIPT))
        .route("/assets/icon.svg", of("image/svg+xml", ICON))
}
