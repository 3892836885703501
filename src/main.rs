//! The `herald` binary: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    herald::cli::main()
}
