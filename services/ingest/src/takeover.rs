//! Becoming the only writer of a shard, always in full, whatever happened before: PROTOCOL.md says why each step
//! stands where it does. The only way to a [`Lease`].

use crate::{Services, lease::Lease, record::Record, trouble::Trouble, world::World};

/// Takes `shard` from whoever has it, and closes what was written without being recorded.
///
/// # Errors
/// Why it could not; it can be tried again at any point.
pub async fn take<W: World>(
    shard: u16,
    reason: &'static str,
    services: &Services<W>,
) -> Result<Lease<W>, Trouble> {
    let Services { world, owner, .. } = services;
    let stream = world.ensure(shard).await?;

    // 1. The epoch: above the record's and above the fence's, since NATS may have forgotten the newest ones. The record is
    // read last, so that its owner hardly ever renews it between that and the claim.
    let fence = world.fence(shard).await?;
    let (record, revision) = world.record(shard).await?;
    let record = record.unwrap_or_default();
    let epoch = record.epoch.max(fence) + 1;
    let claimed = Record { epoch, owner: owner.clone(), ..record };
    let mut lease = Lease::claim(world.clone(), shard, claimed, revision).await?;

    // 2. and 3. From here on no older writer can add a row: a new insert is refused, a running one is waited for.
    lease.hold(world.raise_fence(shard, epoch)).await??;
    lease.hold(world.end_older_inserts(shard, epoch)).await??;

    // 4. So these are all the rows that the record does not know of.
    let closed_through_ms = lease.record().closed_through_ms;
    let found = lease.hold(world.found_after(shard, closed_through_ms)).await??;
    let mut record = lease.record().clone();
    let mut rows_found = 0;
    for run in found {
        rows_found += run.last - run.first + 1;
        record.closed.insert_found(&run.edge_id, run.boot_epoch, (run.first, run.last));
        record.closed_through_ms = record.closed_through_ms.max(run.newest_ms);
    }
    // Also if the rows that the archive is about are erased, every later one is later than what a pass has read.
    if let Some(archived) = lease.hold(world.archived(shard)).await?? {
        record.closed_through_ms = record.closed_through_ms.max(archived.through_ms);
    }
    record.cursor = record.cursor.resume(&stream.incarnation, stream.last_sequence);
    tracing::info!(
        shard,
        epoch,
        reason,
        cursor = record.cursor.sequence,
        rows.found = rows_found,
        "took the shard"
    );
    lease.write(record).await?;
    services.metrics.took_over(shard, reason, rows_found);
    Ok(lease)
}

/// Does `work` that takes a shard for a moment, and drops it where it stands once the connection to NATS is made anew:
/// a NATS that went back in time may give revisions out twice, so that a lease of before would look like the newest.
///
/// # Errors
/// As `work`, and after a new connection; it can be done again.
pub async fn in_one_connection<W: World, T, E: From<Trouble>>(
    world: &W,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    // Before the work is begun, so that no later connection goes unnoticed.
    let mut connections = world.connections();
    tokio::select! {
        biased;
        _ = connections.changed() => Err(Trouble::Nats("the connection was made anew; try again".into()).into()),
        done = work => done,
    }
}
