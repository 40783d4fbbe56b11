//! Request targets: a path that is accepted has one reading, and is its own normal form.

use keyward::authorize::path::normalise;

/// Normalises the input and looks at what came of it.
pub fn check(data: &[u8]) {
    let Ok(target) = std::str::from_utf8(data) else { return };
    let Ok(path) = normalise(target) else { return };
    assert!(path.starts_with('/'), "{path}");
    assert_eq!(normalise(&path).as_deref(), Ok(&*path), "it is a fixed point");
    assert!(!path.contains("//"), "{path}");
    assert!(path.bytes().all(|byte| byte.is_ascii_graphic() && !b"\\;?#\"<>^`{|}[]".contains(&byte)), "{path}");
    let decoded = decode(&path);
    let upper = path.to_ascii_uppercase();
    assert!(!upper.contains("%2F") && !upper.contains("%5C"), "{path}");
    assert!(!decoded.iter().any(|byte| byte.is_ascii_control() || b"\\;?#".contains(byte)), "{path}");
    assert!(!decoded.split(|byte| *byte == b'/').any(|segment| [&b"."[..], b".."].contains(&segment)), "{path}");
    assert!(std::str::from_utf8(&decoded).is_ok(), "{path}");
    assert_eq!(decoded, merged(&decode(written(target))), "it means what was written");
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
