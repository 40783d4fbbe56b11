//! `keyward leaks`: tokens that were found where they should not be.

use std::io::{self, Read as _};

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::Failure;
use super::online::Online;
use super::terminal::{Column, items, table, text};
use crate::key::{find_tokens, masked};

/// Tokens of one report; the API takes no more.
const REPORT: usize = 1_000;
/// Bytes that are read.
const LONGEST: u64 = 64 * 1024 * 1024;

#[derive(Args)]
pub(super) struct Leaks {
    #[command(flatten)]
    online: Online,
    #[command(subcommand)]
    word: Word,
}

#[derive(Subcommand)]
enum Word {
    /// Report found tokens, given on standard input between spaces or on lines: those that are ours are dead at once
    Report {
        /// Where they were found
        #[arg(long, value_name = "TEXT")]
        found_at: Option<String>,
    },
}

const COLUMNS: [Column; 3] = [
    ("TOKEN", |found| text(found, "/token")),
    ("OUTCOME", |found| text(found, "/outcome")),
    ("WHOSE", |found| text(found, "/key") + &text(found, "/user")),
];

pub(super) fn run(given: &Leaks) -> Result<(), Failure> {
    let online = &given.online;
    let client = online.client()?;
    let Word::Report { found_at } = &given.word;
    let mut input = Zeroizing::new(String::new());
    io::stdin().lock().take(LONGEST).read_to_string(&mut input)?;
    let tokens: Vec<&str> = input.split_whitespace().collect();
    let mut outcomes = Vec::with_capacity(tokens.len());
    for tokens in tokens.chunks(REPORT) {
        let report: Vec<Value> = tokens.iter().map(|token| json!({ "token": token, "url": found_at })).collect();
        let answer = client.send(Method::POST, &["leaks"], Some(&Value::Array(report)))?;
        outcomes.extend(items(&answer).iter().cloned());
    }
    online.tell(&json!({ "items": outcomes }), |answer| {
        let rows: Vec<Value> =
            items(answer).iter().zip(&tokens).map(|(outcome, token)| with_token(outcome, token)).collect();
        table(&rows, &COLUMNS, "no tokens were given")
    })
}

/// The outcome beside the beginning of its token.
fn with_token(outcome: &Value, token: &str) -> Value {
    let mut row = outcome.clone();
    if let Some(row) = row.as_object_mut() {
        let shown = find_tokens(token.as_bytes()).next().map(|(_, found)| found.to_string());
        row.insert("token".into(), shown.unwrap_or_else(|| masked(token).into_owned()).into());
    }
    row
}
