//! What is made from the arguments themselves: completion scripts and man pages.

use std::{fs, path::Path};

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::{
    arguments::Arguments,
    failure::{Exit, Failure},
    screen::Screen,
};

/// Prints the completion script of a shell.
pub(crate) fn completion(shell: Shell, screen: &Screen) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "keymeter", &mut script);
    screen.bytes(&script)
}

/// Prints the main page, or writes a page for each command into a folder.
pub(crate) fn man(folder: Option<&Path>, screen: &Screen) -> Result<(), Failure> {
    if let Some(folder) = folder {
        let failed = |error| Failure::file("--dir", folder, &error);
        fs::create_dir_all(folder).map_err(failed)?;
        return clap_mangen::generate_to(Arguments::command(), folder).map_err(failed);
    }
    let mut page = Vec::new();
    let made = clap_mangen::Man::new(Arguments::command().disable_help_subcommand(true)).render(&mut page);
    made.map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
    screen.bytes(&page)
}
