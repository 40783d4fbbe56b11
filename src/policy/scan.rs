//! A cheap look at a text before Cedar's parser sees it.
//!
//! Cedar's parser, validator and evaluator recurse along nesting and along chains of operators: deep
//! text aborts the process (150 parentheses on a 2 MiB stack), and a chain can be evaluated on one stack
//! and skipped on a smaller one. The scan knows strings and comments and nothing else of the language; it
//! bounds how deep any expression can be, far below what the threads that work on it can take.

use std::ops::Range;

use super::Problem;

/// Brackets within brackets.
const DEEPEST: usize = 32;
/// Operators along one path into an expression: along one chain, plus the chains around it.
const LONGEST_CHAIN: usize = 200;
/// Policies of one file.
const MOST_POLICIES: usize = 5_000;
/// Declarations of a schema, in all of its files: a chain of memberships costs memory by the square of its length.
pub(super) const MOST_DECLARATIONS: usize = 2_000;

/// Which language a text is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    /// Policies.
    Cedar,
    /// A schema, where `<` is a bracket.
    Schema,
}

/// The statements of a text: what stands between semicolons outside all brackets, from its first token on.
///
/// # Errors
/// The place where it is nested or chained too deep, or where there are too many statements.
pub(super) fn scan(file: &str, text: &str, language: Language) -> Result<Vec<Range<usize>>, Box<Problem>> {
    let mut scan =
        Scan { language, chains: vec![0], statements: Vec::new(), start: None, ends: 0, after_operand: false };
    let most = match language {
        Language::Cedar => MOST_POLICIES,
        Language::Schema => MOST_DECLARATIONS,
    };
    for (span, token) in Tokens::of(text) {
        let at = |message: String, help| Box::new(Problem::at(file, text, span.clone(), message, help));
        scan.take(token, &span);
        if scan.chains.len() > DEEPEST + 1 {
            return Err(at(format!("brackets are nested more than {DEEPEST} deep"), "write this as several policies"));
        }
        if scan.chains.iter().sum::<usize>() > LONGEST_CHAIN {
            return Err(at(
                format!("more than {LONGEST_CHAIN} operators in one expression"),
                "write this as several policies, or compare with a set: `[…].contains(…)`",
            ));
        }
        if scan.ends > most {
            return Err(at(format!("more than {most} statements in one file"), "remove what is not needed"));
        }
    }
    if let Some(start) = scan.start {
        scan.statements.push(start..text.len());
    }
    Ok(scan.statements)
}

/// The comments of a text, each without the white space around it.
pub(super) fn comments(text: &str) -> Vec<&str> {
    let mut end = 0;
    let tokens = Tokens::of(text).map(|(span, _)| span);
    let gaps = tokens.chain(std::iter::once(text.len()..text.len())).map(|span| {
        let gap = text.get(end..span.start).unwrap_or_default();
        end = span.end;
        gap
    });
    gaps.flat_map(|gap| gap.split(['\r', '\n'])).map(str::trim).filter(|line| !line.is_empty()).collect()
}

struct Scan {
    language: Language,
    /// Operators so far, one count for each open bracket and one for outside.
    chains: Vec<usize>,
    statements: Vec<Range<usize>>,
    start: Option<usize>,
    /// Semicolons so far, at any depth: a schema's declarations stand within its namespace.
    ends: usize,
    /// Whether the last token ends a value, so that a bracket after it goes one step deeper into it.
    after_operand: bool,
}

impl Scan {
    fn take(&mut self, token: &str, span: &Range<usize>) {
        self.start.get_or_insert(span.start);
        let is_schema = self.language == Language::Schema;
        let is_access = self.after_operand && !is_schema;
        self.after_operand = ends_a_value(token);
        match token {
            "[" if is_access => {
                self.step();
                self.chains.push(0);
            }
            "(" | "[" | "{" => self.chains.push(0),
            "<" if is_schema => self.chains.push(0),
            ")" | "]" | "}" => self.close(),
            ">" if is_schema => self.close(),
            "," => self.reset(),
            ";" => {
                self.ends += 1;
                self.reset();
                if self.chains.len() == 1 {
                    self.statements.extend(self.start.take().map(|start| start..span.end));
                }
            }
            _ if is_operator(token) => self.step(),
            _ => {}
        }
    }

    fn step(&mut self) {
        if let Some(chain) = self.chains.last_mut() {
            *chain += 1;
        }
    }

    fn close(&mut self) {
        // What is closed too often is for the parser to say.
        if self.chains.len() > 1 {
            self.chains.pop();
        }
    }

    fn reset(&mut self) {
        if let Some(chain) = self.chains.last_mut() {
            *chain = 0;
        }
    }
}

/// Whether `[` after this token is an access to an attribute, `context["a"]`, and not a set.
fn ends_a_value(token: &str) -> bool {
    let is_word = token.starts_with(|first: char| first.is_ascii_alphanumeric() || "_\"".contains(first));
    matches!(token, ")" | "]" | "}") || (is_word && !is_operator(token))
}

/// Whatever makes an expression one level deeper.
fn is_operator(token: &str) -> bool {
    matches!(
        token,
        "+" | "-"
            | "*"
            | "!"
            | "<"
            | ">"
            | "="
            | "&"
            | "|"
            | "."
            | ":"
            | "?"
            | "/"
            | "%"
            | "@"
            | "in"
            | "has"
            | "like"
            | "is"
            | "if"
            | "then"
            | "else"
            | "when"
            | "unless"
    )
}

/// The tokens of a text, as the bytes that they take.
pub(crate) fn tokens(text: &str) -> impl Iterator<Item = Range<usize>> {
    Tokens { text, at: 0 }.map(|(span, _)| span)
}

/// Words, single marks, and strings as one token each; white space and comments are passed over.
pub(super) struct Tokens<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Tokens<'a> {
    /// Those of this text.
    pub fn of(text: &'a str) -> Self {
        Self { text, at: 0 }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = (Range<usize>, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.text.as_bytes();
        loop {
            let rest = bytes.get(self.at..)?;
            match rest {
                [] => return None,
                // Cedar ends a comment at a carriage return, too: what follows it is code.
                [b'/', b'/', ..] => {
                    self.at += rest.iter().position(|byte| b"\r\n".contains(byte)).unwrap_or(rest.len());
                }
                [space, ..] if space.is_ascii_whitespace() => self.at += 1,
                _ => break,
            }
        }
        let start = self.at;
        let rest = bytes.get(start..)?;
        // Outside strings, what is not ASCII is white space to Cedar, or an error: it ends a word either way.
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let length = match rest.first()? {
            b'"' => string_length(rest),
            byte if is_word(byte) => rest.iter().position(|byte| !is_word(byte)).unwrap_or(rest.len()),
            byte if byte.is_ascii() => 1,
            _ => self.text.get(start..)?.chars().next()?.len_utf8(),
        };
        // Two colons and two signs are counted as the parser reads them: `::`, `&&`, `==` are one step.
        let doubled = matches!(rest, [a, b, ..] if a == b && b":&|=".contains(a));
        self.at = start + if doubled { 2 } else { length };
        Some((start..self.at, self.text.get(start..start + length)?))
    }
}

/// Bytes of a string literal, quotes included; to the end of the text when it is not closed.
fn string_length(rest: &[u8]) -> usize {
    let mut escaped = false;
    for (at, byte) in rest.iter().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(condition: &str) -> String {
        format!("permit (principal, action, resource) when {{ {condition} }};")
    }

    #[test]
    fn statements_are_found_whatever_strings_and_comments_hold() {
        let text = "// a; b\n@id(\"x;\\\"y\") permit (principal, action, resource) when { \"}\" == \"//\" };\n\nforbid (principal, action, resource);";
        let statements = scan("f", text, Language::Cedar).unwrap();
        let texts: Vec<&str> = statements.into_iter().map(|span| &text[span]).collect();
        assert_eq!(texts.len(), 2);
        assert!(texts[0].starts_with("@id") && texts[0].ends_with("};"));
        assert_eq!(texts[1], "forbid (principal, action, resource);");
    }

    #[test]
    fn a_statement_without_its_end_is_still_one() {
        assert_eq!(scan("f", "permit (principal", Language::Cedar).unwrap().first(), Some(&(0..17)));
        assert!(scan("f", "  // nothing\n", Language::Cedar).unwrap().is_empty());
        assert_eq!(scan("f", "@id(\"open", Language::Cedar).unwrap().first(), Some(&(0..9)));
    }

    #[test]
    fn deep_and_long_texts_are_refused_with_their_place() {
        for count in [150, 5_000, 100_000] {
            let nested = [("(", ")"), ("[", "]"), ("{", "}"), ("if true then 1 else ", "")];
            let texts =
                nested.iter().map(|(open, close)| policy(&format!("{}1{}", open.repeat(count), close.repeat(count))));
            let chains = ["1 + ", "true && ", "true || ", "a.", "A::", "1 < ", "x has ", "!", "-"]
                .iter()
                .map(|link| policy(&format!("{}1", link.repeat(2 * count))));
            let conditions = format!("permit (principal, action, resource) {};", "when { true } ".repeat(2 * count));
            for text in texts.chain(chains).chain([conditions]) {
                let problem = scan("f", &text, Language::Cedar).unwrap_err();
                assert_eq!(problem.line, Some(1), "{}", &text[..80]);
            }
        }
        let schema = format!("type A = {}String{};", "Set<".repeat(150), ">".repeat(150));
        assert!(scan("f", &schema, Language::Schema).is_err());
    }

    #[test]
    fn what_the_parser_reads_is_counted_however_it_is_spelled() {
        let deep = format!("{}1{}", "(".repeat(40), ")".repeat(40));
        let hidden = [
            ("a comment ends at a carriage return", format!("// nothing\r{}", policy(&deep))),
            ("white space is not only ASCII", policy(&"if\u{a0}true\u{2003}then\u{a0}1\u{a0}else\u{a0}".repeat(100))),
            ("an access is a step", policy(&format!("principal{}", "[\"next\"]".repeat(300)))),
            ("an access to an access in a list", policy(&format!("[principal{}, 1]", "[\"next\"]".repeat(300)))),
            ("a quote in a string is no end", policy(&format!("\"\\\\\" == {deep}"))),
            ("a string over lines is one token", policy(&format!("\"a\nb\" == {deep}"))),
            ("a comment within a policy", format!("permit (principal, action, resource) // \"\nwhen {{ {deep} }};")),
        ];
        for (what, text) in hidden {
            assert!(scan("f", &text, Language::Cedar).is_err(), "{what}");
        }
        let flat: Vec<String> = (0..300).map(|at| format!("[\"n{at}\"]")).collect();
        assert!(scan("f", &policy(&format!("[{}].isEmpty()", flat.join(", "))), Language::Cedar).is_ok());
    }

    #[test]
    fn a_schemas_declarations_are_counted_within_its_namespace() {
        let schema = |count| format!("namespace A {{ {} }}", "entity B;".repeat(count));
        assert!(scan("f", &schema(MOST_DECLARATIONS), Language::Schema).is_ok());
        assert!(scan("f", &schema(MOST_DECLARATIONS + 1), Language::Schema).is_err());
    }

    #[test]
    fn long_but_flat_texts_pass() {
        let names: Vec<String> = (0..10_000).map(|at| format!("\"n{at}\"")).collect();
        assert!(scan("f", &policy(&format!("[{}].contains(\"n1\")", names.join(", "))), Language::Cedar).is_ok());
        assert!(scan("f", &policy("true").repeat(4_000), Language::Cedar).is_ok());
    }
}
