//! Keys, usage, the live log and exports from a terminal or a CI job, over the public gRPC of keys and of query.
//! Knows nothing of a database, and keeps nothing but the session of whoever signed in.

use std::process::ExitCode;

use clap::Parser as _;

mod access;
mod arguments;
mod clients;
mod export;
mod export_file;
mod failure;
mod filter;
mod generate;
mod json;
mod key_reference;
mod keys;
mod log;
mod receipt;
mod screen;
mod session;
mod table;
mod tail;
mod usage;
mod values;
mod when;
mod words;
mod workspaces;

use arguments::{Arguments, Command, KeysCommand, UsageCommand};
use clients::Clients;
use failure::Failure;
use screen::Screen;

/// Reads the arguments, does what they say, tells what went wrong on standard error; the exit code of the process.
pub async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let screen = Screen::new(&arguments.show);
    match run(arguments, &screen).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(text) = failure.text() {
                screen.note(&format!("error: {text}"));
            }
            ExitCode::from(failure.exit as u8)
        }
    }
}

async fn run(arguments: Arguments, screen: &Screen) -> Result<(), Failure> {
    let Arguments { connection, command, .. } = arguments;
    let mut clients = match command {
        Command::Completion { shell } => return generate::completion(shell, screen),
        Command::Man { dir } => return generate::man(dir.as_deref(), screen),
        _ => Clients::new(connection)?,
    };
    let clients = &mut clients;
    match command {
        Command::SignIn(sign_in) => session::sign_in(clients, &sign_in, screen).await,
        Command::SignOut => session::sign_out(clients, screen).await,
        Command::Workspaces => workspaces::list(clients, screen).await,
        Command::Keys(command) => match *command {
            KeysCommand::Create(create) => keys::create(clients, &create, screen).await,
            KeysCommand::List(list) => keys::list(clients, &list, screen).await,
            KeysCommand::Show { key } => keys::show(clients, &key, screen).await,
            KeysCommand::Edit(edit) => keys::edit(clients, &edit, screen).await,
            KeysCommand::Rotate(rotate) => keys::rotate(clients, &rotate, screen).await,
            KeysCommand::Reveal(reveal) => keys::reveal(clients, &reveal, screen).await,
            KeysCommand::Disable(end) => keys::disable(clients, &end, screen).await,
            KeysCommand::Enable { key } => keys::enable(clients, &key, screen).await,
            KeysCommand::Delete(delete) => keys::delete(clients, &delete, screen).await,
        },
        Command::Usage(UsageCommand::Summary(summary)) => usage::summary(clients, &summary, screen).await,
        Command::Usage(UsageCommand::Breakdown(breakdown)) => {
            usage::breakdown(clients, &breakdown, screen).await
        }
        Command::Log(list) => log::list(clients, &list, screen).await,
        Command::Tail(which) => tail::follow(clients, &which, screen).await,
        Command::Export(asked) => export::run(clients, &asked, screen).await,
        Command::Completion { .. } | Command::Man { .. } => Ok(()),
    }
}
