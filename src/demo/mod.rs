//! `keyward demo`: everything in one process, with nothing to set up, to see and to try.
//!
//! A daemon, an account with its four keys and a restricted one, and a small Docs API that asks the daemon
//! over HTTP about every call. It listens on loopback alone, and it keeps its tokens in a file, which no real
//! installation would do.

mod api;
mod collection;
mod tls;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::config::{Config, ProxyStyle, Widening};
use crate::daemon::{self, Daemon};
use crate::http::serve::{Limits, Server};
use crate::key::{AccountId, Cost, Kind, Mode, NewKey};
use crate::ledger::{Ledger, LedgerError};
use crate::people::{Email, NewUser, Password, PasswordHash, PeopleError, Role};
use crate::shipped;
use crate::trail::By;

/// The names of the five tokens, as the environment file has them.
const TOKENS: [&str; 5] = ["PK_LIVE", "SK_LIVE", "PK_TEST", "SK_TEST", "RK_LIVE"];
/// The names of what the people of the demo have.
const PEOPLE: [&str; 5] = ["ADMIN_TOKEN", "OPERATOR_USER", "OPERATOR_PASSWORD", "DASHBOARD_USER", "DASHBOARD_PASSWORD"];

/// What to demonstrate, and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where everything is kept.
    pub data: PathBuf,
    /// A file to write the tokens and addresses to, for a shell to read.
    pub env_file: Option<PathBuf>,
    /// The decision listener.
    pub decision_addr: SocketAddr,
    /// The admin listener.
    pub admin_addr: SocketAddr,
    /// The Docs API over HTTPS.
    pub api_addr: SocketAddr,
    /// The Docs API over plain HTTP.
    pub api_http_addr: SocketAddr,
    /// Which headers a proxy in front would use.
    pub proxy_style: ProxyStyle,
    /// What becomes of an edit under which somebody may do more.
    pub widening: Widening,
}

/// Why there is no demo.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// Only loopback.
    #[error("{0} is not a loopback address, and a demo, whose tokens lie about, listens on loopback alone")]
    NotLoopback(SocketAddr),
    /// A file or folder.
    #[error("{}: {error}. Give another folder with --data.", .path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The tokens of an earlier start.
    #[error("{} does not hold the demo's tokens. Remove the folder to begin anew.", .0.display())]
    Tokens(PathBuf),
    /// The daemon.
    #[error(transparent)]
    Daemon(#[from] daemon::StartError),
    /// The daemon, in the middle.
    #[error(transparent)]
    Ended(#[from] daemon::EndError),
    /// Its keys.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// An address cannot be listened on.
    #[error("{address} cannot be listened on: {error}. Choose another with --api-addr or --api-http-addr.")]
    Listen {
        /// Which one.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// No certificate, or no client.
    #[error("the Docs API cannot be set up: {0}")]
    Setup(String),
}

/// Runs the demo until `stop` turns true. What it has to say to people goes to standard output, `READY` last.
///
/// # Errors
/// [`DemoError`]; nothing listens then.
pub async fn run(options: &Options, stop: watch::Receiver<bool>) -> Result<(), DemoError> {
    for address in [options.decision_addr, options.admin_addr, options.api_addr, options.api_http_addr] {
        if !address.ip().is_loopback() {
            return Err(DemoError::NotLoopback(address));
        }
    }
    let data = std::path::absolute(&options.data).map_err(|error| file_error(&options.data, error))?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&data).map_err(|error| file_error(&data, error))?;
    shipped::copy_to(&data).map_err(|error| file_error(&data, error))?;
    let https = listen(options.api_addr).await?;
    let http = listen(options.api_http_addr).await?;

    let daemon = Daemon::start(&config(options, &data), stop).await?;
    let stop = daemon.stopping();
    let tokens = tokens(&data, daemon.pdp.ledger().clone()).await?;
    let limits = Limits::from(&crate::config::Limits::default());
    let (acceptor, certificate) = tls::self_signed().map_err(DemoError::Setup)?;
    let certificate_path = data.join("api-cert.pem");
    write_private(&certificate_path, &certificate)?;
    let grace = Duration::from_secs(5);
    let router = |scheme| api::router(&daemon, scheme).map_err(DemoError::Setup);
    let servers = [
        tokio::spawn(Server::new(router("https")?, limits).tls(acceptor).run(https.0, stop.clone(), grace)),
        tokio::spawn(Server::new(router("http")?, limits).run(http.0, stop, grace)),
    ];

    let environment = environment(&tokens, &daemon, [https.1, http.1], &data);
    if let Some(path) = &options.env_file {
        write_private(path, &environment)?;
    }
    announce(&tokens, daemon.admin_addr, [https.1, http.1], &data, options.env_file.as_deref());
    for server in servers {
        let _ = server.await;
    }
    Ok(daemon.ended().await?)
}

fn config(options: &Options, data: &Path) -> Config {
    let mut config = Config {
        data_dir: data.join("store"),
        schemas_dir: data.join("schemas"),
        policies_dir: data.join("policies"),
        ..Config::default()
    };
    config.decision.addr = options.decision_addr;
    config.decision.proxy_style = options.proxy_style;
    config.admin.addr = options.admin_addr;
    config.policies.widening = options.widening;
    config
}

fn file_error(path: &Path, error: io::Error) -> DemoError {
    DemoError::File { path: path.to_owned(), error }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), DemoError> {
    let failed = |error| DemoError::Listen { address, error };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Names and tokens, or what else is as secret.
type Tokens = Vec<(&'static str, Zeroizing<String>)>;

/// The tokens of an earlier start, or those of a new account.
async fn tokens(data: &Path, ledger: Ledger) -> Result<Tokens, DemoError> {
    let path = data.join("tokens.env");
    match fs::read_to_string(&path) {
        Ok(text) => return read_tokens(&Zeroizing::new(text)).ok_or(DemoError::Tokens(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(file_error(&path, error)),
    }
    let made = tokio::task::spawn_blocking(move || make_keys(&ledger)).await;
    let tokens = made.map_err(|error| DemoError::Setup(error.to_string()))??;
    let mut text = Zeroizing::new(String::new());
    for (name, token) in &tokens {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name}={}", **token);
    }
    write_private(&path, &text)?;
    Ok(tokens)
}

fn read_tokens(text: &str) -> Option<Tokens> {
    let find = |name: &'static str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
        Some((name, Zeroizing::new(line.to_owned())))
    };
    TOKENS.into_iter().chain(PEOPLE).map(find).collect()
}

/// An operator with a token and a password, and the account's owner with a password.
fn make_people(ledger: &Ledger, account: AccountId, by: &By) -> Result<Tokens, DemoError> {
    let make = |email: &str, name: &str, roles: BTreeMap<AccountId, Role>| {
        let setup = |error: &dyn std::fmt::Display| DemoError::Setup(error.to_string());
        let password = Password::made().map_err(|error| setup(&error))?;
        let address: Email = email.parse().map_err(|error: PeopleError| setup(&error))?;
        let chosen = Password::chosen(&password, &address).map_err(|error| setup(&error))?;
        let hash = PasswordHash::hash(&chosen).map_err(LedgerError::from)?;
        let new = NewUser { email: email.into(), name: name.into(), operator: roles.is_empty(), roles };
        Ok::<_, DemoError>((ledger.create_user(new, Some(hash), None, by)?, password))
    };
    let (operator, operators) = make("operator@demo.test", "Demo operator", BTreeMap::new())?;
    let (owner, owners) = make("owner@demo.test", "Demo owner", BTreeMap::from([(account, Role::Owner)]))?;
    let (_, token) = ledger.create_token(&operator.user.id, "demo", None, Cost::default(), None, by)?;
    let plain = |text: &str| Zeroizing::new(text.to_owned());
    let values = [
        plain(token.expose()),
        plain(operator.user.email.as_str()),
        operators,
        plain(owner.user.email.as_str()),
        owners,
    ];
    Ok(PEOPLE.into_iter().zip(values).collect())
}

fn make_keys(ledger: &Ledger) -> Result<Tokens, DemoError> {
    let by = By::console(Timestamp::now());
    let (account, pairs) = ledger.create_account("Demo account", Cost::default(), None, &by)?;
    let restricted = NewKey {
        scopes: vec!["resources:read".into()],
        ..NewKey::named(Kind::Restricted, Mode::Live, "Analytics worker (read-only)")
    };
    let restricted = ledger.create_key(&account.id, restricted, Cost::default(), None, &by)?;
    let all = pairs.iter().chain(std::iter::once(&restricted));
    let tokens = TOKENS.into_iter().zip(all.map(|(_, mint)| Zeroizing::new(mint.expose().to_owned())));
    Ok(tokens.chain(make_people(ledger, account.id, &by)?).collect())
}

/// Writes a file that its owner alone can read, whole or not at all.
fn write_private(path: &Path, text: &str) -> Result<(), DemoError> {
    let failed = |error| file_error(path, error);
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    // What an earlier start left, or somebody put there, would keep its own mode.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&temporary, path).map_err(failed)
}

fn environment(tokens: &Tokens, daemon: &Daemon, [https, http]: [SocketAddr; 2], data: &Path) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::new());
    let mut line = |name: &str, value: &str| {
        let quoted = value.replace('\'', "'\\''");
        let plain = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-./:".contains(&byte));
        // Writing to a string cannot fail.
        let _ =
            if plain { writeln!(text, "export {name}={value}") } else { writeln!(text, "export {name}='{quoted}'") };
    };
    for (name, token) in tokens {
        line(name, token);
    }
    // What `keyward` itself reads.
    line("KEYWARD_URL", &format!("http://{}", daemon.admin_addr));
    if let Some((_, token)) = tokens.iter().find(|(name, _)| *name == "ADMIN_TOKEN") {
        line("KEYWARD_TOKEN", token);
    }
    line("API_URL", &format!("https://localhost:{}", https.port()));
    line("API_HTTP_URL", &format!("http://localhost:{}", http.port()));
    line("DECISION_URL", &format!("http://{}", daemon.decision_addr));
    line("ADMIN_URL", &format!("http://{}", daemon.admin_addr));
    line("DASHBOARD_URL", &format!("http://{}", daemon.admin_addr));
    line("CA_FILE", &data.join("api-cert.pem").display().to_string());
    line("SCHEMAS_DIR", &data.join("schemas").display().to_string());
    line("POLICIES_DIR", &data.join("policies").display().to_string());
    text
}

fn announce(tokens: &Tokens, admin: SocketAddr, [https, http]: [SocketAddr; 2], data: &Path, env_file: Option<&Path>) {
    let token = |wanted: &str| tokens.iter().find(|(name, _)| *name == wanted).map_or("", |(_, token)| token.as_str());
    let api = format!("https://localhost:{}", https.port());
    let mut text = Zeroizing::new(String::new());
    let _ = write!(
        text,
        "\nThis is a demo: it listens on this machine alone, and it keeps its keys where you can read them,\n\
         in {data}. For real use: keyward init, then keyward serve.\n\n\
         The account's keys\n\
         \x20 publishable       {}\n\
         \x20 secret            {}\n\
         \x20 test publishable  {}\n\
         \x20 test secret       {}\n\
         \x20 restricted        {}   (resources:read)\n\
         The Dashboard: http://{admin}\n\
         \x20 {}      password {}   (owner of the account)\n\
         \x20 {}   password {}   (operator: policies, people, all accounts)\n\
         The operator's token\n\
         \x20 {}\n\n\
         Try\n\
         \x20 curl --cacert {cert} {api}/v1/resources -H \"Authorization: Bearer {sk}\"\n\
         \x20 curl --cacert {cert} {api}/v1/resources -H \"Authorization: Bearer {sk}\" -d '{{\"name\":\"First\"}}'\n\
         \x20 curl --cacert {cert} {api}/v1/resources -H \"Authorization: Bearer {rk}\" -d '{{\"name\":\"Second\"}}'\n\
         \x20 curl --cacert {cert} {api}/v1/resources\n\
         \x20 curl http://{admin}/v1/accounts -H \"Authorization: Bearer {admin_token}\"\n\n\
         Edit {data}/policies/docs-api.cedar and call again: a saved change is in force at once.\n\
         A call over plain HTTP (http://localhost:{http}) fails, and its secret key is dead from then on.\n",
        token("PK_LIVE"),
        token("SK_LIVE"),
        token("PK_TEST"),
        token("SK_TEST"),
        token("RK_LIVE"),
        token("DASHBOARD_USER"),
        token("DASHBOARD_PASSWORD"),
        token("OPERATOR_USER"),
        token("OPERATOR_PASSWORD"),
        token("ADMIN_TOKEN"),
        data = data.display(),
        cert = data.join("api-cert.pem").display(),
        sk = token("SK_LIVE"),
        rk = token("RK_LIVE"),
        http = http.port(),
        admin_token = token("ADMIN_TOKEN"),
    );
    if let Some(path) = env_file {
        let _ = writeln!(
            text,
            "All of this is in {file}, for a shell to read: . {file}\n\
             Then `keyward keys list` and the like ask this daemon, and `cd {data} && keyward policy check` looks at its policies.",
            file = path.display(),
            data = data.display(),
        );
    }
    text.push_str("\nREADY\n");
    let mut out = io::stdout().lock();
    // A demo whose output is closed is still a demo.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
