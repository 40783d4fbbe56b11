//! What the `git` program keeps: a whole history, or what is staged for the next commit.
//!
//! Contents are asked for whole and by name (`git cat-file --batch`), not read out of patches: no setting of the
//! user and no attribute of the repository changes what is seen, binary files and merges are seen too, and line
//! numbers are those of the file. Nothing is fetched.

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use sha2::{Digest as _, Sha256};

use super::report::{Place, Report};
use super::stream::{Stop, tokens_in};
use crate::cli::Failure;

/// The modes of what has no content here: a commit of another repository, and nothing at all.
const WITHOUT_CONTENT: [&[u8]; 2] = [b"160000", b"000000"];
/// The header of an object is a line with a path in it.
const LONGEST_HEADER: u64 = 64 * 1024;

fn git(repository: &Path) -> Command {
    let mut git = Command::new("git");
    git.args(["--no-replace-objects", "-C"]).arg(repository);
    git.env("GIT_NO_LAZY_FETCH", "1").env("GIT_OPTIONAL_LOCKS", "0").stdin(Stdio::null());
    git
}

/// The repository at the path, whatever a hook that runs us says of another.
fn git_at(repository: &Path) -> Command {
    let mut git = git(repository);
    for variable in ["GIT_DIR", "GIT_COMMON_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"] {
        git.env_remove(variable);
    }
    git
}

fn not_started(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot start git: {error}"))
}

/// Asks git first whether there is a repository: its other commands say at length when there is none.
fn look_for_repository(git: &mut Command) -> io::Result<()> {
    let output = git.args(["rev-parse", "--git-dir"]).output().map_err(|error| not_started(&error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("git says: {}", said.lines().next().unwrap_or("nothing"))))
}

fn ended_well(mut child: Child) -> io::Result<()> {
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("git ended with {status}"))) }
}

/// Objects, as `git cat-file --batch` gives them.
struct Objects(BufReader<ChildStdout>);

struct Header {
    name: String,
    /// `blob`, `tree`, `commit` or `tag`; else what is wrong, such as `missing`.
    sort: String,
    /// In bytes; `None` when there is no such object.
    size: Option<u64>,
    /// What was asked with the name: the path.
    rest: Vec<u8>,
}

const FORMAT: &str = "--batch=%(objectname) %(objecttype) %(objectsize) %(rest)";

impl Objects {
    /// The next object's header; `None` at the end. Its content has to be read before the next.
    fn next(&mut self) -> io::Result<Option<Header>> {
        let mut line = Vec::new();
        self.0.by_ref().take(LONGEST_HEADER).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        if line.pop() != Some(b'\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut words = line.splitn(4, |byte| *byte == b' ');
        let mut word = || words.next().unwrap_or_default();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (name, sort, size, rest) = (text(word()), text(word()), text(word()), word().to_vec());
        Ok(Some(Header { name, sort, size: size.parse().ok(), rest }))
    }

    /// Gives the content to a reader, and passes what it leaves.
    fn content<T>(
        &mut self,
        size: u64,
        read: impl FnOnce(&mut io::Take<&mut BufReader<ChildStdout>>) -> T,
    ) -> io::Result<T> {
        let mut content = self.0.by_ref().take(size);
        let done = read(&mut content);
        io::copy(&mut content, &mut io::sink())?;
        let is_whole = content.limit() == 0;
        let mut end = [0];
        self.0.read_exact(&mut end)?;
        if is_whole && end == *b"\n" { Ok(done) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// Tells of the tokens in every commit that a branch, a tag or another reference leads to: in files, and in messages.
/// A token is told once for each file, with the commit that brought it.
///
/// # Errors
/// When nothing can be written any more; what cannot be read is reported.
pub(super) fn history(repository: &Path, report: &mut Report) -> Result<(), Failure> {
    let start = || -> io::Result<(Child, Child)> {
        look_for_repository(&mut git_at(repository))?;
        // Parents first, and each commit's new objects behind it.
        let arguments = ["rev-list", "--all", "--topo-order", "--reverse", "--in-commit-order", "--objects"];
        let mut list = git_at(repository).args(arguments).stdout(Stdio::piped()).spawn()?;
        let names = list.stdout.take().map_or_else(Stdio::null, Stdio::from);
        let contents =
            git_at(repository).args(["cat-file", FORMAT, "--buffer"]).stdin(names).stdout(Stdio::piped()).spawn()?;
        Ok((list, contents))
    };
    let place = Place::file(repository.as_os_str().as_bytes());
    let (list, mut contents) = match start() {
        Ok(children) => children,
        Err(error) => {
            report.unread(place, &error);
            return Ok(());
        }
    };
    let done = match contents.stdout.take() {
        Some(out) => each_object(&mut Objects(BufReader::new(out)), report)?,
        None => Ok(()),
    };
    let (listed, given) = (ended_well(list), ended_well(contents));
    if let Err(error) = done.and(listed).and(given) {
        report.unread(place, &error);
    }
    Ok(())
}

/// The outer error is of writing, the inner one of reading.
fn each_object(objects: &mut Objects, report: &mut Report) -> Result<io::Result<()>, Failure> {
    let mut commit = None;
    let mut told = HashSet::new();
    loop {
        let header = match objects.next() {
            Ok(Some(header)) => header,
            Ok(None) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        };
        if header.sort == "commit" {
            commit = Some(header.name.clone());
        }
        let place = match &*header.sort {
            "blob" => Place { commit: commit.as_deref(), file: Some(&header.rest) },
            _ => Place { commit: Some(&header.name), file: None },
        };
        let Some(size) = header.size else {
            report.unread(place, &format_args!("git says: {}", header.sort));
            continue;
        };
        let done = objects.content(size, |content| match &*header.sort {
            "blob" => report.read(place, content, &mut |token| told.insert(digest(&[&header.rest, b"\0", token]))),
            "commit" | "tag" => report.read(place, content, &mut |_| true),
            _ => Ok(()),
        });
        match done {
            Ok(told) => told?,
            Err(error) => return Ok(Err(error)),
        }
    }
}

/// Remembers a token without keeping it.
fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// Tells of the tokens that the next commit would add: those in a staged file that are not in the file as it was
/// committed last. A hook's own index is heeded.
///
/// # Errors
/// When nothing can be written any more; what cannot be read is reported.
pub(super) fn staged(repository: &Path, report: &mut Report) -> Result<(), Failure> {
    let done = match staged_files(repository) {
        Ok(files) => each_staged(repository, &files, report)?,
        Err(error) => Err(error),
    };
    if let Err(error) = done {
        report.unread(Place::file(repository.as_os_str().as_bytes()), &error);
    }
    Ok(())
}

/// A file that the next commit changes, with the names of its contents.
#[derive(Debug, PartialEq, Eq)]
struct Staged {
    before: Option<String>,
    after: String,
    path: Vec<u8>,
}

fn staged_files(repository: &Path) -> io::Result<Vec<Staged>> {
    look_for_repository(&mut git(repository))?;
    let what = ["diff", "--cached", "--raw", "-z", "--no-abbrev", "--no-renames", "--diff-filter=d"];
    let how = ["--no-color", "--no-ext-diff", "--no-relative", "--ignore-submodules=all"];
    let output = git(repository).args(what).args(how).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!("git ended with {}", output.status)));
    }
    Ok(staged_in(&output.stdout))
}

/// Reads `:MODE MODE NAME NAME LETTER NUL PATH NUL …`.
fn staged_in(raw: &[u8]) -> Vec<Staged> {
    let mut files = Vec::new();
    let mut parts = raw.split(|byte| *byte == 0);
    while let (Some(entry), Some(path)) = (parts.next(), parts.next()) {
        let words: Vec<&[u8]> = entry.split(|byte| *byte == b' ').collect();
        let [mode_before, mode_after, before, after, _] = *words else { continue };
        let has_content = |mode: &[u8]| !WITHOUT_CONTENT.contains(&mode);
        let name = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        if has_content(mode_after) {
            let mode_before = mode_before.strip_prefix(b":").unwrap_or(mode_before);
            let before = has_content(mode_before).then(|| name(before));
            files.push(Staged { before, after: name(after), path: path.to_vec() });
        }
    }
    files
}

/// The outer error is of writing, the inner one of reading.
fn each_staged(repository: &Path, files: &[Staged], report: &mut Report) -> Result<io::Result<()>, Failure> {
    let child = git(repository).args(["cat-file", FORMAT]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return Ok(Err(error)),
    };
    let (Some(mut names), Some(out)) = (child.stdin.take(), child.stdout.take()) else { return Ok(Ok(())) };
    let mut objects = Objects(BufReader::new(out));
    // One question, then its answer: git never waits for us while we wait for it.
    let mut ask = |name: &str, objects: &mut Objects| -> io::Result<u64> {
        names.write_all(format!("{name}\n").as_bytes())?;
        let header = objects.next()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        header.size.ok_or_else(|| io::Error::other(format!("git says of {name}: {}", header.sort)))
    };
    for file in files {
        let mut known = HashSet::new();
        let mut learn = |objects: &mut Objects, name: &str| -> io::Result<()> {
            let size = ask(name, objects)?;
            let done = objects.content(size, |content| {
                tokens_in(content, &mut |_, token, _| {
                    known.insert(digest(&[token]));
                    Ok(())
                })
            });
            match done? {
                Ok(()) => Ok(()),
                Err(Stop::Read(error) | Stop::Tell(error)) => Err(error),
            }
        };
        let before = file.before.as_deref().map_or(Ok(()), |name| learn(&mut objects, name));
        let done = before.and_then(|()| ask(&file.after, &mut objects)).and_then(|size| {
            objects.content(size, |content| {
                report.read(Place::file(&file.path), content, &mut |token| !known.contains(&digest(&[token])))
            })
        });
        match done {
            Ok(told) => told?,
            Err(error) => return Ok(Err(error)),
        }
    }
    drop(names);
    Ok(ended_well(child))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_staged_files_is_read_with_any_names() {
        let raw = b":100644 100755 aa bb M\0a b\n\xffc\0:000000 100644 00 cc A\0:new\0:100644 000000 aa 00 D\0gone\0\
            :000000 160000 00 dd A\0submodule\0:160000 120000 dd ee T\0link\0:000000 000000 00 00 U\0conflict\0";
        let staged = |before: Option<&str>, after: &str, path: &[u8]| Staged {
            before: before.map(str::to_owned),
            after: after.to_owned(),
            path: path.to_vec(),
        };
        let expected =
            [staged(Some("aa"), "bb", b"a b\n\xffc"), staged(None, "cc", b":new"), staged(None, "ee", b"link")];
        assert_eq!(staged_in(raw), expected);
        assert_eq!(staged_in(b""), []);
    }
}
