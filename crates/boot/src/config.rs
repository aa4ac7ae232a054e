//! Settings from flags and environment, read once. A name that nobody knows is an error, so that a typing
//! mistake never runs on a default.

use std::collections::BTreeSet;

use anyhow::bail;
use clap::{Command, Parser};

/// Reads `C` from the command line and the environment; prints help and usage errors as clap does.
///
/// # Errors
/// If the environment has a variable that starts with `prefix` and is no setting of `C`.
pub fn config<C: Parser>(prefix: &str) -> anyhow::Result<C> {
    let given = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    if let Some(name) = unknown(&C::command(), prefix, given) {
        bail!("unknown setting {name} in the environment; `--help` lists the settings");
    }
    Ok(C::parse())
}

fn unknown(command: &Command, prefix: &str, given: impl Iterator<Item = String>) -> Option<String> {
    let mut known = BTreeSet::new();
    collect(command, &mut known);
    given.filter(|name| name.starts_with(prefix)).find(|name| !known.contains(name))
}

fn collect(command: &Command, known: &mut BTreeSet<String>) {
    let names = command.get_arguments().filter_map(|argument| argument.get_env()?.to_str());
    known.extend(names.map(str::to_owned));
    for child in command.get_subcommands() {
        collect(child, known);
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[derive(Parser)]
    struct Config {
        /// Where to listen.
        #[arg(long, env = "KEYMETER_X_ADDR", default_value = "127.0.0.1:1")]
        _addr: String,
    }

    #[test]
    fn a_misspelt_setting_is_named() {
        let find = |names: &[&str]| {
            unknown(&Config::command(), "KEYMETER_X_", names.iter().map(|n| (*n).to_owned()))
        };
        assert_eq!(find(&["KEYMETER_X_ADDR", "KEYMETER_Y_ADDR", "PATH"]), None);
        assert_eq!(find(&["KEYMETER_X_ADDRESS"]), Some("KEYMETER_X_ADDRESS".to_owned()));
    }
}
