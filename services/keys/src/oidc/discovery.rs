//! What the provider says of itself, and of its keys (OpenID Connect Discovery 1.0).

use http::Uri;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk};
use serde::Deserialize;
use serde_json::Value;

use super::{Away, Settings};

/// Where it takes what; checked.
pub(super) struct Document {
    pub(super) authorization: Uri,
    pub(super) token: Uri,
    pub(super) keys: Uri,
    pub(super) userinfo: Option<Uri>,
    pub(super) proof: Proof,
}

/// How it wants our secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    Basic,
    Post,
}

/// As it comes.
#[derive(Deserialize)]
pub(super) struct Wire {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    userinfo_endpoint: Option<String>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

/// What the userinfo endpoint gives.
#[derive(Deserialize)]
pub(super) struct Userinfo {
    pub(super) sub: String,
    pub(super) email: Option<String>,
    pub(super) email_verified: Option<Value>,
}

/// Its keys as they come.
#[derive(Deserialize)]
pub(super) struct Keys {
    keys: Vec<Value>,
}

impl Document {
    /// The provider must be the configured one, to the letter, and every address as safe as its own.
    pub(super) fn of(wire: Wire, settings: &Settings) -> Result<Self, Away> {
        if wire.issuer != settings.issuer {
            return Err(Away::new("its discovery document is of another issuer"));
        }
        let endpoint = |name: &str, text: &str| {
            let unsafe_ = || Away::new(format!("{name} in its discovery document is no https address"));
            settings.endpoint(text).ok_or_else(unsafe_)
        };
        let methods = wire.token_endpoint_auth_methods_supported;
        let takes =
            |method: &str| methods.as_ref().is_some_and(|known| known.iter().any(|name| name == method));
        let proof = match (&methods, takes("client_secret_basic"), takes("client_secret_post")) {
            // What is meant where nothing is said.
            (None, _, _) | (_, true, _) => Proof::Basic,
            (_, _, true) => Proof::Post,
            _ => return Err(Away::new("it takes a client's secret neither by Basic nor in the form")),
        };
        Ok(Self {
            authorization: endpoint("authorization_endpoint", &wire.authorization_endpoint)?,
            token: endpoint("token_endpoint", &wire.token_endpoint)?,
            keys: endpoint("jwks_uri", &wire.jwks_uri)?,
            userinfo: wire.userinfo_endpoint.map(|text| endpoint("userinfo_endpoint", &text)).transpose()?,
            proof,
        })
    }
}

impl Keys {
    /// The first `max` of those that can be read: others may be of kinds that come after us.
    pub(super) fn known(self, max: usize) -> Vec<Jwk> {
        let known = |key: &Jwk| !matches!(key.algorithm, AlgorithmParameters::Other(_));
        let read = self.keys.into_iter().filter_map(|key| serde_json::from_value(key).ok());
        read.filter(known).take(max).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(issuer: &str) -> Settings {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "s").unwrap();
        Settings::read(issuer, "keymeter", file.path(), "Example").unwrap()
    }

    fn read(change: impl FnOnce(&mut Value)) -> Result<Document, Away> {
        let mut wire = json!({
            "issuer": "https://id.example.com",
            "authorization_endpoint": "https://id.example.com/auth",
            "token_endpoint": "https://id.example.com/token",
            "jwks_uri": "https://id.example.com/keys",
        });
        change(&mut wire);
        Document::of(serde_json::from_value(wire).unwrap(), &settings("https://id.example.com"))
    }

    #[test]
    fn a_document_is_the_issuers_own_and_safe() {
        assert_eq!(read(|_| {}).unwrap().proof, Proof::Basic);
        let said = |change: fn(&mut Value)| read(change).err().unwrap().to_string();
        assert!(said(|wire| wire["issuer"] = json!("https://id.example.com/")).contains("another issuer"));
        for name in ["authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint"] {
            for address in ["http://id.example.com/x", "http://127.0.0.1/x", "javascript:x", "/x"] {
                let error = read(|wire| wire[name] = json!(address)).err().unwrap();
                assert!(error.to_string().contains(name), "{error}");
            }
        }
        let with = |methods: Value| read(|wire| wire["token_endpoint_auth_methods_supported"] = methods);
        let both = json!(["client_secret_post", "client_secret_basic"]);
        assert_eq!(with(both).unwrap().proof, Proof::Basic);
        assert_eq!(with(json!(["client_secret_post"])).unwrap().proof, Proof::Post);
        assert!(with(json!(["private_key_jwt"])).is_err());
    }

    #[test]
    fn keys_of_unknown_kinds_are_passed_over() {
        let rsa = json!({ "kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "a" });
        let keys = |list: Vec<Value>| Keys { keys: list }.known(2);
        assert_eq!(keys(vec![json!({ "kty": 17 }), json!("x"), rsa.clone()]).len(), 1);
        assert_eq!(keys(vec![rsa.clone(), rsa.clone(), rsa]).len(), 2, "no more than are looked at");
    }
}
