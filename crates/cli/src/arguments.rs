//! Every argument of every command, with the words of `--help`. Holds no secret: what an argument says is seen by
//! every user of the machine, so secrets come by files, the environment or a prompt.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use domain::WorkspaceId;
use proto::{
    keys::{KeyHygiene, KeyOrder, KeyState, RateLimit},
    usage::{Dimension, ExportFormat},
};
use time::Duration;
use tonic::transport::Uri;

use crate::{
    filter::{Period, Which},
    values,
    when::{self, When},
};

const HELP: &str = "\
Signing in:
  A program sets KEYMETER_TOKEN to a service token (kmsvc_…), or gives a file that holds one by --token-file.
  A person runs `keymeter sign-in`; the session is kept in $XDG_CONFIG_HOME/keymeter, readable by nobody else.
  A service token counts before a session. `keys reveal` is for people only.

Exit codes:
  0    done
  1    failed
  2    an option or a value is wrong; the error names it
  3    not signed in, or not allowed to
  4    not found
  5    a service can not be reached or did not answer in time; try again
  6    what is there does not allow it: deleted, changed meanwhile, or there already
  7    too many calls; the error says when to try again
  8    done, but some edge has not said that it refuses the key
  130  ended by Ctrl-C

Examples:
  keymeter keys create \"Partner A\" --expires 90d --rate-limit burst=100/1m > secret
  keymeter usage summary --key \"Partner A\" --since 24h
  keymeter tail --outcome failed
  keymeter export --since 30d --status 5xx --file failures.parquet
  keymeter keys delete key_01jd… --yes";

/// API keys and what they are used for: who called what, how often, did it work
#[derive(Debug, Parser)]
#[command(name = "keymeter", version, max_term_width = 100, after_help = HELP)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) show: Show,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where the services are, and as whom they are asked.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// gRPC of keys
    #[arg(long, global = true, value_name = "URL", env = "KEYMETER_KEYS_URL", hide_env_values = true,
          default_value = "http://127.0.0.1:50051", value_parser = values::url)]
    pub(crate) keys_url: Uri,
    /// gRPC of query
    #[arg(long, global = true, value_name = "URL", env = "KEYMETER_QUERY_URL", hide_env_values = true,
          default_value = "http://127.0.0.1:50052", value_parser = values::url)]
    pub(crate) query_url: Uri,
    /// Workspace, ws_…; without it that of the token, or the first one of who signed in
    #[arg(long, global = true, value_name = "ID", env = "KEYMETER_WORKSPACE", hide_env_values = true,
          value_parser = values::workspace)]
    pub(crate) workspace: Option<WorkspaceId>,
    /// File with a service token; else the variable KEYMETER_TOKEN, else the session of `sign-in`
    #[arg(long, global = true, value_name = "FILE", env = "KEYMETER_TOKEN_FILE", hide_env_values = true)]
    pub(crate) token_file: Option<PathBuf>,
    /// Certificates (PEM) to trust instead of the system's, for https
    #[arg(long, global = true, value_name = "FILE", env = "KEYMETER_CA_FILE", hide_env_values = true)]
    pub(crate) ca_file: Option<PathBuf>,
    /// Our own certificate (PEM), where the service asks for one
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "KEYMETER_CLIENT_CERT_FILE",
        hide_env_values = true
    )]
    pub(crate) client_cert_file: Option<PathBuf>,
    /// The private key (PEM) of our own certificate
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "KEYMETER_CLIENT_KEY_FILE",
        hide_env_values = true
    )]
    pub(crate) client_key_file: Option<PathBuf>,
}

/// How answers look.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct Show {
    /// As tables for people, or as JSON: one document, of `tail` an object a line
    #[arg(long, short, global = true, value_enum, default_value_t)]
    pub(crate) output: Output,
    /// Exact times in UTC instead of `3 h ago`; JSON always has them
    #[arg(long, global = true)]
    pub(crate) utc: bool,
}

/// Form of answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Aligned columns
    #[default]
    Table,
    /// The messages of the gRPC contract, field for field
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a session by e-mail and password, and keep it
    SignIn(SignIn),
    /// End the session that is kept
    SignOut,
    /// List the workspaces to choose from
    Workspaces,
    /// Make, show, change, rotate and delete keys
    #[command(subcommand)]
    Keys(Box<KeysCommand>),
    /// Totals of calls
    #[command(subcommand)]
    Usage(UsageCommand),
    /// List calls, the newest first
    Log(List),
    /// Follow calls as they are written, until Ctrl-C
    Tail(Which),
    /// Write all calls to a file or standard output
    Export(Export),
    /// Print a completion script for a shell
    #[command(
        after_help = "Bash: keymeter completion bash > ~/.local/share/bash-completion/completions/keymeter"
    )]
    Completion {
        /// The shell
        shell: Shell,
    },
    /// Print the manual as a man page, or write a page for each command
    Man {
        /// Folder for a page of each command; without it the main page goes to standard output
        #[arg(long)]
        dir: Option<PathBuf>,
    },
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a key; its secret alone goes to standard output, the rest to standard error
    Create(Create),
    /// List keys
    List(ListKeys),
    /// Show everything that is known of a key
    Show {
        /// Id (key_…), resource name or exact name
        key: String,
    },
    /// Change a key; what is not given stays
    Edit(Edit),
    /// Give a key a new secret, which alone goes to standard output
    Rotate(Rotate),
    /// Print a key's secret; asks for your password
    Reveal(Reveal),
    /// Switch a key off until it is enabled, and wait until every edge refuses it
    Disable(End),
    /// Switch a key on again
    Enable {
        /// Id (key_…), resource name or exact name
        key: String,
    },
    /// Delete a key for good, and wait until every edge refuses it
    Delete(Delete),
}

/// What to ask of usage.
#[derive(Debug, Subcommand)]
pub(crate) enum UsageCommand {
    /// Totals by outcome beside the period before, latencies, and the most called endpoints
    Summary(Summary),
    /// Totals by the values of a dimension, the most called first
    Breakdown(Breakdown),
}

/// Who signs in.
#[derive(Debug, Args)]
pub(crate) struct SignIn {
    /// E-mail address of the account
    #[arg(long)]
    pub(crate) email: String,
    #[command(flatten)]
    pub(crate) password: Password,
}

/// Where a password comes from.
#[derive(Debug, Args)]
pub(crate) struct Password {
    /// File with the password, - for standard input; without it you are asked
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
}

/// What a key may be given.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub(crate) struct Fields {
    /// Anything worth knowing
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// When it stops working: 90d from now, or a time in UTC
    #[arg(long, value_name = "WHEN")]
    pub(crate) expires: Option<When>,
    /// Tag, team=payments; several times for several
    #[arg(long = "tag", value_name = "NAME=VALUE", value_parser = values::tag)]
    pub(crate) tags: Vec<(String, String)>,
    /// Who answers for it, acc_… or svc_…
    #[arg(long, value_name = "ID")]
    pub(crate) owner: Option<String>,
    /// What it may do; several times or with commas for several
    #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ',')]
    pub(crate) scopes: Vec<String>,
    /// Network that it may be used from, 192.0.2.0/24; several times or with commas for several
    #[arg(long = "network", value_name = "CIDR", value_delimiter = ',')]
    pub(crate) networks: Vec<String>,
    /// Limit, burst=100/1m; several times for several
    #[arg(long = "rate-limit", value_name = "NAME=REQUESTS/WINDOW", value_parser = values::rate_limit)]
    pub(crate) rate_limits: Vec<RateLimit>,
}

/// A new key.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// What the key is for
    pub(crate) name: String,
    /// Where it may be used
    #[arg(long, value_enum, default_value_t)]
    pub(crate) environment: Environment,
    #[command(flatten)]
    pub(crate) fields: Fields,
    #[command(flatten)]
    pub(crate) once: Once,
}

/// Environment of a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Environment {
    /// Secrets start with km_live_
    #[default]
    Live,
    /// Secrets start with km_test_
    Test,
}

/// How a command that is repeated does its work once.
#[derive(Debug, Args)]
pub(crate) struct Once {
    /// The same command with the same value within 24 hours gives the same secret and no second one;
    /// at most 64 characters, a new one each time if not given
    #[arg(long, value_name = "TEXT")]
    pub(crate) idempotency_key: Option<String>,
}

/// Which keys to list.
#[derive(Debug, Args)]
pub(crate) struct ListKeys {
    /// Beginnings of words of the name, the description or the secret
    #[arg(long, value_name = "WORDS")]
    pub(crate) search: Option<String>,
    /// Only of this environment
    #[arg(long, value_enum)]
    pub(crate) environment: Option<Environment>,
    /// Only with this tag, team=payments; several times for all of them
    #[arg(long = "tag", value_name = "NAME=VALUE", value_parser = values::tag)]
    pub(crate) tags: Vec<(String, String)>,
    /// Only of this owner, acc_… or svc_…
    #[arg(long, value_name = "ID")]
    pub(crate) owner: Option<String>,
    /// Only in this state; without it all but deleted ones
    #[arg(long = "state", value_name = "STATE", value_delimiter = ',', value_parser = values::key_state())]
    pub(crate) states: Vec<KeyState>,
    /// Only keys with which this is amiss
    #[arg(long, value_name = "WHAT", value_delimiter = ',', value_parser = values::hygiene())]
    pub(crate) hygiene: Vec<KeyHygiene>,
    /// In which order
    #[arg(long, default_value = "create_time_desc", value_parser = values::order())]
    pub(crate) order: KeyOrder,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) limit: u32,
}

/// What to change of a key.
#[derive(Debug, Args)]
pub(crate) struct Edit {
    /// Id (key_…), resource name or exact name
    pub(crate) key: String,
    /// New name
    #[arg(long, value_name = "TEXT")]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) fields: Fields,
    /// What to empty; tags, scopes, networks and limits that are given take the place of all there were
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) clear: Vec<Clear>,
}

/// What can be emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Clear {
    Description,
    /// Never expires
    Expires,
    Tags,
    Scopes,
    Networks,
    RateLimits,
}

/// A rotation.
#[derive(Debug, Args)]
pub(crate) struct Rotate {
    /// Id (key_…), resource name or exact name
    pub(crate) key: String,
    /// How long the secrets before it go on, 0s to 30d
    #[arg(long, value_name = "LENGTH", default_value = "24h", value_parser = when::length)]
    pub(crate) overlap: Duration,
    #[command(flatten)]
    pub(crate) once: Once,
}

/// Whose secret to print.
#[derive(Debug, Args)]
pub(crate) struct Reveal {
    /// Id (key_…), resource name or exact name
    pub(crate) key: String,
    #[command(flatten)]
    pub(crate) password: Password,
}

/// A key to withdraw.
#[derive(Debug, Args)]
pub(crate) struct End {
    /// Id (key_…), resource name or exact name
    pub(crate) key: String,
    /// How long to wait until every edge refuses it, at most 10s; 0s not at all
    #[arg(long, value_name = "LENGTH", default_value = "10s", value_parser = when::length)]
    pub(crate) receipt_timeout: Duration,
}

/// A key to delete.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    #[command(flatten)]
    pub(crate) end: End,
    /// Do not ask for the key's name first
    #[arg(long, short)]
    pub(crate) yes: bool,
}

/// Which totals.
#[derive(Debug, Args)]
pub(crate) struct Summary {
    /// How many of the most called endpoints to show
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(0..=1_000))]
    pub(crate) top: u16,
    #[command(flatten)]
    pub(crate) which: Which,
    #[command(flatten)]
    pub(crate) period: Period,
}

/// Totals by what.
#[derive(Debug, Args)]
pub(crate) struct Breakdown {
    /// By what
    #[arg(long, default_value = "route", value_parser = values::dimension())]
    pub(crate) by: Dimension,
    /// At most so many rows; the rest is told as one
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub(crate) limit: u16,
    #[command(flatten)]
    pub(crate) which: Which,
    #[command(flatten)]
    pub(crate) period: Period,
}

/// Which calls to list.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// At most so many; for more take `export`
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) which: Which,
    #[command(flatten)]
    pub(crate) period: Period,
}

/// Which calls to write where.
#[derive(Debug, Args)]
#[command(after_help = "\
A file is written under FILE.part and gets its name when it is whole. What broke off goes on behind its last whole part \
(200,000 calls) when the same command is run again. Parquet and Arrow have a file for each part: of more than one part \
they are FILE-0000, FILE-0001, … before the ending, and standard output takes only one.")]
pub(crate) struct Export {
    /// Format; without it by the ending of the file, or csv
    #[arg(long, value_parser = values::format())]
    pub(crate) format: Option<ExportFormat>,
    /// Where to; standard output if not given
    #[arg(long, short, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Begin anew, and write over a file that is there
    #[arg(long, requires = "file")]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) which: Which,
    #[command(flatten)]
    pub(crate) period: Period,
}

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory as _};

    use super::*;

    fn tell(command: &mut Command, told: &mut String) {
        let mut help = command.render_long_help().to_string();
        // What every command has is told once.
        let begin = help.find("\nConnection:\n").unwrap();
        let end = help.find("JSON always has them\n").unwrap();
        let same = help[begin..end].to_owned();
        if told.is_empty() {
            assert_eq!(command.get_name(), "keymeter");
        } else {
            assert!(told.contains(&same), "{}", command.get_name());
            help.replace_range(begin..end + "JSON always has them\n".len(), "\n(Connection, Output)\n");
        }
        told.push_str(&format!("==== {}\n{help}\n", command.get_bin_name().unwrap_or("keymeter")));
        for child in command.get_subcommands_mut().filter(|child| child.get_name() != "help") {
            tell(child, told);
        }
    }

    #[test]
    fn every_command_explains_itself() {
        let mut command = Arguments::command().term_width(100);
        command.build();
        command.clone().debug_assert();
        let mut told = String::new();
        tell(&mut command, &mut told);
        insta::assert_snapshot!("help", told);
    }

    #[test]
    fn no_argument_takes_a_secret() {
        let refused = Arguments::try_parse_from(["keymeter", "keys", "list", "--token", "kmsvc_1"]);
        assert_eq!(refused.unwrap_err().kind(), clap::error::ErrorKind::UnknownArgument);
        let refused = Arguments::try_parse_from(["keymeter", "sign-in", "--email", "a", "--password", "b"]);
        assert_eq!(refused.unwrap_err().kind(), clap::error::ErrorKind::UnknownArgument);
    }
}
