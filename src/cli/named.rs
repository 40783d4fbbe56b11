//! Commands that pages, messages and the README name are commands that there are.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use clap::CommandFactory as _;

use super::Cli;

/// Every file below a folder, by its path, as far as it is text of ours.
fn texts(folder: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_ours = path
            .extension()
            .is_some_and(|ending| ["rs", "html", "toml", "md", "js"].iter().any(|ours| ending == *ours));
        if path.is_dir() {
            texts(&path, found);
        } else if is_ours && !path.ends_with(file!()) {
            found.insert(path.display().to_string(), fs::read_to_string(&path).unwrap());
        }
    }
}

/// The command lines that a text names: in backticks or marked as code, and in examples a line each.
fn named(text: &str) -> Vec<String> {
    let mut named = Vec::new();
    for (begins, ends) in [("`keyward ", "`"), ("<code>keyward ", "</code>")] {
        let rests = text.split(begins).skip(1).filter_map(|rest| rest.split(ends).next());
        // A sentence may go on in the next line of a comment or of a text.
        let words = rests.map(|rest| rest.split_whitespace().filter(|word| !["//", "///", "//!", "\\"].contains(word)));
        named.extend(words.map(|words| words.collect::<Vec<_>>().join(" ")));
    }
    let examples = text.lines().filter_map(|line| line.trim_start().strip_prefix("keyward "));
    named.extend(examples.map(|line| line.split(['#', '|', ';', '>']).next().unwrap_or_default().to_owned()));
    named
}

/// What of a command line there is not.
fn missing(line: &str) -> Option<String> {
    let mut all = Cli::command();
    all.build();
    let mut command = &all;
    for word in line.split_whitespace() {
        let flag = word.strip_prefix("--").map(|flag| flag.split(['=', ',']).next().unwrap_or_default());
        if let Some(flag) = flag {
            let is_there = command.get_arguments().any(|argument| argument.get_long() == Some(flag));
            if !is_there && !["help", "version", ""].contains(&flag) {
                return Some(format!("{} has no --{flag}", command.get_name()));
            }
        } else if command.has_subcommands() {
            let is_word = word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
            match command.find_subcommand(word) {
                Some(found) => command = found,
                None if is_word && word != "help" => return Some(format!("{} has no {word}", command.get_name())),
                None => return None,
            }
        }
    }
    None
}

#[test]
fn a_command_that_a_page_or_a_message_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = BTreeMap::from([("README.md".to_owned(), fs::read_to_string(root.join("README.md")).unwrap())]);
    for folder in ["src", "templates", "examples"] {
        texts(&root.join(folder), &mut all);
    }
    let lines = |text: &String| named(text).into_iter().map(|line| (missing(&line), line)).collect::<Vec<_>>();
    let looked: BTreeMap<&String, _> = all.iter().map(|(path, text)| (path, lines(text))).collect();
    assert!(looked.values().map(Vec::len).sum::<usize>() > 50, "there are some");
    for (path, lines) in looked {
        for (missing, line) in lines {
            assert!(missing.is_none(), "{path} names `keyward {line}`: {}", missing.unwrap_or_default());
        }
    }
}

#[test]
fn a_command_that_there_is_not_is_noticed() {
    for line in ["users password", "policy approved DIGEST", "keys list --unused", "sing-in you@example.com"] {
        assert!(missing(line).is_some(), "{line}");
    }
    for line in ["users set-password", "policy approve {digest}", "keys list --json", "help", "…"] {
        assert_eq!(missing(line), None, "{line}");
    }
    assert_eq!(
        named("a `keyward users\n    /// set-password` b <code>keyward demo</code>\n  keyward serve # now"),
        ["users set-password", "demo", "serve "]
    );
}
