//! `keyward members`: who is what in an account of a running daemon.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::json;

use super::online::Online;
use super::terminal::{Column, items, record, table, text};
use super::{Failure, id};
use crate::key::AccountId;

#[derive(Args)]
pub(super) struct Members {
    #[command(flatten)]
    online: Online,
    #[command(subcommand)]
    word: Word,
}

#[derive(Subcommand)]
enum Word {
    /// List who is what in an account
    List {
        /// The account's id: `acct_…`
        account: String,
    },
    /// Give a person a role in an account, in place of the one that they had
    Set {
        /// The account's id: `acct_…`
        account: String,
        /// The person's id, `usr_…`, or their e-mail address
        user: String,
        /// owner, developer or viewer
        role: String,
    },
    /// Take a person's role in an account from them
    Remove {
        /// The account's id: `acct_…`
        account: String,
        /// The person's id, `usr_…`, or their e-mail address
        user: String,
    },
}

const COLUMNS: [Column; 4] = [
    ("USER", |member| text(member, "/user")),
    ("ROLE", |member| text(member, "/role")),
    ("E-MAIL", |member| text(member, "/email")),
    ("NAME", |member| text(member, "/name")),
];

const LINES: [Column; 4] = [
    ("user", |member| text(member, "/user")),
    ("role", |member| text(member, "/role")),
    ("e-mail", |member| text(member, "/email")),
    ("name", |member| text(member, "/name")),
];

pub(super) fn run(given: &Members) -> Result<(), Failure> {
    let online = &given.online;
    let client = online.client()?;
    match &given.word {
        Word::List { account } => {
            let list = client.get(&["accounts", &id::<AccountId>(account)?, "members"], &[])?;
            online.tell(&list, |list| table(items(list), &COLUMNS, "no members"))
        }
        Word::Set { account, user, role } => {
            let path = ["accounts", &id::<AccountId>(account)?, "members", user];
            let member = client.send(Method::PUT, &path, Some(&json!({ "role": role })))?;
            online.tell(&member, |member| record(member, &LINES))
        }
        Word::Remove { account, user } => {
            client.send(Method::DELETE, &["accounts", &id::<AccountId>(account)?, "members", user], None)?;
            online.done("removed\n")
        }
    }
}
