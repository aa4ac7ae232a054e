//! `ingest dead-letters`: looks at what could not be read, counts what can be read by now, removes the rest. Tables
//! for a person, JSON for programs; answers on stdout, everything else on stderr.

use std::{
    collections::BTreeSet,
    io::{self, BufRead as _, Write as _},
};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    bus::Bus,
    command::{Progress, connect_nats},
    config::Config,
    letter::{self, Letter},
    letters::{self, Letters, Which},
};

mod replay;

/// Longest reason in the table.
const REASON_CHARS_MAX: usize = 100;

/// What to do with dead letters.
#[derive(Debug, Clone, Subcommand)]
pub enum Action {
    /// Print what they are, oldest first
    List(List),
    /// Print all of one: why, where, its fields as far as they can be read, its bytes
    Show(Show),
    /// Count those that can be read by now, each once however often this is done, and say what became of each
    Replay(replay::Replay),
    /// Remove some for good
    Drop(DropThem),
}

/// Settings of `list`.
#[derive(Debug, Clone, Args)]
pub struct List {
    #[command(flatten)]
    filter: Filter,
    /// Most letters to print
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Only those with a higher number, to go on where the last page ended
    #[arg(long, default_value_t = 0, conflicts_with = "since")]
    after: u64,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

/// Settings of `show`.
#[derive(Debug, Clone, Args)]
pub struct Show {
    /// Its number or its position, as `list` prints them
    letter: Handle,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

/// Settings of `drop`.
#[derive(Debug, Clone, Args)]
pub struct DropThem {
    #[command(flatten)]
    those: Selection,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Of which letters a command speaks.
#[derive(Debug, Clone, Default, Args)]
#[group(multiple = true)]
pub struct Filter {
    /// Whose reason has this in it
    #[arg(long)]
    reason: Option<String>,
    /// Of this shard
    #[arg(long)]
    shard: Option<u16>,
    /// Stored since then: 90s, 15m, 24h, 7d, or a time such as 2026-11-22T15:00:00Z
    #[arg(long, value_parser = since)]
    since: Option<OffsetDateTime>,
}

/// Letters that are named, or all that a filter lets through.
#[derive(Debug, Clone, Default, Args)]
pub struct Selection {
    /// Their numbers or positions, as `list` prints them
    letters: Vec<Handle>,
    #[command(flatten)]
    filter: Filter,
    /// All of them
    #[arg(long, conflicts_with_all = ["letters", "reason", "shard", "since"])]
    all: bool,
}

/// What one letter is called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Handle {
    /// By its place among the dead letters.
    Number(u64),
    /// By where it stood before.
    Position(String),
}

impl std::str::FromStr for Handle {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(number) = text.parse() {
            return Ok(Self::Number(number));
        }
        let is_position = text.split_once('@').is_some_and(|(_, rest)| rest.contains(':'));
        if is_position {
            Ok(Self::Position(text.to_owned()))
        } else {
            Err("expected a number such as 17, or a position such as REQUEST_EVENTS_0@…:17/3; `list` prints both"
                .to_owned())
        }
    }
}

impl Handle {
    fn names(&self, letter: &Letter) -> bool {
        match self {
            Self::Number(number) => *number == letter.number,
            Self::Position(position) => *position == letter.position,
        }
    }
}

impl Filter {
    fn which(&self, after: u64) -> Which {
        Which { shard: self.shard, after, since: self.since }
    }

    fn admits(&self, letter: &Letter) -> bool {
        self.reason.as_ref().is_none_or(|part| letter.reason.contains(part.as_str()))
    }
}

impl Selection {
    /// The letters that are meant, in order.
    pub(crate) async fn read(&self, bus: &Bus) -> anyhow::Result<Vec<Letter>> {
        let filters =
            self.filter.reason.is_some() || self.filter.shard.is_some() || self.filter.since.is_some();
        ensure!(
            self.all || filters || !self.letters.is_empty(),
            "which dead letters? Name numbers or positions, or say --reason, --shard, --since or --all"
        );
        let mut found = Vec::new();
        let mut unseen: BTreeSet<&Handle> = self.letters.iter().collect();
        let mut letters = Letters::read(bus.jetstream(), self.filter.which(0)).await?;
        let mut progress = Progress::new("read", letters.left());
        while let Some(letter) = letters.next().await? {
            progress.step();
            unseen.retain(|handle| !handle.names(&letter));
            let is_named = self.letters.is_empty() || self.letters.iter().any(|handle| handle.names(&letter));
            if is_named && self.filter.admits(&letter) {
                found.push(letter);
            }
        }
        if let Some(handle) = unseen.first() {
            bail!("there is no dead letter {handle}; `ingest dead-letters list` prints those that there are");
        }
        Ok(found)
    }
}

impl std::fmt::Display for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Position(position) => f.write_str(position),
        }
    }
}

/// Does what was asked.
///
/// # Errors
/// NATS or ClickHouse; letters that are not there.
pub async fn run(config: &Config, action: Action) -> anyhow::Result<()> {
    match action {
        Action::List(asked) => list(&connect_nats(config).await?, &asked).await,
        Action::Show(asked) => show(&connect_nats(config).await?, &asked).await,
        Action::Replay(asked) => replay::run(config, &asked).await,
        Action::Drop(asked) => drop_them(&connect_nats(config).await?, &asked).await,
    }
}

async fn list(bus: &Bus, asked: &List) -> anyhow::Result<()> {
    let mut letters = Letters::read(bus.jetstream(), asked.filter.which(asked.after)).await?;
    let mut page = Vec::new();
    let mut goes_on = false;
    while let Some(letter) = letters.next().await? {
        if asked.filter.admits(&letter) {
            goes_on = page.len() == asked.limit as usize;
            if goes_on {
                break;
            }
            page.push(letter);
        }
    }
    let next_after = page.last().filter(|_| goes_on).map(|letter| letter.number);
    let mut out = io::stdout().lock();
    if asked.json {
        let letters: Vec<Value> = page.iter().map(head).collect();
        return Ok(writeln!(out, "{}", json!({ "letters": letters, "next_after": next_after }))?);
    }
    let position = page.iter().map(|letter| letter.position.len()).max().unwrap_or(0).max(8);
    if !page.is_empty() {
        writeln!(
            out,
            "{:>8}  {:>5}  {:20}  {:position$}  REASON",
            "NUMBER", "SHARD", "STORED AT", "POSITION"
        )?;
    }
    for letter in &page {
        let stored_at = letter.stored_at.replace_nanosecond(0)?.format(&Rfc3339)?;
        let reason: String = letter.reason.chars().take(REASON_CHARS_MAX).collect();
        let Letter { number, shard, position: at, .. } = letter;
        writeln!(out, "{number:>8}  {shard:>5}  {stored_at:20}  {at:position$}  {reason}")?;
    }
    match next_after {
        Some(number) => writeln!(out, "There are more: --after {number}")?,
        None if page.is_empty() => writeln!(out, "No dead letters.")?,
        None => {}
    }
    Ok(())
}

async fn show(bus: &Bus, asked: &Show) -> anyhow::Result<()> {
    let those = Selection { letters: vec![asked.letter.clone()], ..Selection::default() };
    let letter = those.read(bus).await?.pop().context("it was removed meanwhile")?;
    let readable = letter::readable(&letter.payload);
    let bytes = data_encoding::HEXLOWER.encode(&letter.payload);
    let mut out = io::stdout().lock();
    if asked.json {
        let mut shown = head(&letter);
        let fields: Vec<Value> =
            readable.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        shown["fields"] = fields.into();
        shown["bytes"] = bytes.into();
        return Ok(writeln!(out, "{shown}")?);
    }
    let Letter { number, shard, reason, position, .. } = &letter;
    writeln!(out, "number        {number}\nreason        {reason}\nposition      {position}")?;
    writeln!(out, "shard         {shard}\npublished at  {}", letter.published_at.format(&Rfc3339)?)?;
    writeln!(out, "stored at     {}\n", letter.stored_at.format(&Rfc3339)?)?;
    let width = readable.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in readable {
        writeln!(out, "{name:width$}  {value}")?;
    }
    writeln!(out, "\nbytes  {bytes}")?;
    Ok(())
}

async fn drop_them(bus: &Bus, asked: &DropThem) -> anyhow::Result<()> {
    let those = asked.those.read(bus).await?;
    if !asked.yes && !those.is_empty() {
        write!(
            io::stderr(),
            "Drop {} dead letters for good? They can not be counted then. Type yes: ",
            those.len()
        )?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        ensure!(answer.trim() == "yes", "nothing was dropped; --yes drops without asking");
    }
    let mut progress = Progress::new("drop", those.len() as u64);
    let mut dropped = 0;
    for letter in those {
        dropped += u64::from(letters::remove(bus.jetstream(), letter.number).await?);
        progress.step();
    }
    writeln!(io::stdout(), "{dropped} dropped")?;
    Ok(())
}

fn head(letter: &Letter) -> Value {
    let text = |at: OffsetDateTime| at.format(&Rfc3339).unwrap_or_default();
    json!({
        "number": letter.number,
        "shard": letter.shard,
        "reason": letter.reason,
        "position": letter.position,
        "published_at": text(letter.published_at),
        "stored_at": text(letter.stored_at),
    })
}

fn since(text: &str) -> Result<OffsetDateTime, String> {
    if let Ok(at) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(at);
    }
    let ago = || {
        let unit = text.chars().last()?;
        let number: i64 = text.strip_suffix(unit)?.parse().ok().filter(|number| *number >= 0)?;
        let seconds = number.checked_mul(match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return None,
        })?;
        OffsetDateTime::now_utc().checked_sub(Duration::seconds(seconds))
    };
    ago().ok_or_else(|| "expected 90s, 15m, 24h, 7d, or a time such as 2026-11-22T15:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("90s", 90)]
    #[case("24h", 86_400)]
    #[case("7d", 604_800)]
    fn since_is_a_while_ago_or_a_time(#[case] text: &str, #[case] seconds: i64) {
        let at = since(text).unwrap();
        let ago = OffsetDateTime::now_utc() - at;
        assert!((seconds..seconds + 60).contains(&ago.whole_seconds()));
        assert_eq!(since("2026-11-22T15:00:00Z").unwrap().unix_timestamp(), 1_795_359_600);
        for wrong in ["", "h", "-3h", "3w", "yesterday", "9223372036854775807d"] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_letter_is_named_by_number_or_position() {
        assert_eq!("17".parse(), Ok(Handle::Number(17)));
        let position = "REQUEST_EVENTS_1@2026-11-22T15:00:00Z:17/3";
        assert_eq!(position.parse(), Ok(Handle::Position(position.to_owned())));
        assert!("the first".parse::<Handle>().unwrap_err().contains("`list` prints both"));
    }
}
