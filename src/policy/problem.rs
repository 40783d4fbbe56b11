//! What is wrong with a bundle: where, what, and what to do, in a form that travels between processes.

use std::fmt;
use std::ops::Range;

use miette::Diagnostic;
use serde::{Deserialize, Serialize};

use crate::key::masked;

/// Characters of a source line that a diagnostic shows.
const LONGEST_LINE: usize = 160;

/// One thing that is wrong. Policy files are no place for a token, and yet people paste them there: what looks like one is
/// masked, because a problem is logged and served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The file, relative, with its folder; empty when it is about the files as a whole.
    pub file: String,
    /// The line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The column in characters, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The place, for people to see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<Excerpt>,
}

/// A line of a file, and what is meant of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excerpt {
    /// The line, cut where it is very long.
    pub text: String,
    /// Characters that are meant, from the problem's column on.
    pub length: usize,
}

impl Problem {
    /// A problem of the files as a whole.
    pub fn general(message: String, help: &str) -> Self {
        Self { help: Some(help.to_owned()), ..Self::in_file("", message) }
    }

    /// A problem of one file as a whole.
    pub fn in_file(file: &str, message: impl Into<String>) -> Self {
        let message = masked(&message.into()).into_owned();
        Self { file: file.to_owned(), line: None, column: None, message, help: None, excerpt: None }
    }

    /// A problem at a place in a file; `span` counts bytes of `text`.
    pub fn at(file: &str, text: &str, span: Range<usize>, message: impl Into<String>, help: &str) -> Self {
        let start = floor_boundary(text, span.start);
        let (before, rest) = text.split_at(start);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let (_, from_line) = text.split_at(line_start);
        let line = masked(from_line.lines().next().unwrap_or_default()).chars().take(LONGEST_LINE).collect();
        let meant = rest.get(..span.end.saturating_sub(start)).unwrap_or(rest).lines().next().unwrap_or_default();
        let column = text.get(line_start..start).unwrap_or_default().chars().count() + 1;
        Self {
            line: Some(before.matches('\n').count() + 1),
            column: Some(column),
            help: (!help.is_empty()).then(|| masked(help).into_owned()),
            excerpt: Some(Excerpt { text: line, length: meant.chars().count().max(1) }),
            ..Self::in_file(file, message)
        }
    }

    /// The problem as people read it: `label`, the place, the line with a caret under it, and what to do.
    pub fn render(&self, label: &str) -> String {
        use fmt::Write;
        // Writing to a string cannot fail.
        let mut out = format!("{label}: {self}\n");
        if let (Some(Excerpt { text: line, length }), Some(number), Some(column)) =
            (&self.excerpt, self.line, self.column)
        {
            // A tab stays a tab under a tab, so that the caret is where the eye looks for it.
            let indent: String =
                line.chars().take(column - 1).map(|character| if character == '\t' { '\t' } else { ' ' }).collect();
            let carets = "^".repeat((*length).min(line.chars().count().saturating_sub(column - 1)).max(1));
            let gutter = " ".repeat(number.to_string().len());
            let _ = writeln!(out, "{gutter} |\n{number} | {line}\n{gutter} | {indent}{carets}");
        }
        if let Some(help) = &self.help {
            let _ = writeln!(out, "  help: {help}");
        }
        out
    }

    /// What Cedar says of a text that begins at byte `base` of the file.
    pub(super) fn of_cedar(file: &str, text: &str, base: usize, diagnostic: &dyn Diagnostic) -> Self {
        let mut message = diagnostic.to_string();
        let label = diagnostic.labels().and_then(|mut labels| labels.next());
        if let Some(said) = label.as_ref().and_then(|label| label.label()).filter(|said| !message.contains(said)) {
            message = format!("{message}: {said}");
        }
        let help = diagnostic.help().map(|help| help.to_string()).unwrap_or_default();
        match label {
            Some(label) => {
                let start = base + label.offset();
                Self::at(file, text, start..start + label.len(), message, &help)
            }
            None => Self::at(file, text, base..base, message, &help),
        }
    }
}

/// The nearest character boundary at or before `at`.
fn floor_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            f.write_str(&self.file)?;
            if let (Some(line), Some(column)) = (self.line, self.column) {
                write!(f, ":{line}:{column}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.message)
    }
}

/// Why a bundle was refused: at least one problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// What is wrong, file by file.
    pub problems: Vec<Problem>,
}

impl Rejection {
    /// All problems with the lines they are about and a caret under the place, for people.
    pub fn render(&self) -> String {
        self.problems.iter().map(|problem| problem.render("error")).collect()
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            if at > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Rejection {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Kind, Mint, Mode};

    #[test]
    fn a_place_is_given_as_line_and_column_with_a_caret_under_it() {
        let text = "// é\n\tpermit (principal, wrong, resource);\n";
        let start = text.find("wrong").unwrap();
        let problem = Problem::at("policies/a.cedar", text, start..start + 5, "unexpected", "write `action`");
        assert_eq!(problem.to_string(), "policies/a.cedar:2:21: unexpected");
        let rendered = Rejection { problems: vec![problem] }.render();
        assert!(
            rendered.contains("2 | \tpermit (principal, wrong, resource);\n  | \t                   ^^^^^\n"),
            "{rendered}"
        );
        assert!(rendered.ends_with("help: write `action`\n"));
    }

    #[test]
    fn a_place_outside_the_text_or_inside_a_character_is_no_panic() {
        for (text, span) in [("", 0..9), ("é", 1..2), ("a\n", 2..2), ("a", 7..9)] {
            let problem = Problem::at("f", text, span, "m", "");
            let _ = Rejection { problems: vec![problem] }.render();
        }
    }

    #[test]
    fn a_token_that_somebody_pasted_into_a_policy_is_not_repeated() {
        let mint = Mint::new(Kind::Secret, Mode::Live).unwrap();
        let token = mint.expose();
        let text = format!("permit (principal == {token}, action, resource);\n");
        let start = text.find(token).unwrap();
        let problem = Problem::at("f", &text, start..start + token.len(), format!("unexpected `{token}`"), token);
        let told = format!("{}{}", Rejection { problems: vec![problem.clone()] }.render(), serde_json::json!(problem));
        let secret = &token[8 + 16..];
        assert!(!told.contains(&secret[..8]), "{told}");
        assert!(told.contains("^^^^"));
    }
}
