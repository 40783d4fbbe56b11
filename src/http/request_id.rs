//! One name for one request, in the answer and in every log.

use std::borrow::Cow;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderMap, HeaderValue};

use super::names;
use crate::key::masked;

/// Characters of an id that is taken over from a proxy.
const LONGEST: usize = 128;

/// A request's id.
#[derive(Debug, Clone)]
pub struct RequestId(String);

/// Tells the ids of this process from those of another; random, so that a restart repeats none.
static PROCESS: LazyLock<u64> = LazyLock::new(|| getrandom::u64().unwrap_or_default());
/// Counts requests. It orders nothing, so no memory ordering is needed.
static COUNT: AtomicU64 = AtomicU64::new(0);

impl RequestId {
    /// A new id: unique, and no secret.
    pub fn fresh() -> Self {
        Self(format!("{:016x}{:08x}", *PROCESS, COUNT.fetch_add(1, Ordering::Relaxed)))
    }

    /// The id that a trusted proxy gave the request, or a new one when it gave none that can be written
    /// to a log as it is: a key in the wrong header is none. Of two, one may be the client's own, and nobody could tell which.
    pub fn of_trusted(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(&names::REQUEST_ID).iter();
        let given = values.next().filter(|_| values.next().is_none());
        let given = given.and_then(|value: &HeaderValue| value.to_str().ok());
        given.filter(|text| Self::can_be(text)).map_or_else(Self::fresh, |text| Self(text.to_owned()))
    }

    /// Whether a request can have this id.
    pub fn can_be(text: &str) -> bool {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:=/+".contains(&byte);
        let is_no_token = || matches!(masked(text), Cow::Borrowed(_));
        (1..=LONGEST).contains(&text.len()) && text.bytes().all(is_plain) && is_no_token()
    }

    /// The id as text: letters, digits and a few marks.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_could_forge_a_log_line_or_be_a_key_is_replaced() {
        let mut headers = HeaderMap::new();
        assert_eq!(RequestId::of_trusted(&headers).as_str().len(), 24);
        headers.insert(names::REQUEST_ID, HeaderValue::from_static("abc-123"));
        assert_eq!(RequestId::of_trusted(&headers).as_str(), "abc-123");
        for odd in ["", "a b", "a\"b", &"x".repeat(129), &"x".repeat(60)] {
            headers.insert(names::REQUEST_ID, HeaderValue::from_str(odd).unwrap());
            assert_ne!(RequestId::of_trusted(&headers).as_str(), odd);
        }
    }

    #[test]
    fn of_two_ids_neither_is_taken() {
        let mut headers = HeaderMap::new();
        for given in ["first", "second"] {
            headers.append(names::REQUEST_ID, HeaderValue::from_static(given));
        }
        assert_eq!(RequestId::of_trusted(&headers).as_str().len(), 24);
    }

    #[test]
    fn two_ids_differ() {
        assert_ne!(RequestId::fresh().as_str(), RequestId::fresh().as_str());
    }
}
