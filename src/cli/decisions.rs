//! `keyward decisions`: what was decided, with what, and why.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::online::Online;
use super::terminal::{Column, items, record, second, table, text};
use super::{COMMAND_LINE, Failure, id};
use crate::key::{AccountId, KeyId};

#[derive(Args)]
pub(super) struct Decisions {
    #[command(flatten)]
    online: Online,
    #[command(subcommand)]
    word: Word,
}

#[derive(Subcommand)]
enum Word {
    /// List the recorded decisions, the newest first
    List(List),
    /// Show one: `dec_…`, or the id of its request
    Show {
        #[arg(value_name = "ID")]
        decision: String,
    },
    /// Write every recorded decision, the oldest first, as JSON lines
    Export,
}

#[derive(Args)]
struct List {
    /// Those with this key: `key_…`
    #[arg(long, value_name = "ID")]
    key: Option<String>,
    /// Those with a key of this account: `acct_…`
    #[arg(long, value_name = "ID")]
    account: Option<String>,
    /// Those that came to this: allow, unauthenticated or forbidden
    #[arg(long, value_name = "OUTCOME", value_parser = ["allow", "unauthenticated", "forbidden"])]
    outcome: Option<String>,
    /// Those for this reason, such as `scope_missing`
    #[arg(long, value_name = "CODE")]
    reason: Option<String>,
    /// Those about this action of your API
    #[arg(long, value_name = "NAME")]
    action: Option<String>,
    /// Those that were made at this time or later, such as 2027-01-31T10:20:30Z
    #[arg(long, value_name = "TIME")]
    since: Option<jiff::Timestamp>,
    /// At most so many
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

const COLUMNS: [Column; 7] = [
    ("AT", |decision| second(decision, "/time")),
    ("OUTCOME", |decision| text(decision, "/outcome")),
    ("REASON", |decision| text(decision, "/reason")),
    ("KEY", |decision| text(decision, "/key")),
    ("CALL", call),
    ("POLICIES", |decision| text(decision, "/policies")),
    ("REQUEST", |decision| text(decision, "/request_id")),
];

const LINES: [Column; 17] = [
    ("decision", |decision| text(decision, "/id")),
    ("at", |decision| second(decision, "/time")),
    ("request", |decision| text(decision, "/request_id")),
    ("outcome", |decision| text(decision, "/outcome")),
    ("reason", |decision| text(decision, "/reason")),
    ("call", call),
    ("action", |decision| text(decision, "/action")),
    ("item stated", |decision| text(decision, "/resource/id")),
    ("environment stated", |decision| text(decision, "/resource/environment")),
    ("over HTTPS", |decision| text(decision, "/secure")),
    ("from", |decision| text(decision, "/address")),
    ("key", |decision| text(decision, "/key")),
    ("kind", |decision| text(decision, "/kind")),
    ("environment", |decision| text(decision, "/environment")),
    ("scopes", |decision| text(decision, "/scopes")),
    ("policies", |decision| text(decision, "/policies")),
    ("revision", |decision| text(decision, "/revision")),
];

fn call(decision: &Value) -> String {
    let path = text(decision, "/path");
    let path = if path.is_empty() { text(decision, "/stated_path") } else { path };
    format!("{} {path}", text(decision, "/method")).trim().to_owned()
}

pub(super) fn run(given: &Decisions) -> Result<(), Failure> {
    let online = &given.online;
    let client = online.client()?;
    match &given.word {
        Word::List(list) => {
            let given = [
                ("key", list.key.as_deref().map(id::<KeyId>).transpose()?),
                ("account", list.account.as_deref().map(id::<AccountId>).transpose()?),
                ("outcome", list.outcome.clone()),
                ("reason", list.reason.clone()),
                ("action", list.action.clone()),
                ("since", list.since.map(|since| since.to_string())),
            ];
            let query: Vec<_> = given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
            let most = usize::try_from(list.limit).unwrap_or(usize::MAX);
            let list = client.list(&["decisions"], &query, most)?;
            online.tell(&list, |list| table(items(list), &COLUMNS, "no such decisions are recorded"))
        }
        Word::Show { decision } => {
            // Whatever is pasted here may be a token, and would be in the daemon's path.
            if crate::key::masked(decision) != decision.as_str() {
                return Err(Failure::of(COMMAND_LINE, "give a decision's id, `dec_…`, or that of its request"));
            }
            let decision = client.get(&["decisions", decision], &[])?;
            online.tell(&decision, |decision| record(decision, &LINES))
        }
        Word::Export => client.copy(&["decisions", "export"], &mut std::io::stdout().lock()),
    }
}
