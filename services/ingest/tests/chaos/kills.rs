//! `kill -9` of ingest, ClickHouse and NATS at random moments, now and then two of them at once.

use std::time::Duration;

use parts::{asked, say, seed};

use crate::{
    crowd::Crowd,
    support::{Chance, Stage},
};

/// Most milliseconds between two kills, from when all is well again.
const LIFE_MAX_MS: u64 = 400;
const CHECK_EVERY: u64 = 50;

#[tokio::test]
async fn every_part_killed_at_random() {
    let kills = asked("KEYMETER_CHAOS_KILLS", 3);
    let mut chance = Chance::new(seed());
    let mut stage = Stage::start().await;
    let mut crowd = Crowd::new(&stage, chance.below(u64::MAX)).await;
    // Of ingest, ClickHouse, NATS.
    let mut left = [kills; 3];
    let mut rounds = 0;
    while left.iter().any(|left| *left > 0) {
        let life = Duration::from_millis(chance.below(LIFE_MAX_MS));
        let victims = choose(&mut chance, &mut left);
        crowd
            .during(async {
                tokio::time::sleep(life).await;
                kill(&mut stage, victims).await;
            })
            .await;
        rounds += 1;
        if rounds % CHECK_EVERY == 0 {
            crowd.assert_exact(&stage).await;
            say(&format!("{left:?} kills to go, {} events", crowd.accepted()));
        }
    }
    crowd.assert_exact(&stage).await;
    say(&format!("{kills} kills of each, {} events accepted, each one row", crowd.accepted()));
}

/// One part, or now and then two.
fn choose(chance: &mut Chance, left: &mut [u64; 3]) -> [bool; 3] {
    let mut victims = [false; 3];
    for _ in 0..=u64::from(chance.below(4) == 0) {
        let alive: Vec<usize> = (0..3).filter(|at| left[*at] > 0 && !victims[*at]).collect();
        if alive.is_empty() {
            break;
        }
        let at = alive[chance.below(alive.len() as u64) as usize];
        victims[at] = true;
        left[at] -= 1;
    }
    victims
}

/// Kills them, starts them again, and waits until all is well, so that the next kill meets a worker at work.
async fn kill(stage: &mut Stage, [ingest, clickhouse, nats]: [bool; 3]) {
    if ingest {
        stage.ingest.kill().await;
    }
    if clickhouse {
        stage.clickhouse.kill().await;
    }
    if nats {
        stage.nats.kill().await;
    }
    if ingest {
        stage.ingest.restart();
    }
    if nats {
        stage.nats.restart().await;
    }
    if clickhouse {
        stage.clickhouse.restart().await;
    }
    stage.wait_ready().await;
}
