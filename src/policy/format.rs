//! A policy file in its one layout.
//!
//! Cedar's formatter lays out each policy. What stands between policies (comments, and the blank lines that make
//! paragraphs of them) is kept as people wrote it, which that formatter alone would run together. Nothing is given
//! back that does not hold the same policies and the same comments as before. Schemas are not formatted: Cedar can
//! print one only without its comments.

use std::ops::Range;

use cedar_policy::Policy;
use cedar_policy_formatter::{Config, policies_str_to_pretty};
use serde_json::Value;

use super::scan::{Language, Tokens, comments, scan};
use super::{Problem, Rejection};

/// Words and marks of one policy: along lists, too, Cedar's formatter recurses, and takes time by the square of them.
const MOST_TOKENS: usize = 20_000;

/// What to do about a text that the formatter would spoil.
const LEAVE_IT: &str = "the file is left as it is; format this policy by hand";

/// The text of a policy file in its one layout, which is the text itself where it has that already.
///
/// # Errors
/// [`Rejection`] when the text is nested too deep or is no policies, or when the layout would change or lose anything.
pub fn format(file: &str, text: &str) -> Result<String, Rejection> {
    let statements = scan(file, text, Language::Cedar).map_err(|problem| Rejection { problems: vec![*problem] })?;
    let mut out = String::with_capacity(text.len());
    let mut problems = Vec::new();
    let mut end = 0;
    for span in statements {
        before(&mut out, text.get(end..span.start).unwrap_or_default());
        match policy(file, text, &span) {
            Ok(laid_out) => out.push_str(&laid_out),
            Err(found) => problems.extend(found),
        }
        end = span.end;
    }
    if !problems.is_empty() {
        return Err(Rejection { problems });
    }
    after(&mut out, text.get(end..).unwrap_or_default());
    if same(text, &out) {
        Ok(out)
    } else {
        let message = "the layout would change a policy or lose a comment";
        Err(Rejection { problems: vec![Problem { help: Some(LEAVE_IT.into()), ..Problem::in_file(file, message) }] })
    }
}

/// One policy, laid out, without the line's end.
fn policy(file: &str, text: &str, span: &Range<usize>) -> Result<String, Vec<Problem>> {
    let statement = text.get(span.clone()).unwrap_or_default();
    let policy = Policy::parse(None, statement).map_err(|errors| {
        errors.iter().map(|error| Problem::of_cedar(file, text, span.start, error)).collect::<Vec<_>>()
    })?;
    let problem = |message: &str| vec![Problem::at(file, text, span.clone(), message, LEAVE_IT)];
    if Tokens::of(statement).nth(MOST_TOKENS).is_some() {
        return Err(problem(&format!("the policy is longer than {MOST_TOKENS} words and marks")));
    }
    // Cedar's own widths, so that editors which know Cedar lay a policy out alike.
    let out = policies_str_to_pretty(statement, &Config::default())
        .map_err(|error| problem(&format!("the policy cannot be laid out: {error}")))?;
    let out = out.trim_end();
    let laid_out = Policy::parse(None, out).map_err(|_| problem("the layout would break this policy"))?;
    if described(&policy) != described(&laid_out) {
        return Err(problem("the layout would change this policy"));
    }
    if comments(statement) != comments(out) {
        return Err(problem("the layout would lose a comment, or change the order of comments"));
    }
    Ok(out.to_owned())
}

/// What a policy says, annotations included.
fn described(policy: &Policy) -> Option<Value> {
    policy.to_json().ok()
}

/// Whether two texts hold the same policies and comments, in the same order.
fn same(before: &str, after: &str) -> bool {
    let policies = |text: &str| -> Option<Vec<Value>> {
        let statements = scan("", text, Language::Cedar).ok()?;
        let statement = |span: Range<usize>| described(&Policy::parse(None, text.get(span)?).ok()?);
        statements.into_iter().map(statement).collect()
    };
    let held = policies(before);
    held.is_some() && held == policies(after) && comments(before) == comments(after)
}

/// Puts what stands before a policy.
fn before(out: &mut String, gap: &str) {
    let mut lines = lines(gap);
    // The last is the policy's own line.
    lines.pop();
    if paragraphs(out, lines) {
        out.push('\n');
    }
}

/// Puts what stands after the last policy.
fn after(out: &mut String, gap: &str) {
    paragraphs(out, lines(gap));
}

/// Puts lines of comments, after the policy that `out` ends with if there is one: the first of them is then what is left
/// of the policy's own line. Gives whether a blank line has to follow, if anything does.
fn paragraphs(out: &mut String, lines: Vec<&str>) -> bool {
    let mut lines = lines.into_iter();
    let follows_a_policy = !out.is_empty();
    if follows_a_policy {
        let rest = lines.next().unwrap_or_default();
        if !rest.is_empty() {
            out.push(' ');
            out.push_str(rest);
        }
        out.push('\n');
    }
    let mut blank = follows_a_policy;
    for line in lines {
        if line.is_empty() {
            blank = !out.is_empty();
            continue;
        }
        if blank {
            out.push('\n');
        }
        out.push_str(line);
        out.push('\n');
        blank = false;
    }
    blank
}

/// The lines of a text without policies. A carriage return ends one, too, as it ends a comment.
fn lines(gap: &str) -> Vec<&str> {
    gap.split('\n').flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r')).map(str::trim).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn formatted(text: &str) -> String {
        format("policies/a.cedar", text).unwrap_or_else(|rejection| panic!("{}", rejection.render()))
    }

    #[test]
    fn policies_are_laid_out_and_what_stands_between_them_stays() {
        let text = "\n\n// What this file is for.  \n// It goes on.\n\n\n// A paragraph.\r\n@id(\"a\") permit(principal,action,resource) when{true}; // why\n  // More.\n\n  forbid (principal, // who\n action, resource);forbid (principal, action, resource);\n// The end.\n\n// Indeed.";
        let expected = "// What this file is for.\n// It goes on.\n\n// A paragraph.\n@id(\"a\")\npermit (principal, action, resource)\nwhen { true }; // why\n\n// More.\n\nforbid (principal, // who\n  action, resource);\n\nforbid (principal, action, resource);\n\n// The end.\n\n// Indeed.\n";
        assert_eq!(formatted(text), expected);
        assert_eq!(formatted(expected), expected);
    }

    #[test]
    fn a_text_without_policies_keeps_its_comments() {
        for (text, expected) in
            [("", ""), ("\n \n", ""), ("// a\n\n\n//b", "// a\n\n//b\n"), ("\r// a\r// b\r", "// a\n// b\n")]
        {
            assert_eq!(formatted(text), expected);
        }
    }

    #[test]
    fn the_shipped_policies_have_their_one_layout() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let shipped = super::super::Bundle::read(&root.join("schemas"), &root.join("policies")).unwrap();
        for (file, text) in shipped.policies() {
            assert_eq!(formatted(text), text, "{file}");
        }
    }

    #[test]
    fn what_cannot_be_laid_out_is_refused_with_its_place() {
        let deep = format!(
            "\npermit (principal, action, resource) when {{ {}true{} }};",
            "(".repeat(10_000),
            ")".repeat(10_000)
        );
        for (text, line, words) in [
            ("\npermit (principal, action resource);", 2, "unexpected token"),
            ("// a\n\npermit (principal == ?principal, action, resource);", 3, "template"),
            // Cedar's formatter drops the comma, and the comment with it.
            ("permit (principal, action, resource) when { {a: 1, // c\n} has a };", 1, "lose a comment"),
            (&deep, 2, "nested"),
        ] {
            let problems = format("policies/a.cedar", text).unwrap_err().problems;
            assert_eq!((problems.len(), problems[0].line), (1, Some(line)), "{problems:?}");
            assert!(problems[0].message.contains(words), "{problems:?}");
        }
    }

    /// Policies with a space wherever anything may stand that is no code.
    const POLICIES: [&str; 4] = [
        "permit ( principal , action , resource ) ;",
        "@id ( \"a//b\" ) forbid ( principal is A::B , action in [ A::Action::\"x\" , A::Action::\"y\" ] , resource ) when { context . n + 1 > 2 } ;",
        "permit ( principal , action , resource == A::C::\"c\" ) unless { if context has a then ! context . a else [ 1 , 2 ] . contains ( 3 ) || true } ;",
        "permit ( principal , action , resource ) when { context . ip . isInRange ( ip ( \"192.0.2.0/24\" ) ) && { \"a\" : 1 } == { a : 1 } } ;",
    ];

    fn text() -> impl Strategy<Value = String> {
        let space = select(
            &[
                " ",
                " ",
                " ",
                " ",
                " ",
                "\n",
                "\n\n\n",
                "\t",
                "\r\n",
                " // a note\n",
                "\n// \"another\"\n",
                "\n\n// one\n\n// two\n",
            ][..],
        );
        let policy = (select(&POLICIES[..]), proptest::collection::vec(space, 40));
        let policy = policy.prop_map(|(policy, spaces)| {
            policy.split(' ').zip(spaces).flat_map(|(piece, space)| [piece, space]).collect::<String>()
        });
        proptest::collection::vec(policy, 0..4).prop_map(|policies| policies.concat())
    }

    proptest! {
        #[test]
        fn a_layout_is_the_same_policies_and_comments_and_is_final(text in text()) {
            let out = format("policies/a.cedar", &text).map_err(|rejection| rejection.render());
            prop_assert!(out.as_ref().is_ok_and(|out| same(&text, out)), "{:?}", out);
            let again = out.as_ref().map(|out| format("policies/a.cedar", out).map_err(|rejection| rejection.render()));
            prop_assert_eq!(again, Ok(out.clone()));
        }
    }
}
