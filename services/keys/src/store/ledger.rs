//! The chains in Postgres: entries are written when a transaction is committed, after everything else in it, so
//! that the end of a chain is held for two short statements. Entries are never changed.

use std::collections::{BTreeMap, HashMap};

use domain::{AccountId, KeyId, WorkspaceId};
use sqlx::{Row as _, postgres::PgRow};
use time::OffsetDateTime;

use super::{Store, StoreError, Tx};
use crate::{
    caller::Caller,
    ledger::{Address, Entry, Fact, Hash, Head, Ledger, Origin, PersonKey, Sealed, SignedHead, Stored},
};

/// What will be an entry once its transaction is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) workspace_id: WorkspaceId,
    pub(super) fact: Fact,
    pub(super) caller: Caller,
    pub(super) time: OffsetDateTime,
}

/// The end of a chain as Postgres has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainEnd {
    /// The head.
    pub signed: SignedHead,
    /// The key that signed it; `None` if there is no such key.
    pub public_key: Option<Vec<u8>>,
}

impl Tx {
    /// Writes what is pending; the last thing before the commit.
    pub(super) async fn append(&mut self) -> Result<(), StoreError> {
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            return Ok(());
        }
        let cell = std::sync::Arc::clone(&self.ledger);
        let ledger = cell.get().ok_or(StoreError::LedgerClosed)?;
        let keys = self.person_keys_of(ledger, &pending).await?;
        // In one order for all, so that two transactions do not wait for each other in a circle.
        let mut chains: BTreeMap<_, Vec<Pending>> = BTreeMap::new();
        for entry in pending {
            chains.entry(*entry.workspace_id.as_bytes()).or_default().push(entry);
        }
        for entries in chains.into_values() {
            let mut head = self.hold_head(entries[0].workspace_id).await?;
            for Pending { workspace_id, fact, caller, time } in entries {
                let place = (workspace_id, head.sequence + 1);
                let origin = origin(&caller, place, &keys);
                let entry = Entry { workspace_id, fact, actor: caller.actor, origin, time };
                head = self.add_entry(head, &entry).await?;
            }
            self.move_head(&ledger.sign(head)).await?;
        }
        Ok(())
    }

    /// The end of a chain, held against other writers until the end of the transaction.
    pub(crate) async fn hold_head(&mut self, workspace_id: WorkspaceId) -> Result<Head, StoreError> {
        let sql = "select sequence, entry_hash from workspace_chains where workspace_id = $1 for update";
        let held = sqlx::query(sql).bind(workspace_id.as_uuid()).fetch_optional(&mut *self.inner).await?;
        if let Some(row) = held {
            return head(workspace_id, &row);
        }
        // The first entry; another transaction may be writing it just now.
        let sql = "insert into workspace_chains (workspace_id, sequence, entry_hash, kid, signature)
                   values ($1, 0, $2, '', '')
                   on conflict (workspace_id) do update set sequence = workspace_chains.sequence
                   returning sequence, entry_hash";
        let row = sqlx::query(sql)
            .bind(workspace_id.as_uuid())
            .bind(&Hash::START.as_bytes()[..])
            .fetch_one(&mut *self.inner)
            .await?;
        head(workspace_id, &row)
    }

    /// Writes the entry after `head`, and says what the head is then.
    async fn add_entry(&mut self, head: Head, entry: &Entry) -> Result<Head, StoreError> {
        let content = entry.content_hash().map_err(|_| StoreError::Damaged("entry"))?;
        let sequence = head.sequence + 1;
        let entry_hash = head.entry_hash.next(sequence, &content);
        let row = match &entry.fact {
            Fact::Key { key_id, version, kind, payload, before } => {
                let sql = "insert into key_events
                             (workspace_id, sequence, content_hash, entry_hash, actor, from_address,
                              person_key_id, personal, event_time, key_id, version, type, payload, before)
                           values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";
                bind(sql, entry, (sequence, content, entry_hash))
                    .bind(key_id.as_uuid())
                    .bind(version)
                    .bind(kind)
                    .bind(payload)
                    .bind(before)
            }
            Fact::Audit { action, resource, before, after } => {
                let sql = "insert into audit_entries
                             (workspace_id, sequence, content_hash, entry_hash, actor, from_address,
                              person_key_id, personal, entry_time, action, resource, before, after)
                           values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
                bind(sql, entry, (sequence, content, entry_hash))
                    .bind(action)
                    .bind(resource)
                    .bind(before)
                    .bind(after)
            }
        };
        row.execute(&mut *self.inner).await?;
        Ok(Head { sequence, entry_hash, ..head })
    }

    pub(crate) async fn move_head(&mut self, signed: &SignedHead) -> Result<(), StoreError> {
        let sql = "update workspace_chains set sequence = $2, entry_hash = $3, kid = $4, signature = $5
                   where workspace_id = $1";
        sqlx::query(sql)
            .bind(signed.head.workspace_id.as_uuid())
            .bind(signed.head.sequence)
            .bind(&signed.head.entry_hash.as_bytes()[..])
            .bind(&signed.kid)
            .bind(&signed.signature)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// The keys of all persons among the callers; without those that were erased.
    async fn person_keys_of(
        &mut self,
        ledger: &Ledger,
        pending: &[Pending],
    ) -> Result<HashMap<AccountId, PersonKey>, StoreError> {
        let mut keys = HashMap::new();
        let personal = pending.iter().filter(|entry| entry.caller.address.is_some());
        for account_id in personal.filter_map(|entry| person(&entry.caller)) {
            if !keys.contains_key(&account_id)
                && let Some(key) = self.person_key(ledger, account_id).await?
            {
                keys.insert(account_id, key);
            }
        }
        Ok(keys)
    }
}

impl Store {
    /// A page of a chain after a place, some thousand entries at most; rows with one place come together.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn entries(
        &self,
        workspace_id: WorkspaceId,
        after: i64,
        limit: usize,
    ) -> Result<Vec<Stored>, StoreError> {
        // Limited in each: what is sorted is then three pages, not the rest of the chain.
        let sql = "(select workspace_id, sequence, content_hash, entry_hash, actor, from_address, person_key_id,
                           personal, event_time as time, key_id, version, type as action, null as resource,
                           payload as after, before
                    from key_events where workspace_id = $1 and sequence > $2 order by sequence limit $3)
                   union all
                   (select workspace_id, sequence, content_hash, entry_hash, actor, from_address, person_key_id,
                           personal, entry_time, null, null, action, resource, after, before
                    from audit_entries where workspace_id = $1 and sequence > $2 order by sequence limit $3)
                   union all
                   (select workspace_id, sequence, content_hash, entry_hash, null, null, null, null, null, null,
                           null, null, null, null, null
                    from pruned_entries where workspace_id = $1 and sequence > $2 order by sequence limit $3)
                   order by sequence fetch first ($3) rows with ties";
        let rows = sqlx::query(sql)
            .bind(workspace_id.as_uuid())
            .bind(after)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(stored).collect()
    }

    /// The end of a chain; `None` if it has none.
    ///
    /// # Errors
    /// If Postgres does not answer, or the row is damaged.
    pub async fn chain_end(&self, workspace_id: WorkspaceId) -> Result<Option<ChainEnd>, StoreError> {
        let sql = "select c.*, s.public_key from workspace_chains c left join signing_keys s using (kid)
                   where c.workspace_id = $1";
        let row = sqlx::query(sql).bind(workspace_id.as_uuid()).fetch_optional(&self.pool).await?;
        row.as_ref()
            .map(|row| {
                let signed = SignedHead {
                    head: head(workspace_id, row)?,
                    kid: row.try_get("kid")?,
                    signature: row.try_get("signature")?,
                };
                Ok(ChainEnd { signed, public_key: row.try_get("public_key")? })
            })
            .transpose()
    }

    /// From where the actors of entries asked, by the entries' places in their chains.
    ///
    /// # Errors
    /// If Postgres or the keeper of the key-encryption key does not answer.
    pub async fn addresses(
        &self,
        origins: &[((WorkspaceId, i64), &Origin)],
    ) -> Result<Vec<Address>, StoreError> {
        let ledger = self.ledger()?;
        let ids = origins.iter().filter_map(|(_, origin)| Some(origin.personal.as_ref()?.person_key_id));
        let kept = self.person_keys(&ids.collect::<Vec<_>>()).await?;
        let mut addresses = Vec::with_capacity(origins.len());
        for &(place, origin) in origins {
            addresses.push(match origin {
                Origin { personal: Some(sealed), .. } => {
                    ledger.address(place, sealed, kept.get(&sealed.person_key_id)).await?
                }
                Origin { from_address: Some(address), .. } => Address::Known(address.clone()),
                Origin { .. } => Address::None,
            });
        }
        Ok(addresses)
    }
}

/// The account of a caller who is a person.
fn person(caller: &Caller) -> Option<AccountId> {
    caller.actor.parse().ok()
}

fn origin(caller: &Caller, place: (WorkspaceId, i64), keys: &HashMap<AccountId, PersonKey>) -> Origin {
    let Some(address) = caller.address else { return Origin::default() };
    match person(caller) {
        Some(account_id) => {
            Origin { from_address: None, personal: keys.get(&account_id).map(|key| key.seal(place, address)) }
        }
        None => Origin { from_address: Some(address.to_string()), personal: None },
    }
}

type Insert<'a> = sqlx::query::Query<'a, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// What both tables have.
fn bind<'a>(sql: &'static str, entry: &'a Entry, (sequence, content, link): (i64, Hash, Hash)) -> Insert<'a> {
    let personal = entry.origin.personal.as_ref();
    sqlx::query(sql)
        .bind(entry.workspace_id.as_uuid())
        .bind(sequence)
        .bind(content.as_bytes().to_vec())
        .bind(link.as_bytes().to_vec())
        .bind(&entry.actor)
        .bind(&entry.origin.from_address)
        .bind(personal.map(|sealed| sealed.person_key_id))
        .bind(personal.map(|sealed| &sealed.bytes))
        .bind(entry.time)
}

fn head(workspace_id: WorkspaceId, row: &PgRow) -> Result<Head, StoreError> {
    let hash: &[u8] = row.try_get("entry_hash")?;
    let entry_hash = Hash::from_slice(hash).ok_or(StoreError::Damaged("chain"))?;
    Ok(Head { workspace_id, sequence: row.try_get("sequence")?, entry_hash })
}

/// A row as it is, damaged or not: the check of the chain says what is wrong with it.
fn stored(row: &PgRow) -> Result<Stored, StoreError> {
    let hash =
        |name: &str| Ok::<_, sqlx::Error>(row.try_get::<Option<&[u8]>, _>(name)?.and_then(Hash::from_slice));
    Ok(Stored {
        sequence: row.try_get("sequence")?,
        entry: entry(row)?,
        content_hash: hash("content_hash")?,
        entry_hash: hash("entry_hash")?,
    })
}

/// What a row holds; `None` if it is only the place of an entry.
fn entry(row: &PgRow) -> Result<Option<Entry>, StoreError> {
    let Some(time) = row.try_get("time")? else { return Ok(None) };
    let key_id: Option<uuid::Uuid> = row.try_get("key_id")?;
    let after: Option<serde_json::Value> = row.try_get("after")?;
    let before = row.try_get("before")?;
    let action = row.try_get("action")?;
    let fact = match key_id {
        Some(key_id) => Fact::Key {
            key_id: KeyId::from_uuid(key_id),
            version: row.try_get("version")?,
            kind: action,
            payload: after.unwrap_or_default(),
            before,
        },
        None => Fact::Audit { action, resource: row.try_get("resource")?, before, after },
    };
    Ok(Some(Entry {
        workspace_id: WorkspaceId::from_uuid(row.try_get("workspace_id")?),
        fact,
        actor: row.try_get("actor")?,
        origin: origin_of(row)?,
        time,
    }))
}

/// From where a row's actor asked, as it is kept.
pub(super) fn origin_of(row: &PgRow) -> Result<Origin, StoreError> {
    let (person_key_id, personal): (Option<uuid::Uuid>, Option<Vec<u8>>) =
        (row.try_get("person_key_id")?, row.try_get("personal")?);
    // One without the other was never recorded, and hashes to something else.
    let sealed = (person_key_id.is_some() || personal.is_some()).then(|| Sealed {
        person_key_id: person_key_id.unwrap_or_default(),
        bytes: personal.unwrap_or_default(),
    });
    Ok(Origin { from_address: row.try_get("from_address")?, personal: sealed })
}
