//! `keyward keys`: keys of a running daemon.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::online::Online;
use super::terminal::{Column, items, minute, record, second, table, text};
use super::{Failure, id};
use crate::key::{AccountId, KeyId};

#[derive(Args)]
pub(super) struct Keys {
    #[command(flatten)]
    online: Online,
    #[command(subcommand)]
    word: Word,
}

#[derive(Subcommand)]
enum Word {
    /// Make a key, and show its token, once
    Create(Create),
    /// List keys, in the order of their creation
    List(Filter),
    /// Show a key, and the token of a publishable one
    Show(Which),
    /// Change a key's name, note, scopes, addresses, expiry or rotation interval
    Update(Update),
    /// Switch a key off; it can be switched on again
    Disable(Which),
    /// Switch a key on again
    Enable(Which),
    /// Kill a key for good
    Revoke {
        #[command(flatten)]
        which: Which,
        /// Why, for those who look later
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Say that a key's token is known to others: it is dead at once, and rotating the key gives it a new one
    Compromise(Which),
    /// Give a key a new token, and show it, once; the old one works until the overlap ends
    Rotate {
        #[command(flatten)]
        which: Which,
        /// How long the old token works beside the new one: 0s to 7d; 24h when not given
        #[arg(long, value_name = "DURATION")]
        overlap: Option<String>,
    },
    /// Say what a key may do, action by action, and which policies decide
    Permissions {
        #[command(flatten)]
        which: Which,
        /// Suppose that calls are about the item of this id
        #[arg(long, value_name = "ID")]
        item: Option<String>,
        /// Suppose that calls come from this address
        #[arg(long, value_name = "ADDR")]
        address: Option<String>,
    },
}

#[derive(Args)]
struct Which {
    /// The key's id: `key_…`
    key: String,
}

#[derive(Args)]
struct Create {
    /// Whose key it is: `acct_…`
    #[arg(long, value_name = "ID")]
    account: String,
    /// publishable, secret or restricted
    #[arg(long)]
    kind: String,
    /// live or test
    #[arg(long)]
    mode: String,
    /// What people will call it
    #[arg(long)]
    name: String,
    /// A scope of a restricted key; may be given several times
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// A network from which alone the key may be used; may be given several times
    #[arg(long = "address", value_name = "NET")]
    addresses: Vec<String>,
    /// What else there is to say
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// When it stops working, for example 2027-01-31T00:00:00Z
    #[arg(long, value_name = "TIME")]
    expires_at: Option<String>,
    /// How often it should be rotated, for example 90d
    #[arg(long, value_name = "DURATION")]
    rotate_every: Option<String>,
}

#[derive(Args)]
struct Filter {
    /// Only this account's; without it, those of all accounts that you may see
    #[arg(long, value_name = "ID")]
    account: Option<String>,
    /// live or test
    #[arg(long)]
    mode: Option<String>,
    /// publishable, secret or restricted
    #[arg(long)]
    kind: Option<String>,
    /// active, disabled, expired, compromised or revoked
    #[arg(long)]
    state: Option<String>,
    /// Those whose name, note, id, or token's beginning or last four characters this is
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// Those that work without end
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    never_expires: Option<bool>,
    /// Those that somebody should do something about: compromised, flagged, to be rotated, about to expire
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    needs_attention: Option<bool>,
    /// oldest or newest first
    #[arg(long)]
    order: Option<String>,
    /// Those that expire within so many days
    #[arg(long, value_name = "DAYS")]
    expiring_within_days: Option<u32>,
    /// Those that should be rotated within so many days, overdue ones included
    #[arg(long, value_name = "DAYS")]
    rotation_due_within_days: Option<u32>,
    /// Those that were made before this time, for example 2027-01-31T00:00:00Z, and not used since
    #[arg(long, value_name = "TIME")]
    unused_since: Option<String>,
}

#[derive(Args)]
struct Update {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    changes: Changes,
}

/// What is not given stays.
#[derive(Args)]
#[group(required = true, multiple = true)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
struct Changes {
    /// What people will call it
    #[arg(long)]
    name: Option<String>,
    /// What else there is to say
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// Take the note away
    #[arg(long, conflicts_with = "note")]
    no_note: bool,
    /// The scopes of a restricted key, in place of those that it has; may be given several times
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// The networks from which alone it may be used, in place of those so far; may be given several times
    #[arg(long = "address", value_name = "NET")]
    addresses: Vec<String>,
    /// Let it be used from anywhere
    #[arg(long, conflicts_with = "addresses")]
    no_addresses: bool,
    /// When it stops working, for example 2027-01-31T00:00:00Z
    #[arg(long, value_name = "TIME")]
    expires_at: Option<String>,
    /// Let it work without end
    #[arg(long, conflicts_with = "expires_at")]
    no_expiry: bool,
    /// How often it should be rotated, for example 90d
    #[arg(long, value_name = "DURATION")]
    rotate_every: Option<String>,
    /// Let it be rotated when somebody thinks of it
    #[arg(long, conflicts_with = "rotate_every")]
    no_rotation: bool,
}

impl Changes {
    /// What is given; null takes away.
    fn body(&self) -> Value {
        let list = |given: &[String]| (!given.is_empty()).then(|| json!(given));
        let or_none = |given: &Option<String>, none: bool| {
            none.then_some(Value::Null).or(given.as_ref().map(|given| json!(given)))
        };
        let fields = [
            ("name", or_none(&self.name, false)),
            ("note", or_none(&self.note, self.no_note)),
            ("scopes", list(&self.scopes)),
            ("addresses", self.no_addresses.then(|| json!([])).or(list(&self.addresses))),
            ("expires_at", or_none(&self.expires_at, self.no_expiry)),
            ("rotate_every", or_none(&self.rotate_every, self.no_rotation)),
        ];
        let given = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Value::Object(given.collect::<Map<_, _>>())
    }
}

impl Filter {
    fn query(&self) -> Vec<(&'static str, String)> {
        let fields = [
            ("mode", self.mode.clone()),
            ("kind", self.kind.clone()),
            ("state", self.state.clone()),
            ("expiring_within_days", self.expiring_within_days.map(|days| days.to_string())),
            ("rotation_due_within_days", self.rotation_due_within_days.map(|days| days.to_string())),
            ("unused_since", self.unused_since.clone()),
            ("search", self.search.clone()),
            ("never_expires", self.never_expires.map(|never| never.to_string())),
            ("needs_attention", self.needs_attention.map(|needs| needs.to_string())),
            ("order", self.order.clone()),
        ];
        fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// Said beneath tokens.
pub(super) const KEEP: &str =
    "\nThe tokens of secret and restricted keys are shown this once. Keep them in a secret manager.\n";

/// A key with its token, at the one moment when it is shown.
pub(super) const MADE: [Column; 4] = [
    ("KIND", |key| text(key, "/kind")),
    ("MODE", |key| text(key, "/mode")),
    ("KEY", |key| text(key, "/id")),
    ("TOKEN", token),
];

const COLUMNS: [Column; 8] = [
    ("KEY", |key| text(key, "/id")),
    ("ACCOUNT", |key| text(key, "/account")),
    ("KIND", |key| text(key, "/kind")),
    ("MODE", |key| text(key, "/mode")),
    ("STATE", |key| text(key, "/state")),
    ("LAST USED (UTC)", |key| minute(key, "/last_used/at")),
    ("EXPIRES (UTC)", |key| minute(key, "/expires_at")),
    ("NAME", |key| text(key, "/name")),
];

const LINES: [Column; 19] = [
    ("key", |key| text(key, "/id")),
    ("name", |key| text(key, "/name")),
    ("note", |key| text(key, "/note")),
    ("account", |key| text(key, "/account")),
    ("kind", |key| text(key, "/kind")),
    ("mode", |key| text(key, "/mode")),
    ("state", |key| text(key, "/state")),
    ("scopes", |key| text(key, "/scopes")),
    ("addresses", |key| or(text(key, "/addresses"), "anywhere")),
    ("created", |key| second(key, "/created_at")),
    ("expires", |key| or(second(key, "/expires_at"), "never")),
    ("token since", |key| second(key, "/secret_created_at")),
    ("old token", |key| before(second(key, "/old_secret_ends_at"), "until ", &used(key, "/old_secret_last_used"))),
    ("rotate every", |key| text(key, "/rotate_every")),
    ("rotation due", |key| second(key, "/rotation_due_at")),
    ("compromised", |key| second(key, "/compromised_at")),
    ("flagged", |key| second(key, "/flagged_at")),
    ("revoked", |key| before(second(key, "/revoked_at"), "", &before(text(key, "/revoked_because"), "because ", ""))),
    ("token", |key| text(key, "/token")),
];

/// Which answers to changes do not tell.
const LAST_USED: [Column; 1] = [("last used", |key| or(used(key, "/secret_last_used"), "never"))];

const PERMISSIONS: [Column; 6] = [
    ("ACTION", |permission| text(permission, "/action")),
    ("REQUEST", |permission| format!("{} {}", text(permission, "/method"), text(permission, "/path"))),
    ("DECISION", |permission| text(permission, "/decision")),
    ("REASON", |permission| text(permission, "/reason")),
    ("POLICIES", |permission| text(permission, "/policies")),
    ("SCOPES THAT WOULD HELP", |permission| text(permission, "/missing_scopes")),
];

fn or(text: String, none: &str) -> String {
    if text.is_empty() { none.to_owned() } else { text }
}

/// `text` between others; nothing when it is empty.
fn before(text: String, start: &str, more: &str) -> String {
    match (text.is_empty(), more.is_empty()) {
        (true, _) => text,
        (false, true) => format!("{start}{text}"),
        (false, false) => format!("{start}{text}, {more}"),
    }
}

fn used(key: &Value, place: &str) -> String {
    let (at, from) = (minute(key, &format!("{place}/at")), text(key, &format!("{place}/address")));
    let used = if at.is_empty() { at } else { format!("{at} UTC") };
    if from.is_empty() { used } else { format!("{used} from {from}") }
}

fn token(key: &Value) -> String {
    or(text(key, "/token"), "shown before, and not kept: rotate the key for a new one")
}

pub(super) fn run(given: &Keys) -> Result<(), Failure> {
    let online = &given.online;
    let client = online.client()?;
    let switch = |which: &Which, word: &str, body: Option<Value>| {
        let key = client.send(Method::POST, &["keys", &which.id()?, word], body.as_ref())?;
        online.tell(&key, |key| record(key, &LINES))
    };
    match &given.word {
        Word::Create(create) => {
            let account = id::<AccountId>(&create.account)?;
            let made = client.create(&["accounts", &account, "keys"], &create.body())?;
            online.tell(&made, |key| format!("{}{KEEP}", table(std::slice::from_ref(key), &MADE, "")))
        }
        Word::List(filter) => {
            let account = filter.account.as_deref().map(id::<AccountId>).transpose()?;
            let list = match &account {
                Some(account) => client.list(&["accounts", account, "keys"], &filter.query(), usize::MAX)?,
                None => json!({ "items": client.list_seen("keys", &filter.query(), usize::MAX)? }),
            };
            online.tell(&list, |list| table(items(list), &COLUMNS, "no such keys"))
        }
        Word::Show(which) => {
            let key = client.get(&["keys", &which.id()?], &[])?;
            online.tell(&key, |key| record(key, &[&LINES[..], &LAST_USED].concat()))
        }
        Word::Update(Update { which, changes }) => {
            let key = client.send(Method::PATCH, &["keys", &which.id()?], Some(&changes.body()))?;
            online.tell(&key, |key| record(key, &LINES))
        }
        Word::Disable(which) => switch(which, "disable", None),
        Word::Enable(which) => switch(which, "enable", None),
        Word::Revoke { which, reason } => switch(which, "revoke", Some(json!({ "reason": reason }))),
        Word::Compromise(which) => switch(which, "compromise", None),
        Word::Rotate { which, overlap } => {
            let made = client.create(&["keys", &which.id()?, "rotate"], &json!({ "overlap": overlap }))?;
            online.tell(&made, |key| {
                let until = second(key, "/old_secret_ends_at");
                let old = or(before(until, "works until ", ""), "is dead");
                format!("{}{KEEP}The old token {old}.\n", table(std::slice::from_ref(key), &MADE, ""))
            })
        }
        Word::Permissions { which, item, address } => {
            let supposed = [("item", item.clone()), ("address", address.clone())];
            let supposed: Vec<_> = supposed.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
            let permissions = client.get(&["keys", &which.id()?, "permissions"], &supposed)?;
            online.tell(&permissions, |list| {
                format!("{}\nby revision {}\n", table(items(list), &PERMISSIONS, "no actions"), text(list, "/revision"))
            })
        }
    }
}

impl Which {
    fn id(&self) -> Result<String, Failure> {
        id::<KeyId>(&self.key)
    }
}

impl Create {
    fn body(&self) -> Value {
        json!({
            "kind": self.kind,
            "mode": self.mode,
            "name": self.name,
            "scopes": self.scopes,
            "addresses": self.addresses,
            "note": self.note,
            "expires_at": self.expires_at,
            "rotate_every": self.rotate_every,
        })
    }
}
