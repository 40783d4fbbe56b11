//! `keyward users`: the people who manage keys, and their tokens.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::client::Client;
use super::online::Online;
use super::terminal::{Column, items, minute, new_password, password, record, second, table, text};
use super::{COMMAND_LINE, Failure, NO_SUCH_THING, id};
use crate::key::{ApiTokenId, UserId};

#[derive(Args)]
pub(super) struct Users {
    #[command(flatten)]
    online: Online,
    #[command(subcommand)]
    word: Word,
}

#[derive(Subcommand)]
enum Word {
    /// Make a person known
    Create(Create),
    /// List people, in the order in which they came
    List,
    /// Show a person, and which tokens they have
    Show(Which),
    /// Change a person's e-mail address or name, make them an operator or not, let them in or shut them out
    Update(Update),
    /// Remove a person, with their tokens and roles
    Remove(Which),
    /// Set a password, given on standard input; for your own, give the one so far first, on a line of its own
    SetPassword {
        #[command(flatten)]
        which: Which,
        /// Remove their tokens, too: whoever was signed in as them may have made some
        #[arg(long)]
        end_tokens: bool,
    },
    /// Make a token for a person's scripts, and show it, once
    CreateToken {
        #[command(flatten)]
        which: Which,
        /// What it is for
        #[arg(long)]
        name: String,
        /// When it stops working, for example 2027-01-31T00:00:00Z
        #[arg(long, value_name = "TIME")]
        expires_at: Option<String>,
    },
    /// Remove a token, which is its end
    DeleteToken {
        #[command(flatten)]
        which: Which,
        /// The token's id, `tok_…`, which `keyward users show` tells; not the token
        token: String,
    },
}

#[derive(Args)]
struct Which {
    /// The person's id, `usr_…`, or their e-mail address
    user: String,
}

#[derive(Args)]
struct Create {
    /// What they sign in with
    email: String,
    /// What they are called
    #[arg(long)]
    name: String,
    /// Let them run this installation
    #[arg(long)]
    operator: bool,
    /// What they are in an account: owner, developer or viewer; may be given several times
    #[arg(long = "role", value_name = "ACCOUNT=ROLE", value_parser = role)]
    roles: Vec<(String, String)>,
    /// Give them a password, from standard input; without one they have tokens alone
    #[arg(long)]
    password: bool,
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
struct Changes {
    /// What they sign in with
    #[arg(long)]
    email: Option<String>,
    /// What they are called
    #[arg(long)]
    name: Option<String>,
    /// Whether they run this installation: true or false
    #[arg(long, value_name = "BOOL")]
    operator: Option<bool>,
    /// Whether they and their scripts are let in: true or false
    #[arg(long, value_name = "BOOL")]
    active: Option<bool>,
}

impl Changes {
    fn body(&self) -> Value {
        let fields = [
            ("email", self.email.as_ref().map(|email| json!(email))),
            ("name", self.name.as_ref().map(|name| json!(name))),
            ("operator", self.operator.map(|is| json!(is))),
            ("active", self.active.map(|is| json!(is))),
        ];
        let given = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Value::Object(given.collect::<Map<_, _>>())
    }
}

fn role(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').ok_or("give an account's id and a role, as in acct_…=developer")?;
    Ok((parts.0.to_owned(), parts.1.to_owned()))
}

const COLUMNS: [Column; 8] = [
    ("USER", |user| text(user, "/id")),
    ("E-MAIL", |user| text(user, "/email")),
    ("STATE", |user| text(user, "/state")),
    ("OPERATOR", |user| text(user, "/operator")),
    ("ACCOUNTS", |user| count(user, "roles")),
    ("PASSWORD", |user| text(user, "/has_password")),
    ("TOKENS", |user| count(user, "tokens")),
    ("NAME", |user| text(user, "/name")),
];

/// A person.
const LINES: [Column; 8] = [
    ("user", |user| text(user, "/id")),
    ("e-mail", |user| text(user, "/email")),
    ("name", |user| text(user, "/name")),
    ("state", |user| text(user, "/state")),
    ("operator", |user| text(user, "/operator")),
    ("roles", roles),
    ("password", |user| text(user, "/has_password")),
    ("created", |user| second(user, "/created_at")),
];

const TOKENS: [Column; 4] = [
    ("TOKEN", |token| text(token, "/id")),
    ("CREATED (UTC)", |token| minute(token, "/created_at")),
    ("EXPIRES (UTC)", |token| minute(token, "/expires_at")),
    ("NAME", |token| text(token, "/name")),
];

const MADE: [Column; 4] = [
    ("token", |token| text(token, "/token")),
    ("id", |token| text(token, "/id")),
    ("name", |token| text(token, "/name")),
    ("expires", |token| second(token, "/expires_at")),
];

fn count(user: &Value, field: &str) -> String {
    let count = match user.get(field) {
        Some(Value::Array(list)) => list.len(),
        Some(Value::Object(map)) => map.len(),
        _ => 0,
    };
    count.to_string()
}

fn roles(user: &Value) -> String {
    let roles = user.get("roles").and_then(Value::as_object).into_iter().flatten();
    roles.map(|(account, role)| format!("{account}={}", text(role, ""))).collect::<Vec<_>>().join(" ")
}

/// A person, with the tokens that they have.
pub(super) fn shown(user: &Value) -> String {
    let tokens = user.get("tokens").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    format!("{}\n{}", record(user, &LINES), table(tokens, &TOKENS, "no tokens"))
}

pub(super) fn run(given: &Users) -> Result<(), Failure> {
    let online = &given.online;
    let client = online.client()?;
    match &given.word {
        Word::Create(create) => {
            let made = client.create(&["users"], &create.body()?)?;
            online.tell(&made, |user| record(user, &LINES))
        }
        Word::List => {
            let list = client.list(&["users"], &[], usize::MAX)?;
            online.tell(&list, |list| table(items(list), &COLUMNS, "nobody"))
        }
        Word::Show(which) => {
            let user = client.get(&["users", &which.id(&client)?], &[])?;
            online.tell(&user, shown)
        }
        Word::Update(Update { which, changes }) => {
            let user = client.send(Method::PATCH, &["users", &which.id(&client)?], Some(&changes.body()))?;
            online.tell(&user, |user| record(user, &LINES))
        }
        Word::Remove(which) => {
            client.send(Method::DELETE, &["users", &which.id(&client)?], None)?;
            online.done("removed\n")
        }
        Word::SetPassword { which, end_tokens } => set_password(&client, &which.id(&client)?, *end_tokens, online),
        Word::CreateToken { which, name, expires_at } => {
            let path = ["users", &which.id(&client)?, "tokens"];
            let made = client.create(&path, &json!({ "name": name, "expires_at": expires_at }))?;
            online.tell(&made, |token| format!("{}\n{}", record(token, &MADE), kept(token)))
        }
        Word::DeleteToken { which, token } => {
            let path = ["users", &which.id(&client)?, "tokens", &id::<ApiTokenId>(token)?];
            client.send(Method::DELETE, &path, None)?;
            online.done("removed\n")
        }
    }
}

fn kept(token: &Value) -> &'static str {
    match token.get("token") {
        Some(_) => "The token is shown this once. Keep it in a secret manager.\n",
        None => "The token was shown before, and is not kept. Remove it, and make another one.\n",
    }
}

fn set_password(client: &Client, user: &str, end_tokens: bool, online: &Online) -> Result<(), Failure> {
    let me = client.get(&["me"], &[])?;
    let needs_current = text(&me, "/id") == user && me.get("has_password") == Some(&Value::Bool(true));
    let current = needs_current.then(|| password("Password so far")).transpose()?;
    let chosen = new_password()?;
    let body = json!({ "password": *chosen, "current_password": current.as_deref(), "end_tokens": end_tokens });
    client.send(Method::PUT, &["users", user, "password"], Some(&body))?;
    online.done(if end_tokens {
        "The password is set, and whoever was signed in, or had a token, is signed out.\n"
    } else {
        "The password is set, and whoever was signed in with the one before is signed out. Tokens go on working.\n"
    })
}

impl Which {
    /// Their id. People know each other by e-mail addresses.
    fn id(&self, client: &Client) -> Result<String, Failure> {
        if !self.user.contains('@') {
            return id::<UserId>(&self.user);
        }
        let is_meant = |user: &&Value| text(user, "/email").eq_ignore_ascii_case(&self.user);
        let me = client.get(&["me"], &[])?;
        if is_meant(&&me) {
            return Ok(text(&me, "/id"));
        }
        let all = client.list(&["users"], &[], usize::MAX)?;
        let found = items(&all).iter().find(is_meant).map(|user| text(user, "/id"));
        found.ok_or_else(|| Failure::of(NO_SUCH_THING, "there is nobody with this e-mail address"))
    }
}

impl Create {
    fn body(&self) -> Result<Value, Failure> {
        let roles: BTreeMap<&str, &str> = self.roles.iter().map(|(account, role)| (&**account, &**role)).collect();
        if roles.len() < self.roles.len() {
            return Err(Failure::of(COMMAND_LINE, "--role: give each account once"));
        }
        let password: Option<Zeroizing<String>> = self.password.then(new_password).transpose()?;
        Ok(json!({
            "email": self.email,
            "name": self.name,
            "operator": self.operator,
            "roles": roles,
            "password": password.as_deref(),
        }))
    }
}
