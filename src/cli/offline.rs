//! `keyward offline`: recovery, on the store of a daemon that is stopped.
//!
//! Whoever may read the store's folder may do this: it asks for no token, and no policy is asked. Each change is
//! recorded as made at the console.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::Failure;
use super::configuration::Configuration;
use super::keys::KEEP;
use super::terminal::say;
use crate::config::Config;
use crate::key::{AccountId, Cost, Key, KeyId, LastUsed, Mint, NewKey, Scope};
use crate::ledger::Ledger;
use crate::people::{NewUser, Password, PasswordHash};
use crate::policy::{Bundle, Revision};
use crate::store::SledStore;
use crate::trail::By;

#[derive(Subcommand)]
pub(super) enum Offline {
    /// Create and list accounts
    #[command(subcommand)]
    Accounts(Accounts),
    /// Create, list, show and revoke keys
    #[command(subcommand)]
    Keys(Keys),
    /// Make an operator, when all their tokens and passwords are lost
    #[command(subcommand)]
    Users(Users),
}

#[derive(Subcommand)]
pub(super) enum Accounts {
    /// Make an account with its two pairs of keys, and show their tokens, once
    Create {
        /// What people will call it
        name: String,
        #[command(flatten)]
        configuration: Configuration,
    },
    /// List the accounts
    List {
        #[command(flatten)]
        configuration: Configuration,
    },
}

#[derive(Subcommand)]
pub(super) enum Keys {
    /// Make a key, and show its token, once
    Create(CreateKey),
    /// List the keys
    List {
        /// Only this account's
        #[arg(long, value_name = "ID")]
        account: Option<String>,
        #[command(flatten)]
        configuration: Configuration,
    },
    /// Show a key
    Show {
        /// The key's id
        key: String,
        #[command(flatten)]
        configuration: Configuration,
    },
    /// Kill a key for good
    Revoke {
        /// The key's id
        key: String,
        #[command(flatten)]
        configuration: Configuration,
    },
}

#[derive(Args)]
pub(super) struct CreateKey {
    /// Whose key it is
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
    /// When it stops working, for example 2027-01-31T00:00:00Z
    #[arg(long, value_name = "TIME")]
    expires_at: Option<String>,
    #[command(flatten)]
    configuration: Configuration,
}

#[derive(Subcommand)]
pub(super) enum Users {
    /// Make an operator, with a token that is shown once
    Create {
        /// Their e-mail address, which nobody else may have
        email: String,
        /// What they are called
        #[arg(long, default_value = "Operator")]
        name: String,
        /// Say that they will run this installation: nobody else is made here
        #[arg(long, required = true)]
        operator: bool,
        #[command(flatten)]
        configuration: Configuration,
    },
}

pub(super) fn run(given: Offline) -> Result<(), Failure> {
    match given {
        Offline::Accounts(Accounts::Create { name, configuration }) => create_account(&configuration, &name),
        Offline::Accounts(Accounts::List { configuration }) => list_accounts(&configuration),
        Offline::Keys(Keys::Create(create)) => create_key(create),
        Offline::Keys(Keys::List { account, configuration }) => list_keys(&configuration, account.as_deref()),
        Offline::Keys(Keys::Show { key, configuration }) => show_key(&configuration, &key),
        Offline::Keys(Keys::Revoke { key, configuration }) => revoke_key(&configuration, &key),
        Offline::Users(Users::Create { email, name, operator: _, configuration }) => {
            create_operator(&configuration, &email, &name)
        }
    }
}

/// Someone who can name the others, with their token and a first password.
pub(super) fn operator(
    ledger: &Ledger,
    email: &str,
    name: &str,
    cost: Cost,
    made_by: &str,
) -> Result<(Mint, Zeroizing<String>), Failure> {
    let by = By::console(Timestamp::now());
    let password = Password::made().map_err(|error| Failure::new(error.to_string()))?;
    let hash = PasswordHash::hash(&Password::chosen(&password, &email.parse()?)?)?;
    let new = NewUser { email: email.into(), name: name.into(), operator: true, roles: BTreeMap::new() };
    let operator = ledger.create_user(new, Some(hash), None, &by)?;
    let (_, mint) = ledger.create_token(&operator.user.id, made_by, None, cost, None, &by)?;
    Ok((mint, password))
}

fn create_operator(configuration: &Configuration, email: &str, name: &str) -> Result<(), Failure> {
    let config = configuration.load(vec![])?;
    let made = operator(&open(&config)?, email, name, config.argon2.cost(), "keyward offline users create")?;
    say(&Zeroizing::new(shown_to_operator(email, &made)))
}

/// What an operator is told of their token and password.
pub(super) fn shown_to_operator(email: &str, (token, password): &(Mint, Zeroizing<String>)) -> String {
    format!(
        "The operator {email} may manage everything. Shown this once:\n\n  password  {}   (for the Dashboard; change it there)\n  \
         token     {}   (for scripts and the command line)\n",
        password.as_str(),
        token.expose()
    )
}

fn open(config: &Config) -> Result<Ledger, Failure> {
    Ok(Ledger::load(Arc::new(SledStore::open(&config.data_dir)?))?)
}

fn shown_once(key: &Key, mint: &Mint) -> String {
    format!("  {:<12} {:<5} {}  {}\n", key.kind.as_str(), key.mode.as_str(), key.id, mint.expose())
}

fn create_account(configuration: &Configuration, name: &str) -> Result<(), Failure> {
    let config = configuration.load(vec![])?;
    let (account, pairs) =
        open(&config)?.create_account(name, config.argon2.cost(), None, &By::console(Timestamp::now()))?;
    let mut text = Zeroizing::new(format!("{} {}\n\n", account.id, account.name));
    for (key, mint) in &pairs {
        text.push_str(&shown_once(key, mint));
    }
    text.push_str(KEEP);
    say(&text)
}

fn list_accounts(configuration: &Configuration) -> Result<(), Failure> {
    let ledger = open(&configuration.load(vec![])?)?;
    let mut accounts = ledger.ring().accounts();
    accounts.sort_by_key(|live| (live.account.created_at, live.account.id));
    let mut text = format!("{:<22} {:<20} {}\n", "ACCOUNT", "CREATED", "NAME");
    for live in accounts {
        let account = &live.account;
        let _ = writeln!(text, "{:<22} {:<20} {}", account.id.to_string(), minute(account.created_at), account.name);
    }
    say(&text)
}

fn create_key(given: CreateKey) -> Result<(), Failure> {
    let config = given.configuration.load(vec![])?;
    let account: AccountId = given.account.parse()?;
    let addresses = given.addresses.iter().map(|text| {
        let network = text.parse().or_else(|_| text.parse::<std::net::IpAddr>().map(ipnet::IpNet::from));
        network
            .map_err(|_| Failure::new(format!("--address: `{text}` is no network such as 192.0.2.0/24 and no address")))
    });
    let expires_at = given.expires_at.as_deref().map(|text| {
        text.parse()
            .map_err(|_| Failure::new(format!("--expires-at: `{text}` is no time such as 2027-01-31T00:00:00Z")))
    });
    let new = NewKey {
        scopes: given.scopes.iter().map(|scope| Scope::from(scope.as_str())).collect(),
        addresses: addresses.collect::<Result<_, _>>()?,
        expires_at: expires_at.transpose()?,
        ..NewKey::named(given.kind.parse()?, given.mode.parse()?, given.name)
    };
    check_scopes(&config, &new.scopes)?;
    let (key, mint) =
        open(&config)?.create_key(&account, new, config.argon2.cost(), None, &By::console(Timestamp::now()))?;
    let text = Zeroizing::new(format!("{}{KEEP}", shown_once(&key, &mint)));
    say(&text)
}

/// A scope that the schema does not know would never grant anything.
fn check_scopes(config: &Config, scopes: &[Scope]) -> Result<(), Failure> {
    if scopes.is_empty() {
        return Ok(());
    }
    let revision = Revision::build(&Bundle::read(&config.schemas_dir, &config.policies_dir)?)?;
    let known = &revision.model().scopes;
    match scopes.iter().find(|scope| !known.iter().any(|known| **known == *scope.as_str())) {
        None => Ok(()),
        Some(scope) => {
            Err(Failure::new(format!("--scope: the schema has no scope `{scope}`; it has {}", known.join(", "))))
        }
    }
}

fn list_keys(configuration: &Configuration, account: Option<&str>) -> Result<(), Failure> {
    let ledger = open(&configuration.load(vec![])?)?;
    let account: Option<AccountId> = account.map(str::parse).transpose()?;
    let mut keys = ledger.ring().keys();
    keys.retain(|live| account.is_none_or(|account| live.key.account == account));
    keys.sort_by_key(|live| (live.key.created_at, live.key.id));
    let mut text = format!(
        "{:<21} {:<22} {:<12} {:<5} {:<12} {:<20} {}\n",
        "KEY", "ACCOUNT", "KIND", "MODE", "STATE", "CREATED", "NAME"
    );
    for live in keys {
        let key = &live.key;
        let _ = writeln!(
            text,
            "{:<21} {:<22} {:<12} {:<5} {:<12} {:<20} {}",
            key.id.to_string(),
            key.account.to_string(),
            key.kind.as_str(),
            key.mode.as_str(),
            state(key),
            minute(key.created_at.into()),
            key.name
        );
    }
    say(&text)
}

fn show_key(configuration: &Configuration, id: &str) -> Result<(), Failure> {
    let ledger = open(&configuration.load(vec![])?)?;
    let id: KeyId = id.parse()?;
    let live = ledger.ring().key(&id).ok_or_else(|| Failure::new(format!("there is no key {id}")))?;
    let key = &live.key;
    let joined = |parts: Vec<String>, none: &str| if parts.is_empty() { none.to_owned() } else { parts.join(" ") };
    let mut text = String::new();
    let scopes = joined(key.scopes.iter().map(ToString::to_string).collect(), "-");
    let addresses = joined(key.addresses().iter().map(ToString::to_string).collect(), "anywhere");
    let expires = key.expires_at().map_or_else(|| "never".to_owned(), minute);
    let token = key.public_token().unwrap_or("shown when it was made");
    let uses = ledger.uses(&live)?;
    let old_secret = key.retiring.as_ref().map(|retiring| {
        let end = minute(retiring.ends_at);
        ("old secret", format!("until {end}, last used {}", last_used(uses.retiring)))
    });
    for (name, value) in [
        ("key", key.id.to_string()),
        ("name", key.name.to_string()),
        ("account", key.account.to_string()),
        ("kind", key.kind.to_string()),
        ("mode", key.mode.to_string()),
        ("state", state(key).to_owned()),
        ("scopes", scopes),
        ("addresses", addresses),
        ("created", minute(key.created_at.into())),
        ("expires", expires),
        ("token", token.to_owned()),
        ("last used", last_used(uses.secret)),
    ]
    .into_iter()
    .chain(old_secret)
    {
        let _ = writeln!(text, "{name:<10} {value}");
    }
    say(&text)
}

fn revoke_key(configuration: &Configuration, id: &str) -> Result<(), Failure> {
    let ledger = open(&configuration.load(vec![])?)?;
    let id: KeyId = id.parse()?;
    let (_, _, lived) = ledger.revoke_key(&id, None, None, &By::console(Timestamp::now()))?;
    say(&if lived { format!("{id} is revoked, for good\n") } else { format!("{id} was revoked already\n") })
}

fn state(key: &Key) -> &'static str {
    key.status(&key.secret, Timestamp::now()).as_str()
}

fn last_used(used: Option<LastUsed>) -> String {
    match used {
        None => "never".to_owned(),
        Some(LastUsed { at, address: None }) => minute(at),
        Some(LastUsed { at, address: Some(address) }) => format!("{} from {address}", minute(at)),
    }
}

fn minute(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M UTC").to_string()
}
