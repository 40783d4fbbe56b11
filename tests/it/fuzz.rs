//! The properties that the fuzz targets check, held against their seeds and small changes of these: what is found
//! here needs no fuzzer, and what a fuzzer has found is found again.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;

#[path = "../../fuzz/src/lib.rs"]
mod properties;

/// One small change of an input.
#[derive(Debug, Clone)]
enum Change {
    Put(Index, u8),
    Remove(Index, usize),
    Repeat(Index, usize, usize),
    /// A piece of another seed, put in between.
    Insert(Index, Index, Index, usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let range = |at: &Index, length: usize, bytes: &[u8]| {
            let start = at.index(bytes.len() + 1);
            start..(start + length).min(bytes.len())
        };
        match self {
            Self::Put(at, byte) => {
                let range = range(at, 1, bytes);
                bytes.splice(range, [*byte]);
            }
            Self::Remove(at, length) => drop(bytes.drain(range(at, *length, bytes))),
            Self::Repeat(at, length, times) => {
                let range = range(at, *length, bytes);
                let repeated = bytes[range.clone()].repeat(*times);
                bytes.splice(range, repeated);
            }
            Self::Insert(at, seed, from, length) => {
                let other = seed.get(seeds);
                let piece = &other[range(from, *length, other)];
                bytes.splice(range(at, 0, bytes), piece.iter().copied());
            }
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let byte = prop_oneof![any::<u8>(), proptest::sample::select(&b"\0\n\r /%.;\"\\{}[](),:=@_$"[..])];
    prop_oneof![
        (any::<Index>(), byte).prop_map(|(at, byte)| Change::Put(at, byte)),
        (any::<Index>(), 1..16_usize).prop_map(|(at, length)| Change::Remove(at, length)),
        (any::<Index>(), 1..16_usize, proptest::sample::select(&[2, 20, 1_000][..]))
            .prop_map(|(at, length, times)| Change::Repeat(at, length, times)),
        (any::<Index>(), any::<Index>(), any::<Index>(), 1..40_usize)
            .prop_map(|(at, seed, from, length)| Change::Insert(at, seed, from, length)),
    ]
}

fn holds(target: &str, cases: u32, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let files = fs::read_dir(folder).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
    let seeds: Vec<Vec<u8>> = files.collect();
    assert!(seeds.len() > 2, "{target}");
    for seed in &seeds {
        check(seed);
    }
    check(b"");
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(seed: Index, changes in proptest::collection::vec(change(), 1..6))| {
        let mut bytes = seed.get(&seeds).clone();
        for change in &changes {
            change.apply(&mut bytes, &seeds);
        }
        check(&bytes);
    });
}

#[test]
fn a_token_is_read_as_its_form_says() {
    holds("token", 2_000, properties::token::check);
}

#[test]
fn a_path_has_one_reading() {
    holds("path", 5_000, properties::path::check);
}

#[test]
fn an_allow_rests_on_what_a_proxy_stated() {
    holds("forward_auth", 1_000, properties::forward_auth::check);
}

#[test]
fn policies_are_refused_with_reasons_or_decide() {
    holds("policy", 200, properties::policy::check);
}

#[test]
fn a_record_is_written_as_it_was_read() {
    holds("record", 1_000, properties::record::check);
}

#[test]
fn a_configuration_reads_back_as_it_was_taken() {
    holds("config", 300, properties::config::check);
}
