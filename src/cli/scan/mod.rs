//! `keyward scan`: finds tokens where they do not belong, by their form and checksum alone.
//!
//! It opens no store and no configuration, and asks nobody: a token that is found may be anyone's. It reads in
//! bounded memory, whatever the size of a file, and shows no more of a token than tells it from others.

mod git;
mod report;
mod stream;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use clap::Args;

use self::report::{Place, Report};
use super::Failure;

/// Find tokens that were left in files, in what is staged for a commit, or in a history
///
/// Prints a line for each: `FILE:LINE:COLUMN`, what it is, and its first characters; the column counts bytes. No
/// store and no configuration is opened, and nobody is asked, so a token may be of a key that is dead.
///
/// Publishable keys are meant to be seen, and are passed over without --all. Folders are read whole, but for
/// `.git`; a link to a folder is not followed. Archives and other encodings are not unpacked.
///
/// Ends with 0 when all was read and no token found, with 1 when one was found or something could not be read.
#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(super) struct Scan {
    /// Files and folders; `-` is standard input. With --git and --staged, repositories, `.` if none is given
    #[arg(value_name = "PATH", required_unless_present_any = ["git", "staged"])]
    paths: Vec<PathBuf>,
    /// Read the whole history of a repository: all that a branch, a tag or another reference leads to. A token
    /// is told once for each file, as `COMMIT:FILE:LINE:COLUMN` of the commit that brought it
    #[arg(long, conflicts_with = "staged")]
    git: bool,
    /// Read what is staged, and tell of tokens that the next commit would add: for a pre-commit hook
    #[arg(long)]
    staged: bool,
    /// Tell of publishable keys, too
    #[arg(long)]
    all: bool,
    /// A JSON object on a line for each token
    #[arg(long)]
    json: bool,
}

pub(super) fn scan(given: &Scan) -> Result<(), Failure> {
    let mut report = Report::new(given.json, given.all);
    let here = [PathBuf::from(".")];
    let paths = if given.paths.is_empty() { &here[..] } else { &given.paths };
    for path in paths {
        if given.git {
            git::history(path, &mut report)?;
        } else if given.staged {
            git::staged(path, &mut report)?;
        } else {
            named(path, &mut report)?;
        }
    }
    report.end()
}

/// What a person named is read, whatever it is: a pipe, a device, a link.
fn named(path: &Path, report: &mut Report) -> Result<(), Failure> {
    if path == Path::new("-") {
        return report.read(Place::file(b"-"), &mut io::stdin().lock(), &mut |_| true);
    }
    if path.is_dir() { folder(path, report) } else { file(path, report) }
}

fn place(path: &Path) -> Place<'_> {
    Place::file(path.as_os_str().as_bytes())
}

fn file(path: &Path, report: &mut Report) -> Result<(), Failure> {
    match File::open(path) {
        Ok(mut source) => report.read(place(path), &mut source, &mut |_| true),
        Err(error) => {
            report.unread(place(path), &error);
            Ok(())
        }
    }
}

/// Reads a folder in order of names: what waits is a list and no recursion, so that depth costs no stack.
fn folder(root: &Path, report: &mut Report) -> Result<(), Failure> {
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        match sort_of(&path, path == root) {
            Ok(Sort::File) => file(&path, report)?,
            Ok(Sort::Folder) => match entries(&path) {
                Ok(entries) => waiting.extend(entries),
                Err(error) => report.unread(place(&path), &error),
            },
            Ok(Sort::Other) => {}
            Err(error) => report.unread(place(&path), &error),
        }
    }
    Ok(())
}

enum Sort {
    File,
    Folder,
    /// Pipes, sockets and devices, which may never end; links to folders and to nothing.
    Other,
}

fn sort_of(path: &Path, is_root: bool) -> io::Result<Sort> {
    let mut about = fs::symlink_metadata(path)?;
    let is_link = about.is_symlink();
    if is_link {
        about = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Sort::Other),
            about => about?,
        };
    }
    Ok(match about.is_file() {
        true => Sort::File,
        false if about.is_dir() && (is_root || !is_link) => Sort::Folder,
        false => Sort::Other,
    })
}

/// What is in a folder, last name first, without the repository of git: that is read with `--git`.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
    let mut entries = entries.collect::<io::Result<Vec<_>>>()?;
    entries.retain(|path| path.file_name() != Some(OsStr::new(".git")));
    entries.sort_unstable_by(|a, b| b.cmp(a));
    Ok(entries)
}
