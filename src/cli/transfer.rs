//! `keyward export`, `import` and `backup`: everything out of a running daemon, and into one.

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::client::Client;
use super::online::Online;
use super::terminal::{items, text};
use super::{CONFLICT, Failure, UNAVAILABLE};

/// The newest format of an export that is understood.
const FORMAT: u64 = 1;
/// Items of one request: as many as there may be.
const MOST: usize = 1_000;
/// Bytes of one request, about: half of what the daemon takes where nobody changed that.
const ENOUGH: usize = 512 * 1024;

#[derive(Args)]
pub(super) struct Download {
    /// The file to make, for you alone to read; standard output when it is not given
    file: Option<PathBuf>,
    #[command(flatten)]
    online: Online,
}

#[derive(Args)]
pub(super) struct Import {
    /// JSON lines: of an export, or of keys that another system issued; `-` is standard input
    file: PathBuf,
    #[command(flatten)]
    online: Online,
}

/// Lines that go in one request.
#[derive(Default)]
struct Chunk {
    items: Vec<Value>,
    /// Where each of them stood, from 1.
    lines: Vec<usize>,
    bytes: usize,
}

pub(super) fn export(given: &Download) -> Result<(), Failure> {
    download(given, "export")
}

pub(super) fn backup(given: &Download) -> Result<(), Failure> {
    download(given, "backup")
}

fn download(given: &Download, what: &str) -> Result<(), Failure> {
    let client = given.online.client()?;
    let Some(path) = &given.file else { return client.copy(&[what], &mut io::stdout().lock()) };
    let at = |error: io::Error| Failure::new(format!("{}: {error}", path.display()));
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = made.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::of(CONFLICT, format!("{} is there already", path.display())),
        _ => at(error),
    })?;
    let done = client.copy(&[what], &mut file).and_then(|()| file.sync_all().map_err(at));
    if done.is_err() {
        // What is cut short is no export and no backup.
        let _ = fs::remove_file(path);
    }
    done
}

/// What has come of a file so far.
#[derive(Default)]
struct Progress {
    made: u64,
    kept: u64,
    /// The last line that is in.
    line: Option<usize>,
}

pub(super) fn import(given: &Import) -> Result<(), Failure> {
    let client = given.online.client()?;
    let mut progress = Progress::default();
    take_over(given, &client, &mut progress).map_err(|failure| progress.told_with(&failure))?;
    let Progress { made, kept, .. } = progress;
    given
        .online
        .tell(&json!({ "made": made, "kept": kept }), |_| format!("{made} imported, and {kept} were here already\n"))
}

impl Progress {
    fn send(&mut self, chunk: Chunk, client: &Client) -> Result<(), Failure> {
        let last = chunk.lines.last().copied();
        for item in items(&chunk.send(client)?) {
            *if text(item, "/outcome") == "made" { &mut self.made } else { &mut self.kept } += 1;
        }
        self.line = last.or(self.line);
        Ok(())
    }

    /// Whoever mends the file wants to know what of it is in.
    fn told_with(&self, failure: &Failure) -> Failure {
        let say = match self.line {
            _ if failure.code == UNAVAILABLE => {
                "whether all of it is in is not known; import the file again".to_owned()
            }
            Some(line) => format!("what stands up to line {line} is imported; mend the rest and import the file again"),
            None => "nothing of it was imported".to_owned(),
        };
        Failure::of(failure.code, format!("{}\n  {say}", failure.message))
    }
}

fn take_over(given: &Import, client: &Client, progress: &mut Progress) -> Result<(), Failure> {
    let (mut chunk, mut count, mut is_export, mut has_ended) = (Chunk::default(), 0_u64, false, false);
    for (number, line) in (1..).zip(open(&given.file)?.lines()) {
        let line = line.map_err(|error| Failure::new(format!("{}: {error}", given.file.display())))?;
        if line.trim().is_empty() {
            continue;
        }
        let at = |what: &str| Failure::new(format!("{}, line {number}: {what}", given.file.display()));
        let value: Value = serde_json::from_str(&line).map_err(|_| at("this is no JSON"))?;
        if has_ended {
            return Err(at("there is something behind the end"));
        }
        if let Some(format) = value.get("keyward_export") {
            if format.as_u64().is_none_or(|format| format > FORMAT) {
                return Err(at("this export is of a newer version of keyward; use that one"));
            }
            is_export = true;
        } else if let Some(end) = value.get("end") {
            if end.get("items").and_then(Value::as_u64) != Some(count) {
                return Err(at("items are missing; take another copy"));
            }
            has_ended = true;
        } else {
            count += 1;
            chunk.add(value, number, line.len());
            if chunk.is_full() {
                progress.send(std::mem::take(&mut chunk), client)?;
            }
        }
    }
    if is_export && !has_ended {
        return Err(Failure::new(format!("{}: it ends before its end; take another copy", given.file.display())));
    }
    progress.send(chunk, client)
}

impl Chunk {
    fn add(&mut self, item: Value, line: usize, bytes: usize) {
        self.items.push(item);
        self.lines.push(line);
        self.bytes += bytes;
    }

    fn is_full(&self) -> bool {
        self.items.len() == MOST || self.bytes >= ENOUGH
    }

    fn send(self, client: &Client) -> Result<Value, Failure> {
        if self.items.is_empty() {
            return Ok(Value::Null);
        }
        // What it makes is made once, however often it is sent.
        client.create(&["import"], &json!({ "items": self.items })).map_err(|failure| self.at_line(failure))
    }

    /// The daemon counts items, and people lines.
    fn at_line(&self, failure: Failure) -> Failure {
        let place = failure.message.strip_prefix("items[").and_then(|rest| rest.split_once(']'));
        let line = place.and_then(|(at, rest)| Some((self.lines.get(at.parse::<usize>().ok()?)?, rest)));
        let Some((line, rest)) = line else { return failure };
        Failure::of(failure.code, format!("line {line}{rest}"))
    }
}

fn open(path: &Path) -> Result<Box<dyn BufRead>, Failure> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(io::stdin().lock()));
    }
    let file = fs::File::open(path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    Ok(Box::new(BufReader::new(file)))
}
