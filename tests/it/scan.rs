//! `keyward scan`: tokens are found in files, in what is staged and in histories, and nothing of them is given away.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use keyward::key::{Kind, Mint, Mode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{KEYWARD, keyward};

fn minted(kind: Kind, mode: Mode) -> String {
    Mint::new(kind, mode).unwrap().expose().to_owned()
}

fn secret() -> String {
    minted(Kind::Secret, Mode::Live)
}

/// A token as it is told of.
fn masked(token: &str) -> String {
    let head = token.rfind('_').unwrap() + 1;
    format!("{}…", &token[..head + 4])
}

/// Scans, makes sure that no more of the tokens is told than their beginnings, and gives code, lines and error.
fn scan(arguments: &[&str], folder: &Path, tokens: &[&str]) -> (i32, Vec<String>, String) {
    let (code, output, error) = keyward(&[&["scan"], arguments].concat(), folder);
    for token in tokens {
        let rest = &token[token.rfind('_').unwrap() + 5..];
        for part in [&rest[..8], &rest[12..20], &rest[rest.len() - 6..]] {
            assert!(!output.contains(part) && !error.contains(part), "{part}: {output}{error}");
        }
    }
    (code, output.lines().map(str::to_owned).collect(), error)
}

fn scan_input(arguments: &[&str], input: &[u8]) -> (Option<i32>, String) {
    let mut command = Command::new(KEYWARD);
    let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_token_is_found_in_a_file_a_folder_and_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    let (live, test, user) = (secret(), minted(Kind::Restricted, Mode::Test), Mint::for_user().unwrap());
    let user = user.expose();
    fs::create_dir_all(folder.path().join("src/deep")).unwrap();
    fs::create_dir(folder.path().join(".git")).unwrap();
    fs::write(folder.path().join(".git/config"), &live).unwrap();
    fs::write(folder.path().join("src/a.rs"), format!("fn main() {{\n    call(\"{live}\");\n}}\n")).unwrap();
    fs::write(folder.path().join("src/deep/core.bin"), [b"\0\xff\n", test.as_bytes(), b"\0", user.as_bytes()].concat())
        .unwrap();
    fs::write(folder.path().join("src/clean.txt"), "sk_live_ is how they begin").unwrap();
    let expected = [
        format!("src/a.rs:2:11: secret live key, {}", masked(&live)),
        format!("src/deep/core.bin:2:1: restricted test key, {}", masked(&test)),
        format!("src/deep/core.bin:2:64: token of a person, {}", masked(user)),
    ];
    let tokens = [&*live, &test, user];
    let (code, lines, error) = scan(&["src"], folder.path(), &tokens);
    assert_eq!((code, &lines[..]), (1, &expected[..]));
    assert!(error.contains("3 tokens found"), "{error}");
    let (code, lines, _) = scan(&["src/clean.txt", "src/a.rs"], folder.path(), &tokens);
    assert_eq!((code, &lines[..]), (1, &expected[..1]));
    let (_, lines, _) = scan(&["."], folder.path(), &tokens);
    assert_eq!(lines, expected.map(|line| format!("./{line}")));
    assert_eq!(scan(&["src/clean.txt"], folder.path(), &tokens), (0, vec![], String::new()));
    assert_eq!(scan(&["."], &folder.path().join(".git"), &tokens).0, 1, "it is read when it is named");

    let (code, output) = scan_input(&["scan", "-"], format!("\n x={live}\n").as_bytes());
    assert_eq!((code, &*output), (Some(1), &*format!("-:2:4: secret live key, {}\n", masked(&live))));
    assert_eq!(scan_input(&["scan", "-"], b"nothing"), (Some(0), String::new()));
}

#[test]
fn a_token_is_found_wherever_a_big_file_is_cut_into_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let token = secret();
    for start in (64 << 10) - 64..(64 << 10) + 3 {
        fs::write(folder.path().join("big"), format!("{}\n{token}", "x".repeat(start - 1))).unwrap();
        let (code, lines, _) = scan(&["big"], folder.path(), &[&token]);
        assert_eq!((code, lines), (1, vec![format!("big:2:1: secret live key, {}", masked(&token))]), "{start}");
    }
    let mut text = "0123456789abcde\n".repeat(1 << 20).into_bytes();
    text.extend_from_slice(token.as_bytes());
    let (code, output) = scan_input(&["scan", "-"], &text);
    assert!(code == Some(1) && output.starts_with("-:1048577:1: "), "{output}");
}

#[test]
fn publishable_keys_are_told_of_when_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let token = minted(Kind::Publishable, Mode::Live);
    fs::write(folder.path().join("page.html"), format!("<script data-key={token}>")).unwrap();
    assert_eq!(scan(&["page.html"], folder.path(), &[&token]), (0, vec![], String::new()));
    let (code, lines, _) = scan(&["--all", "page.html"], folder.path(), &[&token]);
    assert_eq!((code, lines), (1, vec![format!("page.html:1:18: publishable live key, {}", masked(&token))]));
}

#[test]
fn scripts_get_a_json_object_for_each_token() {
    let folder = tempfile::tempdir().unwrap();
    let (token, user) = (secret(), Mint::for_user().unwrap());
    fs::write(folder.path().join("a \"b\"\n"), format!("{token} {}", user.expose())).unwrap();
    let (code, lines, _) = scan(&["--json", "."], folder.path(), &[&token, user.expose()]);
    let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let file = "./a \"b\"\n";
    let of_key =
        json!({ "file": file, "line": 1, "column": 1, "kind": "secret", "mode": "live", "token": masked(&token) });
    let of_user =
        json!({ "file": file, "line": 1, "column": 64, "kind": "user", "mode": null, "token": masked(user.expose()) });
    assert_eq!((code, lines), (1, vec![of_key, of_user]));
}

#[test]
fn names_cannot_steer_the_terminal_and_odd_files_do_not_stop_a_scan() {
    let folder = tempfile::tempdir().unwrap();
    let (root, elsewhere) = (folder.path().join("root"), folder.path().join("elsewhere"));
    fs::create_dir_all(&root).unwrap();
    fs::create_dir_all(&elsewhere).unwrap();
    let token = secret();
    fs::write(elsewhere.join("hidden"), &token).unwrap();
    fs::write(root.join(OsStr::from_bytes(b"e\x1b[2J\xff\n")), &token).unwrap();
    symlink(&elsewhere, root.join("folder")).unwrap();
    symlink(&root, root.join("loop")).unwrap();
    symlink("/nowhere", root.join("nothing")).unwrap();
    symlink(elsewhere.join("hidden"), root.join("file")).unwrap();
    // A pipe that nobody writes to would never end.
    let made = Command::new("mkfifo").arg(root.join("pipe")).status().unwrap();
    assert!(made.success());
    let (code, lines, _) = scan(&["root"], folder.path(), &[&token]);
    let expected = ["root/e\\u{1b}[2J\\xff\\n:1:1: ", "root/file:1:1: "];
    assert_eq!(lines, expected.map(|start| format!("{start}secret live key, {}", masked(&token))));
    assert_eq!(code, 1);
    let (_, lines, _) = scan(&["root/folder"], folder.path(), &[&token]);
    assert_eq!(lines.len(), 1, "a link is followed when it is named");
}

#[test]
fn what_cannot_be_read_is_told_at_the_end_and_is_no_success() {
    let folder = tempfile::tempdir().unwrap();
    let token = secret();
    fs::write(folder.path().join("b"), &token).unwrap();
    fs::write(folder.path().join("clean"), "").unwrap();
    let (code, lines, error) = scan(&["missing", "b"], folder.path(), &[&token]);
    assert_eq!((code, lines.len()), (1, 1));
    assert!(error.contains("1 token found") && error.contains("\n  missing: No such file"), "{error}");
    let (code, lines, error) = scan(&["clean", "missing"], folder.path(), &[]);
    assert!(code == 1 && lines.is_empty() && error.contains("missing: "), "{error}");
    // A link to itself can be read by nobody, not even by root.
    symlink("self", folder.path().join("self")).unwrap();
    let (_, lines, error) = scan(&["."], folder.path(), &[&token]);
    assert!(lines.len() == 1 && error.contains("./self: "), "{error}");
    for arguments in [&["scan"][..], &["scan", "--git", "--staged"], &["scan", "--gti", "."]] {
        assert_eq!(keyward(arguments, folder.path()).0, 2, "{arguments:?}");
    }
    for flag in ["--git", "--staged"] {
        let (code, _, error) = scan(&[flag, "clean"], folder.path(), &[]);
        assert!(code == 1 && error.contains("clean: git says: "), "{error}");
    }
}

/// Real git in a folder, undisturbed by the settings of whoever runs the test.
struct Repository(TempDir);

impl Repository {
    fn new() -> Self {
        let repository = Self(tempfile::tempdir().unwrap());
        repository.git(&["init", "--quiet", "--initial-branch", "main"]);
        // None of these may change what is seen.
        for (name, value) in [
            ("color.ui", "always"),
            ("log.showRoot", "false"),
            ("diff.noprefix", "true"),
            ("diff.external", "/nonexistent"),
            ("core.abbrev", "4"),
        ] {
            repository.git(&["config", name, value]);
        }
        repository.write(".gitattributes", "*.dat binary -diff\n");
        repository
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn try_git(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("git");
        command.args(arguments).current_dir(self.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("GIT_")) {
            command.env_remove(name);
        }
        for role in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{role}_NAME"), "Ann").env(format!("GIT_{role}_EMAIL"), "ann@example.org");
        }
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1").output().unwrap()
    }

    fn git(&self, arguments: &[&str]) -> String {
        let output = self.try_git(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Commits all that is there, and gives the commit's name.
    fn commit(&self, message: &str) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", message]);
        self.git(&["rev-parse", "HEAD"])
    }
}

#[test]
fn a_token_that_was_committed_and_deleted_is_found_in_the_history() {
    let repository = Repository::new();
    let [root, deleted, binary, merged, said, tagged, staged] = [(); 7].map(|()| secret());
    let all = [&*root, &deleted, &binary, &merged, &said, &tagged, &staged];
    assert_eq!(scan(&["--git"], repository.path(), &all), (0, vec![], String::new()), "nothing is committed");

    repository.write("first", &root);
    let first = repository.commit("Begin");
    repository.write("config/prod env", &format!("a\nKEY='{deleted}'\n"));
    let second = repository.commit("Add");
    // The same token in later versions of the file is no news.
    repository.write("config/prod env", &format!("a\nb\nc\nKEY='{deleted}'\n"));
    repository.commit("Change");
    fs::remove_file(repository.path().join("config/prod env")).unwrap();
    repository.commit("Take it out");
    repository.git(&["checkout", "--quiet", "-b", "side", &first]);
    repository.write("x.dat", &format!("\0{binary}"));
    let third = repository.commit("On a branch");
    repository.git(&["checkout", "--quiet", "main"]);
    repository.git(&["merge", "--quiet", "--no-commit", "--no-ff", "side"]);
    repository.write("evil", &merged);
    let merge = repository.commit("Merge");
    let message = repository.git(&["commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", &format!("Said\n\nwith {said}")]);
    repository.git(&["update-ref", "refs/notes/elsewhere", &message]);
    repository.git(&["tag", "--annotate", "--message", &tagged, "v1"]);
    let tag = repository.git(&["rev-parse", "v1"]);
    repository.write("not-committed", &staged);
    repository.git(&["add", "."]);
    assert_eq!(scan(&["first"], repository.path(), &all).0, 1);
    assert!(!repository.path().join("config/prod env").exists());

    let (code, mut lines, error) = scan(&["--git", "."], repository.path(), &all);
    let mut expected = [
        format!("{first}:first:1:1: secret live key, {}", masked(&root)),
        format!("{second}:config/prod env:2:6: secret live key, {}", masked(&deleted)),
        format!("{third}:x.dat:1:2: secret live key, {}", masked(&binary)),
        format!("{merge}:evil:1:1: secret live key, {}", masked(&merged)),
        format!("{message}:<message>:8:6: secret live key, {}", masked(&said)),
        format!("{tag}:<message>:6:1: secret live key, {}", masked(&tagged)),
    ];
    lines.sort_unstable();
    expected.sort_unstable();
    assert_eq!((code, &lines[..]), (1, &expected[..]), "{error}");

    let clone = tempfile::tempdir().unwrap();
    let to = clone.path().join("bare.git");
    repository.git(&["clone", "--quiet", "--mirror", ".", to.to_str().unwrap()]);
    let (code, lines, _) = scan(&["--git", "--json", "bare.git"], clone.path(), &all);
    let found: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((code, found.len()), (1, 6));
    assert!(found.iter().any(|line| line["commit"] == *second && line["file"] == "config/prod env"), "{lines:?}");
    assert!(found.iter().any(|line| line["commit"] == *tag && line["file"].is_null()), "{lines:?}");
}

#[test]
fn a_history_with_a_hole_is_not_taken_for_clean() {
    let repository = Repository::new();
    repository.write("a", &secret());
    repository.commit("Begin");
    let name = repository.git(&["rev-parse", "HEAD:a"]);
    let object = repository.path().join(".git/objects").join(&name[..2]).join(&name[2..]);
    fs::set_permissions(&object, fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(&object).unwrap();
    let (code, lines, error) = scan(&["--git"], repository.path(), &[]);
    assert!(code == 1 && lines.is_empty() && error.contains("not all could be read"), "{error}");
}

#[test]
fn a_hook_blocks_a_commit_that_would_add_a_token() {
    let repository = Repository::new();
    let hook = repository.path().join(".git/hooks/pre-commit");
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    fs::write(&hook, format!("#!/bin/sh\nexec '{KEYWARD}' scan --staged\n")).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let commits = |arguments: &[&str]| {
        let output = repository.try_git(&[&["commit", "--quiet", "--message", "Change"], arguments].concat());
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    };
    let (old, new) = (secret(), secret());

    // The first commit of all.
    repository.write("dir/a.txt", &format!("x\n  {new}\n"));
    repository.git(&["add", "."]);
    let (is_done, said) = commits(&[]);
    assert!(!is_done && said.contains(&format!("dir/a.txt:2:3: secret live key, {}\n", masked(&new))), "{said}");
    assert!(!said.contains(&new[20..]), "{said}");
    assert!(!repository.try_git(&["rev-parse", "--verify", "HEAD"]).status.success());

    // What counts is what is staged, and not what lies in the folder.
    repository.write("dir/a.txt", "x\n");
    repository.git(&["add", "."]);
    repository.write("dir/a.txt", &new);
    assert_eq!(commits(&[]), (true, String::new()));
    for arguments in [&["--all"][..], &["dir/a.txt"]] {
        let (is_done, said) = commits(arguments);
        assert!(!is_done && said.contains("dir/a.txt:1:1: "), "{arguments:?}: {said}");
    }

    // A token that is in the file already does not stop work on it, and can be taken out.
    repository.write("b.dat", &format!("{old}\n"));
    repository.git(&["add", "b.dat"]);
    assert!(commits(&["--no-verify"]).0);
    repository.write("b.dat", &format!("new line\n{old}\n"));
    repository.git(&["add", "b.dat"]);
    assert_eq!(commits(&[]), (true, String::new()));
    repository.write("b.dat", &format!("new line\n{old}\n{new}\n"));
    repository.git(&["add", "b.dat"]);
    let (is_done, said) = commits(&[]);
    assert!(!is_done && said.contains("b.dat:3:1: ") && said.contains("1 token found"), "{said}");
    repository.write("b.dat", "new line\n");
    repository.git(&["add", "b.dat"]);
    assert_eq!(commits(&[]), (true, String::new()));
}
