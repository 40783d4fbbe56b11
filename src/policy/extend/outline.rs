//! Where things stand in a schema file, so that text can be put beside them.
//!
//! Cedar's parser says what a schema declares, and not where. This reads no more than where declarations begin and end
//! and what they are called; whoever edits by it holds the edited text against Cedar's parser afterwards.

use std::ops::Range;

use crate::policy::scan::Tokens;

/// A token and its place.
type Token<'a> = (Range<usize>, &'a str);

/// A declaration of a namespace, from its first annotation to its semicolon.
#[derive(Debug)]
pub(super) struct Declaration<'a> {
    /// `entity`, `action` or `type`.
    pub keyword: &'a str,
    /// What is declared, each with its place.
    pub names: Vec<(&'a str, Range<usize>)>,
    /// Whether it has an `@http` annotation.
    pub is_route: bool,
    /// What follows the names, the semicolon included.
    pub rest: Vec<Token<'a>>,
    /// Its place.
    pub span: Range<usize>,
}

/// The declarations of a namespace, in the order of the text.
pub(super) fn outline<'a>(text: &'a str, namespace: &str) -> Vec<Declaration<'a>> {
    let tokens: Vec<Token<'a>> = Tokens::of(text).collect();
    let mut declarations = Vec::new();
    let mut at = 0;
    while let Some((_, token)) = tokens.get(at) {
        at += 1;
        if *token != "namespace" {
            continue;
        }
        let Some(open) = tokens.iter().skip(at).position(|(_, token)| *token == "{").map(|after| at + after) else {
            break;
        };
        let close = closing(&tokens, open);
        let name: String =
            tokens.get(at..open).unwrap_or_default().iter().filter_map(|(span, _)| text.get(span.clone())).collect();
        if name == namespace {
            let body = tokens.get(open + 1..close).unwrap_or_default();
            declarations.extend(statements(body).filter_map(declaration));
        }
        at = close;
    }
    declarations
}

/// The tokens between semicolons outside brackets, with the semicolon that ends them.
fn statements<'t, 'a>(body: &'t [Token<'a>]) -> impl Iterator<Item = &'t [Token<'a>]> {
    let mut depth = 0_usize;
    body.split_inclusive(move |(_, token)| {
        match *token {
            "{" | "[" | "(" => depth += 1,
            "}" | "]" | ")" => depth = depth.saturating_sub(1),
            _ => {}
        }
        *token == ";" && depth == 0
    })
}

/// The place of the bracket that closes the one at `open`; the end where it is not closed.
fn closing(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, (_, token)) in tokens.iter().enumerate().skip(open) {
        match *token {
            "{" | "[" | "(" => depth += 1,
            "}" | "]" | ")" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    tokens.len()
}

fn declaration<'a>(tokens: &[Token<'a>]) -> Option<Declaration<'a>> {
    let token = |at: usize| tokens.get(at).map(|(_, token)| *token);
    let mut at = 0;
    let mut is_route = false;
    while token(at) == Some("@") {
        is_route |= token(at + 1) == Some("http");
        at += 2;
        if token(at) == Some("(") {
            at = closing(tokens, at) + 1;
        }
    }
    let keyword = token(at)?;
    let mut names = Vec::new();
    loop {
        let (span, name) = tokens.get(at + 1)?;
        names.push((unquoted(name), span.clone()));
        at += 2;
        if token(at) != Some(",") {
            break;
        }
    }
    let (first, last) = (tokens.first()?, tokens.last()?);
    let rest = tokens.get(at..).unwrap_or_default().to_vec();
    Some(Declaration { keyword, names, is_route, rest, span: first.0.start..last.0.end })
}

/// The name that a token spells; names with an escape in them are none that are looked for.
pub(super) fn unquoted(token: &str) -> &str {
    token.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(token)
}

impl<'a> Declaration<'a> {
    /// The list in brackets that follows this word: its elements, and where the brackets are.
    pub fn list_after(&self, word: &str) -> Option<List<'a>> {
        let at = self.rest.iter().position(|(_, token)| *token == word)?;
        let open = self.rest.get(at + 1).filter(|(_, token)| *token == "[")?.0.clone();
        let close = closing(&self.rest, at + 1);
        let elements = self.rest.get(at + 2..close)?.iter().filter(|(_, token)| *token != ",").cloned().collect();
        Some(List { open: open.end, elements })
    }

    /// What is written after `name:` in the declaration's `appliesTo`.
    pub fn field<'t>(&self, text: &'t str, name: &str) -> Option<&'t str> {
        let named = |pair: &[Token<'_>]| matches!(pair, [(_, word), (_, ":")] if *word == name);
        let start = self.rest.windows(2).position(named)? + 2;
        let mut depth = 0_usize;
        let ends = |(_, token): &Token<'_>| {
            match *token {
                "{" | "[" | "(" | "<" => depth += 1,
                "," | "}" if depth == 0 => return true,
                "}" | "]" | ")" | ">" => depth = depth.saturating_sub(1),
                _ => {}
            }
            false
        };
        let end = self.rest.iter().skip(start).position(ends)? + start;
        let (first, last) = (self.rest.get(start)?, self.rest.get(end.checked_sub(1)?)?);
        text.get(first.0.start..last.0.end)
    }
}

/// A list in brackets.
pub(super) struct List<'a> {
    /// Where its first element would be.
    open: usize,
    /// The tokens in it, without commas.
    pub elements: Vec<Token<'a>>,
}

impl List<'_> {
    /// Where another element goes and how it is written there: after the last one, set off as that one is.
    pub fn another(&self, text: &str, element: &str) -> (usize, String) {
        let spans: Vec<Range<usize>> = self.elements.iter().map(|(span, _)| span.clone()).collect();
        after_last(text, &spans, element).unwrap_or_else(|| (self.open, element.to_owned()))
    }
}

/// Where another name goes and how it is written there: after the last of these, set off from it as that one is from
/// the one before. `None` when there is no last one.
pub(super) fn after_last(text: &str, names: &[Range<usize>], name: &str) -> Option<(usize, String)> {
    let last = names.last()?;
    let before = names.len().checked_sub(2).and_then(|at| names.get(at));
    let between = before.and_then(|before| text.get(before.end..last.start));
    let is_plain = |between: &&str| between.starts_with(',') && between.chars().skip(1).all(char::is_whitespace);
    Some((last.end, format!("{}{name}", between.filter(is_plain).unwrap_or(", "))))
}

/// The end of the line in which a statement ends, a comment after it included; its own end when other code follows.
pub(super) fn line_end(text: &str, end: usize) -> usize {
    let rest = text.get(end..).and_then(|rest| rest.lines().next()).unwrap_or_default();
    let is_code = !rest.trim().is_empty() && !rest.trim_start().starts_with("//");
    if is_code { end } else { end + rest.trim_end().len() }
}

/// The white space that the line of this place begins with.
pub(super) fn indent(text: &str, at: usize) -> &str {
    let start = text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1);
    let line = text.get(start..at).unwrap_or_default();
    line.get(..line.len() - line.trim_start().len()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = r#"
// namespace Other { action x; }
namespace Other::Docs { entity Scope enum ["no"]; }
@doc("a { brace") namespace Docs {
  entity Scope enum ["a:read", "b:write"];   // a comment; with marks {
  entity Thing, Other in [Environment] { a: String };
  type Call = { secure: Bool, tags: Set<String> };
  action "a:read",
    "b:write";
  @doc("x;y") @http("GET /v1/things/{id}")
  action getThing in ["a:read"]
    appliesTo { principal: [RestrictedKey, SecretKey], resource: [Thing], context: { secure: Bool, ip?: ipaddr } };
  action "odd one" in "a:read";
}
"#;

    #[test]
    fn declarations_are_found_with_their_names_and_places() {
        let found = outline(SCHEMA, "Docs");
        let told: Vec<String> = found
            .iter()
            .map(|declaration| {
                let names: Vec<&str> = declaration.names.iter().map(|(name, _)| *name).collect();
                format!("{} {} {}", declaration.keyword, names.join("+"), declaration.is_route)
            })
            .collect();
        assert_eq!(
            told,
            [
                "entity Scope false",
                "entity Thing+Other false",
                "type Call false",
                "action a:read+b:write false",
                "action getThing true",
                "action odd one false"
            ]
        );
        assert!(
            SCHEMA[found[4].span.clone()].starts_with("@doc(\"x;y\")")
                && SCHEMA[found[4].span.clone()].ends_with("} };")
        );
        assert_eq!(found[4].field(SCHEMA, "principal"), Some("[RestrictedKey, SecretKey]"));
        assert_eq!(found[4].field(SCHEMA, "context"), Some("{ secure: Bool, ip?: ipaddr }"));
        assert_eq!(outline(SCHEMA, "Other::Docs").len(), 1);
    }

    #[test]
    fn a_name_is_added_as_the_last_one_is_written() {
        let put = |(at, text): (usize, String)| format!("{}{text}{}", &SCHEMA[..at], &SCHEMA[at..]);
        let found = outline(SCHEMA, "Docs");
        let list = found[0].list_after("enum").unwrap();
        assert!(put(list.another(SCHEMA, "\"c\"")).contains("[\"a:read\", \"b:write\", \"c\"];   // a comment"));
        let list = found[4].list_after("in").unwrap();
        assert!(put(list.another(SCHEMA, "\"c\"")).contains("getThing in [\"a:read\", \"c\"]\n"));
        let names: Vec<_> = found[3].names.iter().map(|(_, span)| span.clone()).collect();
        assert!(
            put(after_last(SCHEMA, &names, "\"c\"").unwrap()).contains("\"a:read\",\n    \"b:write\",\n    \"c\";\n")
        );
        assert_eq!(after_last(SCHEMA, &[], "\"c\""), None);
    }

    #[test]
    fn texts_that_are_no_schema_have_no_outline_and_end_nothing() {
        for text in [
            "",
            "namespace",
            "namespace Docs {",
            "namespace Docs { @ ; @http( ; entity , ; action",
            "}}}",
            "namespace Docs { entity",
        ] {
            let _ = outline(text, "Docs");
        }
    }
}
