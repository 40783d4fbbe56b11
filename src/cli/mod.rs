//! Words on a command line become calls. Nothing is decided here.
//!
//! Exit codes: 0 done; 1 failed, with the reason on standard error; 2 the command line was not
//! understood; 64 the configuration was not understood (`EX_USAGE` of sysexits.h), before anything was opened.
//! Of `scan`: 0 all was read, and no token is in it; 1 a token was found, or something could not be read.

mod offline;
mod run;
mod scan;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use figment::providers::Serialized;
use figment::value::{Dict, Map};
use figment::{Metadata, Profile, Provider};

use crate::activate::vet;
use crate::config::{Config, ProxyStyle};

/// The configuration was not understood.
const CONFIGURATION: u8 = 64;

/// An authorization daemon for API keys: a bearer key in, a Cedar decision out.
#[derive(Parser)]
#[command(name = "keyward", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run everything in one process, with nothing to set up: a daemon, keys, and an API to call
    Demo(Demo),
    /// Run the daemon
    Serve(Serve),
    /// Make a data folder, a commented configuration file, and the shipped schema and policies
    Init(Init),
    /// Create and list accounts, while the daemon is stopped
    #[command(subcommand)]
    Accounts(Accounts),
    /// Create, list, show and revoke keys, while the daemon is stopped
    #[command(subcommand)]
    Keys(Keys),
    /// Make the store of a new installation from a backup, which a daemon gives at GET /v1/backup
    Restore(Restore),
    /// Look at policies
    #[command(subcommand)]
    Policy(Policy),
    Scan(scan::Scan),
    /// Check a bundle given on standard input: what the daemon starts to look at new files
    #[command(name = vet::COMMAND, hide = true)]
    Vet,
}

#[derive(Args)]
struct Demo {
    /// Where the demo keeps everything
    #[arg(long, value_name = "DIR", default_value = "keyward-demo")]
    data: PathBuf,
    /// Write the tokens and addresses to a file that a shell can read
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// Where decisions are asked for
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8700")]
    decision_addr: SocketAddr,
    /// Where the metrics and the state of the policies are
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8702")]
    admin_addr: SocketAddr,
    /// Where the Docs API listens with TLS
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8743")]
    api_addr: SocketAddr,
    /// Where the Docs API listens without
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8703")]
    api_http_addr: SocketAddr,
    /// The headers in which a proxy in front states the call: x-forwarded, x-original or envoy
    #[arg(long, value_name = "STYLE", default_value = "x-forwarded", value_parser = proxy_style)]
    proxy_style: ProxyStyle,
}

#[derive(Args)]
struct Serve {
    #[command(flatten)]
    configuration: Configuration,
    /// Where decisions are asked for
    #[arg(long, value_name = "ADDR")]
    decision_addr: Option<SocketAddr>,
    /// Where the metrics and the state of the policies are
    #[arg(long, value_name = "ADDR")]
    admin_addr: Option<SocketAddr>,
}

#[derive(Args)]
struct Configuration {
    /// The configuration file; without it, keyward.toml in this folder if there is one
    #[arg(long, value_name = "FILE", env = "KEYWARD_CONFIG")]
    config: Option<PathBuf>,
    /// The folder of the store
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The folder of the schema
    #[arg(long, value_name = "DIR")]
    schemas_dir: Option<PathBuf>,
    /// The folder of the policies
    #[arg(long, value_name = "DIR")]
    policies_dir: Option<PathBuf>,
}

#[derive(Args)]
struct Init {
    /// Where to make them
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// The first operator's e-mail address
    #[arg(long, value_name = "EMAIL", default_value = "operator@localhost")]
    operator: String,
}

#[derive(Args)]
struct Restore {
    /// The backup; `-` is standard input
    #[arg(value_name = "FILE")]
    backup: PathBuf,
    #[command(flatten)]
    configuration: Configuration,
}

#[derive(Subcommand)]
enum Accounts {
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
enum Keys {
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
struct CreateKey {
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
enum Policy {
    /// Say what a reload of the files would say
    Check {
        #[command(flatten)]
        configuration: Configuration,
    },
}

fn proxy_style(text: &str) -> Result<ProxyStyle, String> {
    match text {
        "x-forwarded" => Ok(ProxyStyle::XForwarded),
        "x-original" => Ok(ProxyStyle::XOriginal),
        "envoy" => Ok(ProxyStyle::Envoy),
        _ => Err("give x-forwarded, x-original or envoy".into()),
    }
}

/// Why a command failed, for standard error, and the exit code that goes with it.
struct Failure {
    message: String,
    code: u8,
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { message: error.to_string(), code: 1 }
    }
}

/// Runs one command.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    let done = match cli.command {
        Command::Demo(demo) => run::demo(demo),
        Command::Serve(serve) => run::serve(&serve),
        Command::Init(init) => offline::init(&init.folder, &init.operator),
        Command::Accounts(Accounts::Create { name, configuration }) => offline::create_account(&configuration, &name),
        Command::Accounts(Accounts::List { configuration }) => offline::list_accounts(&configuration),
        Command::Keys(Keys::Create(create)) => offline::create_key(create),
        Command::Keys(Keys::List { account, configuration }) => offline::list_keys(&configuration, account.as_deref()),
        Command::Keys(Keys::Show { key, configuration }) => offline::show_key(&configuration, &key),
        Command::Keys(Keys::Revoke { key, configuration }) => offline::revoke_key(&configuration, &key),
        Command::Restore(Restore { backup, configuration }) => offline::restore(&configuration, &backup),
        Command::Policy(Policy::Check { configuration }) => offline::check_policies(&configuration),
        Command::Scan(given) => scan::scan(&given),
        Command::Vet => return offline::vet(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let message = failure.message.trim_end();
            eprintln!("keyward: {message}");
            ExitCode::from(failure.code)
        }
    }
}

/// The flags that change the configuration, named as such in its errors.
struct Flags(Vec<(&'static str, String)>);

impl Provider for Flags {
    fn metadata(&self) -> Metadata {
        Metadata::named("command line")
    }

    fn data(&self) -> figment::error::Result<Map<Profile, Dict>> {
        let mut data = Map::new();
        for (key, value) in &self.0 {
            let given = Serialized::default(key, value).data()?;
            for (profile, dict) in given {
                let merged: &mut Dict = data.entry(profile).or_default();
                for (name, value) in dict {
                    match (merged.get_mut(&name), value) {
                        (Some(figment::value::Value::Dict(_, held)), figment::value::Value::Dict(_, more)) => {
                            held.extend(more);
                        }
                        (_, value) => drop(merged.insert(name, value)),
                    }
                }
            }
        }
        Ok(data)
    }
}

impl Configuration {
    fn load(&self, more: Vec<(&'static str, String)>) -> Result<Config, Failure> {
        let mut flags = more;
        for (key, folder) in
            [("data_dir", &self.data_dir), ("schemas_dir", &self.schemas_dir), ("policies_dir", &self.policies_dir)]
        {
            flags.extend(folder.as_ref().map(|folder| (key, folder.display().to_string())));
        }
        Config::load(self.config.as_deref(), Flags(flags))
            .map_err(|error| Failure { message: error.to_string(), code: CONFIGURATION })
    }
}

impl Serve {
    fn load(&self) -> Result<Config, Failure> {
        let addresses = [("decision.addr", self.decision_addr), ("admin.addr", self.admin_addr)];
        let flags = addresses.into_iter().filter_map(|(key, address)| Some((key, address?.to_string())));
        self.configuration.load(flags.collect())
    }
}
