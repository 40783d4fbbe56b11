//! The names of headers, in one place.

use axum::http::HeaderName;

/// Whose key it is: an account's id.
pub const ACCOUNT: HeaderName = HeaderName::from_static("x-keyward-account");
/// Which environment the key belongs to: `acct_…/live` or `acct_…/test`.
pub const ENVIRONMENT: HeaderName = HeaderName::from_static("x-keyward-environment");
/// `live` or `test`.
pub const MODE: HeaderName = HeaderName::from_static("x-keyward-mode");
/// The key's id.
pub const KEY: HeaderName = HeaderName::from_static("x-keyward-key");
/// `publishable`, `secret` or `restricted`.
pub const KIND: HeaderName = HeaderName::from_static("x-keyward-kind");
/// A restricted key's scopes, separated by spaces.
pub const SCOPES: HeaderName = HeaderName::from_static("x-keyward-scopes");
/// The reason code of the verdict.
pub const REASON: HeaderName = HeaderName::from_static("x-keyward-reason");
/// The digest of the revision that decided.
pub const REVISION: HeaderName = HeaderName::from_static("x-keyward-revision");
/// For how many seconds what is on disk has not come into force; not there when it has.
pub const POLICIES_STALE: HeaderName = HeaderName::from_static("x-keyward-policies-stale");
/// Names one request in every log that it appears in.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Traefik's, Caddy's and APISIX' statement of the original method.
pub const FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
/// … of the original path and query.
pub const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
/// Every proxy's statement of the scheme.
pub const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Every proxy's statement of where the call came from.
pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// nginx' statement of the original method.
pub const ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
/// nginx' statement of the original path and query, raw.
pub const ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");
/// ingress-nginx' statement of the whole original URL.
pub const ORIGINAL_URL: HeaderName = HeaderName::from_static("x-original-url");
