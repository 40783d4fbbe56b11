//! Who wrote the files, as far as a git work tree that they are in tells.
//!
//! Asked of the `git` program, never needed: without it, or without an answer in time, nothing is known. A work tree may
//! be somebody else's, and its settings name programs to run. So nothing is asked that runs one: no `status` and no
//! `diff`, which filter contents, but `log`, `ls-tree` and `cat-file`, without pager, hooks, signatures and transports.
//! git itself refuses a work tree of another user (`safe.directory`), and then nothing is known, either.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use crate::key::masked;
use crate::policy::Bundle;

/// How long all questions together may take: a long history is no reason to wait.
const LIMIT: Duration = Duration::from_secs(2);
/// Bytes of an answer that are read: a bundle, and its names.
const LONGEST_ANSWER: u64 = 16 << 20;
/// Characters that are kept of an author or a subject.
const LONGEST_TEXT: usize = 200;
/// Settings that would run a program, or reach out, and are set to nothing.
const SETTINGS: [&str; 6] = [
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.pager=cat",
    "log.showSignature=false",
    "protocol.allow=never",
    "core.attributesFile=/dev/null",
];
/// What of the daemon's environment git needs: to find its parts, and whom its user trusts.
const PASSED_ON: [&str; 3] = ["PATH", "HOME", "XDG_CONFIG_HOME"];

/// The newest commit that changed the files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Commit {
    /// Its name.
    pub commit: String,
    /// Who wrote it.
    pub author: String,
    /// When it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub at: Option<Timestamp>,
    /// The first line of its message.
    pub subject: String,
    /// Whether the files say something else than what is committed.
    pub uncommitted: bool,
}

/// The commit that this bundle, read from these folders, is of.
pub(super) async fn commit_of(bundle: &Bundle, schemas: &Path, policies: &Path) -> Option<Commit> {
    tokio::time::timeout(LIMIT, ask(bundle, schemas, policies)).await.ok().flatten()
}

async fn ask(bundle: &Bundle, schemas: &Path, policies: &Path) -> Option<Commit> {
    let mut commit = match newest(policies, &[schemas, policies]).await {
        Some(commit) => commit,
        // The schema may be kept elsewhere.
        None => newest(policies, &[policies]).await?,
    };
    commit.uncommitted =
        !(is_committed(bundle, "policies", policies).await? && is_committed(bundle, "schemas", schemas).await?);
    Some(commit)
}

async fn newest(folder: &Path, about: &[&Path]) -> Option<Commit> {
    let mut log = git(folder);
    // Names as the commit has them: a file of aliases in the work tree is not looked at.
    log.args([
        "log",
        "-1",
        "--no-show-signature",
        "--no-mailmap",
        "--no-color",
        "--format=%H%x00%an%x00%aI%x00%s",
        "--",
    ]);
    let answer = said(log.args(about), Vec::new()).await?;
    let text = String::from_utf8_lossy(&answer);
    let mut parts = text.trim_end_matches('\n').splitn(4, '\0');
    let mut part = || parts.next();
    let (commit, author, at, subject) = (part()?, part()?, part()?, part()?);
    let is_name = commit.len() >= 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_name.then(|| Commit {
        commit: commit.to_owned(),
        author: presentable(author),
        at: at.parse().ok(),
        subject: presentable(subject),
        uncommitted: false,
    })
}

/// Text that others wrote: no control characters, no tokens, not long.
fn presentable(text: &str) -> String {
    masked(text).chars().filter(|character| !character.is_control()).take(LONGEST_TEXT).collect()
}

/// Whether a folder holds what its newest commit holds, as far as it is the bundle's. A folder that is in no work tree
/// holds nothing that could be uncommitted.
async fn is_committed(bundle: &Bundle, name: &str, folder: &Path) -> Option<bool> {
    let prefix = format!("{name}/");
    let files: BTreeMap<&str, &str> =
        bundle.files().filter_map(|(path, text)| Some((path.strip_prefix(&prefix)?, text))).collect();
    let Some(names) = said(git(folder).args(["ls-tree", "-r", "-z", "--name-only", "HEAD"]), Vec::new()).await else {
        return Some(true);
    };
    let names = String::from_utf8_lossy(&names);
    let committed = names.split('\0').filter(|path| Bundle::takes(&format!("{prefix}{path}")));
    if !committed.eq(files.keys().copied()) || files.keys().any(|path| path.contains('\n')) {
        return Some(false);
    }
    let question = files.keys().flat_map(|path| ["HEAD:./", path, "\n"]).collect::<String>();
    let answer = said(git(folder).args(["cat-file", "--batch"]), question.into_bytes()).await?;
    Some(says(&answer, files.values().copied()))
}

/// Whether an answer of `git cat-file --batch` holds these texts, in this order.
fn says<'a>(mut answer: &[u8], texts: impl Iterator<Item = &'a str>) -> bool {
    for text in texts {
        let Some((header, rest)) =
            answer.iter().position(|byte| *byte == b'\n').and_then(|end| answer.split_at_checked(end))
        else {
            return false;
        };
        let header = String::from_utf8_lossy(header);
        let is_as_long = header.ends_with(&format!(" blob {}", text.len()));
        let content = rest.get(1..).and_then(|rest| rest.strip_prefix(text.as_bytes()));
        match content.and_then(|rest| rest.strip_prefix(b"\n")) {
            Some(rest) if is_as_long => answer = rest,
            _ => return false,
        }
    }
    answer.is_empty()
}

fn git(folder: &Path) -> Command {
    let mut git = Command::new("git");
    git.env_clear();
    git.envs(PASSED_ON.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    git.envs([
        ("GIT_OPTIONAL_LOCKS", "0"),
        ("GIT_NO_LAZY_FETCH", "1"),
        ("GIT_NO_REPLACE_OBJECTS", "1"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_LITERAL_PATHSPECS", "1"),
        ("LC_ALL", "C"),
    ]);
    git.arg("--no-pager");
    for setting in SETTINGS {
        git.args(["-c", setting]);
    }
    // Not the child's working directory: entering a folder that does not answer would keep this thread.
    git.arg("-C").arg(folder);
    git
}

/// What git answers, if it does.
async fn said(command: &mut Command, question: Vec<u8>) -> Option<Vec<u8>> {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().ok()?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take()?);
    let ask = async move {
        if let Some(mut stdin) = stdin {
            // One that has ended does not read on; how it ended says more.
            let _ = stdin.write_all(&question).await;
        }
    };
    let listen = async move {
        let mut answer = Vec::new();
        stdout.take(LONGEST_ANSWER).read_to_end(&mut answer).await.map(|_| answer)
    };
    let ((), answer) = tokio::join!(ask, listen);
    child.wait().await.ok().filter(std::process::ExitStatus::success)?;
    answer.ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Repository(tempfile::TempDir);

    impl Repository {
        fn new() -> Self {
            let repository = Self(tempfile::tempdir().unwrap());
            repository.write("schemas/a.cedarschema", "namespace A {}");
            repository.write("policies/a.cedar", "permit (principal, action, resource);");
            repository.write("policies/guarantees/b.cedar", "// \u{e9}\n");
            repository.write("policies/README.md", "not ours");
            repository.git(&["init", "--quiet"]);
            repository
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn git(&self, arguments: &[&str]) {
            let mut git = std::process::Command::new("git");
            for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
                git.env_remove(variable);
            }
            let who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"];
            let done = git.arg("-C").arg(self.0.path()).args(who).args(arguments).output().unwrap();
            assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        }

        fn commit(&self, subject: &str) {
            self.git(&["add", "--all"]);
            self.git(&["commit", "--quiet", "--message", subject]);
        }

        async fn asked(&self) -> Option<Commit> {
            let (schemas, policies) = (self.0.path().join("schemas"), self.0.path().join("policies"));
            let bundle = Bundle::read(&schemas, &policies).unwrap();
            ask(&bundle, &schemas, &policies).await
        }
    }

    #[tokio::test]
    async fn the_newest_commit_of_the_files_is_told_and_whether_they_differ_from_what_is_committed() {
        type Change = fn(&Repository);
        let repository = Repository::new();
        assert_eq!(repository.asked().await, None, "nothing is committed yet");
        repository.commit("Let everybody in\n\nBecause.");
        let commit = repository.asked().await.unwrap();
        assert_eq!(
            (commit.author.as_str(), commit.subject.as_str(), commit.uncommitted),
            ("Ada", "Let everybody in", false)
        );
        assert!(commit.at.is_some() && commit.commit.len() == 40);

        repository.write("policies/README.md", "still not ours");
        repository.write("elsewhere.txt", "nor this");
        assert_eq!(repository.asked().await.as_ref(), Some(&commit));
        repository.commit("Write about it elsewhere");
        // A file of ours beside it is about the same folder, whoever reads it.
        assert_eq!(repository.asked().await.unwrap().subject, "Write about it elsewhere");

        let changes: [Change; 3] = [
            |repository| repository.write("policies/a.cedar", "forbid (principal, action, resource);"),
            |repository| repository.write("schemas/more.cedarschema", "namespace B {}"),
            |repository| fs::remove_file(repository.0.path().join("policies/guarantees/b.cedar")).unwrap(),
        ];
        for change in changes {
            change(&repository);
            assert!(repository.asked().await.unwrap().uncommitted);
            repository.commit("Change it");
            assert!(!repository.asked().await.unwrap().uncommitted);
        }
    }

    #[tokio::test]
    async fn nothing_that_a_work_tree_names_is_run() {
        let repository = Repository::new();
        let ran = repository.0.path().join("ran");
        let program = repository.0.path().join("program");
        fs::write(&program, format!("#!/bin/sh\ntouch '{}'\ncat\n", ran.display())).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        repository.write(".gitignore", "ran\n");
        repository.commit("Begin");
        repository.write("policies/.gitattributes", "* filter=odd diff=odd\n");
        let program = program.to_str().unwrap();
        for (name, value) in [
            ("core.fsmonitor", program),
            ("core.pager", program),
            ("core.editor", program),
            ("log.showSignature", "true"),
            ("gpg.program", program),
            ("filter.odd.clean", program),
            ("filter.odd.smudge", program),
            ("diff.odd.textconv", program),
            ("diff.external", program),
            ("core.sshCommand", program),
            ("pager.log", program),
            ("alias.log", &format!("!{program}")),
        ] {
            repository.git(&["config", name, value]);
        }
        let hooks = repository.0.path().join(".git/hooks");
        fs::create_dir_all(&hooks).unwrap();
        for hook in ["post-index-change", "reference-transaction", "post-checkout"] {
            fs::copy(program, hooks.join(hook)).unwrap();
        }
        repository.write("policies/a.cedar", "forbid (principal, action, resource);");
        assert!(repository.asked().await.unwrap().uncommitted);
        assert!(!ran.exists());
    }

    #[tokio::test]
    async fn outside_of_a_work_tree_nothing_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let (schemas, policies) = (folder.path().join("schemas"), folder.path().join("policies"));
        for (folder, file) in [(&schemas, "a.cedarschema"), (&policies, "a.cedar")] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join(file), "// nothing").unwrap();
        }
        let bundle = Bundle::read(&schemas, &policies).unwrap();
        assert_eq!(ask(&bundle, &schemas, &policies).await, None);
    }

    #[test]
    fn an_author_cannot_write_into_a_log() {
        assert_eq!(presentable("Ada\u{1b}[2J\nsk"), "Ada[2Jsk");
        assert_eq!(presentable(&"a".repeat(10_000)).len(), LONGEST_TEXT);
    }
}
