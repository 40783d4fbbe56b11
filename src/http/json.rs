//! JSON that says something in one way, or is refused with the field named.

use std::fmt;
use std::marker::PhantomData;

use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use jiff::Timestamp;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A JSON object with the fields of `T`, and nothing else: left to itself, serde also takes an array of a struct's fields
/// in their order.
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(Fields(PhantomData)).map(Self)
    }
}

/// What cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub struct Unread {
    /// The field that it is about, where it is about one: `items[3].path`.
    pub field: Option<String>,
    /// What is the matter with it. It may hold what was sent.
    pub detail: String,
}

/// Whether a body is said, once, to be `application/json`, or a format on top of it (RFC 6839, section 3.1).
pub fn is_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let Some(value) = values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let media = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match media.strip_prefix("application/") {
        Some("json") => true,
        Some(format) => format.strip_suffix("+json").is_some_and(|name| !name.is_empty()),
        None => false,
    }
}

/// Reads a JSON text whole.
///
/// # Errors
/// [`Unread`] when it is no JSON, or not what is asked for.
pub fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Unread> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let (path, error) = (error.path().to_string(), error.inner());
        let detail = error.to_string();
        if error.is_syntax() || error.is_eof() {
            return Unread { field: None, detail };
        }
        let place = format!(" at line {} column {}", error.line(), error.column());
        told(&path, detail.strip_suffix(&place).unwrap_or(&detail))
    })?;
    json.end().map_err(|error| Unread { field: None, detail: error.to_string() })?;
    Ok(value)
}

/// Reads a query's parameters.
///
/// # Errors
/// [`Unread`] when they are not what is asked for.
pub fn read_query<T: DeserializeOwned>(query: &str) -> Result<T, Unread> {
    let parameters = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
    serde_path_to_error::deserialize(parameters)
        .map_err(|error| told(&error.path().to_string(), &error.inner().to_string()))
}

/// What serde says, with the field that it names only in its words.
fn told(path: &str, detail: &str) -> Unread {
    let named = ["missing field `", "duplicate field `"].iter().find_map(|words| detail.strip_prefix(words));
    let named = named.and_then(|rest| rest.strip_suffix('`'));
    let field = match (path, named) {
        ("." | "?" | "", named) => named.map(str::to_owned),
        (path, Some(named)) if path != named && !path.ends_with(&format!(".{named}")) => {
            Some(format!("{path}.{named}"))
        }
        (path, _) => Some(path.to_owned()),
    };
    Unread { field, detail: detail.to_owned() }
}

/// Reads a time, or says how one is written.
///
/// # Errors
/// When the text is no time.
pub fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text = Option::<std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
    let read = |text: std::borrow::Cow<'de, str>| {
        text.parse().map_err(|_| D::Error::custom("give a time with its zone, for example 2027-01-31T00:00:00Z"))
    };
    text.map(read).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Thing {
        name: String,
        #[serde(default)]
        count: u8,
        #[serde(default, deserialize_with = "time")]
        at: Option<Timestamp>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Things {
        items: Vec<Object<Thing>>,
    }

    fn refused<T: for<'a> Deserialize<'a>>(text: &str) -> (Option<String>, String) {
        let error = read::<Object<T>>(text.as_bytes()).err().unwrap();
        (error.field, error.detail)
    }

    #[test]
    fn what_cannot_be_read_names_the_field() {
        for (text, field) in [
            ("{}", Some("name")),
            (r#"{"name": "a", "name": "b"}"#, Some("name")),
            (r#"{"name": 1}"#, Some("name")),
            (r#"{"name": "a", "count": 300}"#, Some("count")),
            (r#"{"name": "a", "colour": 1}"#, Some("colour")),
            (r#"{"name": "a", "at": "tomorrow"}"#, Some("at")),
            ("{", None),
            (r#"{"name": "a"} {}"#, None),
            (r#"["a", 1]"#, None),
            ("", None),
        ] {
            let (named, detail) = refused::<Thing>(text);
            assert_eq!(named.as_deref(), field, "{text}: {detail}");
            assert!(field.is_none() || !detail.contains("line 1"), "{detail}");
        }
        assert_eq!(refused::<Things>(r#"{"items": [{"name": "a"}, {}]}"#).0.as_deref(), Some("items[1].name"));
        assert_eq!(refused::<Things>(r#"{"items": [["a"]]}"#).0.as_deref(), Some("items[0]"));
        let things: Object<Things> = read(br#"{"items": [{"name": "a"}]}"#).unwrap();
        assert_eq!(things.0.items.len(), 1);
        let thing: Object<Thing> = read(br#"{"name": "a", "at": "2027-01-31T00:00:00Z"}"#).unwrap();
        assert_eq!((thing.0.name.as_str(), thing.0.at.unwrap().as_second()), ("a", 1_801_353_600));
    }

    #[test]
    fn a_query_names_the_parameter() {
        for (query, field) in
            [("", "name"), ("name=a&name=b", "name"), ("name=a&count=x", "count"), ("name=a&c=1", "c")]
        {
            let error = read_query::<Thing>(query).unwrap_err();
            assert_eq!(error.field.as_deref(), Some(field), "{query}: {}", error.detail);
        }
    }

    #[test]
    fn only_what_is_called_json_once_is_json() {
        for (given, expected) in [
            (&["application/json"][..], true),
            (&["Application/JSON ; charset=utf-8"], true),
            (&["application/vnd.example+json"], true),
            (&[], false),
            (&[""], false),
            (&["text/plain"], false),
            (&["text/plain; application/json"], false),
            (&["text/json"], false),
            (&["application/jsonp"], false),
            (&["application/+json"], false),
            (&["application/x-www-form-urlencoded"], false),
            (&["multipart/form-data; boundary=application/json"], false),
            (&["application/json", "text/plain"], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in given {
                headers.append(CONTENT_TYPE, axum::http::HeaderValue::from_static(value));
            }
            assert_eq!(is_json(&headers), expected, "{given:?}");
        }
    }
}
