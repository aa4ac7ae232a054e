//! Goes along a chain and says what is wrong with it. Pure; holds one entry at a time.

use std::{collections::BTreeMap, fmt};

use domain::WorkspaceId;
use serde::{Deserialize, Serialize};

use super::{Entry, Fact, Hash, Head, SignedHead, Stored};

/// The action of an audit entry that says that older ones were taken out.
pub const PRUNE_ACTION: &str = "prune_audit";

/// What such an entry says, beside the chain itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pruned {
    /// The last place whose entry may be gone.
    pub up_to_sequence: i64,
    /// How many entries of the chain are gone, since its beginning.
    pub entries: i64,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// In which chain.
    pub workspace_id: WorkspaceId,
    /// At which place.
    pub sequence: i64,
    /// What.
    pub flaw: Flaw,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flaw {
    /// The row does not hold what was recorded.
    Altered,
    /// The row's hash does not follow from the one before: something was moved, put in, or left out.
    NotLinked,
    /// No rows have these places.
    Missing {
        /// The last of them.
        to: i64,
    },
    /// Two rows have the place.
    Doubled,
    /// The row is beyond the signed end.
    Foreign,
    /// The chain ends before, or with something else than, what its head says.
    Truncated,
    /// The head is not signed by a key of this installation.
    Unsigned,
    /// There is no head.
    Headless,
    /// The chain has not, or no longer, what an exported head says.
    NotAsExported,
    /// Entries up to here were taken out, and no later one says that so many were, or that far.
    Pruned,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { workspace_id, sequence, flaw } = self;
        write!(f, "{workspace_id} {sequence}: ")?;
        match flaw {
            Flaw::Altered => f.write_str("altered: the entry is not what was recorded"),
            Flaw::NotLinked => f.write_str("not linked: the entry does not follow from the one before it"),
            Flaw::Missing { to } if to == sequence => f.write_str("missing: there is no such entry"),
            Flaw::Missing { to } => write!(f, "missing: there are no entries {sequence} to {to}"),
            Flaw::Doubled => f.write_str("foreign: a second entry has this place"),
            Flaw::Foreign => f.write_str("foreign: the entry is beyond the signed end of the chain"),
            Flaw::Truncated => f.write_str("truncated: the chain does not end as its head says"),
            Flaw::Unsigned => f.write_str("unsigned: the head's signature does not fit"),
            Flaw::Headless => f.write_str("missing: the chain has no head"),
            Flaw::NotAsExported => {
                f.write_str("truncated: the chain does not have what an exported head says")
            }
            Flaw::Pruned => f.write_str("missing: more was taken out up to here than later entries say"),
        }
    }
}

/// The check of one chain, entry by entry in the order of sequences.
pub struct Checker {
    last: Head,
    /// Hashes that heads kept elsewhere name.
    exported: BTreeMap<i64, Hash>,
    /// What is gone, and what entries say is gone.
    pruned: Pruned,
    recorded: Pruned,
    findings: Vec<Finding>,
}

impl Checker {
    /// Starts before the first entry; `exported` are heads of this chain that were kept elsewhere.
    #[must_use]
    pub fn new(workspace_id: WorkspaceId, exported: &[Head]) -> Self {
        let exported = exported.iter().map(|head| (head.sequence, head.entry_hash)).collect();
        Self {
            last: Head::start(workspace_id),
            exported,
            pruned: Pruned::default(),
            recorded: Pruned::default(),
            findings: vec![],
        }
    }

    /// The place of the last entry seen.
    #[must_use]
    pub const fn sequence(&self) -> i64 {
        self.last.sequence
    }

    /// Looks at the next entry.
    pub fn entry(&mut self, stored: &Stored) {
        let wanted = self.last.sequence + 1;
        let sequence = stored.sequence;
        if sequence > wanted {
            self.find(wanted, Flaw::Missing { to: sequence - 1 });
        } else if sequence < wanted {
            self.find(sequence, Flaw::Doubled);
            return;
        }
        let content = match &stored.entry {
            Some(entry) => entry.content_hash().ok(),
            None => stored.content_hash,
        };
        if content.is_none() || content != stored.content_hash {
            self.find(sequence, Flaw::Altered);
        } else if let Some(entry) = &stored.entry {
            self.recorded = self.recorded.max(pruned(entry));
        } else {
            self.pruned = Pruned { up_to_sequence: sequence, entries: self.pruned.entries + 1 };
        }
        // From what the rows say, so that one altered entry is one finding.
        let content = stored.content_hash.or(content).unwrap_or(Hash::START);
        let linked = self.last.entry_hash.next(sequence, &content);
        if stored.entry_hash != Some(linked) {
            self.find(sequence, Flaw::NotLinked);
        }
        self.last.sequence = sequence;
        self.last.entry_hash = stored.entry_hash.unwrap_or(linked);
        if self.exported.remove(&sequence).is_some_and(|hash| hash != self.last.entry_hash) {
            self.find(sequence, Flaw::NotAsExported);
        }
    }

    /// Compares what was seen with the head, whose key is `public_key`, if it is one of this installation.
    pub fn head(&mut self, signed: Option<&SignedHead>, public_key: Option<&[u8]>) {
        let Some(signed) = signed else {
            self.find(self.last.sequence, Flaw::Headless);
            return;
        };
        if !public_key.is_some_and(|key| signed.is_signed_by(key)) {
            self.find(signed.head.sequence, Flaw::Unsigned);
        }
        if self.last.sequence > signed.head.sequence {
            self.find(signed.head.sequence + 1, Flaw::Foreign);
        } else if self.last != signed.head {
            self.find(signed.head.sequence, Flaw::Truncated);
        }
    }

    /// What was found since the last call.
    pub fn findings(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.findings)
    }

    /// What is left to be found at the end: exported heads that the chain does not reach, and entries that were
    /// taken out without a word.
    #[must_use]
    pub fn finish(mut self) -> Vec<Finding> {
        for sequence in std::mem::take(&mut self.exported).into_keys().filter(|sequence| *sequence > 0) {
            self.find(sequence, Flaw::NotAsExported);
        }
        let Self { pruned, recorded, .. } = self;
        if pruned.up_to_sequence > recorded.up_to_sequence || pruned.entries > recorded.entries {
            self.find(pruned.up_to_sequence, Flaw::Pruned);
        }
        self.findings
    }

    fn find(&mut self, sequence: i64, flaw: Flaw) {
        self.findings.push(Finding { workspace_id: self.last.workspace_id, sequence, flaw });
    }
}

/// What an entry says is gone; nothing if it is about something else.
fn pruned(entry: &Entry) -> Pruned {
    match &entry.fact {
        Fact::Audit { action, after: Some(after), .. } if action == PRUNE_ACTION => {
            Pruned::deserialize(after).unwrap_or_default()
        }
        _ => Pruned::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::entry::tests::entry, *};

    fn chain(workspace_id: WorkspaceId, length: i64) -> Vec<Stored> {
        let mut last = Hash::START;
        let stored = |sequence| {
            let entry = entry(workspace_id);
            let content = entry.content_hash().unwrap();
            let entry = Some(entry);
            last = last.next(sequence, &content);
            Stored { sequence, entry, content_hash: Some(content), entry_hash: Some(last) }
        };
        (1..=length).map(stored).collect()
    }

    fn flaws(rows: &[Stored], exported: &[Head]) -> Vec<(i64, Flaw)> {
        let mut checker = Checker::new(rows[0].entry.as_ref().unwrap().workspace_id, exported);
        rows.iter().for_each(|row| checker.entry(row));
        checker.finish().into_iter().map(|finding| (finding.sequence, finding.flaw)).collect()
    }

    #[test]
    fn each_flaw_is_named_with_its_place() {
        let workspace_id = WorkspaceId::generate();
        let whole = chain(workspace_id, 4);
        assert_eq!(flaws(&whole, &[]), []);
        let with = |change: &dyn Fn(&mut Vec<Stored>)| {
            let mut rows = whole.clone();
            change(&mut rows);
            flaws(&rows, &[])
        };
        assert_eq!(with(&|rows| rows[1].entry.as_mut().unwrap().actor.push('x')), [(2, Flaw::Altered)]);
        let deleted = with(&|rows| drop(rows.drain(1..3)));
        assert_eq!(deleted, [(2, Flaw::Missing { to: 3 }), (4, Flaw::NotLinked)]);
        let twice = with(&|rows| rows.insert(2, rows[1].clone()));
        assert_eq!(twice, [(2, Flaw::Doubled)]);
        let swapped = with(&|rows| {
            rows.swap(1, 2);
            (rows[1].sequence, rows[2].sequence) = (2, 3);
        });
        assert_eq!(swapped, [(2, Flaw::NotLinked), (3, Flaw::NotLinked), (4, Flaw::NotLinked)]);
        let exported = |sequence, entry_hash| Head { workspace_id, sequence, entry_hash };
        let good = exported(2, whole[1].entry_hash.unwrap());
        assert_eq!(flaws(&whole, &[good]), []);
        let others = [exported(3, Hash::START), exported(5, Hash::START)];
        assert_eq!(flaws(&whole, &others), [(3, Flaw::NotAsExported), (5, Flaw::NotAsExported)]);
    }
}
