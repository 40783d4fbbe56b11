//! The text of a policy file, with its parts told apart.

use std::collections::HashSet;
use std::path::Path;
use std::sync::LazyLock;

use crate::policy::tokens;

/// A part of a line.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece {
    /// The class that colours it; empty for none.
    pub class: &'static str,
    /// Its text.
    pub text: String,
}

/// A line.
pub type Line = Vec<Piece>;

static KEYWORDS: LazyLock<HashSet<&str>> = LazyLock::new(|| {
    let policies =
        ["permit", "forbid", "when", "unless", "if", "then", "else", "in", "like", "has", "is", "true", "false"];
    let schema =
        ["namespace", "entity", "action", "type", "enum", "appliesTo", "principal", "resource", "context", "tags"];
    policies.into_iter().chain(schema).collect()
});

/// Whether a file of this path holds policies or a schema.
pub fn is_cedar(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|ending| ending == "cedar" || ending == "cedarschema")
}

/// The lines of a file. Only Cedar has parts that are told apart.
pub fn lines(path: &str, text: &str) -> Vec<Line> {
    let mut lines = Lines(vec![Vec::new()]);
    if !is_cedar(path) {
        lines.push("", text);
        return lines.all();
    }
    let mut before = 0;
    let mut after_at = false;
    for span in tokens(text) {
        let token = text.get(span.clone()).unwrap_or_default();
        lines.between(text.get(before..span.start).unwrap_or_default());
        before = span.end;
        let class = match token {
            token if token.starts_with('"') => "c-string",
            "@" => "c-annotation",
            _ if after_at => "c-annotation",
            token if KEYWORDS.contains(token) => "c-keyword",
            _ => "",
        };
        after_at = token == "@";
        lines.push(class, token);
    }
    lines.between(text.get(before..).unwrap_or_default());
    lines.all()
}

struct Lines(Vec<Line>);

impl Lines {
    /// Without the one behind the last line's end, which is empty.
    fn all(mut self) -> Vec<Line> {
        self.0.pop_if(|last| last.is_empty());
        self.0
    }

    fn push(&mut self, class: &'static str, text: &str) {
        for (at, part) in text.split('\n').enumerate() {
            if at > 0 {
                self.0.push(Vec::new());
            }
            let Some(line) = self.0.last_mut().filter(|_| !part.is_empty()) else { continue };
            match line.last_mut().filter(|piece| piece.class == class) {
                Some(piece) => piece.text.push_str(part),
                None => line.push(Piece { class, text: part.to_owned() }),
            }
        }
    }

    /// What is no token: space, and comments.
    fn between(&mut self, text: &str) {
        for (at, line) in text.split('\n').enumerate() {
            if at > 0 {
                self.0.push(Vec::new());
            }
            let comment = line.find("//").unwrap_or(line.len());
            let (space, comment) = line.split_at(comment);
            self.push("", space);
            self.push("c-comment", comment);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(lines: &[Line]) -> String {
        let texts = lines.iter().map(|line| line.iter().map(|piece| piece.text.as_str()).collect::<String>());
        texts.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn every_shipped_file_is_shown_as_it_is() {
        for (path, text) in crate::shipped::FILES {
            assert_eq!(whole(&lines(path, text)), text.trim_end_matches('\n'), "{path}");
        }
    }

    #[test]
    fn parts_are_told_apart() {
        let text = "// why \"not\"\n@id(\"a // b\")\npermit (principal, action, resource) when { true };";
        let lines = lines("a.cedar", text);
        assert_eq!(whole(&lines), text);
        let classes = |at: usize| lines[at].iter().map(|piece| (piece.class, piece.text.as_str())).collect::<Vec<_>>();
        assert_eq!(classes(0), [("c-comment", "// why \"not\"")]);
        assert_eq!(classes(1), [("c-annotation", "@id"), ("", "("), ("c-string", "\"a // b\""), ("", ")")]);
        assert_eq!(classes(2)[0], ("c-keyword", "permit"));
    }
}
