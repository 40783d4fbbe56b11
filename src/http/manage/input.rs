//! What a request says, read in one way or refused with the field named.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::IF_MATCH;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
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

/// What the caller has seen: `If-Match`, with an `ETag` as it was answered, or several of them (RFC 9110, section 13.1.1).
pub struct Seen(pub Tags);

impl<S: Send + Sync> FromRequestParts<S> for Seen {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let lines: Result<Vec<_>, _> = parts.headers.get_all(IF_MATCH).iter().map(HeaderValue::to_str).collect();
        let tags = match lines {
            Ok(lines) if lines.is_empty() => Some(Tags::Any),
            Ok(lines) => Tags::read(&lines.join(",")),
            Err(_) => None,
        };
        let say = "give ETags as they were answered, for example \"3\", separated by commas; or *";
        tags.map(Self).ok_or_else(|| Refusal::invalid(Some("If-Match"), say))
    }
}

/// The versions of a thing of which it must have one, for a change to be made.
#[derive(Debug, PartialEq, Eq)]
pub enum Tags {
    /// It must be there.
    Any,
    /// One of these. A tag that is weak, or none of ours, is no version's.
    Versions(Vec<u64>),
}

impl Tags {
    /// The version that the thing must have when it is changed, given the one that it has now: another one than that, if
    /// the caller has not seen it, so that the change is refused.
    pub fn wanted(&self, now: u64) -> Option<u64> {
        match self {
            Self::Any => None,
            Self::Versions(seen) if seen.contains(&now) => Some(now),
            // Versions begin at 1.
            Self::Versions(seen) => Some(seen.first().copied().unwrap_or_default()),
        }
    }

    fn read(text: &str) -> Option<Self> {
        if text.trim() == "*" {
            return Some(Self::Any);
        }
        let (mut rest, mut versions, mut is_empty) = (text, Vec::new(), true);
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            if rest.is_empty() {
                return (!is_empty).then_some(Self::Versions(versions));
            }
            let (strong, weak) = (rest.strip_prefix('"'), rest.strip_prefix("W/\""));
            let (tag, behind) = strong.or(weak)?.split_once('"')?;
            let is_next = behind.trim_start_matches([' ', '\t']);
            if !tag.bytes().all(|byte| byte.is_ascii_graphic()) || !(is_next.is_empty() || is_next.starts_with(',')) {
                return None;
            }
            let version = tag.parse().ok().filter(|version: &u64| strong.is_some() && version.to_string() == tag);
            versions.extend(version);
            (rest, is_empty) = (is_next, false);
        }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn if_match_is_read_as_a_list_of_entity_tags() {
        let versions = |versions: &[u64]| Some(Tags::Versions(versions.to_vec()));
        for (text, expected) in [
            ("*", Some(Tags::Any)),
            (" * ", Some(Tags::Any)),
            ("\"3\"", versions(&[3])),
            ("\"1\", \"2\"", versions(&[1, 2])),
            (",\"1\" ,,\t\"2\",", versions(&[1, 2])),
            ("W/\"3\"", versions(&[])),
            ("W/\"3\",\"4\"", versions(&[4])),
            ("\"\", \"a,b\", \"03\", \"+3\", \"5\"", versions(&[5])),
            ("", None),
            (", ,", None),
            ("3", None),
            ("\"3", None),
            ("w/\"3\"", None),
            ("\"3\"\"4\"", None),
            ("\"3\" \"4\"", None),
            ("\"3 4\"", None),
            ("*, \"3\"", None),
        ] {
            assert_eq!(Tags::read(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_change_is_wanted_of_the_version_that_there_is_exactly_when_it_was_seen(
            seen in prop::collection::vec(1..9_u64, 0..5),
            now in 1..9_u64,
        ) {
            let wanted = Tags::Versions(seen.clone()).wanted(now);
            prop_assert_eq!(wanted == Some(now), seen.contains(&now));
            prop_assert!(wanted.is_some());
            let text = seen.iter().map(|version| format!("\"{version}\"")).collect::<Vec<_>>().join(", ");
            prop_assert_eq!(Tags::read(&text), (!seen.is_empty()).then_some(Tags::Versions(seen)));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            let _ = Tags::read(&text);
        }
    }
}
