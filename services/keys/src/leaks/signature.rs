//! Proof of who reports: ECDSA over the raw body by one of the public keys of a file.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, ensure};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ParsedPublicKey};
use data_encoding::{BASE64, BASE64_MIME};
use serde::Deserialize;

/// Who may report, by the name of their public key.
pub struct Reporters(BTreeMap<String, ParsedPublicKey>);

#[derive(Deserialize)]
struct KeysFile {
    public_keys: Vec<PublicKey>,
}

#[derive(Deserialize)]
struct PublicKey {
    key_identifier: String,
    key: String,
}

impl Reporters {
    /// Reads the public keys of a file, as GitHub publishes them: `{"public_keys": [{"key_identifier", "key"}]}`
    /// with keys in PEM.
    ///
    /// # Errors
    /// If there is no such file, or it holds something else or no key.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let text = fs::read_to_string(path)
            .with_context(|| format!("the public keys of leak reporters can not be read from {shown}"))?;
        let file: KeysFile = serde_json::from_str(&text).with_context(|| {
            format!(r#"{shown} must hold {{"public_keys": [{{"key_identifier": …, "key": PEM}}]}}"#)
        })?;
        let keys = file.public_keys.into_iter().map(|PublicKey { key_identifier, key }| {
            let parsed = parse(&key).with_context(|| format!("key {key_identifier} of {shown}"))?;
            Ok((key_identifier, parsed))
        });
        let keys: BTreeMap<_, _> = keys.collect::<anyhow::Result<_>>()?;
        ensure!(!keys.is_empty(), "{shown} holds no public key, so no report could be taken");
        Ok(Self(keys))
    }

    /// Whether `body` was signed by the key of this name.
    #[must_use]
    pub fn signed(&self, key_identifier: &str, signature: &str, body: &[u8]) -> bool {
        let signature = BASE64.decode(signature.as_bytes());
        self.0
            .get(key_identifier)
            .zip(signature.ok())
            .is_some_and(|(key, signature)| key.verify_sig(body, &signature).is_ok())
    }
}

fn parse(pem: &str) -> anyhow::Result<ParsedPublicKey> {
    let body = pem
        .trim()
        .strip_prefix("-----BEGIN PUBLIC KEY-----")
        .and_then(|rest| rest.strip_suffix("-----END PUBLIC KEY-----"))
        .context("is no public key in PEM")?;
    let body: String = body.split_whitespace().collect();
    let der = BASE64_MIME.decode(body.as_bytes()).context("is no public key in PEM")?;
    ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, der)
        .map_err(|_| anyhow::anyhow!("is no public key of ECDSA on P-256"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published example of the format, whose key is for tests.
    const IDENTIFIER: &str = "f9525bf080f75b3506ca1ead061add62b8633a346606dc5fe544e29231c6ee0d";
    const KEY: &str = "-----BEGIN PUBLIC KEY-----\n\
        MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEsz9ugWDj5jK5ELBK42ynytbo38gP\n\
        HzZFI03Exwz8Lh/tCfL3YxwMdLjB+bMznsanlhK0RwcGP3IDb34kQDIo3Q==\n\
        -----END PUBLIC KEY-----\n";
    const SIGNATURE: &str =
        "MEUCIFLZzeK++IhS+y276SRk2Pe5LfDrfvTXu6iwKKcFGCrvAiEAhHN2kDOhy2I6eGkOFmxNkOJ+L2y8oQ9A2T9GGJo6WJY=";
    const BODY: &str =
        r#"[{"token":"some_token","type":"some_type","url":"some_url","source":"some_source"}]"#;

    fn read(text: &str) -> anyhow::Result<Reporters> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        Reporters::read(file.path())
    }

    fn file(identifier: &str, key: &str) -> String {
        serde_json::json!({"public_keys": [{"key_identifier": identifier, "key": key, "is_current": true}]})
            .to_string()
    }

    #[test]
    fn the_published_example_is_proven_and_nothing_else() {
        let reporters = read(&file(IDENTIFIER, KEY)).unwrap();
        assert!(reporters.signed(IDENTIFIER, SIGNATURE, BODY.as_bytes()));
        assert!(!reporters.signed("another", SIGNATURE, BODY.as_bytes()));
        assert!(!reporters.signed(IDENTIFIER, SIGNATURE, BODY.replace("some_t", "other_t").as_bytes()));
        assert!(!reporters.signed(IDENTIFIER, SIGNATURE, format!("{BODY}\n").as_bytes()));
        for signature in ["", "!", &SIGNATURE[4..], &SIGNATURE.replace("FLZ", "FLY")] {
            assert!(!reporters.signed(IDENTIFIER, signature, BODY.as_bytes()));
        }
    }

    #[test]
    fn a_bad_file_is_refused() {
        for bad in [
            String::new(),
            r#"{"public_keys": []}"#.to_owned(),
            file("a", "no PEM"),
            file("a", &KEY.replace("MFkw", "AAAA")),
        ] {
            assert!(read(&bad).is_err(), "{bad}");
        }
        assert!(Reporters::read(Path::new("/nowhere")).is_err());
    }
}
