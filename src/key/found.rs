//! Tokens in the midst of other text, found by their form and their checksum alone.
//!
//! For what was left where it does not belong: in files, in histories, in reports of leaks. Nothing is looked
//! up, so a token that is found may be anyone's, of a key that is dead or never was.

use std::fmt;
use std::ops::Range;

use super::token::UNDERSCORE;
use super::{Kind, Mode, Selector, Token, UserToken};

/// A well-formed token of either kind. Nothing is proven.
#[derive(Debug, Clone, Copy)]
pub enum Found<'a> {
    /// Of a key.
    Key(Token<'a>),
    /// Of a person.
    User(UserToken<'a>),
}

impl<'a> Found<'a> {
    /// Characters of the longest token: whoever reads in pieces lets them overlap by one fewer.
    pub const LONGEST: usize = if Token::LENGTH > UserToken::LENGTH { Token::LENGTH } else { UserToken::LENGTH };

    /// The token that the text begins with, and its length.
    fn at_start_of(text: &'a [u8]) -> Option<(usize, Self)> {
        let key = || Token::parse(text.get(..Token::LENGTH)?).ok();
        let user = || UserToken::parse(text.get(..UserToken::LENGTH)?).ok();
        key()
            .map(|token| (Token::LENGTH, Self::Key(token)))
            .or_else(|| user().map(|token| (UserToken::LENGTH, Self::User(token))))
    }

    /// What its prefix says the key is; `None` for a person's token.
    pub fn key(&self) -> Option<(Kind, Mode)> {
        match self {
            Self::Key(token) => Some((token.kind, token.mode)),
            Self::User(_) => None,
        }
    }

    /// Finds the record.
    pub fn selector(&self) -> Selector {
        match self {
            Self::Key(token) => token.selector,
            Self::User(token) => token.selector,
        }
    }
}

/// The prefix and the first characters of the selector, for people to tell tokens apart: `sk_live_4eC3…`.
impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(token) => write!(f, "{}_{}_", token.kind.prefix(), token.mode)?,
            Self::User(_) => f.write_str("kw_")?,
        }
        write!(f, "{:.4}…", self.selector().as_str())
    }
}

/// Every token in the bytes, and where it stands, in order of their beginnings. What stands around a token does
/// not matter, and two may share characters: one that ends with `sk` may be followed by `_live_` and so on.
///
/// Linear in time: every head has its underscore at one place, and no underscore is in what follows a head, so
/// that no byte is summed for two heads.
pub fn find_tokens(bytes: &[u8]) -> impl Iterator<Item = (Range<usize>, Found<'_>)> {
    let underscores = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'_');
    underscores.filter_map(|(at, _)| {
        let start = at.checked_sub(UNDERSCORE)?;
        let (length, found) = Found::at_start_of(bytes.get(start..)?)?;
        Some((start..start + length, found))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key::Mint;
    use crate::key::id::base62_of;

    /// A token whose secret ends as is wanted.
    fn token(head: &str, end: &str) -> String {
        let run = "4eC39HqLyjWDarjtT1zdp7dcQ0aB5xYzMnKvUe8RgWs2LqPo";
        let body = format!("{head}{}{end}", &run[..run.len() - end.len()]);
        let sum = base62_of(crc32fast::hash(body.as_bytes()));
        format!("{body}{}", std::str::from_utf8(&sum).unwrap())
    }

    /// A token whose checksum ends with the two characters.
    fn token_ending(head: &str, end: &str) -> String {
        let tokens = (0..1_000_000).map(|number| token(head, &format!("{number:06}")));
        tokens.into_iter().find(|token| token.ends_with(end)).unwrap()
    }

    fn ranges(bytes: &[u8]) -> Vec<Range<usize>> {
        find_tokens(bytes).map(|(range, _)| range).collect()
    }

    /// Where the token stands, and that nothing else is found.
    fn only_in(before: &[u8], token: &str, after: &[u8]) {
        let bytes = [before, token.as_bytes(), after].concat();
        let expected = before.len()..before.len() + token.len();
        assert_eq!(ranges(&bytes), std::slice::from_ref(&expected), "{:?}", String::from_utf8_lossy(&bytes));
    }

    /// The slow second reading: both parsers, at every place.
    fn ranges_slowly(bytes: &[u8]) -> Vec<Range<usize>> {
        let mut ranges = Vec::new();
        for start in 0..bytes.len() {
            let is = |end: usize| end <= bytes.len();
            let (key, user) = (start + Token::LENGTH, start + UserToken::LENGTH);
            if is(key) && Token::parse(&bytes[start..key]).is_ok() {
                ranges.push(start..key);
            }
            if is(user) && UserToken::parse(&bytes[start..user]).is_ok() {
                ranges.push(start..user);
            }
        }
        ranges
    }

    #[test]
    fn a_token_is_found_wherever_it_stands() {
        for token in [token("sk_live_", ""), token("pk_test_", ""), token("kw_", "")] {
            for (before, after) in [
                ("", ""),
                ("\"", "\""),
                ("STRIPE=", "\r\n"),
                ("{\"token\":\"", "\",\"b\":1}"),
                ("https://example.org/?key=", "&a=b"),
                ("https://", "@example.org/"),
                ("Bearer%20", "%0A"),
                ("_live_sk_", "_"),
                ("task", "zzzz"),
                ("sk_live_", "0"),
                ("a_b__", "_live_"),
                ("grün", "…"),
            ] {
                only_in(before.as_bytes(), &token, after.as_bytes());
            }
            only_in(b"\0\xff\xfe", &token, b"\x80\0");
        }
    }

    #[test]
    fn what_only_looks_like_a_token_is_not_found() {
        let good = token("sk_live_", "");
        for text in [
            "",
            "sk_live_",
            "_",
            &good[1..],
            &good[..61],
            &good.replace("sk_", "ak_"),
            &good.replace("live", "prod"),
            &good.replacen('4', "5", 1),
            &good.to_lowercase(),
            &format!("{}\n{}", &good[..30], &good[30..]),
        ] {
            assert!(ranges(text.as_bytes()).is_empty(), "{text}");
        }
    }

    #[test]
    fn two_tokens_that_share_characters_are_both_found() {
        for (first, second) in [("sk_live_", "sk_live_"), ("kw_", "rk_test_"), ("pk_test_", "kw_")] {
            let first = token_ending(first, &second[..2]);
            let text = format!("{first}{}", &token(second, "")[2..]);
            let ends = [0..first.len(), first.len() - 2..text.len()];
            assert_eq!(ranges(text.as_bytes()), ends, "{text}");
            assert_eq!(ranges_slowly(text.as_bytes()), ends);
        }
    }

    #[test]
    fn neither_the_secret_nor_the_checksum_is_shown() {
        for mint in [Mint::new(Kind::Secret, Mode::Live), Mint::for_user()].map(Result::unwrap) {
            let (_, found) = find_tokens(mint.expose().as_bytes()).next().unwrap();
            assert_eq!(found.selector(), mint.selector());
            let shown = found.to_string();
            let head = if found.key().is_some() { "sk_live_" } else { "kw_" };
            assert_eq!(shown, format!("{head}{}…", &mint.selector().as_str()[..4]));
            assert!(!format!("{found:?}").contains(std::str::from_utf8(mint.secret().expose()).unwrap()));
        }
    }

    #[test]
    fn megabytes_of_beginnings_are_read_in_one_pass() {
        // What is nearly a token, again and again: a second pass for each would take minutes.
        for piece in ["sk_live_", "kw_", "_", &token("sk_live_", "")[..61], &token("kw_", "")] {
            let text = piece.repeat((8 << 20) / piece.len());
            let expected = if piece.len() == UserToken::LENGTH { text.len() / piece.len() } else { 0 };
            assert_eq!(find_tokens(text.as_bytes()).count(), expected, "{piece}");
        }
    }

    proptest! {
        #[test]
        fn the_fast_and_the_slow_reading_agree(pieces in prop::collection::vec(prop_oneof![
            4 => Just(token("sk_live_", "").into_bytes()),
            4 => Just(token("kw_", "").into_bytes()),
            2 => Just(token_ending("rk_test_", "sk").into_bytes()),
            2 => Just(token("sk_live_", "").as_bytes()[2..].to_vec()),
            2 => (0..62_usize).prop_map(|cut| token("pk_live_", "").as_bytes()[..cut].to_vec()),
            2 => prop::collection::vec(any::<u8>(), 0..8),
            2 => "[a-zA-Z0-9_]{0,60}".prop_map(String::into_bytes),
        ], 0..8)) {
            let bytes = pieces.concat();
            prop_assert_eq!(ranges(&bytes), ranges_slowly(&bytes));
        }
    }
}
