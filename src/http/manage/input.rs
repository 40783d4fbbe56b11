//! What a request says, read in one way or refused with the field named.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::IF_MATCH;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde::de::{DeserializeOwned, Error, IntoDeserializer};
use serde::{Deserialize, Deserializer};

use super::refusal::Refusal;
use crate::http::json::{self, Object};

/// A JSON object, with the bytes that it was read from.
pub struct Input<T>(pub T, pub Bytes);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Input<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let bytes = body(request, state).await?;
        let Object(input) = json::read(&bytes)?;
        Ok(Self(input, bytes))
    }
}

/// A JSON array of objects.
pub struct Listed<T>(pub Vec<T>);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Listed<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let items: Vec<Object<T>> = json::read(&body(request, state).await?)?;
        Ok(Self(items.into_iter().map(|Object(item)| item).collect()))
    }
}

async fn body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Refusal> {
    if !json::is_json(request.headers()) {
        let detail = "send the body as JSON, with `Content-Type: application/json`";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type_unsupported", detail));
    }
    Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "the body is too large")
        }
        _ => Refusal::invalid(None, "the body could not be read"),
    })
}

/// The query's parameters.
pub struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        Ok(Self(json::read_query(parts.uri.query().unwrap_or_default())?))
    }
}

/// The version that the caller has seen: `If-Match: "3"`, as `ETag` gave it. Without it, any will do.
pub struct Seen(pub Option<u64>);

impl<S: Send + Sync> FromRequestParts<S> for Seen {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let Some(text) = single(&parts.headers, IF_MATCH.as_str())? else { return Ok(Self(None)) };
        if text == "*" {
            return Ok(Self(None));
        }
        let version = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).and_then(|text| text.parse().ok());
        let invalid = || Refusal::invalid(Some("If-Match"), "give one ETag as it was answered, for example \"3\"");
        version.map(|version| Self(Some(version))).ok_or_else(invalid)
    }
}

/// The `Idempotency-Key` header: 1 to 255 visible ASCII characters.
pub struct RetryKey(pub Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for RetryKey {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let Some(text) = single(&parts.headers, "Idempotency-Key")? else { return Ok(Self(None)) };
        if !(1..=255).contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
            return Err(Refusal::invalid(Some("Idempotency-Key"), "give 1 to 255 visible ASCII characters"));
        }
        Ok(Self(Some(text)))
    }
}

/// The one value of a header.
pub fn single(headers: &HeaderMap, name: &str) -> Result<Option<String>, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            let text = value.to_str().map_err(|_| Refusal::invalid(Some(name), "give visible ASCII characters"))?;
            Ok(Some(text.trim().to_owned()))
        }
        (Some(_), Some(_)) => Err(Refusal::invalid(Some(name), "give this header once")),
    }
}

/// Reads a duration such as `24h`, `90d` or `0s`; a day has 24 hours.
pub fn duration(field: &str, text: &str) -> Result<SignedDuration, Refusal> {
    crate::duration::read(text).ok_or_else(|| Refusal::invalid(Some(field), crate::duration::HELP))
}

/// One or several words of a query's parameter, separated by commas.
pub struct OneOf<T>(Vec<T>);

impl<T: PartialEq> OneOf<T> {
    /// Whether this is one of them.
    pub fn has(&self, one: &T) -> bool {
        self.0.contains(one)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for OneOf<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let word = |word: &str| T::deserialize(IntoDeserializer::<serde::de::value::Error>::into_deserializer(word));
        text.split(',').map(word).collect::<Result<_, _>>().map(Self).map_err(D::Error::custom)
    }
}

/// Tells `"field": null` (take it away) from a field that is not there (leave it).
#[expect(clippy::option_option, reason = "three things are told apart")]
pub fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// The same of a time.
#[expect(clippy::option_option, reason = "three things are told apart")]
pub fn nullable_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Timestamp>>, D::Error> {
    json::time(deserializer).map(Some)
}
