//! The name of a revision: a digest, and the beginning of one as people write it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Digits of a digest.
const DIGITS: usize = 64;
/// The least digits that name a revision.
const LEAST_DIGITS: usize = 8;

/// The digest of a bundle, and so the name of the revision made of it: SHA-256 over paths and contents.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of these bytes.
    pub(super) fn of(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for keys of rows.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The first twelve digits: enough for people and logs.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(12);
        text
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a revision's digest: it is written as 64 hexadecimal digits")]
pub struct NotADigest;

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let mut digest = [0_u8; 32];
        if text.len() != DIGITS || !text.is_ascii() {
            return Err(NotADigest);
        }
        for (at, byte) in digest.iter_mut().enumerate() {
            let digits = text.get(2 * at..2 * at + 2).ok_or(NotADigest)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| NotADigest)?;
        }
        Ok(Self(digest))
    }
}

impl TryFrom<String> for Digest {
    type Error = NotADigest;

    fn try_from(text: String) -> Result<Self, NotADigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

/// The beginning of a digest, as people write it: 8 digits or more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShortDigest(String);

/// A text that names no revision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a revision is named by its digest, or by the first 8 digits of it or more: hexadecimal, in small letters")]
pub struct NotAShortDigest;

impl ShortDigest {
    /// Whether the digest begins like this.
    pub fn begins(&self, digest: &Digest) -> bool {
        digest.to_string().starts_with(&self.0)
    }
}

impl fmt::Display for ShortDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ShortDigest {
    type Err = NotAShortDigest;

    fn from_str(text: &str) -> Result<Self, NotAShortDigest> {
        let is_written_by_us = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if is_written_by_us && (LEAST_DIGITS..=DIGITS).contains(&text.len()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotAShortDigest)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_reads_back_and_is_named_by_its_beginning_alone() {
        let digest = Digest::of(std::array::from_fn(|at| u8::try_from(at * 7).unwrap()));
        let text = digest.to_string();
        assert_eq!(text.parse(), Ok(digest));
        for length in LEAST_DIGITS..=DIGITS {
            assert!(text[..length].parse::<ShortDigest>().unwrap().begins(&digest));
        }
        assert!(!text[1..].parse::<ShortDigest>().unwrap().begins(&digest));
        for wrong in ["", &text[..7], &text[..8].to_uppercase(), "+1234567", "0123456g", &format!("{text}0")] {
            assert_eq!(wrong.parse::<ShortDigest>(), Err(NotAShortDigest), "{wrong}");
        }
    }
}
