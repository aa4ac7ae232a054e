//! Settings from flags and environment, read once. A name that nobody knows is an error, so that a typing
//! mistake never runs on a default. A secret may also be the content of a file: `KEYMETER_X_Y_FILE` names the file
//! with the value of `KEYMETER_X_Y`.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    ffi::{OsStr, OsString},
    fs::File,
    io::Read as _,
    path::Path,
};

use anyhow::{Context as _, bail, ensure};
use clap::{Arg, Command, Parser};

use crate::healthcheck;

/// Ends the name of a setting whose value is in a file.
const FILE: &str = "_FILE";
/// Start of the names of settings that all programs have.
const IDENTITY: &str = "KEYMETER_IDENTITY_";
/// Longest secret that a file may hold, in bytes.
const SECRET_BYTES_MAX: u64 = 64 * 1024;
const HELP: &str = "Every setting that holds a secret may also be a file: give its environment variable's name with \
                    _FILE behind it the file's path. `healthcheck` as the only argument asks the service of this \
                    environment for its /readyz, prints the answer and ends with 0 or 1.";

/// Reads `C` from the command line, the environment and the files that hold secrets; prints help and usage errors as
/// clap does. Asked for a health check, it makes that and ends the process.
///
/// # Errors
/// If the environment has a variable that starts with `prefix` and is no setting of `C`, or the file of a secret can
/// not be used.
pub fn config<C: Parser>(prefix: &str) -> anyhow::Result<C> {
    let command = C::command().after_help(HELP);
    let given: BTreeMap<String, OsString> =
        env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect();
    if let Some(name) = unknown(&command, prefix, given.keys().cloned()) {
        bail!("unknown setting {name} in the environment; `--help` lists the settings");
    }
    let mut arguments: Vec<OsString> = env::args_os().collect();
    if healthcheck::is_asked(&arguments) {
        let code = healthcheck::run(&command, &given)?;
        #[expect(clippy::disallowed_methods, reason = "nothing was started that could drain")]
        std::process::exit(code);
    }
    arguments.splice(1.min(arguments.len())..1.min(arguments.len()), from_files(&command, &given)?);
    Ok(C::from_arg_matches(&command.get_matches_from(arguments)).unwrap_or_else(|error| error.exit()))
}

/// The secrets that files hold, as flags. They stay in this process: nobody else sees them.
fn from_files(command: &Command, given: &BTreeMap<String, OsString>) -> anyhow::Result<Vec<OsString>> {
    let mut flags = Vec::new();
    for (setting, secret) in secrets(command) {
        let named = format!("{setting}{FILE}");
        let (Some(file), Some(flag)) = (given.get(&named), secret.get_long()) else { continue };
        ensure!(!given.contains_key(&setting), "{setting} and {named} are both given: give one of them");
        let value =
            read(Path::new(file)).with_context(|| format!("{named} {} can not be used", file.display()))?;
        let mut argument = OsString::from(format!("--{flag}="));
        argument.push(OsStr::new(&value));
        flags.push(argument);
    }
    Ok(flags)
}

/// The settings whose values no help shows and that have no file setting of their own.
fn secrets(command: &Command) -> impl Iterator<Item = (String, &Arg)> {
    let mut known = BTreeSet::new();
    collect(command, &mut known);
    command.get_arguments().filter(|argument| argument.is_hide_env_values_set()).filter_map(move |argument| {
        let setting = argument.get_env()?.to_str()?.to_owned();
        (!known.contains(&format!("{setting}{FILE}"))).then_some((setting, argument))
    })
}

/// What the file holds but for line breaks at its end.
fn read(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    File::open(file)?.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text)?;
    ensure!(text.len() as u64 <= SECRET_BYTES_MAX, "it has more than {SECRET_BYTES_MAX} bytes");
    let value = text.trim_end_matches(['\r', '\n']);
    ensure!(!value.is_empty(), "it is empty");
    Ok(value.to_owned())
}

fn unknown(command: &Command, prefix: &str, given: impl Iterator<Item = String>) -> Option<String> {
    let mut known = BTreeSet::new();
    collect(command, &mut known);
    known.extend(secrets(command).map(|(setting, _)| setting + FILE));
    let ours = |name: &String| name.starts_with(prefix) || name.starts_with(IDENTITY);
    given.filter(ours).find(|name| !known.contains(name))
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
    use std::fs;

    use clap::CommandFactory as _;

    use super::*;

    #[derive(Parser)]
    struct Config {
        /// Where to listen.
        #[arg(long, env = "KEYMETER_X_ADDR", default_value = "127.0.0.1:1")]
        _addr: String,
        /// A password.
        #[arg(long = "password", env = "KEYMETER_X_PASSWORD", hide_env_values = true)]
        password: Option<String>,
        /// A secret that has always had a file.
        #[arg(long = "kek", env = "KEYMETER_X_KEK", hide_env_values = true)]
        _kek: Option<String>,
        /// That file.
        #[arg(long = "kek-file", env = "KEYMETER_X_KEK_FILE")]
        _kek_file: Option<String>,
    }

    #[test]
    fn a_misspelt_setting_is_named() {
        let find = |names: &[&str]| {
            unknown(&Config::command(), "KEYMETER_X_", names.iter().map(|n| (*n).to_owned()))
        };
        assert_eq!(find(&["KEYMETER_X_ADDR", "KEYMETER_Y_ADDR", "PATH"]), None);
        assert_eq!(find(&["KEYMETER_X_PASSWORD_FILE", "KEYMETER_X_KEK_FILE"]), None);
        for wrong in ["KEYMETER_X_ADDRESS", "KEYMETER_X_ADDR_FILE", "KEYMETER_X_KEK_FILE_FILE"] {
            assert_eq!(find(&[wrong]), Some(wrong.to_owned()));
        }
    }

    #[test]
    fn a_secret_may_be_in_a_file() {
        let file = env::temp_dir().join(format!("keymeter-secret-{}", std::process::id()));
        let read = |more: &[(&str, &str)]| {
            let mut given = BTreeMap::from([("KEYMETER_X_PASSWORD_FILE".to_owned(), file.clone().into())]);
            given.extend(more.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(*value))));
            from_files(&Config::command(), &given)
                .map(|flags| Config::parse_from([OsString::from("x")].into_iter().chain(flags)).password)
                .map_err(|error| format!("{error:#}"))
        };
        let error = read(&[]).unwrap_err();
        assert!(error.contains("KEYMETER_X_PASSWORD_FILE") && error.contains("No such file"), "{error}");
        fs::write(&file, "--hunter 2 \r\n\n").unwrap();
        assert_eq!(read(&[]), Ok(Some("--hunter 2 ".to_owned())));
        assert_eq!(read(&[("KEYMETER_X_KEK_FILE", "/nowhere")]), Ok(Some("--hunter 2 ".to_owned())));
        let error = read(&[("KEYMETER_X_PASSWORD", "b")]).unwrap_err();
        assert!(error.contains("KEYMETER_X_PASSWORD and KEYMETER_X_PASSWORD_FILE are both given"), "{error}");
        for (content, why) in [("\n".to_owned(), "empty"), ("a".repeat(70_000), "65536 bytes")] {
            fs::write(&file, content).unwrap();
            let error = read(&[]).unwrap_err();
            assert!(error.contains("KEYMETER_X_PASSWORD_FILE") && error.contains(why), "{error}");
        }
        fs::remove_file(&file).unwrap();
    }
}
