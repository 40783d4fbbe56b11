//! The file in which records survive a restart in order. It is there whole or not at all.
//!
//! It is written when the daemon ends, under another name until it is complete, and taken away when the next one has
//! read it: after a crash there is none, and the decisions before it are gone. Lines of JSON: how many records and the
//! counts of the last day, the records, and the sum of all that is before the last line.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::record::Record;
use super::series::Series;
use super::told::{Reader, Told};
use crate::authorize::verdict::{Outcome, Reason};

/// The form of the file; another one is not read.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Head {
    format: u32,
    records: usize,
    minutes: Vec<MinuteLine>,
}

#[derive(Serialize, Deserialize)]
struct MinuteLine {
    began_at: Timestamp,
    reasons: Vec<(String, u32)>,
    actions: Vec<(Arc<str>, [u32; 3])>,
}

#[derive(Serialize, Deserialize)]
struct End {
    crc32: u32,
}

/// What survived.
pub(super) struct Survived {
    pub(super) records: Vec<Record>,
    pub(super) reader: Reader,
    pub(super) series: Series,
}

/// Writes the file. `records` are the oldest first.
pub(super) fn write<'r>(
    path: &Path,
    count: usize,
    records: impl Iterator<Item = &'r Record>,
    series: &Series,
) -> io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    let written = write_all(&file, count, records, series).and_then(|()| file.sync_all());
    if let Err(error) = written.and_then(|()| fs::rename(&unfinished, path)) {
        // Half a file is worth nothing, and the disk may be full.
        let _ = fs::remove_file(&unfinished);
        return Err(error);
    }
    Ok(())
}

fn write_all<'r>(
    file: &File,
    count: usize,
    records: impl Iterator<Item = &'r Record>,
    series: &Series,
) -> io::Result<()> {
    let mut out = Summed { out: BufWriter::with_capacity(1 << 16, file), sum: crc32fast::Hasher::new() };
    let minutes = series.minutes().map(|minute| MinuteLine {
        began_at: minute.began_at(),
        reasons: minute.reasons().map(|(reason, count)| (reason.as_str().to_owned(), count)).collect(),
        actions: minute.actions().map(|(action, counts)| (action.into(), counts.map(|(_, count)| count))).collect(),
    });
    out.line(&Head { format: FORMAT, records: count, minutes: minutes.collect() })?;
    for record in records {
        out.line(&Told::from(record))?;
    }
    let crc32 = out.sum.clone().finalize();
    out.line(&End { crc32 })?;
    out.out.flush()
}

struct Summed<W> {
    out: W,
    sum: crc32fast::Hasher,
}

impl<W: Write> Summed<W> {
    fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.sum.update(&line);
        self.out.write_all(&line)
    }
}

/// Reads the file and takes it away. `None` when there is none.
///
/// # Errors
/// When it is not whole, or cannot be read. It is taken away all the same, so that it is not found broken again.
pub(super) fn take(path: &Path) -> Result<Option<Survived>, String> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
        Ok(file) => file,
    };
    let read = read(BufReader::with_capacity(1 << 16, file));
    fs::remove_file(path).map_err(|error| error.to_string())?;
    read.map(Some)
}

fn read(mut file: impl BufRead) -> Result<Survived, String> {
    let mut sum = crc32fast::Hasher::new();
    let mut line = Vec::new();
    let mut next = |sum: Option<&mut crc32fast::Hasher>| -> Result<Vec<u8>, String> {
        line.clear();
        file.read_until(b'\n', &mut line).map_err(|error| error.to_string())?;
        if let Some(sum) = sum {
            sum.update(&line);
        }
        if line.last() == Some(&b'\n') { Ok(line.clone()) } else { Err("it ends early".into()) }
    };
    let head: Head = serde_json::from_slice(&next(Some(&mut sum))?).map_err(|error| error.to_string())?;
    if head.format != FORMAT {
        return Err(format!("its form is {}, and this version reads {FORMAT}", head.format));
    }
    let mut reader = Reader::default();
    let mut records = Vec::with_capacity(head.records.min(1 << 20));
    for _ in 0..head.records {
        records.push(reader.line(&next(Some(&mut sum))?)?);
    }
    let end: End = serde_json::from_slice(&next(None)?).map_err(|error| error.to_string())?;
    if end.crc32 != sum.finalize() {
        return Err("its sum is another one".into());
    }
    if !records.is_sorted_by(|a, b| a.id() < b.id()) {
        return Err("its records are in disorder".into());
    }
    Ok(Survived { records, reader, series: series(&head.minutes) })
}

fn series(minutes: &[MinuteLine]) -> Series {
    const OUTCOMES: [Outcome; 3] = [Outcome::Allow, Outcome::Unauthenticated, Outcome::Forbidden];
    let mut series = Series::default();
    for line in minutes {
        let Some(minute) = series.minute(line.began_at.as_second().div_euclid(60)) else { continue };
        for (reason, count) in &line.reasons {
            if let Some(reason) = Reason::named(reason) {
                minute.add_reason(reason, *count);
            }
        }
        for (action, counts) in &line.actions {
            for (outcome, count) in OUTCOMES.into_iter().zip(*counts) {
                minute.add_action(action, outcome, count);
            }
        }
    }
    series
}
