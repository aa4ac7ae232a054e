//! The command line `keymeter`: does what its arguments say and ends with the exit code that `--help` names.

use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    cli::main().await
}
