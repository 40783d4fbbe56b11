//! An explanation as a person reads it: the way to the decision, the policies with what they saw, and what came near.
//!
//! It is made of the API's JSON, whether a daemon answered it or it was made here.

use std::fmt::Write as _;

use serde_json::Value;
use unicode_width::UnicodeWidthStr as _;

use super::terminal::{Ink, escaped, text};

/// The steps on the way to a decision.
pub(super) fn steps(explanation: &Value, ink: Ink) -> String {
    let steps = list(explanation, "/steps");
    let widest = steps.iter().map(|step| text(step, "/step").width()).max().unwrap_or_default();
    let mut out = String::new();
    for step in steps {
        let passed = step.pointer("/passed").and_then(Value::as_bool).unwrap_or_default();
        let mark = if passed { ink.good("✓") } else { ink.bad("✗") };
        let (name, detail) = (text(step, "/step"), escaped(&text(step, "/detail")));
        let _ = writeln!(out, "  {mark} {name:widest$}  {detail}");
    }
    out
}

/// The policies in play: those that decided first, then permits, then forbids.
pub(super) fn policies(explanation: &Value, ink: Ink) -> String {
    let mut all: Vec<&Value> = list(explanation, "/policies").iter().collect();
    all.sort_by_key(|policy| match (text(policy, "/state").as_str(), text(policy, "/effect").as_str()) {
        ("failed", _) => 0,
        ("satisfied", "forbid") => 1,
        ("satisfied", _) => 2,
        (_, "permit") => 3,
        _ => 4,
    });
    let widest = all.iter().map(|policy| text(policy, "/name").width()).max().unwrap_or_default();
    let mut out = String::new();
    for policy in all {
        let (state, effect) = (text(policy, "/state"), text(policy, "/effect"));
        let mark = match (state.as_str(), effect.as_str()) {
            ("failed", _) => ink.bad("!"),
            ("satisfied", "forbid") => ink.bad("✗"),
            ("satisfied", _) => ink.good("✓"),
            _ => ink.faint("·"),
        };
        let name = escaped(&text(policy, "/name"));
        let padding = widest.saturating_sub(name.width());
        let guarantee = policy.pointer("/guarantee").and_then(Value::as_bool).unwrap_or_default();
        let guarantee = if guarantee { "  a guarantee" } else { "" };
        let place = format!("{}:{}{guarantee}", escaped(&text(policy, "/file")), text(policy, "/line"));
        let _ = writeln!(out, "  {mark} {effect} {}{:padding$}  {}", ink.strong(&name), "", ink.faint(&place));
        let parts = list(policy, "/parts");
        if parts.is_empty() && state == "satisfied" {
            let _ = writeln!(out, "      it has no conditions");
        }
        for part in parts {
            told_part(&mut out, part, ink);
        }
    }
    out
}

/// The permits that came near, with what kept them from applying; empty when there are none.
pub(super) fn near_misses(explanation: &Value, ink: Ink) -> String {
    let missed = list(explanation, "/near_misses");
    let width = |of: fn(&Value) -> String| missed.iter().map(|one| of(one).width()).max().unwrap_or_default();
    let (names, places) = (width(|one| escaped(&text(one, "/name"))), width(place));
    let mut out = String::new();
    for one in missed {
        let (name, place) = (escaped(&text(one, "/name")), place(one));
        let (after_name, after_place) = (names.saturating_sub(name.width()), places.saturating_sub(place.width()));
        let obstacle = one.pointer("/parts/0").map(part_text).unwrap_or_default();
        let _ = writeln!(
            out,
            "  {}{:after_name$}  {}{:after_place$}  {obstacle}",
            ink.strong(&name),
            "",
            ink.faint(&place),
            ""
        );
    }
    out
}

/// Where the part is that kept a policy from applying.
fn place(missed: &Value) -> String {
    format!("{}:{}", escaped(&text(missed, "/file")), text(missed, "/parts/0/line"))
}

fn list<'v>(value: &'v Value, place: &str) -> &'v [Value] {
    value.pointer(place).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A part, as it is written in its policy.
fn part_text(part: &Value) -> String {
    let (word, written) = (text(part, "/part"), escaped(&text(part, "/text")));
    if is_condition(&word) { format!("{word} {{ {written} }}") } else { written }
}

fn is_condition(word: &str) -> bool {
    matches!(word, "when" | "unless")
}

fn told_part(out: &mut String, part: &Value, ink: Ink) {
    let word = text(part, "/part");
    let (whole, line) = (part_text(part), ink.faint(&format!("line {}", text(part, "/line"))));
    let because = list(part, "/because");
    if let [one] = because
        && (text(one, "/text") == text(part, "/text") || !is_condition(&word))
    {
        let _ = writeln!(out, "      {whole}  {}  {line}", was(one, ink));
        values(out, one, "        ");
        return;
    }
    let held = part.pointer("/held").and_then(Value::as_bool).unwrap_or_default();
    let _ = writeln!(out, "      {whole}  {}  {line}", if held { "holds, because" } else { "does not hold, because" });
    for one in because {
        let is_here = text(one, "/line") == text(part, "/line");
        let line = if is_here { String::new() } else { ink.faint(&format!("  line {}", text(one, "/line"))) };
        let _ = writeln!(out, "        {}  {}{line}", escaped(&text(one, "/text")), was(one, ink));
        values(out, one, "          ");
    }
}

fn was(because: &Value, ink: Ink) -> String {
    match because.pointer("/was").and_then(Value::as_bool) {
        Some(true) => "was true".to_owned(),
        Some(false) => "was false".to_owned(),
        None => ink.bad(&format!("failed: {}", escaped(&text(because, "/error")))),
    }
}

/// What a part saw, one line each; not where the part is nothing but that.
fn values(out: &mut String, because: &Value, indent: &str) {
    let seen: Vec<&Value> =
        list(because, "/values").iter().filter(|seen| text(seen, "/name") != text(because, "/text")).collect();
    let widest = seen.iter().map(|seen| text(seen, "/name").width()).max().unwrap_or_default();
    for one in seen {
        let (name, value) = (escaped(&text(one, "/name")), text(one, "/value"));
        let value = if value.is_empty() { "absent".to_owned() } else { format!("= {}", escaped(&short(&value))) };
        let groups: Vec<String> = list(one, "/in").iter().map(|group| short(&text(group, ""))).collect();
        // An environment's name begins with its account's.
        let is_implied = |group: &str| {
            let id = group.split_once('"').map(|(_, id)| format!("\"{}/", id.trim_end_matches('"')));
            id.is_some_and(|id| groups.iter().any(|other| other.contains(&id)))
        };
        let groups: Vec<&str> = groups.iter().map(String::as_str).filter(|group| !is_implied(group)).collect();
        let within = if groups.is_empty() { String::new() } else { format!(" in {}", escaped(&groups.join(", "))) };
        let _ = writeln!(out, "{indent}{name:widest$} {value}{within}");
    }
}

/// A value without the namespaces of its entities: `DocsApi::Job::"job_1"` is `Job::"job_1"`.
fn short(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(next) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("::").filter(|after| !after.starts_with('"')) {
            let kept = out.trim_end_matches(|character: char| character.is_alphanumeric() || character == '_').len();
            out.truncate(kept);
            rest = after;
            continue;
        }
        let length = if next == '"' { quoted(rest) } else { next.len_utf8() };
        out.push_str(rest.get(..length).unwrap_or_default());
        rest = rest.get(length..).unwrap_or_default();
    }
    out
}

/// Bytes of the string that a text begins with, quotes included.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn namespaces_are_left_out_of_values_and_nothing_else_is() {
        for (value, expected) in [
            ("DocsApi::Job::\"job_1\"", "Job::\"job_1\""),
            ("[A::B::C::\"a::b::c\", A::D::\"\\\"::x\"]", "[C::\"a::b::c\", D::\"\\\"::x\"]"),
            ("ip(\"::1\")", "ip(\"::1\")"),
            ("\"Résumé::x\"", "\"Résumé::x\""),
            ("Job::\"open", "Job::\"open"),
            ("", ""),
        ] {
            assert_eq!(short(value), expected);
        }
    }

    #[test]
    fn an_explanation_is_told_line_by_line() {
        let value =
            |name: &str, value: Option<&str>, within: &[&str]| json!({ "name": name, "value": value, "in": within });
        let explanation = json!({
            "steps": [
                { "step": "route", "passed": true, "detail": "GET / is list" },
                { "step": "policies", "passed": false, "detail": "no policy permits it\u{1b}[2J" },
            ],
            "policies": [
                {
                    "name": "scope-read", "effect": "permit", "file": "policies/a.cedar", "line": 3, "guarantee": false,
                    "state": "out_of_scope",
                    "parts": [{
                        "part": "principal", "text": "principal in A::Scope::\"read\"", "line": 4, "held": false,
                        "because": [{
                            "text": "principal in A::Scope::\"read\"", "line": 4, "was": false,
                            "values": [value("principal", Some("A::Key::\"k\""), &["A::Account::\"a\"", "A::Env::\"a/live\""])],
                        }],
                    }],
                },
                {
                    "name": "https", "effect": "forbid", "file": "policies/guarantees/b.cedar", "line": 1,
                    "guarantee": true, "state": "satisfied",
                    "parts": [
                        {
                            "part": "unless", "text": "context.secure", "line": 2, "held": true,
                            "because": [{
                                "text": "context.secure", "line": 2, "was": false,
                                "values": [value("context.secure", Some("false"), &[])],
                            }],
                        },
                        {
                            "part": "when", "text": "context has ip && x", "line": 3, "held": true,
                            "because": [
                                { "text": "context has ip", "line": 3, "was": false, "values": [value("context.ip", None, &[])] },
                                { "text": "x", "line": 5, "error": "it overflows", "values": [] },
                            ],
                        },
                    ],
                },
            ],
            "near_misses": [{
                "name": "scope-read", "file": "policies/a.cedar", "line": 3,
                "parts": [{ "part": "when", "text": "context.secure", "line": 4 }],
            }],
        });
        let told = [steps, policies, near_misses].map(|part| part(&explanation, Ink::NONE));
        let [steps, policies, near_misses] = told;
        assert_eq!(steps, "  ✓ route     GET / is list\n  ✗ policies  no policy permits it\\u{1b}[2J\n");
        let expected = "  ✗ forbid https       policies/guarantees/b.cedar:1  a guarantee
      unless { context.secure }  was false  line 2
      when { context has ip && x }  holds, because  line 3
        context has ip  was false
          context.ip absent
        x  failed: it overflows  line 5
  · permit scope-read  policies/a.cedar:3
      principal in A::Scope::\"read\"  was false  line 4
        principal = Key::\"k\" in Env::\"a/live\"
";
        assert_eq!(policies, expected);
        assert_eq!(near_misses, "  scope-read  policies/a.cedar:4  when { context.secure }\n");
    }
}
