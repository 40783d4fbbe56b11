//! The `keyward` program: see [`keyward::cli`] for its commands and exit codes.

use std::process::ExitCode;

use keyward::cli;

fn main() -> ExitCode {
    cli::main(std::env::args_os())
}
