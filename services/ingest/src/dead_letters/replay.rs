//! `ingest dead-letters replay`: takes each letter's shard for a moment, counts what has no row, removes the letter
//! only then. A letter keeps the identity that its edge gave it, so whatever ends this command, it can be run again.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
};

use clap::Args;
use serde_json::json;

use super::Selection;
use crate::{
    Services,
    command::{Progress, connect},
    config::Config,
    letter::{self, Letter},
    letters,
    restore::{self, Outcome, Published},
    takeover,
    world::Servers,
};

/// Letters that are counted at once.
const LETTERS_AT_ONCE: usize = 500;

/// Settings of `replay`.
#[derive(Debug, Clone, Args)]
pub struct Replay {
    #[command(flatten)]
    those: Selection,
    /// A line of JSON for each
    #[arg(long)]
    json: bool,
}

/// How letters ended.
#[derive(Debug, Default)]
struct Total {
    counted: u64,
    known: u64,
    erased: u64,
    unreadable: u64,
}

pub(super) async fn run(config: &Config, asked: &Replay) -> anyhow::Result<()> {
    let services = connect(config).await?;
    let mut by_shard: BTreeMap<u16, Vec<Letter>> = BTreeMap::new();
    let those = asked.those.read(&services.world.bus).await?;
    let mut progress = Progress::new("replay", those.len() as u64);
    for letter in those {
        by_shard.entry(letter.shard).or_default().push(letter);
    }
    let mut total = Total::default();
    for (shard, letters) in by_shard {
        let work = Box::pin(replay_shard(&services, shard, &letters, asked.json, &mut total, &mut progress));
        takeover::in_one_connection(&services.world, work).await?;
    }
    if !asked.json {
        let Total { counted, known, erased, unreadable } = total;
        writeln!(
            io::stdout(),
            "{counted} counted, {known} had been counted before, {erased} erased, {unreadable} still unreadable"
        )?;
    }
    Ok(())
}

async fn replay_shard(
    services: &Services<Servers>,
    shard: u16,
    letters: &[Letter],
    json: bool,
    total: &mut Total,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    let erased = services.erasures.borrow().erased.clone();
    let mut lease = takeover::take(shard, "replay", services).await?;
    let mut inserts = 0;
    for letters in letters.chunks(LETTERS_AT_ONCE) {
        let messages: Vec<Published> = letters
            .iter()
            .map(|letter| Published { at: letter.published_at, payload: letter.payload.clone() })
            .collect();
        let next = || {
            inserts += 1;
            inserts
        };
        let outcomes = restore::restore(&services.world, &mut lease, shard, &erased, &messages, next).await?;
        for (letter, outcome) in letters.iter().zip(outcomes) {
            let fate = fate(&outcome, letter::is_erased(&letter.payload, letter.published_at, &erased));
            say(letter, fate, &outcome, json)?;
            match fate {
                "counted" => total.counted += 1,
                "known" => total.known += 1,
                "erased" => total.erased += 1,
                _ => total.unreadable += 1,
            }
            if fate != "unreadable" {
                letters::remove(services.world.bus.jetstream(), letter.number).await?;
            }
            progress.step();
            lease.renew().await?;
        }
    }
    lease.release().await;
    Ok(())
}

fn fate(outcome: &Outcome, is_erased: bool) -> &'static str {
    match outcome {
        _ if is_erased => "erased",
        Outcome { unreadable: Some(_), .. } => "unreadable",
        Outcome { counted: 1.., .. } => "counted",
        Outcome { erased: 1.., known: 0, .. } => "erased",
        _ => "known",
    }
}

fn say(letter: &Letter, fate: &str, outcome: &Outcome, json: bool) -> io::Result<()> {
    let Letter { number, position, .. } = letter;
    let mut out = io::stdout().lock();
    if json {
        let reason = &outcome.unreadable;
        return writeln!(
            out,
            "{}",
            json!({ "number": number, "position": position, "fate": fate, "reason": reason })
        );
    }
    match &outcome.unreadable {
        Some(reason) if fate == "unreadable" => writeln!(out, "{number:>8}  {position}  {fate}: {reason}"),
        _ => writeln!(out, "{number:>8}  {position}  {fate}"),
    }
}
