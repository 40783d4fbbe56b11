//! Words on a command line become calls. Nothing is decided here.
//!
//! What a running daemon manages (accounts, keys, people, events, decisions) is asked for over its management API, by `online`
//! and `client`, with the permissions of whoever holds the token; a file for each noun. `offline` opens the store of
//! a stopped daemon, for recovery.
//!
//! Exit codes:
//!
//! | code | |
//! |---|---|
//! | 0 | done |
//! | 1 | failed, with the reason on standard error |
//! | 2 | the command line was not understood |
//! | 3 | not signed in: no token, or not a good one; or the password was wrong |
//! | 4 | no policy lets you do this |
//! | 5 | there is no such thing |
//! | 6 | it cannot be done as things are: the key is revoked, the e-mail address is taken, … |
//! | 7 | the daemon cannot be reached, or cannot do it now |
//! | 64 | the configuration or the daemon's address was not understood (`EX_USAGE` of sysexits.h); nothing was opened |
//!
//! Of `policy diff`: 0 nothing is decided otherwise, 2 something is, 3 somebody may do more than before.
//! Of `policy replay`: 0 every call comes to the same, 2 some would be denied, 3 some that were denied would be allowed.
//! Of these two, what is 2 elsewhere is 64, and what is 3 elsewhere is 77 (`EX_NOPERM`), so that no code has two meanings.
//! Of `scan`: 0 all was read, and no token is in it; 1 a token was found, or something could not be read. Of
//! `policy lint` and `policy fmt --check`, too, 1 is also: something was found.
//! Of `policy test`: 0 every example comes true; 1 one does not, the files are refused, or they cover less than was asked for.
//! Of `explain`: 0 whatever the decision is.

mod accounts;
mod client;
mod configuration;
mod decisions;
mod events;
mod explain;
mod files;
mod keys;
mod leaks;
mod members;
#[cfg(test)]
mod named;
mod offline;
mod online;
mod policy;
mod run;
mod scan;
mod session;
mod setup;
mod terminal;
mod told;
mod transfer;
mod users;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::str::FromStr;

use clap::{Parser, Subcommand};

use crate::activate::vet;
use crate::examine;
use crate::key::IdError;

const FAILED: u8 = 1;
const COMMAND_LINE: u8 = 2;
const NOT_SIGNED_IN: u8 = 3;
const NOT_ALLOWED: u8 = 4;
const NO_SUCH_THING: u8 = 5;
const CONFLICT: u8 = 6;
const UNAVAILABLE: u8 = 7;
const CONFIGURATION: u8 = 64;

const EXIT_CODES: &str = "Ends with 0 when it is done, 1 when it failed (of `scan`: or found a token), 2 when the command line \
    was not understood, 3 when you are not signed in, 4 when no policy lets you do this, 5 when there is no such thing, 6 \
    when it cannot be done as things are, 7 when the daemon cannot be reached, and 64 when the configuration was not \
    understood. Of `policy diff` and `policy replay`, 2 and 3 are answers: see their help.";

/// An authorization daemon for API keys: a bearer key in, a Cedar decision out.
#[derive(Parser)]
#[command(name = "keyward", version, about, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run everything in one process, with nothing to set up: a daemon, keys, and an API to call
    Demo(run::Demo),
    /// Run the daemon
    Serve(run::Serve),
    /// Make a data folder, a commented configuration file, and the shipped schema and policies
    Init(setup::Init),
    /// Get a token for your password, given on standard input; it lasts twelve hours
    SignIn(session::SignIn),
    /// Show who your token says that you are
    #[command(name = "whoami")]
    WhoAmI(session::WhoAmI),
    /// Create, list, show, rename and close accounts
    Accounts(accounts::Accounts),
    /// Create, list, show, update, disable, enable, revoke and rotate keys, and ask what they may do
    Keys(keys::Keys),
    /// Make people known, change and remove them, and make tokens for their scripts
    Users(users::Users),
    /// Say who is what in an account
    Members(members::Members),
    /// Look at what happened: who did what, when and from where
    Events(events::Events),
    /// Look at what was decided: with which key, for which call, and why
    Decisions(decisions::Decisions),
    /// Report tokens that were found where they should not be
    Leaks(leaks::Leaks),
    Scan(scan::Scan),
    Explain(explain::Explain),
    /// Check policies before they are in force, and look at those that are
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Write every account, key and person as JSON lines, with hashes and without secrets, to move elsewhere
    Export(transfer::Download),
    /// Take over accounts, keys and people of an export, or keys that another system issued
    Import(transfer::Import),
    /// Write everything that a running daemon holds, as it is at one moment, for `keyward restore`
    Backup(transfer::Download),
    /// Make the store of a new installation from a backup
    Restore(setup::Restore),
    /// Manage accounts, keys and operators while the daemon is stopped, for recovery
    #[command(subcommand)]
    Offline(offline::Offline),
    /// Check a bundle given on standard input: what the daemon starts to look at new files
    #[command(name = vet::COMMAND, hide = true)]
    Vet,
    /// Prove or compare what is given on standard input: what takes too long, or too much, for the daemon
    #[command(name = examine::COMMAND, hide = true)]
    Examine,
}

/// Why a command failed, for standard error, and the exit code that goes with it.
struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    fn new(message: impl Into<String>) -> Self {
        Self::of(FAILED, message)
    }

    fn of(code: u8, message: impl Into<String>) -> Self {
        Self { message: message.into(), code }
    }

    /// Of writing to standard output. Whoever has read enough, as `head` has, is told nothing of it.
    fn of_output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::of(0, "") } else { Self::new(error.to_string()) }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(error.to_string())
    }
}

/// An id of this kind, as it is written; whatever else was given is not repeated, as it may be a token.
fn id<T: FromStr<Err = IdError> + ToString>(text: &str) -> Result<String, Failure> {
    let id: Result<T, IdError> = text.parse();
    id.map(|id| id.to_string()).map_err(|error| Failure::of(COMMAND_LINE, error.to_string()))
}

/// Reads a command line, the program's name first, and does what it says.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let error = match Cli::try_parse_from(&arguments) {
        Ok(cli) => return run(cli),
        Err(error) => error,
    };
    // Help is printed in the same way. Where it cannot be, nobody reads the reason either.
    let _ = error.print();
    match arguments.get(1..3) {
        _ if !error.use_stderr() => ExitCode::SUCCESS,
        Some(verb) if policy::compares(verb) => ExitCode::from(CONFIGURATION),
        _ => ExitCode::from(COMMAND_LINE),
    }
}

/// Runs one command.
fn run(cli: Cli) -> ExitCode {
    let done = match cli.command {
        Command::Demo(given) => run::demo(given),
        Command::Serve(given) => run::serve(&given),
        Command::Init(given) => setup::init(&given),
        Command::SignIn(given) => session::sign_in(&given),
        Command::WhoAmI(given) => session::who_am_i(&given),
        Command::Accounts(given) => accounts::run(&given),
        Command::Keys(given) => keys::run(&given),
        Command::Users(given) => users::run(&given),
        Command::Members(given) => members::run(&given),
        Command::Events(given) => events::run(&given),
        Command::Decisions(given) => decisions::run(&given),
        Command::Leaks(given) => leaks::run(&given),
        Command::Scan(given) => scan::scan(&given),
        Command::Explain(given) => explain::run(&given),
        Command::Policy(given) => policy::run(&given),
        Command::Export(given) => transfer::export(&given),
        Command::Import(given) => transfer::import(&given),
        Command::Backup(given) => transfer::backup(&given),
        Command::Restore(given) => setup::restore(&given),
        Command::Offline(given) => offline::run(given),
        Command::Vet => return setup::vet(),
        Command::Examine => setup::examine(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let message = failure.message.trim_end();
            if !message.is_empty() {
                // Where it cannot be said, nobody waits for it.
                let _ = writeln!(io::stderr(), "keyward: {message}");
            }
            ExitCode::from(failure.code)
        }
    }
}
