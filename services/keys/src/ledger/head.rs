//! The end of a chain, signed. The message says what it is for, so that no signature made for something else passes.

use anyhow::Context as _;
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use domain::WorkspaceId;
use proto::nats::signed_bytes;
use serde::{Deserialize, Serialize};

use super::Hash;
use crate::signing_pair::{Signature, SigningPair};

const PURPOSE: &str = "keymeter chain head";

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

    /// Workspace, sequence and hash, each of fixed length.
    fn message(&self) -> Vec<u8> {
        [self.workspace_id.as_bytes(), &self.sequence.to_be_bytes()[..], self.entry_hash.as_bytes()].concat()
    }
}

impl SignedHead {
    /// The head, vouched for.
    #[must_use]
    pub fn new(head: Head, signer: &SigningPair) -> Self {
        let Signature { kid, bytes: signature } = signer.sign(PURPOSE, &head.message());
        Self { head, kid, signature }
    }

    /// Whether the owner of that Ed25519 key vouches for it.
    #[must_use]
    pub fn is_signed_by(&self, public_key: &[u8]) -> bool {
        let message = signed_bytes(PURPOSE, &self.head.message());
        UnparsedPublicKey::new(&ED25519, public_key).verify(&message, &self.signature).is_ok()
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
    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{Ed25519KeyPair, KeyPair as _},
    };

    use super::*;

    #[test]
    fn a_signature_is_for_one_head_only() {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let signer = SigningPair::new("k", pkcs8.as_ref()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let public = pair.public_key().as_ref().to_vec();
        let head = Head { sequence: 7, ..Head::start(WorkspaceId::generate()) };
        let signed = SignedHead::new(head, &signer);
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
        assert!(SignedHead::from_line("{}").is_err() && SigningPair::new("k", b"x").is_err());
    }
}
