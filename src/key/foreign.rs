//! Keys that moved here from another system, with the tokens that it issued.
//!
//! All that there is of such a token is what the other system kept: a hash of the whole text. A SHA-256 is found by
//! itself. An Argon2id hash is not, so that the token's first characters have to be known, too; nobody can tell a wrong
//! token from a right one before Argon2 has, so that those cost more than our own until they are seen for the first time.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::secret::{digest_of_hex, hex, sha256};
use super::{Ceiling, HashError, Phc, Presented, Screen, Secret, Selector, StoredSecret};

/// Characters of a foreign token. Shorter ones could be guessed.
const LENGTHS: std::ops::RangeInclusive<usize> = 16..=512;
/// Characters of a beginning that finds tokens.
pub(crate) const STARTS: std::ops::RangeInclusive<usize> = 8..=63;

/// A text that may be a token of another system, borrowed from the request that carried it. Nothing is proven yet.
#[derive(Clone, Copy)]
pub struct ForeignToken<'a>(&'a [u8]);

impl<'a> ForeignToken<'a> {
    /// Takes whatever can travel as a bearer token (`b64token` of RFC 6750, section 2.1), from 16 to 512 characters. Read
    /// our own tokens first.
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        (LENGTHS.contains(&text.len()) && text.iter().all(|byte| can_be_of_a_token(*byte))).then_some(Self(text))
    }

    /// The token that a secret was taken from, to be looked at once more.
    pub fn of_secret(secret: &'a Secret) -> Option<Self> {
        secret.expose_foreign().map(Self)
    }

    /// The token as a value of its own: for work that outlives the request's text.
    pub fn secret(&self) -> Secret {
        Secret::of_foreign(self.0)
    }

    /// What it is found and compared by.
    pub fn digest(&self) -> ForeignDigest {
        ForeignDigest(sha256(self.0))
    }

    /// Its first characters, where it has more.
    pub(crate) fn start(&self, length: usize) -> Option<&'a str> {
        std::str::from_utf8(self.0.get(..length)?).ok()
    }
}

impl std::fmt::Debug for ForeignToken<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ForeignToken(…)")
    }
}

/// The SHA-256 of a foreign token.
#[derive(Clone, Copy)]
pub struct ForeignDigest([u8; 32]);

impl ForeignDigest {
    /// What finds the record, if the other system kept this digest.
    pub fn selector(&self) -> Selector {
        Selector::of_digest(&self.0)
    }
}

impl<'a> From<&'a ForeignDigest> for Presented<'a> {
    fn from(digest: &'a ForeignDigest) -> Self {
        Self(&digest.0)
    }
}

/// What a foreign token is known by for good, also when nothing is kept any more that it could be held against: a digest
/// of what the other system kept of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ForeignName([u8; 32]);

impl ForeignName {
    /// What tables are keyed by.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<ForeignName> for String {
    fn from(ForeignName(digest): ForeignName) -> Self {
        hex(&digest)
    }
}

impl TryFrom<String> for ForeignName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        digest_of_hex(&text).map(Self).ok_or("give 64 hexadecimal digits")
    }
}

/// Why a foreign token cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum ForeignError {
    /// It is no SHA-256.
    #[error("sha256: give the SHA-256 of the whole token, 64 hexadecimal digits")]
    Digest,
    /// The beginning is too short, too long, or of other characters.
    #[error(
        "starts_with: give the token's first 8 to 63 characters, of letters, digits and -._~+/= alone: they find the key"
    )]
    Start,
    /// It is no Argon2id hash, or too costly a one.
    #[error("argon2id: {0}")]
    Hash(HashError),
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system: {0}")]
    Random(#[from] getrandom::Error),
}

impl ForeignError {
    /// The field that it is about, where it is about one.
    pub fn field(&self) -> Option<&'static str> {
        match self {
            Self::Digest => Some("sha256"),
            Self::Start => Some("starts_with"),
            Self::Hash(_) => Some("argon2id"),
            Self::Random(_) => None,
        }
    }
}

impl StoredSecret {
    /// What the token is known by for good, if another system issued it.
    pub fn foreign_name(&self) -> Option<ForeignName> {
        self.phc.foreign_bytes().map(|bytes| ForeignName(sha256(bytes)))
    }

    /// Whether a foreign token is found by what is kept of it.
    pub(super) fn finds_its_token(&self) -> bool {
        if let Some(start) = self.phc.foreign_start() {
            return STARTS.contains(&start.len()) && start.bytes().all(can_be_of_a_token);
        }
        let digest = self.phc.foreign_bytes().and_then(|bytes| <&[u8; 32]>::try_from(bytes).ok());
        digest.is_none_or(|digest| {
            self.selector == Selector::of_digest(digest) && self.screen == Screen::of_secret(digest)
        })
    }

    /// What to keep of a foreign token whose SHA-256 is known, in hexadecimal digits.
    ///
    /// # Errors
    /// [`ForeignError::Digest`].
    pub fn of_foreign_digest(hex: &str, now: Timestamp) -> Result<Self, ForeignError> {
        let digest = digest_of_hex(hex).ok_or(ForeignError::Digest)?;
        Ok(Self {
            selector: Selector::of_digest(&digest),
            phc: Phc::of_foreign_digest(digest),
            screen: Screen::of_secret(&digest),
            created_at: now.into(),
            compromised_at: None,
            last_four: None,
        })
    }

    /// What to keep of a foreign token whose Argon2id hash is known, as a PHC string, and its first characters.
    ///
    /// # Errors
    /// [`ForeignError::Start`], [`ForeignError::Hash`] also for one above the ceiling, or [`ForeignError::Random`].
    pub fn of_foreign_phc(start: &str, phc: &str, ceiling: Ceiling, now: Timestamp) -> Result<Self, ForeignError> {
        if !STARTS.contains(&start.len()) || !start.bytes().all(can_be_of_a_token) {
            return Err(ForeignError::Start);
        }
        let phc = Phc::of_foreign_phc(start, phc);
        phc.check(ceiling).map_err(ForeignError::Hash)?;
        let (selector, screen) = (Selector::random()?, Screen::none());
        Ok(Self { selector, phc, screen, created_at: now.into(), compromised_at: None, last_four: None })
    }
}

fn can_be_of_a_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Cost, Glance, Kind, Mint, Mode, Remembered};

    const TOKEN: &str = "acme_live_7Jq2.xYz-0~9+/=";

    fn token() -> ForeignToken<'static> {
        ForeignToken::parse(TOKEN.as_bytes()).unwrap()
    }

    fn digest(text: &str) -> String {
        hex(&sha256(text.as_bytes()))
    }

    fn phc(text: &str) -> String {
        Phc::of(text.as_bytes(), Cost { memory_kib: 8, iterations: 1, parallelism: 1 }).unwrap().into()
    }

    #[test]
    fn what_can_travel_as_a_bearer_token_is_read_and_nothing_else() {
        for text in ["short", "with a space in it", "with\u{0}nul.........", "ключ ключ ключ ключ", ""]
        {
            assert!(ForeignToken::parse(text.as_bytes()).is_none(), "{text}");
        }
        assert!(ForeignToken::parse("a".repeat(513).as_bytes()).is_none());
        assert_eq!(format!("{:?}", token()), "ForeignToken(…)");
    }

    #[test]
    fn both_kinds_of_hash_accept_their_token_and_no_other_and_read_back_as_they_were_written() {
        let now = Timestamp::UNIX_EPOCH;
        let stored = [
            StoredSecret::of_foreign_digest(&digest(TOKEN).to_uppercase(), now).unwrap(),
            StoredSecret::of_foreign_phc("acme_live_", &phc(TOKEN), Ceiling::default(), now).unwrap(),
        ];
        let other = ForeignToken::parse(b"acme_live_another.token").unwrap();
        for stored in stored {
            let stored: StoredSecret = serde_json::from_str(&serde_json::to_string(&stored).unwrap()).unwrap();
            assert!(stored.phc.is_foreign());
            assert!(stored.phc.verify(&token().secret(), Ceiling::default()).unwrap());
            assert!(!stored.phc.verify(&other.secret(), Ceiling::default()).unwrap());
            let remembered = Remembered::default();
            assert_eq!(remembered.glance(&token().digest(), stored.known_screen()), Glance::Unproven);
            remembered.remember(&token().secret());
            assert_eq!(remembered.glance(&token().digest(), stored.known_screen()), Glance::Proven);
            assert_eq!(remembered.glance(&other.digest(), stored.known_screen()), Glance::Wrong);
        }
    }

    #[test]
    fn a_foreign_token_has_one_name_however_its_line_is_written_and_ours_have_none() {
        let (now, hash) = (Timestamp::UNIX_EPOCH, phc(TOKEN));
        let of_phc =
            |start| StoredSecret::of_foreign_phc(start, &hash, Ceiling::default(), now).unwrap().foreign_name();
        let of_digest = |hex: &str| StoredSecret::of_foreign_digest(hex, now).unwrap().foreign_name();
        assert_eq!(of_phc("acme_live_"), of_phc("acme_live_7Jq"));
        assert_eq!(of_digest(&digest(TOKEN)), of_digest(&digest(TOKEN).to_uppercase()));
        assert_ne!(of_digest(&digest(TOKEN)), of_digest(&digest("another")));
        let written = serde_json::to_string(&of_phc("acme_live_").unwrap()).unwrap();
        assert_eq!(serde_json::from_str::<Option<ForeignName>>(&written).unwrap(), of_phc("acme_live_"));
        let mint = Mint::new(Kind::Secret, Mode::Live).unwrap();
        let ours = StoredSecret::new(&mint, mint.secret().hash(Cost::default()).unwrap(), now);
        assert_eq!(ours.foreign_name(), None);
    }

    #[test]
    fn a_token_of_ours_is_never_held_against_a_foreign_hash_nor_a_foreign_one_against_ours() {
        let now = Timestamp::UNIX_EPOCH;
        let mint = Mint::new(Kind::Secret, Mode::Live).unwrap();
        let secret = std::str::from_utf8(mint.secret().expose()).unwrap().to_owned();
        let foreign = [
            StoredSecret::of_foreign_digest(&hex(secret.as_bytes()), now),
            StoredSecret::of_foreign_phc(&secret[..8], &phc(&secret), Ceiling::default(), now),
        ];
        for stored in foreign {
            assert!(!stored.unwrap().phc.verify(mint.secret(), Ceiling::default()).unwrap());
        }
        let ours = mint.secret().hash(Cost::default()).unwrap();
        let as_foreign = ForeignToken::parse(secret.as_bytes()).unwrap();
        assert!(!ours.verify(&as_foreign.secret(), Ceiling::default()).unwrap());
    }

    #[test]
    fn what_could_never_accept_anything_is_not_taken_over() {
        let now = Timestamp::UNIX_EPOCH;
        for text in ["", "12", &"g".repeat(64), &format!("+{}", "0".repeat(63))] {
            assert!(matches!(StoredSecret::of_foreign_digest(text, now), Err(ForeignError::Digest)), "{text}");
        }
        let take = |start: &str, phc: &str| StoredSecret::of_foreign_phc(start, phc, Ceiling::default(), now);
        for start in ["", "seven77", &"x".repeat(64), "with space", "with$dollar"] {
            assert!(matches!(take(start, &phc(TOKEN)), Err(ForeignError::Start)), "{start}");
        }
        let costly = "$argon2id$v=19$m=4194304,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$RdescudvJCsgt3ub+b4dWRWJTmaaJObG";
        for hash in ["", "$2b$12$abc", "acme$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$RdescudvJCs", costly] {
            assert!(matches!(take("acme_live_", hash), Err(ForeignError::Hash(_))), "{hash}");
        }
    }
}
