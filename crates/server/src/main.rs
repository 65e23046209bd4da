//! The binary: see `doorward --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    doorward::cli::run()
}
