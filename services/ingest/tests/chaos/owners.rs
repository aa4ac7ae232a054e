//! Two workers on one shard. The owner is stopped, at any moment of its work, until the other has taken the shard; then it
//! goes on where it was.

use std::time::Duration;

use parts::{Service, asked, eventually, say, seed};

use crate::{
    crowd::Crowd,
    support::{Chance, Stage, owns},
};

#[tokio::test]
async fn the_owner_stopped_past_its_lease() {
    let stops = asked("KEYMETER_CHAOS_STOPS", 1);
    let mut chance = Chance::new(seed());
    let mut stage = Stage::start_roomy().await;
    let mut crowd = Crowd::new(&stage, chance.below(u64::MAX)).await;
    let (mut other, other_health) =
        Stage::spawn(&stage.nats.url(), &stage.clickhouse.url(), Stage::ROOMY).await;
    eventually("the other took it", async || owns(&other_health).await && !owns(&stage.health).await).await;
    let (first, first_health) = (&mut stage.ingest, stage.health.clone());
    for stop in 0..stops {
        let moment = Duration::from_millis(chance.below(400));
        let (owner, heir) = if stop % 2 == 0 {
            ((&mut other, &*other_health), &*first_health)
        } else {
            ((&mut *first, &*first_health), &*other_health)
        };
        crowd.during(stop_past_lease(owner, heir, moment)).await;
    }
    crowd.assert_exact(&stage).await;
    say(&format!("an owner stopped {stops} times, {} events accepted, each one row", crowd.accepted()));
}

async fn stop_past_lease((owner, health): (&mut Service, &str), heir: &str, moment: Duration) {
    tokio::time::sleep(moment).await;
    owner.pause();
    eventually("the heir took the shard", async || owns(heir).await).await;
    owner.resume();
    eventually("the one that woke up stands by", async || !owns(health).await).await;
    assert!(owns(heir).await, "the heir keeps the shard");
}
