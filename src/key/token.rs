//! Tokens: the text that a caller sends, read without allocation and written once.
//!
//! `<prefix>_<mode>_<selector><secret><checksum>`, 62 characters in all: `pk`, `sk` or `rk`; `live`
//! or `test`; then one run of base62, so that a double-click selects it. The checksum is a CRC-32 of
//! all before it, so that a typo or an invented token costs no look-up, and so that scanners of
//! source code can tell a token from a random word. It proves nothing; the secret does.
//!
//! A person's token, for the management API, is `kw_<selector><secret><checksum>`, 57 characters. Neither
//! kind of token is ever read as the other.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::id::{base62_of, random_base62};
use super::{Kind, Mode, Secret, Selector};

const HEAD: usize = "sk_live_".len();
const USER_HEAD: &str = "kw_";
/// How a token of any kind begins.
const HEADS: [&str; 7] = ["pk_live_", "pk_test_", "sk_live_", "sk_test_", "rk_live_", "rk_test_", USER_HEAD];
/// Where in each head its first underscore stands: what tokens in other text are found by.
pub(super) const UNDERSCORE: usize = 2;
const _: () = {
    let mut heads: &[&str] = &HEADS;
    while let [head, more @ ..] = heads {
        assert!(matches!(head.as_bytes(), [a, b, b'_', ..] if *a != b'_' && *b != b'_'));
        heads = more;
    }
};
const SELECTOR: usize = 16;
const SECRET: usize = 32;
const CHECKSUM: usize = 6;
/// Characters behind the head.
const RUN: usize = SELECTOR + SECRET + CHECKSUM;

/// A well-formed token, borrowed from the request that carried it. Nothing is proven yet.
#[derive(Clone, Copy)]
pub struct Token<'a> {
    /// What its prefix says it is; the record says what it really is.
    pub kind: Kind,
    /// What its text says its mode is; the record says what it really is.
    pub mode: Mode,
    /// Finds the record.
    pub selector: Selector,
    /// Proves the key. Of fixed length, characters of base62.
    secret: &'a [u8; SECRET],
}

/// A text that is no token of ours. It does not say why: whoever guesses learns nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a well-formed token")]
pub struct NotAToken;

impl<'a> Token<'a> {
    /// The token that a secret was taken from, to be looked at once more.
    pub fn of_secret(kind: Kind, mode: Mode, selector: Selector, secret: &'a Secret) -> Self {
        Self { kind, mode, selector, secret: secret.expose() }
    }

    /// Characters of a token.
    pub const LENGTH: usize = HEAD + RUN;

    /// Reads a token. Constant in memory; nothing but the text is looked at.
    ///
    /// # Errors
    /// [`NotAToken`] for anything that [`Mint::new`] could not have written.
    pub fn parse(text: &'a [u8]) -> Result<Self, NotAToken> {
        if text.len() != Self::LENGTH {
            return Err(NotAToken);
        }
        let (kind, mode) = match text.get(..HEAD).ok_or(NotAToken)? {
            b"pk_live_" => (Kind::Publishable, Mode::Live),
            b"pk_test_" => (Kind::Publishable, Mode::Test),
            b"sk_live_" => (Kind::Secret, Mode::Live),
            b"sk_test_" => (Kind::Secret, Mode::Test),
            b"rk_live_" => (Kind::Restricted, Mode::Live),
            b"rk_test_" => (Kind::Restricted, Mode::Test),
            _ => return Err(NotAToken),
        };
        let (selector, secret) = behind_head(text, HEAD)?;
        Ok(Self { kind, mode, selector, secret })
    }
}

/// A well-formed token of a person, borrowed from the request that carried it. Nothing is proven yet.
#[derive(Clone, Copy)]
pub struct UserToken<'a> {
    /// Finds the record.
    pub selector: Selector,
    /// Proves the person.
    secret: &'a [u8; SECRET],
}

impl<'a> UserToken<'a> {
    /// Characters of a person's token.
    pub const LENGTH: usize = USER_HEAD.len() + RUN;

    /// Reads a person's token. Constant in memory; nothing but the text is looked at.
    ///
    /// # Errors
    /// [`NotAToken`] for anything that [`Mint::for_user`] could not have written.
    pub fn parse(text: &'a [u8]) -> Result<Self, NotAToken> {
        if text.len() != Self::LENGTH || !text.starts_with(USER_HEAD.as_bytes()) {
            return Err(NotAToken);
        }
        let (selector, secret) = behind_head(text, USER_HEAD.len())?;
        Ok(Self { selector, secret })
    }
}

/// The selector and the secret of a text of the right length, when its characters and its checksum are right.
fn behind_head(text: &[u8], head: usize) -> Result<(Selector, &[u8; SECRET]), NotAToken> {
    let run = text.get(head..).ok_or(NotAToken)?;
    let (body, checksum) = text.split_last_chunk::<CHECKSUM>().ok_or(NotAToken)?;
    if !run.iter().all(u8::is_ascii_alphanumeric) || *checksum != base62_of(crc32fast::hash(body)) {
        return Err(NotAToken);
    }
    let (selector, rest) = run.split_at_checked(SELECTOR).ok_or(NotAToken)?;
    Ok((Selector::from_token(selector).ok_or(NotAToken)?, rest.first_chunk::<SECRET>().ok_or(NotAToken)?))
}

/// The secret that a token of either kind carries: to be compared or copied, never to be seen.
#[derive(Clone, Copy)]
pub struct Presented<'a>(pub(super) &'a [u8; SECRET]);

impl<'a> From<&Token<'a>> for Presented<'a> {
    fn from(token: &Token<'a>) -> Self {
        Self(token.secret)
    }
}

impl<'a> From<&UserToken<'a>> for Presented<'a> {
    fn from(token: &UserToken<'a>) -> Self {
        Self(token.secret)
    }
}

/// A text with every token in it cut off behind its prefix: for error messages and logs that quote what a
/// caller sent. Whatever looks like the beginning of a token is cut, well-formed or not, and so is a run of
/// characters that could be a token whose prefix was written in another way, percent-encoded for example.
pub fn masked(text: &str) -> Cow<'_, str> {
    // Most texts are short, and hold nothing like a token: they are looked through once, and not copied.
    let ends_in_head = |text: &str| HEADS.iter().any(|head| text.ends_with(head));
    let holds_head = || text.match_indices('_').any(|(at, _)| text.get(..=at).is_some_and(ends_in_head));
    if text.len() < SELECTOR + SECRET && !holds_head() {
        return Cow::Borrowed(text);
    }
    let mut out: Option<String> = None;
    let mut before = 0;
    for piece in text.split_inclusive(|character: char| !character.is_ascii_alphanumeric()) {
        let run = piece.bytes().take_while(u8::is_ascii_alphanumeric).count();
        let (run, end) = piece.split_at(run);
        // Digests and the ids of traces are hexadecimal; a token is not.
        let could_be = || run.len() >= SELECTOR + SECRET && !run.bytes().all(|character| character.is_ascii_hexdigit());
        let (head, _) = text.split_at_checked(before).unwrap_or_default();
        // Every head ends with an underscore, and few texts have one.
        let follows_head = || head.ends_with('_') && ends_in_head(head);
        if !run.is_empty() && (follows_head() || could_be()) {
            let out = out.get_or_insert_with(|| head.to_owned());
            out.push('…');
            out.push_str(end);
        } else if let Some(out) = &mut out {
            out.push_str(piece);
        }
        before += piece.len();
    }
    out.map_or(Cow::Borrowed(text), Cow::Owned)
}

impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}_{}…", self.kind.prefix(), self.mode, self.selector)
    }
}

impl fmt::Debug for UserToken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{USER_HEAD}{}…", self.selector)
    }
}

impl fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Presented(…)")
    }
}

/// A token of either kind at the one moment when its text is known: when it is made.
pub struct Mint {
    selector: Selector,
    secret: Secret,
    text: Zeroizing<String>,
}

/// The last four characters of a token: people know it by them. They are the end of its checksum, which tells at most 24
/// of the secret's 190 bits. As a number that is never zero, so that an `Option` of it takes no more room.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct LastFour(NonZeroU32);

impl LastFour {
    fn of(text: &[u8]) -> Option<Self> {
        let last = text.last_chunk::<4>().filter(|last| last.iter().all(u8::is_ascii_alphanumeric))?;
        NonZeroU32::new(u32::from_be_bytes(*last)).map(Self)
    }
}

impl fmt::Display for LastFour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.get().to_be_bytes().iter().try_for_each(|byte| fmt::Write::write_char(f, char::from(*byte)))
    }
}

impl fmt::Debug for LastFour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "…{self}")
    }
}

impl From<LastFour> for String {
    fn from(last: LastFour) -> Self {
        last.to_string()
    }
}

impl TryFrom<String> for LastFour {
    type Error = NotFour;

    fn try_from(text: String) -> Result<Self, NotFour> {
        if text.len() == 4 { Self::of(text.as_bytes()).ok_or(NotFour) } else { Err(NotFour) }
    }
}

/// A text that no token of ours ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the end of a token: it is four letters and digits")]
pub struct NotFour;

/// The operating system gave no random bytes, so no token was made.
#[derive(Debug, thiserror::Error)]
#[error("no random bytes from the operating system, so no token can be made: {0}")]
pub struct MintError(#[from] getrandom::Error);

impl Mint {
    /// A new token of a key, with a fresh selector and secret.
    ///
    /// # Errors
    /// [`MintError`] when there are no random bytes.
    pub fn new(kind: Kind, mode: Mode) -> Result<Self, MintError> {
        Self::behind(&[kind.prefix(), "_", mode.as_str(), "_"])
    }

    /// A new token of a person, with a fresh selector and secret.
    ///
    /// # Errors
    /// [`MintError`] when there are no random bytes.
    pub fn for_user() -> Result<Self, MintError> {
        Self::behind(&[USER_HEAD])
    }

    fn behind(head: &[&str]) -> Result<Self, MintError> {
        let selector = Selector::random()?;
        let secret = Secret::new(random_base62()?);
        // Never grows, so that no copy of the text is left behind.
        let mut text = Zeroizing::new(String::with_capacity(Token::LENGTH));
        text.extend(head.iter().copied());
        text.push_str(selector.as_str());
        text.extend(secret.expose().iter().map(|byte| char::from(*byte)));
        let checksum = base62_of(crc32fast::hash(text.as_bytes()));
        text.extend(checksum.iter().map(|byte| char::from(*byte)));
        Ok(Self { selector, secret, text })
    }

    /// The selector, for the record.
    pub fn selector(&self) -> Selector {
        self.selector
    }

    /// The secret, to be hashed.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The last characters of the token, for people to tell tokens apart.
    pub fn last_four(&self) -> Option<LastFour> {
        LastFour::of(self.text.as_bytes())
    }

    /// The whole token: to be shown once to whoever asked for it, and to nobody else.
    pub fn expose(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Mint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mint").field("selector", &self.selector).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KINDS: [Kind; 3] = [Kind::Publishable, Kind::Secret, Kind::Restricted];

    #[test]
    fn the_end_of_a_token_is_four_characters_in_four_bytes() {
        let mint = Mint::new(Kind::Secret, Mode::Live).unwrap();
        let last = mint.last_four().unwrap();
        assert!(mint.expose().ends_with(&last.to_string()));
        assert_eq!(size_of::<Option<LastFour>>(), 4);
        assert_eq!(serde_json::from_value::<LastFour>(serde_json::json!(last)).unwrap(), last);
        for text in ["", "abc", "abcde", "ab d", "äb"] {
            assert!(serde_json::from_value::<LastFour>(serde_json::json!(text)).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_minted_token_reads_back(kind in 0..3_usize, live: bool) {
            let mode = if live { Mode::Live } else { Mode::Test };
            let mint = Mint::new(KINDS[kind], mode).unwrap();
            let token = Token::parse(mint.expose().as_bytes()).unwrap();
            prop_assert_eq!((token.kind, token.mode, token.selector), (KINDS[kind], mode, mint.selector()));
            prop_assert_eq!(token.secret, mint.secret().expose());
        }

        #[test]
        fn a_token_with_one_byte_changed_is_refused(at in 0..Token::LENGTH, byte: u8) {
            let mint = Mint::new(Kind::Secret, Mode::Live).unwrap();
            let mut text = mint.expose().as_bytes().to_vec();
            prop_assume!(text[at] != byte);
            text[at] = byte;
            prop_assert_eq!(Token::parse(&text).unwrap_err(), NotAToken);
        }

        #[test]
        fn a_persons_token_with_one_byte_changed_is_refused(at in 0..UserToken::LENGTH, byte: u8) {
            let mint = Mint::for_user().unwrap();
            let mut text = mint.expose().as_bytes().to_vec();
            prop_assume!(text[at] != byte);
            text[at] = byte;
            prop_assert_eq!(UserToken::parse(&text).unwrap_err(), NotAToken);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Token::parse(&bytes).is_err() && UserToken::parse(&bytes).is_err());
        }
    }

    #[test]
    fn a_token_cut_or_extended_is_refused() {
        let mint = Mint::new(Kind::Restricted, Mode::Test).unwrap();
        let text = mint.expose().to_owned();
        for wrong in [&text[..61], &format!("{text}0"), &format!(" {text}"), &text.to_uppercase()] {
            assert!(Token::parse(wrong.as_bytes()).is_err());
        }
    }

    #[test]
    fn a_token_in_a_text_is_masked_whole_or_cut() {
        let mint = Mint::new(Kind::Secret, Mode::Live).unwrap();
        let text = format!("invalid: \"{}\", or rk_test_abc?", mint.expose());
        assert_eq!(masked(&text), "invalid: \"sk_live_…\", or rk_test_…?");
        let encoded = mint.expose().replace('_', "%5F");
        assert_eq!(masked(&encoded), "sk%5Flive%…");
        for fine in ["task_live is fine", "sk_live_", &"0a1b".repeat(32), "grün…", "sk_live_…_live_…", "rk_test__"]
        {
            assert!(matches!(masked(fine), Cow::Borrowed(_)), "{fine}");
        }
    }

    /// A text with the checksum that it would need.
    fn summed(body: &str) -> String {
        let checksum = base62_of(crc32fast::hash(body.as_bytes()));
        format!("{body}{}", std::str::from_utf8(&checksum).unwrap())
    }

    #[test]
    fn a_persons_token_reads_back() {
        let mint = Mint::for_user().unwrap();
        assert_eq!(mint.expose().len(), UserToken::LENGTH);
        let token = UserToken::parse(mint.expose().as_bytes()).unwrap();
        assert_eq!((token.selector, token.secret), (mint.selector(), mint.secret().expose()));
    }

    #[test]
    fn neither_kind_of_token_is_read_as_the_other() {
        let (key, user) = (Mint::new(Kind::Secret, Mode::Live).unwrap(), Mint::for_user().unwrap());
        assert_eq!(UserToken::parse(key.expose().as_bytes()).unwrap_err(), NotAToken);
        assert_eq!(Token::parse(user.expose().as_bytes()).unwrap_err(), NotAToken);
        // Not with another head, nor at the other's length, even where the checksum is right.
        let run = |length: usize| "4eC39HqLyjWDarjt".repeat(4)[..length - CHECKSUM].to_owned();
        let (of_key, of_user) = (Token::LENGTH, UserToken::LENGTH);
        for (body, is_key, is_user) in [
            (format!("sk_live_{}", run(of_key - 8)), true, false),
            (format!("kw_{}", run(of_user - 3)), false, true),
            (format!("kw_{}", run(of_key - 3)), false, false),
            (format!("sk_live_{}", run(of_user - 8)), false, false),
            (format!("kw_live_{}", run(of_key - 8)), false, false),
            (format!("KW_{}", run(of_user - 3)), false, false),
        ] {
            let text = summed(&body);
            assert_eq!(Token::parse(text.as_bytes()).is_ok(), is_key, "{text}");
            assert_eq!(UserToken::parse(text.as_bytes()).is_ok(), is_user, "{text}");
        }
    }

    #[test]
    fn a_persons_token_is_masked_whole_or_cut() {
        let mint = Mint::for_user().unwrap();
        let text = format!("token={}, or kw_abc?", mint.expose());
        assert_eq!(masked(&text), "token=kw_…, or kw_…?");
        let encoded = mint.expose().replace('_', "%5F");
        assert_eq!(masked(&encoded), "kw%…");
        assert!(matches!(masked("kw_ and kw-abc"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_megabyte_of_beginnings_is_masked_in_one_pass() {
        // A second pass for each of them would take minutes.
        let text = "sk_live_-".repeat(1 << 20);
        assert_eq!(masked(&text).len(), text.len());
        let words = "sk_live_abc ".repeat(1 << 20);
        assert!(!masked(&words).contains("abc"));
    }

    #[test]
    fn debug_shows_what_finds_a_key_and_not_what_proves_it() {
        let mint = Mint::new(Kind::Secret, Mode::Live).unwrap();
        let token = Token::parse(mint.expose().as_bytes()).unwrap();
        let shown = format!("{token:?} {mint:?} {:?} {:?}", mint.secret(), Presented::from(&token));
        assert!(shown.contains(token.selector.as_str()));
        let secret = std::str::from_utf8(mint.secret().expose()).unwrap();
        assert!(!shown.contains(secret) && !shown.contains(&secret[..8]), "{shown}");
        let mint = Mint::for_user().unwrap();
        let token = UserToken::parse(mint.expose().as_bytes()).unwrap();
        assert_eq!(format!("{token:?}"), format!("kw_{}…", mint.selector()));
    }
}
