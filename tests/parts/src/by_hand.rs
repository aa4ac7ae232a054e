//! What somebody who runs a test by hand asks for, and is told.

use std::{
    env,
    io::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

/// The number in the environment variable `name`.
///
/// # Panics
/// If it is none.
#[must_use]
pub fn asked(name: &str, otherwise: u64) -> u64 {
    env::var_os(name).map_or(otherwise, |value| {
        let number = value.to_str().and_then(|text| text.parse().ok());
        number.unwrap_or_else(|| panic!("{name} must be a number"))
    })
}

/// Says a line at once; the test harness keeps it for failed tests, unless it is told not to.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Where chance begins: `KEYMETER_CHAOS_SEED`, or else another number each time. Says it, so that a run can be
/// repeated.
#[must_use]
pub fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    let seed = asked("KEYMETER_CHAOS_SEED", now.into());
    say(&format!("KEYMETER_CHAOS_SEED={seed}"));
    seed
}
