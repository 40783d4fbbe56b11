//! Request targets: a path that is accepted has one reading.

use keyward::authorize::path::normalise;

/// Normalises the input and looks at what came of it.
pub fn check(data: &[u8]) {
    let Ok(target) = std::str::from_utf8(data) else { return };
    let Ok(path) = normalise(target) else { return };
    assert!(path.starts_with('/'), "{path}");
    assert!(!path.contains("//"), "{path}");
    assert!(!path.chars().any(|character| character.is_control() || "\\;?#".contains(character)), "{path}");
    assert!(!path.split('/').any(|segment| [".", ".."].contains(&segment)), "{path}");
    assert_eq!(path.as_bytes(), merged(&decode(written(target))), "it is what was written, decoded once");
    if target.starts_with('/') && target.len() < 4096 {
        for wrapped in [format!("https://api.example.com{target}"), format!("{}?a=/../b", written(target))] {
            assert_eq!(normalise(&wrapped).as_deref(), Ok(&*path), "{wrapped}");
        }
    }
}

/// The path as the target has it: without origin and query.
fn written(target: &str) -> &str {
    let path = match target.split_once("://") {
        Some((_, rest)) if !target.starts_with('/') => rest.find('/').map_or("", |at| &rest[at..]),
        _ => target,
    };
    path.split('?').next().unwrap_or_default()
}

/// Every `%XX` as its byte, once.
fn decode(path: &str) -> Vec<u8> {
    let mut parts = path.split('%');
    let mut out = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at(2);
        out.push(u8::from_str_radix(digits, 16).unwrap());
        out.extend(rest.as_bytes());
    }
    out
}

/// Runs of slashes as one.
fn merged(path: &[u8]) -> Vec<u8> {
    let mut out = path.to_vec();
    out.dedup_by(|a, b| *a == b'/' && *b == b'/');
    out
}
