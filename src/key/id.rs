//! Identifiers: short, random, fixed in size, so that they are copied and compared without allocation.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Mode;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Characters of a selector and of the random part of an id: 95 bits, so that two never meet.
const LENGTH: usize = 16;

/// `N` random base62 characters from the operating system, each equally likely.
///
/// # Errors
/// When the operating system has no random bytes to give.
pub(super) fn random_base62<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut out = [0_u8; N];
    let mut filled = 0;
    let mut pool = zeroize::Zeroizing::new([0_u8; 64]);
    while filled < N {
        getrandom::fill(pool.as_mut_slice())?;
        for byte in pool.iter() {
            // 248 is the largest multiple of 62 in a byte: what lies above would favour some characters.
            let Some(character) = (*byte < 248).then(|| ALPHABET.get(usize::from(byte % 62))) else {
                continue;
            };
            let (Some(slot), Some(character)) = (out.get_mut(filled), character) else {
                break;
            };
            *slot = *character;
            filled += 1;
        }
    }
    Ok(out)
}

/// Six base62 characters that spell a 32-bit number, most significant first.
pub(super) fn base62_of(mut number: u32) -> [u8; 6] {
    let mut out = [b'0'; 6];
    for slot in out.iter_mut().rev() {
        if let Some(character) = ALPHABET.get((number % 62) as usize) {
            *slot = *character;
        }
        number /= 62;
    }
    out
}

/// Base62 text of a length known in advance: ASCII by construction, so it is always valid UTF-8.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Base62([u8; LENGTH]);

impl Base62 {
    fn random() -> Result<Self, getrandom::Error> {
        random_base62().map(Self)
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let bytes: [u8; LENGTH] = text.try_into().ok()?;
        bytes.iter().all(u8::is_ascii_alphanumeric).then_some(Self(bytes))
    }

    fn as_str(&self) -> &str {
        // Invariant: both constructors admit ASCII letters and digits alone.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// A text that should be an identifier and is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not {expected}: it is written `{example}`")]
pub struct IdError {
    expected: &'static str,
    example: &'static str,
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $expected:literal, $example:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(Base62);

        impl $name {
            /// Stands for one in examples, in which things exist for the moment and are in no store.
            pub const EXAMPLE: Self = Self(Base62(*b"Example000000000"));
            /// Stands for one that is not [`Self::EXAMPLE`].
            pub const ANOTHER: Self = Self(Base62(*b"Another000000000"));

            /// A new one, random.
            ///
            /// # Errors
            /// When the operating system has no random bytes to give.
            pub fn random() -> Result<Self, getrandom::Error> {
                Base62::random().map(Self)
            }

            /// The random part, without the prefix.
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }

            /// The random part as bytes: what tables in memory and on disk are keyed by.
            pub fn as_bytes(&self) -> &[u8] {
                &self.0.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                text.strip_prefix($prefix)
                    .and_then(|random| Base62::parse(random.as_bytes()))
                    .map(Self)
                    .ok_or(IdError { expected: $expected, example: $example })
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }
    };
}

identifier!(
    /// An account: `acct_` and 16 characters of base62.
    AccountId, "acct_", "an account's id", "acct_4eC39HqLyjWDarjt"
);
identifier!(
    /// A key: `key_` and 16 characters of base62. It stays when the secret is rotated.
    KeyId, "key_", "a key's id", "key_4eC39HqLyjWDarjt"
);
identifier!(
    /// A person who manages keys: `usr_` and 16 characters of base62.
    UserId, "usr_", "a user's id", "usr_4eC39HqLyjWDarjt"
);
identifier!(
    /// A person's API token, without its secret: `tok_` and 16 characters of base62.
    ApiTokenId, "tok_", "an API token's id", "tok_4eC39HqLyjWDarjt"
);
identifier!(
    /// The part of a token that finds the record; it proves nothing and is no secret.
    Selector, "", "a selector", "4eC39HqLyjWDarjt"
);

impl Selector {
    /// What finds the record of a token whose SHA-256 this is: its first 95 bits.
    pub(super) fn of_digest(digest: &[u8; 32]) -> Self {
        let mut number = digest.iter().take(16).fold(0, |number, byte| number << 8 | u128::from(*byte));
        let mut characters = [b'0'; LENGTH];
        for slot in &mut characters {
            if let Some(character) = ALPHABET.get((number % 62) as usize) {
                *slot = *character;
            }
            number /= 62;
        }
        Self(Base62(characters))
    }

    pub(super) fn from_token(bytes: &[u8]) -> Option<Self> {
        Base62::parse(bytes).map(Self)
    }
}

/// One of the two environments of an account, `acct_…/live` or `acct_…/test`: it follows from the
/// account and the mode, so nothing stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct EnvironmentId {
    /// Whose environment it is.
    pub account: AccountId,
    /// Live or test.
    pub mode: Mode,
}

impl fmt::Display for EnvironmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.account, self.mode)
    }
}

impl FromStr for EnvironmentId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let parsed = text
            .split_once('/')
            .and_then(|(account, mode)| Some(Self { account: account.parse().ok()?, mode: mode.parse().ok()? }));
        parsed.ok_or(IdError { expected: "an environment's id", example: "acct_4eC39HqLyjWDarjt/live" })
    }
}

impl TryFrom<String> for EnvironmentId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<EnvironmentId> for String {
    fn from(id: EnvironmentId) -> String {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_it_was_written() {
        let account = AccountId::random().unwrap();
        assert_eq!(account.to_string().parse::<AccountId>().unwrap(), account);
        let environment = EnvironmentId { account, mode: Mode::Test };
        assert_eq!(environment.to_string().parse::<EnvironmentId>().unwrap(), environment);
    }

    #[test]
    fn what_is_no_id_is_refused_with_an_example() {
        for text in ["", "acct_", "key_4eC39HqLyjWDarjt", "acct_4eC39HqLyjWDarj-", "acct_4eC39HqLyjWDarjtt"] {
            let error = text.parse::<AccountId>().unwrap_err().to_string();
            assert!(error.contains("acct_4eC39HqLyjWDarjt"), "{text}: {error}");
        }
        for text in ["acct_4eC39HqLyjWDarjt", "acct_4eC39HqLyjWDarjt/prod", "/live"] {
            assert!(text.parse::<EnvironmentId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_number_is_spelled_in_six_characters() {
        assert_eq!(&base62_of(0), b"000000");
        assert_eq!(&base62_of(61), b"00000z");
        assert_eq!(&base62_of(62), b"000010");
        assert_eq!(&base62_of(u32::MAX), b"4gfFC3");
    }

    #[test]
    fn random_characters_use_the_whole_alphabet() {
        let drawn: Vec<u8> = (0..200).flat_map(|_| random_base62::<32>().unwrap()).collect();
        assert!(ALPHABET.iter().all(|character| drawn.contains(character)));
    }
}
