//! `keyward events`: who did what, when and from where.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::online::Online;
use super::terminal::{Column, items, second, table, text};
use super::{Failure, id};
use crate::key::{AccountId, KeyId, UserId};

#[derive(Args)]
pub(super) struct Events {
    #[command(flatten)]
    online: Online,
    #[command(subcommand)]
    word: Word,
}

#[derive(Subcommand)]
enum Word {
    /// List what happened, in all accounts that you may see, the newest first
    List {
        /// To this account and its keys alone: `acct_…`
        #[arg(long, value_name = "ID", conflicts_with = "key")]
        account: Option<String>,
        /// To this key alone: `key_…`
        #[arg(long, value_name = "ID")]
        key: Option<String>,
        /// Of these types alone, for example `key.created,key.rotated`
        #[arg(long = "type", value_name = "TYPES")]
        types: Option<String>,
        /// What this person did, or what is about them: `usr_…`
        #[arg(long, value_name = "ID")]
        user: Option<String>,
        /// At most so many
        #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        /// The oldest first
        #[arg(long)]
        oldest: bool,
    },
    /// Write everything that happened, the oldest first, as JSON lines
    Export {
        /// To this account and its keys alone: `acct_…`
        #[arg(long, value_name = "ID")]
        account: Option<String>,
    },
}

const COLUMNS: [Column; 6] = [
    ("AT", |event| second(event, "/at")),
    ("EVENT", |event| text(event, "/type")),
    ("BY", |event| {
        let id = text(event, "/actor/id");
        if id.is_empty() { text(event, "/actor/type") } else { id }
    }),
    ("FROM", |event| text(event, "/address")),
    ("ABOUT", about),
    ("DETAIL", detail),
];

/// The innermost thing: a key rather than its account.
fn about(event: &Value) -> String {
    let named = ["/key", "/account", "/user"].map(|place| text(event, place));
    named.into_iter().find(|name| !name.is_empty()).unwrap_or_default()
}

fn detail(event: &Value) -> String {
    let parts = event.get("detail").and_then(Value::as_object).into_iter().flatten();
    parts.map(|(name, value)| format!("{name}: {}", text(value, ""))).collect::<Vec<_>>().join("; ")
}

pub(super) fn run(given: &Events) -> Result<(), Failure> {
    let online = &given.online;
    let client = online.client()?;
    match &given.word {
        Word::List { account, key, types, user, limit, oldest } => {
            let order = if *oldest { "oldest" } else { "newest" };
            let account = account.as_deref().map(id::<AccountId>).transpose()?;
            let key = key.as_deref().map(id::<KeyId>).transpose()?;
            let user = user.as_deref().map(id::<UserId>).transpose()?;
            let filters = [("order", Some(order.to_owned())), ("type", types.clone()), ("user", user)];
            let query: Vec<_> = filters.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
            let most = usize::try_from(*limit).unwrap_or(usize::MAX);
            let list = match (&account, &key) {
                (Some(account), _) => client.list(&["accounts", account, "events"], &query, most)?,
                (None, Some(key)) => client.list(&["keys", key, "events"], &query, most)?,
                (None, None) => {
                    let mut seen = client.list_seen("events", &query, most)?;
                    // Ids sort as events happened.
                    seen.sort_by_key(|event| text(event, "/id"));
                    if !oldest {
                        seen.reverse();
                    }
                    seen.truncate(most);
                    json!({ "items": seen })
                }
            };
            online.tell(&list, |list| table(items(list), &COLUMNS, "nothing happened"))
        }
        Word::Export { account } => {
            let account = account.as_deref().map(id::<AccountId>).transpose()?;
            let path = account.as_ref().map_or(vec!["events", "export"], |id| vec!["accounts", id, "events", "export"]);
            client.copy(&path, &mut std::io::stdout().lock())
        }
    }
}
