//! The commands that work on files and on a stopped daemon's store.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use jiff::Timestamp;

use super::{Configuration, CreateKey, Failure};
use crate::activate::vet;
use crate::config::{self, Config};
use crate::key::{AccountId, Cost, Key, KeyId, LastUsed, Mint, NewKey, Scope, Status};
use crate::ledger::Ledger;
use crate::people::{Email, NewUser};
use crate::policy::{Bundle, Revision};
use crate::shipped;
use crate::store::{SledStore, backup};
use crate::trail::By;

fn say(text: &str) -> Result<(), Failure> {
    Ok(io::stdout().lock().write_all(text.as_bytes())?)
}

fn failure(message: impl Into<String>) -> Failure {
    Failure { message: message.into(), code: 1 }
}

/// The first person: someone who can name the others.
fn first_operator(data: &Path, email: &str) -> Result<Mint, Failure> {
    let ledger = Ledger::load(Arc::new(SledStore::open(data)?))?;
    let by = By::console(Timestamp::now());
    let new = NewUser { email: email.into(), name: "Operator".into(), operator: true, roles: BTreeMap::new() };
    let operator = ledger.create_user(new, None, None, &by)?;
    let (_, mint) = ledger.create_token(&operator.user.id, "keyward init", None, Cost::default(), None, &by)?;
    Ok(mint)
}

pub(super) fn init(folder: &Path, operator: &str) -> Result<(), Failure> {
    let _: Email = operator.parse()?;
    let file = folder.join(config::FILE);
    let at = |path: &Path, error: io::Error| failure(format!("{}: {error}", path.display()));
    if file.exists() {
        return Err(failure(format!("{} is there already; nothing was changed", file.display())));
    }
    let data = folder.join(Config::default().data_dir);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&data).map_err(|error| at(&data, error))?;
    shipped::copy_to(folder).map_err(|error| at(folder, error))?;
    let mut out = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&file)
        .map_err(|error| at(&file, error))?;
    out.write_all(config::TEMPLATE.as_bytes()).and_then(|()| out.sync_all()).map_err(|error| at(&file, error))?;
    let token = first_operator(&data, operator)?;
    let config = file.display();
    say(&zeroize::Zeroizing::new(format!(
        "Made {config}, {}, and the schema and policies of an example API beside them.\n\n\
         The operator {operator} may manage everything with this token, which is shown this once:\n\n  {}\n\nNext:\n  \
         1. Describe your API in {}, and who may do what in {}.\n  \
         2. keyward policy check --config {config}\n  \
         3. keyward accounts create \"My account\" --config {config}\n  \
         4. keyward serve --config {config}\n\n\
         While it serves, accounts and keys are managed over http://127.0.0.1:8702, described at /openapi.json.\n",
        data.display(),
        token.expose(),
        folder.join("schemas").display(),
        folder.join("policies").display(),
    )))
}

/// Makes the configured store of a backup.
pub(super) fn restore(configuration: &Configuration, file: &Path) -> Result<(), Failure> {
    let config = configuration.load(vec![])?;
    let at = |error: io::Error| failure(format!("{}: {error}", file.display()));
    let mut backup: Box<dyn io::BufRead> = if file.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(io::BufReader::new(fs::File::open(file).map_err(at)?))
    };
    let rows = backup::restore(&mut backup, &config.data_dir)?;
    say(&format!("{} is restored, {rows} rows\n", config.data_dir.display()))
}

fn open(config: &Config) -> Result<Ledger, Failure> {
    Ok(Ledger::load(Arc::new(SledStore::open(&config.data_dir)?))?)
}

fn shown_once(key: &Key, mint: &Mint) -> String {
    format!("  {:<12} {:<5} {}  {}\n", key.kind.as_str(), key.mode.as_str(), key.id, mint.expose())
}

const KEEP: &str = "\nThe tokens of secret and restricted keys are shown this once. Keep them in a secret manager.\n";

pub(super) fn create_account(configuration: &Configuration, name: &str) -> Result<(), Failure> {
    let config = configuration.load(vec![])?;
    let (account, pairs) =
        open(&config)?.create_account(name, config.argon2.cost(), None, &By::console(Timestamp::now()))?;
    let mut text = zeroize::Zeroizing::new(format!("{} {}\n\n", account.id, account.name));
    for (key, mint) in &pairs {
        text.push_str(&shown_once(key, mint));
    }
    text.push_str(KEEP);
    say(&text)
}

pub(super) fn list_accounts(configuration: &Configuration) -> Result<(), Failure> {
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

pub(super) fn create_key(given: CreateKey) -> Result<(), Failure> {
    let config = given.configuration.load(vec![])?;
    let account: AccountId = given.account.parse()?;
    let addresses = given.addresses.iter().map(|text| {
        let network = text.parse().or_else(|_| text.parse::<std::net::IpAddr>().map(ipnet::IpNet::from));
        network.map_err(|_| failure(format!("--address: `{text}` is no network such as 192.0.2.0/24 and no address")))
    });
    let expires_at = given.expires_at.as_deref().map(|text| {
        text.parse().map_err(|_| failure(format!("--expires-at: `{text}` is no time such as 2027-01-31T00:00:00Z")))
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
    let text = zeroize::Zeroizing::new(format!("{}{KEEP}", shown_once(&key, &mint)));
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
        Some(scope) => Err(failure(format!("--scope: the schema has no scope `{scope}`; it has {}", known.join(", ")))),
    }
}

pub(super) fn list_keys(configuration: &Configuration, account: Option<&str>) -> Result<(), Failure> {
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

pub(super) fn show_key(configuration: &Configuration, id: &str) -> Result<(), Failure> {
    let ledger = open(&configuration.load(vec![])?)?;
    let id: KeyId = id.parse()?;
    let live = ledger.ring().key(&id).ok_or_else(|| failure(format!("there is no key {id}")))?;
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

pub(super) fn revoke_key(configuration: &Configuration, id: &str) -> Result<(), Failure> {
    let ledger = open(&configuration.load(vec![])?)?;
    let id: KeyId = id.parse()?;
    let (_, _, lived) = ledger.revoke_key(&id, None, None, &By::console(Timestamp::now()))?;
    say(&if lived { format!("{id} is revoked, for good\n") } else { format!("{id} was revoked already\n") })
}

fn state(key: &Key) -> &'static str {
    match key.status(&key.secret, Timestamp::now()) {
        Status::Good => "active",
        Status::Expired => "expired",
        Status::Disabled => "disabled",
        Status::Revoked => "revoked",
        Status::Compromised => "compromised",
    }
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

pub(super) fn check_policies(configuration: &Configuration) -> Result<(), Failure> {
    let config = configuration.load(vec![])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let checked = Bundle::read(&config.schemas_dir, &config.policies_dir).and_then(|bundle| {
        let vetted = runtime.block_on(vet::Vetter::of_this_program().vet(&bundle));
        vetted.map_err(vet::Failure::into_rejection)
    });
    match checked {
        Ok(revision) => say(&format!(
            "good: revision {}, {} routes, {} policies\n",
            revision.digest().short(),
            revision.routes().count(),
            revision.policies().len()
        )),
        Err(rejection) => Err(failure(format!("the files would be refused\n\n{}", rejection.render()))),
    }
}

/// The child's side of a first look at new files: 0 when they are good, 1 with the rejection on standard output.
pub(super) fn vet() -> ExitCode {
    match vet::check_as_child(io::stdin()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(rejection) => {
            let written = serde_json::to_writer(io::stdout().lock(), &rejection);
            ExitCode::from(if written.is_ok() { 1 } else { 2 })
        }
    }
}
