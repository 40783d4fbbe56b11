//! One reading of a request target, or none.
//!
//! A proxy, this daemon and the API behind it each read the path. Where they could differ, an attacker
//! finds a path that is allowed here and means something else there. So a path is read once, as an API
//! reads it: percent-encoded bytes are decoded, one time, and runs of slashes are one. Everything that
//! could be read in two ways is refused: dot segments, encoded or raw delimiters, control characters, bytes
//! outside RFC 3986's `pchar`, and text that is not UTF-8 once decoded.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Bytes of a path that are looked at; what is longer is refused.
const LONGEST: usize = 8 * 1024;

/// The path has more than one reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the path can be read in more than one way")]
pub struct Ambiguous;

/// The path of a request target, decoded, without query; borrowed where nothing had to change.
///
/// What comes out is text to compare, and not a path to be read again: `%2541` is `%41`, and stays that.
///
/// Takes the origin form (`/v1/resources?limit=3`) and the absolute form (`https://host/v1/resources`).
///
/// # Errors
/// [`Ambiguous`] when two parsers could differ.
pub fn normalise(target: &str) -> Result<Cow<'_, str>, Ambiguous> {
    let path = without_origin(target)?;
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    if !path.starts_with('/') || path.len() > LONGEST {
        return Err(Ambiguous);
    }
    if path.bytes().all(is_plain) && !path.contains("//") {
        return without_dot_segments(Cow::Borrowed(path));
    }
    without_dot_segments(Cow::Owned(decode(path)?))
}

/// A target that [`normalise`] reads as this path, which is one that it gave.
pub fn encode(path: &str) -> Cow<'_, str> {
    if path.bytes().all(is_plain) {
        return Cow::Borrowed(path);
    }
    let mut out = String::with_capacity(path.len() + 16);
    for byte in path.bytes() {
        if is_plain(byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    Cow::Owned(out)
}

/// A target that [`normalise`] reads as this path, whatever it is; `None` where there is none, because it could be read
/// in another way, too.
pub fn target_of(path: &str) -> Option<Cow<'_, str>> {
    let target = encode(path);
    normalise(&target).is_ok_and(|read| read == path).then_some(target)
}

/// The target without scheme and authority, when it has them.
fn without_origin(target: &str) -> Result<&str, Ambiguous> {
    if target.starts_with('/') {
        return Ok(target);
    }
    let after_scheme = ["http://", "https://"].into_iter().find_map(|scheme| {
        let head = target.get(..scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then(|| target.get(scheme.len()..))?
    });
    let after_scheme = after_scheme.ok_or(Ambiguous)?;
    let slash = after_scheme.find('/').ok_or(Ambiguous)?;
    let (authority, path) = after_scheme.split_at_checked(slash).ok_or(Ambiguous)?;
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:[]".contains(&byte);
    if authority.is_empty() || !authority.bytes().all(is_host) { Err(Ambiguous) } else { Ok(path) }
}

/// RFC 3986's unreserved characters: encoded or not, they mean the same.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Bytes that stand for themselves in a path, the slash included; `;` is left out, because some
/// frameworks cut a segment there.
fn is_plain(byte: u8) -> bool {
    is_unreserved(byte) || b"/!$&'()*+,=:@".contains(&byte)
}

/// Decodes once, and merges slashes.
fn decode(path: &str) -> Result<String, Ambiguous> {
    let mut out = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'/' if out.last() == Some(&b'/') => {}
            b'%' => {
                let value = hex(bytes.next())? << 4 | hex(bytes.next())?;
                if b"/\\;?#".contains(&value) {
                    return Err(Ambiguous);
                }
                out.push(value);
            }
            _ if is_plain(byte) => out.push(byte),
            _ => return Err(Ambiguous),
        }
    }
    // Overlong and broken UTF-8 is how a dot or a slash hides from one decoder and not from another.
    let out = String::from_utf8(out).map_err(|_| Ambiguous)?;
    if out.chars().any(char::is_control) { Err(Ambiguous) } else { Ok(out) }
}

fn hex(digit: Option<u8>) -> Result<u8, Ambiguous> {
    let value = digit.and_then(|digit| char::from(digit).to_digit(16)).ok_or(Ambiguous)?;
    u8::try_from(value).map_err(|_| Ambiguous)
}

fn without_dot_segments(path: Cow<'_, str>) -> Result<Cow<'_, str>, Ambiguous> {
    if path.split('/').any(|segment| segment == "." || segment == "..") { Err(Ambiguous) } else { Ok(path) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_is_decoded_once() {
        let cases = [
            ("/v1/resources", "/v1/resources"),
            ("/v1/resources?x=/admin&y=../..", "/v1/resources"),
            ("/", "/"),
            ("//admin", "/admin"),
            ("/%61dmin", "/admin"),
            ("/v1//resources///res_1", "/v1/resources/res_1"),
            ("/v1/resources/", "/v1/resources/"),
            ("/a%252e%252e/b", "/a%2e%2e/b"),
            ("/caf%c3%a9", "/café"),
            ("/a%20b", "/a b"),
            ("/res%3A1/%40all", "/res:1/@all"),
            ("/...", "/..."),
            ("https://api.example.com:443/admin?x", "/admin"),
            ("HTTP://[::1]/admin", "/admin"),
        ];
        for (target, expected) in cases {
            assert_eq!(normalise(target).as_deref(), Ok(expected), "{target}");
        }
    }

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        let long = format!("/{}", "a".repeat(LONGEST));
        let cases = [
            "",
            "*",
            "v1/resources",
            "?x",
            "/v1/resources/../../admin",
            "/v1/resources/%2e%2e/%2E%2e/admin",
            "/./admin",
            "/admin/.",
            "/..",
            "/.%2e/",
            "/a%2fb",
            "/a%5Cb",
            "/a%00",
            "/a%3bb",
            "/a%3Fb",
            "/a%23b",
            "/a\\b",
            "/a;b",
            "/..;/admin",
            "/a\tb",
            "/a\u{0}",
            "/a\u{7f}",
            "/%",
            "/%2",
            "/%zz",
            "/%+1",
            "/a b",
            "/a#b",
            "/é",
            "/%ff",
            "/%c0%ae%c0%ae/",
            "/%0d%0aX:1",
            "/%c2%85",
            "http://",
            "http:///admin",
            "http://host",
            "ftp://host/admin",
            "http://u@host/admin",
            "//host\\@x/",
            &long,
        ];
        for target in cases {
            assert_eq!(normalise(target), Err(Ambiguous), "{target}");
        }
    }

    #[test]
    fn a_plain_path_is_not_copied() {
        assert!(matches!(normalise("/v1/resources/res_1?limit=3"), Ok(Cow::Borrowed("/v1/resources/res_1"))));
    }

    /// A second reading, after RFC 3986 and the WHATWG URL standard: decode every byte, merge slashes,
    /// resolve dots. Where we give a path at all, it must be that reading.
    fn second_reading(path: &str) -> Vec<u8> {
        let mut decoded = Vec::new();
        let bytes = path.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let pair =
                bytes.get(at + 1..at + 3).and_then(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
            match (bytes[at], pair) {
                (b'%', Some(value)) => {
                    decoded.push(value);
                    at += 3;
                }
                (byte, _) => {
                    decoded.push(byte);
                    at += 1;
                }
            }
        }
        let mut segments: Vec<&[u8]> = Vec::new();
        let ends_in_slash = decoded.ends_with(b"/");
        for segment in decoded.split(|byte| *byte == b'/' || *byte == b'\\') {
            match segment {
                b"" | b"." => {}
                b".." => drop(segments.pop()),
                segment => segments.push(segment.split(|byte| *byte == b';').next().unwrap()),
            }
        }
        let mut out = vec![b'/'];
        out.extend(segments.join(&b'/'));
        if ends_in_slash && !segments.is_empty() {
            out.push(b'/');
        }
        out
    }

    proptest! {
        #[test]
        fn an_accepted_path_is_its_second_reading(path in "/([a-c./\\\\;%]|%2[eEfF50]|%5c|%61|%3b|%c0%ae|%C3%A9|//){0,12}") {
            if let Ok(ours) = normalise(&path) {
                prop_assert_eq!(ours.as_bytes(), second_reading(&path));
            }
        }

        #[test]
        fn a_normalised_path_that_is_encoded_reads_back(path in "(/|[a-c.]|%2525|%41|%20|%C3%A9|%3A|%7F){0,12}") {
            if let Ok(read) = normalise(&path) {
                let encoded = encode(&read);
                prop_assert_eq!(normalise(&encoded), Ok(read.clone()));
            }
        }

        #[test]
        fn any_text_is_read_without_panic(text in "\\PC{0,60}") {
            let _ = normalise(&text);
        }
    }
}
