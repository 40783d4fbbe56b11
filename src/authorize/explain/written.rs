//! A policy's text, part by part: the three of its scope, its conditions, and what stands within one.
//!
//! Cedar's trees keep no places, so a part is found by the text's own tokens. What is shown is what somebody wrote,
//! but for comments and line breaks.

use std::ops::Range;

use crate::key::masked;
use crate::policy::tokens;

/// Characters of a text that is shown.
const LONGEST: usize = 400;
/// Tokens of an expression that is looked for; a longer one is shown as Cedar would write it.
const LONGEST_SEARCH: usize = 1_000;

/// A part, as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Extract {
    /// Its text, in one line.
    pub text: String,
    /// The line of the file that it begins on.
    pub line: usize,
}

/// A policy's text, taken apart.
pub(super) struct Written<'a> {
    text: &'a str,
    /// The line of the file that the text begins on.
    line: usize,
    tokens: Vec<Range<usize>>,
    /// The parts of the scope, as places among the tokens.
    scope: Vec<Range<usize>>,
    /// What stands in the braces of each condition.
    conditions: Vec<Range<usize>>,
}

impl<'a> Written<'a> {
    /// Takes apart a policy that Cedar has parsed, and that begins on this line of its file.
    pub fn of(text: &'a str, line: usize) -> Self {
        let mut written = Self { text, line, tokens: tokens(text).collect(), scope: vec![], conditions: vec![] };
        let mut at = 0;
        while at < written.tokens.len() {
            let is_annotated = at.checked_sub(1).is_some_and(|before| written.token(before) == "@");
            let opens = match written.token(at) {
                "permit" | "forbid" if !is_annotated && written.scope.is_empty() => "(",
                "when" | "unless" if !is_annotated => "{",
                _ => "",
            };
            if opens.is_empty() || written.token(at + 1) != opens {
                at += 1;
                continue;
            }
            let inner = at + 2..written.closing(at + 1);
            at = inner.end;
            if opens == "(" {
                written.scope = written.separated(inner);
            } else {
                written.conditions.push(inner);
            }
        }
        written
    }

    /// The part of the scope at this place: principal, action, resource.
    pub fn scope(&self, at: usize) -> Option<Extract> {
        self.extract(self.scope.get(at)?.clone())
    }

    /// The condition at this place, without its braces.
    pub fn condition(&self, at: usize) -> Option<Extract> {
        self.extract(self.conditions.get(at)?.clone())
    }

    /// An expression within the condition at this place, which Cedar writes like this.
    pub fn within(&self, at: usize, expression: &str) -> Option<Extract> {
        let is_bracket = |token: &str| matches!(token, "(" | ")");
        let wanted: Vec<&str> = tokens(expression)
            .filter_map(|span| expression.get(span))
            .filter(|token| !is_bracket(token))
            .take(LONGEST_SEARCH + 1)
            .collect();
        if wanted.is_empty() || wanted.len() > LONGEST_SEARCH {
            return None;
        }
        let condition = self.conditions.get(at)?;
        let here: Vec<usize> = condition.clone().filter(|at| !is_bracket(self.token(*at))).collect();
        let found = here.windows(wanted.len()).find(|window| {
            let goes_on = window.last().is_some_and(|last| matches!(self.token(last + 1), "." | "["));
            let goes_before =
                window.first().is_some_and(|first| matches!(self.token(first.wrapping_sub(1)), "." | "::"));
            let is_same = || window.iter().zip(&wanted).all(|(at, wanted)| self.token(*at) == *wanted);
            !goes_on && !goes_before && is_same()
        })?;
        let (first, last) = (*found.first()?, *found.last()?);
        self.extract(self.balanced(first..last + 1))
    }

    fn token(&self, at: usize) -> &'a str {
        self.tokens.get(at).and_then(|span| self.text.get(span.clone())).unwrap_or_default()
    }

    /// The place of the bracket that closes the one at `open`; the end, should there be none.
    fn closing(&self, open: usize) -> usize {
        let mut depth = 0_usize;
        for at in open..self.tokens.len() {
            match self.token(at) {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                return at;
            }
        }
        self.tokens.len()
    }

    /// What commas outside all brackets keep apart.
    fn separated(&self, inner: Range<usize>) -> Vec<Range<usize>> {
        let (mut parts, mut start, mut at) = (Vec::new(), inner.start, inner.start);
        while at < inner.end {
            match self.token(at) {
                "(" | "[" | "{" => at = self.closing(at),
                "," => {
                    parts.push(start..at);
                    start = at + 1;
                }
                _ => {}
            }
            at += 1;
        }
        parts.push(start..inner.end);
        parts.retain(|part| !part.is_empty());
        parts
    }

    /// With the parentheses beside it that belong to those within it.
    fn balanced(&self, within: Range<usize>) -> Range<usize> {
        let Range { mut start, mut end } = within.clone();
        let (mut open, mut unopened) = (0_usize, 0_usize);
        for at in within {
            match self.token(at) {
                "(" => open += 1,
                ")" if open > 0 => open -= 1,
                ")" => unopened += 1,
                _ => {}
            }
        }
        if self.token(end) == "(" && self.token(end + 1) == ")" {
            // A call without arguments.
            end += 2;
        }
        while open > 0 && self.token(end) == ")" {
            (open, end) = (open - 1, end + 1);
        }
        while unopened > 0 && start > 0 && self.token(start - 1) == "(" {
            (unopened, start) = (unopened - 1, start - 1);
        }
        start..end
    }

    fn extract(&self, part: Range<usize>) -> Option<Extract> {
        let first = self.tokens.get(part.start)?.start;
        let mut text = String::new();
        let mut end = first;
        for span in self.tokens.get(part)? {
            if span.start > end {
                text.push(' ');
            }
            text.push_str(self.text.get(span.clone())?);
            end = span.end;
        }
        let line = self.line + self.text.get(..first)?.matches('\n').count();
        Some(Extract { text: shown(&text), line })
    }
}

/// A text for people to see: tokens that somebody pasted into it are masked, and what is very long is cut.
pub(super) fn shown(text: &str) -> String {
    let text = masked(text);
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Kind, Mint, Mode};

    const TEXT: &str = r#"@id("x") @when("permit (") // unless { no }
permit (
  principal is A::B in A::C::"1",   // who
  action in [A::Action::"a", A::Action::"b"],
  resource
)
when { context has ip &&
  (context.ip.isInRange(ip("192.0.2.0/24")) || // near
   principal.x.y == "}" ) }
unless { (context.ip.isLoopback()) };"#;

    fn text(extract: Option<Extract>) -> (String, usize) {
        extract.map_or_else(Default::default, |extract| (extract.text, extract.line))
    }

    #[test]
    fn each_part_is_found_with_its_line_and_without_comments() {
        let written = Written::of(TEXT, 11);
        assert_eq!(text(written.scope(0)), ("principal is A::B in A::C::\"1\"".into(), 13));
        assert_eq!(text(written.scope(1)), ("action in [A::Action::\"a\", A::Action::\"b\"]".into(), 14));
        assert_eq!(text(written.scope(2)), ("resource".into(), 15));
        let condition =
            "context has ip && (context.ip.isInRange(ip(\"192.0.2.0/24\")) || principal.x.y == \"}\" )".to_owned();
        assert_eq!(text(written.condition(0)), (condition, 17));
        assert_eq!(text(written.condition(1)), ("(context.ip.isLoopback())".into(), 20));
        assert_eq!((written.scope(3), written.condition(2)), (None, None));
    }

    #[test]
    fn an_expression_within_a_condition_is_found_as_it_is_written_and_no_part_of_a_longer_one() {
        let written = Written::of(TEXT, 1);
        let range = "context.ip.isInRange(ip(\"192.0.2.0/24\"))";
        assert_eq!(text(written.within(0, range)), (range.to_owned(), 8));
        assert_eq!(text(written.within(0, "(principal.x.y) == \"}\"")), ("principal.x.y == \"}\"".into(), 9));
        assert_eq!(text(written.within(0, "context has ip")), ("context has ip".into(), 7));
        assert_eq!(text(written.within(1, "context.ip.isLoopback()")), ("context.ip.isLoopback()".into(), 10));
        for absent in ["principal.x", "y == \"}\"", "context.secure", "", "()"] {
            assert_eq!(written.within(0, absent), None, "{absent}");
        }
    }

    #[test]
    fn what_no_parser_has_passed_is_no_panic() {
        for text in ["", "permit", "permit (", "when {", "permit (a, b when { )", "permit (,,) when {}", "é (", "@"] {
            let written = Written::of(text, 1);
            let _ = (written.scope(0), written.condition(0), written.within(0, "a"));
        }
    }

    #[test]
    fn a_token_in_a_policy_is_not_shown_and_a_long_text_is_cut() {
        let mint = Mint::new(Kind::Secret, Mode::Live).unwrap();
        let policy = format!("permit (principal, action, resource) when {{ context.path == \"{}\" }};", mint.expose());
        let said = text(Written::of(&policy, 1).condition(0)).0;
        assert_eq!(said, "context.path == \"sk_live_…\"");
        assert_eq!(shown(&"é".repeat(LONGEST + 1)).chars().count(), LONGEST + 1);
        assert!(shown(&"é ".repeat(LONGEST)).ends_with('…'));
    }
}
