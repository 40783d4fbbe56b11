//! Tokens in a stream of any length, read piece by piece in bounded memory.

use std::io::{self, ErrorKind, Read};

use zeroize::Zeroizing;

use crate::key::{Found, find_tokens};

/// Bytes that are held at once.
const WINDOW: usize = 64 * 1024;

/// A place in a stream, as editors count: both from 1, the column in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At {
    pub(super) line: u64,
    pub(super) column: u64,
}

impl At {
    fn pass(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.column += 1;
            if *byte == b'\n' {
                *self = Self { line: self.line + 1, column: 1 };
            }
        }
    }
}

/// Why a stream was left before its end.
#[derive(Debug)]
pub(super) enum Stop {
    /// It could not be read.
    Read(io::Error),
    /// What was found in it could not be told.
    Tell(io::Error),
}

/// Tells of every token in a stream: where, its bytes, and what it is.
pub(super) fn tokens_in(
    source: &mut impl Read,
    tell: &mut impl FnMut(At, &[u8], Found<'_>) -> io::Result<()>,
) -> Result<(), Stop> {
    let mut window = Zeroizing::new(vec![0_u8; WINDOW]);
    let mut filled = 0;
    let mut at = At { line: 1, column: 1 };
    loop {
        let read = match source.read(window.get_mut(filled..).unwrap_or_default()) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(Stop::Read(error)),
        };
        filled += read;
        let held = window.get(..filled).unwrap_or_default();
        // A token that begins further on may end in what is not read yet. It stays for the next piece, so that
        // each is told of once.
        let settled = if read == 0 { filled } else { filled.saturating_sub(Found::LONGEST - 1) };
        let mut passed = 0;
        for (range, found) in find_tokens(held).take_while(|(range, _)| range.start < settled) {
            at.pass(held.get(passed..range.start).unwrap_or_default());
            passed = range.start;
            tell(at, held.get(range).unwrap_or_default(), found).map_err(Stop::Tell)?;
        }
        at.pass(held.get(passed..settled).unwrap_or_default());
        if read == 0 {
            return Ok(());
        }
        window.copy_within(settled..filled, 0);
        filled -= settled;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key::{Kind, Mint, Mode};

    /// Gives a text in pieces of the given sizes, over and over.
    struct Pieces<'a> {
        text: &'a [u8],
        sizes: Vec<usize>,
        turn: usize,
    }

    impl Read for Pieces<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            self.turn += 1;
            if self.turn.is_multiple_of(3) {
                return Err(ErrorKind::Interrupted.into());
            }
            let size = self.sizes[self.turn % self.sizes.len()].min(out.len());
            self.text.read(&mut out[..size])
        }
    }

    fn told(source: &mut impl Read) -> Vec<(At, String)> {
        let mut told = Vec::new();
        let mut tell = |at: At, text: &[u8], _: Found<'_>| {
            told.push((at, String::from_utf8(text.to_vec()).unwrap()));
            Ok(())
        };
        tokens_in(source, &mut tell).unwrap();
        told
    }

    fn minted() -> String {
        Mint::new(Kind::Secret, Mode::Live).unwrap().expose().to_owned()
    }

    #[test]
    fn a_token_across_two_pieces_is_found_once_at_its_place() {
        let (token, user) = (minted(), Mint::for_user().unwrap().expose().to_owned());
        for token in [token, user] {
            for windows in [1, 2, 3] {
                for start in (windows * WINDOW - 130..windows * WINDOW + 70).filter(|start| start % 3 != 0) {
                    let text = format!("{}\n{token} and so on", " ".repeat(start - 1));
                    let at = At { line: 2, column: 1 };
                    assert_eq!(told(&mut text.as_bytes()), [(at, token.clone())], "{start}");
                    assert_eq!(told(&mut &text.as_bytes()[..start + token.len()]).len(), 1, "{start}, at the end");
                }
            }
        }
    }

    #[test]
    fn a_stream_that_breaks_off_is_told_as_such_after_what_was_in_it() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(ErrorKind::TimedOut.into())
            }
        }
        let text = format!("{}{}", minted(), " ".repeat(100));
        let mut count = 0;
        let stop = tokens_in(&mut text.as_bytes().chain(Broken), &mut |_, _, _| {
            count += 1;
            Ok(())
        });
        assert!(matches!(stop, Err(Stop::Read(_))) && count == 1);
        let stop = tokens_in(&mut text.as_bytes(), &mut |_, _, _| Err(ErrorKind::BrokenPipe.into()));
        assert!(matches!(stop, Err(Stop::Tell(_))));
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_give_what_the_whole_gives(
            parts in prop::collection::vec(prop_oneof![
                Just(minted()),
                Just(Mint::for_user().unwrap().expose().to_owned()),
                "[ \n_a-z]{0,80}",
                Just("\n".to_owned()),
            ], 0..12),
            sizes in prop::collection::vec(1..90_usize, 1..6),
        ) {
            let text = parts.concat();
            let expected: Vec<_> = find_tokens(text.as_bytes()).map(|(range, _)| {
                let before = &text[..range.start];
                let line = before.matches('\n').count() as u64 + 1;
                let column = (before.len() - before.rfind('\n').map_or(0, |at| at + 1)) as u64 + 1;
                (At { line, column }, text[range].to_owned())
            }).collect();
            let mut pieces = Pieces { text: text.as_bytes(), sizes, turn: 0 };
            prop_assert_eq!(told(&mut pieces), expected);
        }
    }
}
