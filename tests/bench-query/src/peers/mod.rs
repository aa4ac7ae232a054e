//! The same questions asked of others on this machine, over the same calls: Unkey's tables and Postgres. Their data are
//! dropped after it.

mod postgres;
mod sql;
mod unkey;

use figures::{Figures, median, say};

use crate::{
    measure::line,
    ours::Ours,
    questions::{Key, Kind, Question, compared},
    run,
};

/// What somebody answered: what was counted, and the median in milliseconds.
type Answered = (u64, f64);

/// Notes how many times as long others take, and prints where they are quicker.
pub(crate) async fn compare(
    figures: &Figures,
    ours: &Ours,
    keys: &[Key],
    suffix: &str,
) -> anyhow::Result<()> {
    let questions = compared(keys, ours.loaded.end_ms);
    let clickhouse = &ours.loaded.clickhouse;
    unkey::load(clickhouse, ours.loaded.end_ms).await?;
    say(&format!("{} questions, asked of us and of Unkey's tables", questions.len()));
    let (mut of_rollup, mut of_rows) = (Vec::new(), Vec::new());
    for question in &questions {
        // One right after the other, so that what else runs on the machine slows both.
        let answers = (run::beside(ours, question).await?, unkey::ask(clickhouse, question).await?);
        let ratio = beside("Unkey", question, answers)?;
        if unkey::is_in_rollup(question) { of_rollup.push(ratio) } else { of_rows.push(ratio) }
    }
    unkey::drop(clickhouse).await?;
    figures.note(&format!("unkey_rollup_ratio{suffix}"), median(of_rollup));
    figures.note(&format!("unkey_rows_ratio{suffix}"), median(of_rows));

    let postgres = postgres::Peer::load(clickhouse, ours.loaded.end_ms).await?;
    say(&format!("{} questions, asked of us and of Postgres", questions.len()));
    let (mut hot, mut all) = (Vec::new(), Vec::new());
    for question in &questions {
        let answers = (run::beside(ours, question).await?, postgres.ask(question).await?);
        let ratio = beside("Postgres", question, answers)?;
        all.push(ratio);
        if question.key.rank == 0 {
            hot.push(ratio);
        }
    }
    figures.note(&format!("postgres_hot_ratio{suffix}"), median(hot));
    figures.note(&format!("postgres_ratio{suffix}"), median(all));
    Ok(())
}

/// Their time over ours.
fn beside(name: &str, question: &Question, answers: (Answered, Answered)) -> anyhow::Result<f64> {
    let ((our_size, our_ms), (their_size, their_ms)) = answers;
    let slower = if our_ms > their_ms { "SLOWER" } else { "" };
    line(format_args!("{our_ms:9.1} ms, {name} {their_ms:9.1} ms {slower:6}  {question}"))?;
    // Rollups count whole hours or days, so only rows can be compared.
    let is_comparable =
        matches!(question.kind, Kind::Log) || (question.kind == Kind::Summary && name == "Postgres");
    if is_comparable && our_size != their_size {
        say(&format!("{name} counts {their_size} where we count {our_size}: {question}"));
    }
    Ok(their_ms / our_ms)
}
