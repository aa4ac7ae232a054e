//! What an audit of the model finds: exact, since nothing changes while it looks.

use ingest::{audit::Findings, decode::decode, letter, record::Record, restore::Published};

use crate::{SHARD, model::edge_number, servers::Shared};

/// What is closed and has neither a row nor a gap, with what the stream holds of it.
pub(crate) fn audit(shared: &Shared, record: &Record) -> Findings {
    let mut findings = Findings::default();
    for (edge_id, boot, closed) in record.closed.iter() {
        for seq in closed.iter().flat_map(|(first, last)| first..=last) {
            let identity = (edge_number(edge_id), boot, seq);
            let is_known =
                shared.clickhouse.rows.contains_key(&identity) || shared.clickhouse.gaps.contains(&identity);
            if !is_known {
                findings.missing.insert((edge_id.to_owned(), boot, seq));
            }
        }
    }
    let held = shared.disk.after(0, usize::MAX);
    for (_, at, payload) in held.into_iter().filter(|(sequence, ..)| *sequence <= record.cursor.sequence) {
        let Ok(decoded) = decode(payload.clone(), SHARD) else { continue };
        for (index, seq) in (decoded.first_seq..).take(decoded.events.len()).enumerate() {
            if findings.missing.contains(&(decoded.edge_id.clone(), decoded.boot_epoch, seq)) {
                findings.published.push(Published { at, payload: letter::alone(&payload, index, seq) });
            }
        }
    }
    findings
}
