//! A million keys, made in Postgres: how long the relay writes them, what an edge needs to start with them, and
//! how fast the service is beside them.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use figures::{Figures, process::memory_mib, say};
use proto::keys::{GetKeyRequest, Key, ListKeysRequest};
use tokio::time::sleep;

use crate::world::{World, signed};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Pages, keys and creations that are measured.
const CALLS: usize = 1_000;

pub(crate) async fn measure(world: &mut World, figures: &Figures, keys: usize) -> anyhow::Result<()> {
    say(&format!("{keys} keys into Postgres"));
    fill(world, keys);
    let began = Instant::now();
    let _ = world.postgres.query("insert into key_outbox (secret_id) select secret_id from secrets where start = 'bench'; notify key_outbox");
    say("waiting for the relay");
    wait(world, "select count(*) from key_outbox", |left| left == 0).await?;
    figures.note("relay_1m_s", began.elapsed().as_secs_f64());
    say("waiting for the snapshot");
    let tail = "select bucket_sequence - coalesce(snapshot_sequence, 0) from feed_state";
    wait(world, tail, |tail| tail < 20_000).await?;
    figures.note("snapshot_written_after_s", began.elapsed().as_secs_f64());
    starting_edge(world, figures).await?;
    figures.note("nats_1m_rss_mb", memory_mib(world.nats.pid(), "VmRSS")?);
    calls(world, figures).await
}

/// Keys with a secret each, as if they had been made one by one, but without history.
fn fill(world: &World, keys: usize) {
    let workspace_id = "select workspace_id from workspaces limit 1";
    let _ = world.postgres.query(&format!(
        "insert into keys (key_id, workspace_id, version, display_name, description, environment, start,
                           create_time, update_time)
         select gen_random_uuid(), ({workspace_id}), 1, 'key ' || n, '', 'live', 'bench',
                now() - n * interval '1 second', now() - n * interval '1 second'
         from generate_series(1, {keys}) n;
         insert into secrets (secret_id, key_id, key_version, secret_hash, start, create_time)
         select gen_random_uuid(), key_id, 1, sha256(uuid_send(gen_random_uuid())), 'bench', create_time
         from keys where start = 'bench';
         insert into key_activity (key_id, workspace_id) select key_id, workspace_id from keys
         where start = 'bench';
         analyze"
    ));
}

async fn wait(world: &World, sql: &str, is_done: impl Fn(i64) -> bool) -> anyhow::Result<()> {
    let mut said = Instant::now();
    loop {
        let value: i64 = world.postgres.query(sql).trim().parse().context("a number")?;
        if is_done(value) {
            return Ok(());
        }
        if said.elapsed() > Duration::from_secs(10) {
            said = Instant::now();
            say(&format!("  {value} left"));
        }
        // Counting costs what is measured.
        sleep(Duration::from_secs(1)).await;
    }
}

async fn starting_edge(world: &World, figures: &Figures) -> anyhow::Result<()> {
    say("a new edge");
    let began = Instant::now();
    let edge = world.spawn_edge("new edge").await;
    while !matches!(parts::get(&edge.health, "/readyz").await, Ok(said) if said.status == 200) {
        sleep(LOOK_EVERY).await;
    }
    figures.note("snapshot_1m_s", began.elapsed().as_secs_f64());
    figures.note("snapshot_1m_edge_rss_mb", memory_mib(edge.service.pid(), "VmRSS")?);
    figures.note("snapshot_1m_edge_rss_peak_mb", memory_mib(edge.service.pid(), "VmHWM")?);
    Ok(())
}

async fn calls(world: &World, figures: &Figures) -> anyhow::Result<()> {
    say("calls on keys, one after the other");
    let (mut keys, token) = (world.keys().await?, world.token().await?);
    let (mut lists, mut gets, mut creates) = (Vec::new(), Vec::new(), Vec::new());
    let (mut known, mut page_token) = (Vec::<Key>::new(), String::new());
    for _ in 0..CALLS {
        let request = ListKeysRequest { parent: world.workspace.clone(), page_token, ..Default::default() };
        let began = Instant::now();
        let page = keys.list_keys(signed(&token, request)).await?.into_inner();
        lists.push(began.elapsed());
        known.extend(page.keys.into_iter().take(1));
        page_token = page.next_page_token;
    }
    for key in known {
        let began = Instant::now();
        keys.get_key(signed(&token, GetKeyRequest { name: key.name })).await?;
        gets.push(began.elapsed());
    }
    for _ in 0..CALLS {
        let began = Instant::now();
        world.create(&mut keys, &token).await?;
        creates.push(began.elapsed());
    }
    figures.note_times("keys_1m_list", lists, &["p50", "p99"]);
    figures.note_times("keys_1m_get", gets, &["p50", "p99"]);
    figures.note_times("keys_1m_create", creates, &["p50", "p99"]);
    Ok(())
}
