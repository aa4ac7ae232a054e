//! `keys rewrap`: wraps data keys, keys of persons and signing keys under the current key-encryption key, while the
//! service runs. What is sealed under them is not touched. Stopped and started again, it goes on.

use std::io::{self, Write as _};

use anyhow::{Context as _, ensure};

use crate::{
    config::Config,
    seal::{Kek, KekError},
    store::{Store, rewrap::WrappedIn},
};

const PAGE: i64 = 500;

/// What became of the keys of a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rewrapped {
    /// Now under the current key.
    pub done: usize,
    /// Under keys that are not known; left alone.
    pub lost: usize,
}

/// Runs the command; an error if something could not be rewrapped.
///
/// # Errors
/// Postgres; the keeper of the key-encryption key; keys under a key-encryption key that is not known.
pub async fn run(config: &Config) -> anyhow::Result<()> {
    let (store, kek) = (config.store()?, config.kek()?);
    store.check_version().await?;
    let mut lost = 0;
    for (table, what) in [
        (WrappedIn::SigningKeys, "signing keys"),
        (WrappedIn::DataKeys, "data keys"),
        (WrappedIn::PersonKeys, "keys of persons"),
    ] {
        let progress = |done: usize| {
            // Nobody may be there to read it.
            let _ = writeln!(io::stderr(), "{done} {what} so far");
        };
        let rewrapped = rewrap(&store, &kek, table, progress).await.with_context(|| what.to_owned())?;
        writeln!(io::stdout(), "{} {what} are now under {}", rewrapped.done, kek.current())?;
        lost += rewrapped.lost;
    }
    store.close().await;
    ensure!(
        lost == 0,
        "{lost} keys are wrapped under key-encryption keys that are not known; they were left alone"
    );
    Ok(())
}

/// Rewraps one table.
///
/// # Errors
/// Postgres; the keeper; a key that was changed.
pub async fn rewrap(
    store: &Store,
    kek: &Kek,
    table: WrappedIn,
    progress: impl Fn(usize),
) -> anyhow::Result<Rewrapped> {
    let (mut after, mut rewrapped) = (String::new(), Rewrapped::default());
    loop {
        let page = store.wrapped_otherwise(table, kek.current(), &after, PAGE).await?;
        let Some((last, ..)) = page.last() else { return Ok(rewrapped) };
        after.clone_from(last);
        for (name, place, was) in page {
            match kek.rewrap(&place, &was).await {
                Ok(new) => {
                    store.replace_wrapped(table, &name, &was, &new).await?;
                    rewrapped.done += 1;
                }
                Err(KekError::Unknown) => rewrapped.lost += 1,
                Err(error) => return Err(error).context(name),
            }
        }
        progress(rewrapped.done);
    }
}
