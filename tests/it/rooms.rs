//! The rooms of ARCHITECTURE.md: a lower one never names a higher one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each room's place in the list, from the top. Those of the last line need nobody and are needed by all.
fn places(architecture: &str) -> BTreeMap<String, usize> {
    let (_, rest) = architecture.split_once("## The rooms").unwrap();
    let list = rest.split("```").nth(1).unwrap();
    let rooms = |line: &str| -> Vec<String> {
        let name = |word: &str| {
            word.trim_end_matches(',')
                .strip_suffix('/')
                .or(word.trim_end_matches(',').strip_suffix(".rs"))
                .map(str::to_owned)
        };
        line.split_whitespace().map_while(name).collect()
    };
    let lines = list.lines().filter(|line| !line.trim().is_empty()).enumerate();
    lines.flat_map(|(place, line)| rooms(line).into_iter().map(move |room| (room, place))).collect()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The rooms that a source names, outside of comments and of its tests.
fn named(source: &str) -> BTreeSet<String> {
    let text = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let word = |text: &str| -> String {
        text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
    };
    let mut rooms = BTreeSet::new();
    for after in code.split("crate::").skip(1) {
        match after.strip_prefix('{') {
            None => drop(rooms.insert(word(after))),
            Some(group) => {
                let mut depth = 0;
                let mut is_first = true;
                for (at, letter) in group.char_indices() {
                    if is_first && letter.is_alphabetic() {
                        rooms.insert(word(&group[at..]));
                        is_first = false;
                    }
                    match letter {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => is_first = true,
                        _ => {}
                    }
                }
            }
        }
    }
    rooms
}

#[test]
fn a_lower_room_never_names_a_higher_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places = places(&fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap());
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    assert!(files.len() > 200, "{} files", files.len());
    let (mut seen, mut upward) = (BTreeSet::new(), Vec::new());
    for file in files {
        let inside = file.strip_prefix(root.join("src")).unwrap();
        let is_test = inside
            .iter()
            .any(|part| part == "tests" || part == "tests.rs" || part == "differential.rs" || part == "examples.rs");
        let room = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        if is_test || room == "lib" {
            continue;
        }
        let place = places.get(&room).unwrap_or_else(|| panic!("ARCHITECTURE.md does not tell of the room {room}"));
        seen.insert(room.clone());
        for other in named(&fs::read_to_string(&file).unwrap()) {
            // What has no place is a macro, or something of the root.
            if other != room && places.get(&other).is_some_and(|of_other| of_other < place) {
                upward.push(format!("{} names {other}", inside.display()));
            }
        }
    }
    assert!(upward.is_empty(), "{upward:#?}");
    let gone: Vec<_> = places.keys().filter(|room| !seen.contains(*room) && *room != "fuzz").collect();
    assert!(gone.is_empty(), "ARCHITECTURE.md tells of rooms that there are not: {gone:?}");
}

#[test]
fn what_a_source_names_is_found_however_it_is_written() {
    let source = "//! [`crate::cli`]\nuse crate::key::{Key, Scope};\nuse crate::{config, store::{Row, Table}, trail};\n\
                  fn f() { crate::ring::find() }\n// crate::demo\n#[cfg(test)]\nmod tests {\n use crate::daemon; }";
    let expected: BTreeSet<String> = ["config", "key", "ring", "store", "trail"].map(str::to_owned).into();
    assert_eq!(named(source), expected);
    let list = "## The rooms\n```\nmain.rs, cli/   words\nhttp/   a, b/ and c.rs\nkey/ store.rs   low\n```\n";
    let expected = [("cli", 0), ("http", 1), ("key", 2), ("main", 0), ("store", 2)];
    assert_eq!(places(list), expected.map(|(room, place)| (room.to_owned(), place)).into());
}
