//! What a scan tells: a line for each token on standard output, and at the end what could not be read.

use std::fmt::{self, Write as _};
use std::io::{self, Read, Write as _};

use serde::Serialize;

use super::stream::{At, Stop, tokens_in};
use crate::cli::Failure;
use crate::cli::terminal::escaped;
use crate::key::{Found, Kind, masked};

/// What is being read.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// The commit that brought it, when it is from a history.
    pub(super) commit: Option<&'a str>,
    /// The file's name as the system knows it; `None` for the message of a commit or a tag.
    pub(super) file: Option<&'a [u8]>,
}

impl<'a> Place<'a> {
    pub(super) fn file(name: &'a [u8]) -> Self {
        Self { commit: None, file: Some(name) }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(commit) = self.commit {
            write!(f, "{commit}:")?;
        }
        match self.file {
            Some(name) => f.write_str(&shown(name)),
            None => f.write_str("<message>"),
        }
    }
}

/// One finding for scripts.
#[derive(Serialize)]
struct Finding<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<&'a str>,
    file: Option<String>,
    line: u64,
    column: u64,
    /// `publishable`, `secret`, `restricted` or `user`.
    kind: &'a str,
    mode: Option<&'a str>,
    token: String,
}

/// What was told of so far.
pub(super) struct Report {
    is_json: bool,
    with_publishable: bool,
    found: u64,
    unread: Vec<String>,
}

impl Report {
    pub(super) fn new(is_json: bool, with_publishable: bool) -> Self {
        Self { is_json, with_publishable, found: 0, unread: Vec::new() }
    }

    /// Tells of each token in a stream that `wanted` takes. A stream that cannot be read is remembered for the end.
    ///
    /// # Errors
    /// When nothing can be written any more.
    pub(super) fn read(
        &mut self,
        place: Place<'_>,
        source: &mut impl Read,
        wanted: &mut impl FnMut(&[u8]) -> bool,
    ) -> Result<(), Failure> {
        let done = tokens_in(source, &mut |at, text, found| {
            let is_public = matches!(found.key(), Some((Kind::Publishable, _)));
            if (is_public && !self.with_publishable) || !wanted(text) { Ok(()) } else { self.tell(place, at, found) }
        });
        match done {
            Ok(()) => Ok(()),
            Err(Stop::Read(error)) => {
                self.unread(place, &error);
                Ok(())
            }
            Err(Stop::Tell(error)) => Err(error.into()),
        }
    }

    fn tell(&mut self, place: Place<'_>, at: At, found: Found<'_>) -> io::Result<()> {
        self.found += 1;
        let At { line, column } = at;
        let mut out = io::stdout().lock();
        if self.is_json {
            let (kind, mode) = match found.key() {
                Some((kind, mode)) => (kind.as_str(), Some(mode.as_str())),
                None => ("user", None),
            };
            let file = place.file.map(|name| masked(&String::from_utf8_lossy(name)).into_owned());
            let token = found.to_string();
            serde_json::to_writer(&mut out, &Finding { commit: place.commit, file, line, column, kind, mode, token })?;
            return out.write_all(b"\n");
        }
        match found.key() {
            Some((kind, mode)) => writeln!(out, "{place}:{line}:{column}: {kind} {mode} key, {found}"),
            None => writeln!(out, "{place}:{line}:{column}: token of a person, {found}"),
        }
    }

    /// Remembers what could not be read.
    pub(super) fn unread(&mut self, place: Place<'_>, why: &impl fmt::Display) {
        self.unread.push(format!("{place}: {why}"));
    }

    /// Whether all was read, and no token was in it.
    ///
    /// # Errors
    /// When not, with what a person should know.
    pub(super) fn end(self) -> Result<(), Failure> {
        let mut message = String::new();
        match self.found {
            0 => {}
            1 => message.push_str("1 token found: replace it if others could read it, then take it out\n"),
            many => {
                let _ =
                    writeln!(message, "{many} tokens found: replace those that others could read, then take them out");
            }
        }
        if !self.unread.is_empty() {
            let _ = writeln!(message, "not all could be read:\n  {}", self.unread.join("\n  "));
        }
        if message.is_empty() { Ok(()) } else { Err(Failure { message, code: 1 }) }
    }
}

/// A file's name for a terminal: what would steer it is escaped, and a token in the name is masked.
fn shown(name: &[u8]) -> String {
    let mut out = String::new();
    for chunk in name.utf8_chunks() {
        out.push_str(&escaped(chunk.valid()));
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    masked(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Mint, Mode};

    #[test]
    fn a_name_cannot_steer_a_terminal() {
        for (name, expected) in [
            (&b"src/plain name.rs"[..], "src/plain name.rs"),
            ("grün/日本".as_bytes(), "grün/日本"),
            (b"a\x1b[2Jb\nc\r\0", "a\\u{1b}[2Jb\\nc\\r\\u{0}"),
            (b"\xff\xc3(", "\\xff\\xc3("),
            ("a\u{202e}b\u{9b}".as_bytes(), "a\\u{202e}b\\u{9b}"),
        ] {
            assert_eq!(shown(name), expected);
        }
    }

    #[test]
    fn a_token_in_a_name_is_masked() {
        let mint = Mint::new(Kind::Secret, Mode::Live).unwrap();
        let name = format!("download?key={}", mint.expose());
        assert_eq!(shown(name.as_bytes()), "download?key=sk_live_…");
    }
}
