//! The `keyward` program: see [`keyward::cli`] for its commands and exit codes.

use std::process::ExitCode;

use clap::Parser;
use keyward::cli::{self, Cli};

fn main() -> ExitCode {
    cli::run(Cli::parse())
}
