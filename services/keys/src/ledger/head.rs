//! The end of a chain, signed. The message says what it is for, so that no signature made for something else passes.

use anyhow::Context as _;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use domain::WorkspaceId;
use serde::{Deserialize, Serialize};

use super::Hash;

const PURPOSE: &[u8] = b"keymeter chain head";

/// How far a chain goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The tenant.
    pub workspace_id: WorkspaceId,
    /// Of the newest entry; 0 before the first.
    pub sequence: i64,
    /// Of the newest entry.
    pub entry_hash: Hash,
}

/// A head and who vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHead {
    /// The head.
    pub head: Head,
    /// Of the signing key.
    pub kid: String,
    /// Ed25519.
    pub signature: Vec<u8>,
}

/// A head as `keys export-heads` prints it, one line each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    workspace_id: String,
    sequence: i64,
    entry_hash: String,
    kid: String,
    signature: String,
    public_key: String,
}

impl Head {
    /// A chain without entries.
    #[must_use]
    pub const fn start(workspace_id: WorkspaceId) -> Self {
        Self { workspace_id, sequence: 0, entry_hash: Hash::START }
    }

    /// The purpose, a 0, then workspace, sequence and hash, each of fixed length.
    fn message(&self) -> Vec<u8> {
        [
            PURPOSE,
            &[0],
            self.workspace_id.as_bytes(),
            &self.sequence.to_be_bytes(),
            self.entry_hash.as_bytes(),
        ]
        .concat()
    }
}

/// Signs heads. Never prints its key.
pub struct HeadSigner {
    kid: String,
    pair: Ed25519KeyPair,
}

impl HeadSigner {
    /// Signs under the name `kid` with the Ed25519 key in `pkcs8` (DER).
    ///
    /// # Errors
    /// If the key is none.
    pub fn new(kid: &str, pkcs8: &[u8]) -> anyhow::Result<Self> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).ok();
        let pair = pair.context("the signing key is no Ed25519 key in PKCS#8")?;
        Ok(Self { kid: kid.to_owned(), pair })
    }

    /// The head, vouched for.
    #[must_use]
    pub fn sign(&self, head: Head) -> SignedHead {
        let signature = self.pair.sign(&head.message()).as_ref().to_vec();
        SignedHead { head, kid: self.kid.clone(), signature }
    }
}

impl SignedHead {
    /// Whether the owner of that Ed25519 key vouches for it.
    #[must_use]
    pub fn is_signed_by(&self, public_key: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, public_key).verify(&self.head.message(), &self.signature).is_ok()
    }

    /// One line of JSON to keep elsewhere.
    #[must_use]
    pub fn to_line(&self, public_key: &[u8]) -> String {
        let line = Line {
            workspace_id: self.head.workspace_id.to_string(),
            sequence: self.head.sequence,
            entry_hash: self.head.entry_hash.to_string(),
            kid: self.kid.clone(),
            signature: data_encoding::BASE64.encode(&self.signature),
            public_key: data_encoding::BASE64.encode(public_key),
        };
        serde_json::to_string(&line).expect("plain data is JSON")
    }

    /// Reads what [`Self::to_line`] wrote, and checks its signature.
    ///
    /// # Errors
    /// If it is something else or was changed.
    pub fn from_line(text: &str) -> anyhow::Result<Self> {
        let line: Line = serde_json::from_str(text).context("it is no line of `keys export-heads`")?;
        let bytes = |text: &str| data_encoding::BASE64.decode(text.as_bytes());
        let hash = data_encoding::HEXLOWER.decode(line.entry_hash.as_bytes())?;
        let head = Head {
            workspace_id: line.workspace_id.parse().ok().context("workspace_id is none")?,
            sequence: line.sequence,
            entry_hash: Hash::from_slice(&hash).context("entry_hash is no SHA-256")?,
        };
        let signed = Self { head, kid: line.kid, signature: bytes(&line.signature)? };
        anyhow::ensure!(signed.is_signed_by(&bytes(&line.public_key)?), "its signature does not fit");
        Ok(signed)
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{rand::SystemRandom, signature::KeyPair as _};

    use super::*;

    #[test]
    fn a_signature_is_for_one_head_only() {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let signer = HeadSigner::new("k", pkcs8.as_ref()).unwrap();
        let public = signer.pair.public_key().as_ref().to_vec();
        let head = Head { sequence: 7, ..Head::start(WorkspaceId::generate()) };
        let signed = signer.sign(head);
        assert!(signed.is_signed_by(&public));
        for other in [
            Head { sequence: 6, ..head },
            Head { workspace_id: WorkspaceId::generate(), ..head },
            Head { entry_hash: Hash::START.next(1, &Hash::START), ..head },
        ] {
            assert!(!SignedHead { head: other, ..signed.clone() }.is_signed_by(&public));
        }
        let line = signed.to_line(&public);
        assert_eq!(SignedHead::from_line(&line).unwrap(), signed);
        assert!(SignedHead::from_line(&line.replace("\"sequence\":7", "\"sequence\":6")).is_err());
        assert!(SignedHead::from_line("{}").is_err() && HeadSigner::new("k", b"x").is_err());
    }
}
