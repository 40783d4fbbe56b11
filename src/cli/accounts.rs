//! `keyward accounts`: accounts of a running daemon.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::keys::{self, KEEP};
use super::online::Online;
use super::terminal::{Column, escaped, items, minute, record, second, table, text};
use super::{Failure, id};
use crate::key::AccountId;

#[derive(Args)]
pub(super) struct Accounts {
    #[command(flatten)]
    online: Online,
    #[command(subcommand)]
    word: Word,
}

#[derive(Subcommand)]
enum Word {
    /// Make an account with its two pairs of keys, and show their tokens, once
    Create {
        /// What people will call it
        name: String,
    },
    /// List the accounts that you may see
    List,
    /// Show an account
    Show {
        /// Its id: `acct_…`
        account: String,
    },
    /// Give an account another name
    Rename {
        /// Its id: `acct_…`
        account: String,
        /// What people will call it from now on
        name: String,
    },
    /// Close an account for good: all its keys are dead at once
    Close {
        /// Its id: `acct_…`
        account: String,
    },
}

const COLUMNS: [Column; 4] = [
    ("ACCOUNT", |account| text(account, "/id")),
    ("STATE", |account| text(account, "/state")),
    ("CREATED (UTC)", |account| minute(account, "/created_at")),
    ("NAME", |account| text(account, "/name")),
];

const LINES: [Column; 5] = [
    ("account", |account| text(account, "/id")),
    ("name", |account| text(account, "/name")),
    ("state", |account| text(account, "/state")),
    ("created", |account| second(account, "/created_at")),
    ("closed", |account| second(account, "/closed_at")),
];

pub(super) fn run(given: &Accounts) -> Result<(), Failure> {
    let online = &given.online;
    let client = online.client()?;
    match &given.word {
        Word::Create { name } => {
            let made = client.create(&["accounts"], &json!({ "name": name }))?;
            online.tell(&made, made_with_keys)
        }
        Word::List => {
            let list = client.list(&["accounts"], &[], usize::MAX)?;
            online.tell(&list, |list| table(items(list), &COLUMNS, "no accounts that you may see"))
        }
        Word::Show { account } => {
            let account = client.get(&["accounts", &id::<AccountId>(account)?], &[])?;
            online.tell(&account, shown)
        }
        Word::Rename { account, name } => {
            let path = ["accounts", &id::<AccountId>(account)?];
            let account = client.send(Method::PATCH, &path, Some(&json!({ "name": name })))?;
            online.tell(&account, shown)
        }
        Word::Close { account } => {
            let account = client.send(Method::POST, &["accounts", &id::<AccountId>(account)?, "close"], None)?;
            online.tell(&account, shown)
        }
    }
}

fn shown(account: &Value) -> String {
    record(account, &LINES)
}

fn made_with_keys(account: &Value) -> String {
    let keys = account.get("keys").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let (id, name) = (text(account, "/id"), escaped(&text(account, "/name")));
    format!("{id} {name}\n\n{}{KEEP}", table(keys, &keys::MADE, "no keys"))
}
