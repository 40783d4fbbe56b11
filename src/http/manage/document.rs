//! The OpenAPI document: what is said once for all operations. The rest stands beside each of them.

use axum::http::StatusCode;
use utoipa::OpenApi;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{HeaderBuilder, RefOr};

use super::refusal::ProblemSchema;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Keyward management API",
        description = "Accounts, API keys, the people who manage them, and policies. What each person may do is said by \
                       policies. Times are RFC 3339; durations are written 30m, 24h or 90d. Errors are problem \
                       documents (RFC 9457) with a stable `code`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    tags(
        (name = "accounts"), (name = "keys"), (name = "events"), (name = "decisions"), (name = "people"), (name = "session"),
        (name = "policies"), (name = "installation")
    ),
    components(schemas(ProblemSchema)),
    security(("token" = []))
)]
pub(super) struct Document;

/// The document with what is the same for all operations: how a caller is known, what each answer is called, and the
/// headers that answers of a kind have.
pub(super) fn completed(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    let token = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("kw_…").build());
    document.components.get_or_insert_default().add_security_scheme("token", token);
    for item in document.paths.paths.values_mut() {
        let operations =
            [&mut item.get, &mut item.put, &mut item.post, &mut item.patch, &mut item.delete, &mut item.head];
        operations.into_iter().flatten().for_each(complete);
    }
    document
}

fn complete(operation: &mut Operation) {
    let is_retried = operation
        .parameters
        .iter()
        .flatten()
        .any(|parameter| matches!(parameter, RefOr::T(parameter) if parameter.name == "Idempotency-Key"));
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        if response.description.is_empty() {
            let name = status.parse().ok().and_then(|code: u16| StatusCode::from_u16(code).ok()?.canonical_reason());
            name.unwrap_or("The answer").clone_into(&mut response.description);
        }
        let headers: &[(&str, &str)] = match status.as_str() {
            "201" if is_retried => &[
                ("Location", "Where what was made is"),
                ("Idempotency-Replayed", "`true` when it was made before, under the same Idempotency-Key"),
            ],
            "401" => &[("WWW-Authenticate", "How to authenticate (RFC 6750)")],
            "429" | "503" => &[("Retry-After", "Seconds until it is worth trying again")],
            _ => &[],
        };
        for (name, description) in headers {
            let header = HeaderBuilder::new().description(Some(*description)).build();
            response.headers.entry((*name).to_owned()).or_insert(header.into());
        }
    }
}
