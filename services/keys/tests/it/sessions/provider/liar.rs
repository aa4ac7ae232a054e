//! An OpenID Connect provider that says whatever a test wants, on a port of this machine.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use axum::{
    Form, Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::net::TcpListener;

pub(crate) const CLIENT_ID: &str = "keymeter";
pub(crate) const CLIENT_SECRET: &str = "hunter2:% and more";
pub(crate) const REDIRECT_URI: &str = "http://127.0.0.1:8080/sign-in/oidc/callback";

/// The provider; a clone is the same.
#[derive(Clone)]
pub(crate) struct Liar(Arc<Mutex<Says>>);

/// What it says; tests change it at will.
pub(crate) struct Says {
    pub(crate) issuer: String,
    /// Of the next ID token, beside those that are right.
    pub(crate) claims: Value,
    /// How the next ID token is signed.
    pub(crate) signed: Signed,
    /// Names of the keys that sign, and that are told of.
    pub(crate) kid: String,
    pub(crate) told_kid: String,
    /// What userinfo answers.
    pub(crate) userinfo: Value,
    /// Path → what it answers instead.
    pub(crate) instead: HashMap<&'static str, Instead>,
    /// Paths in the order of their requests.
    pub(crate) asked: Vec<&'static str>,
    /// Codes that wait, with nonce, challenge and redirect URI.
    codes: HashMap<String, Value>,
    key: Ed25519KeyPair,
    pkcs8: Vec<u8>,
}

/// How an ID token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signed {
    Well,
    /// `alg: none`, without a signature.
    Not,
    /// With HMAC, under the public key or under the client's secret.
    WithPublicKey,
    WithSecret,
    /// By another key of the same name.
    ByAnother,
}

/// What a path answers instead.
#[derive(Debug, Clone)]
pub(crate) enum Instead {
    Status(u16, Value),
    /// What could be read, if anybody wanted to read so much.
    Endless,
    /// Nothing, ever.
    Silence,
}

impl Liar {
    /// Starts it.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let key = Ed25519KeyPair::generate().unwrap();
        let pkcs8 = key.to_pkcs8().unwrap().as_ref().to_vec();
        let liar = Self(Arc::new(Mutex::new(Says {
            issuer,
            claims: json!({}),
            signed: Signed::Well,
            kid: "one".into(),
            told_kid: "one".into(),
            userinfo: json!({}),
            instead: HashMap::new(),
            asked: Vec::new(),
            codes: HashMap::new(),
            key,
            pkcs8,
        })));
        let app = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(keys))
            .route("/token", post(token))
            .route("/userinfo", get(userinfo))
            .with_state(liar.clone());
        tokio::spawn(async { axum::serve(listener, app).await });
        liar
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Says) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    pub(crate) fn issuer(&self) -> String {
        self.change(|says| says.issuer.clone())
    }

    /// What a person sees at the authorization address and comes back with: the state and a code.
    pub(crate) fn authorize(&self, authorization_url: &str) -> (String, String) {
        let query = query(authorization_url);
        assert_eq!((&*query["response_type"], &*query["code_challenge_method"]), ("code", "S256"));
        assert_eq!((&*query["client_id"], &*query["scope"]), (CLIENT_ID, "openid email"));
        assert_eq!(query["redirect_uri"], REDIRECT_URI);
        self.change(|says| {
            let code = format!("code-{}", says.codes.len());
            says.codes.insert(code.clone(), json!(query));
            (query["state"].clone(), code)
        })
    }

    fn asked(&self, path: &'static str) -> Option<Instead> {
        self.change(|says| {
            says.asked.push(path);
            says.instead.get(path).cloned()
        })
    }
}

/// The parameters of an address.
pub(crate) fn query(address: &str) -> HashMap<String, String> {
    let (_, query) = address.split_once('?').unwrap();
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

impl Instead {
    async fn answer(self) -> Response {
        match self {
            Self::Status(code, body) => (StatusCode::from_u16(code).unwrap(), Json(body)).into_response(),
            Self::Endless => format!("{{\"keys\":[]}}{}", " ".repeat(8 << 20)).into_response(),
            Self::Silence => std::future::pending().await,
        }
    }
}

async fn discovery(State(liar): State<Liar>) -> Response {
    if let Some(instead) = liar.asked("discovery") {
        return instead.answer().await;
    }
    let issuer = liar.issuer();
    Json(json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/auth?tenant=1"),
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/keys"),
        "userinfo_endpoint": format!("{issuer}/userinfo"),
    }))
    .into_response()
}

async fn keys(State(liar): State<Liar>) -> Response {
    if let Some(instead) = liar.asked("keys") {
        return instead.answer().await;
    }
    let key = liar.change(|says| {
        let x = BASE64URL_NOPAD.encode(says.key.public_key().as_ref());
        json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": says.told_kid, "use": "sig" })
    });
    Json(json!({ "keys": [{ "kty": "of the future" }, key] })).into_response()
}

async fn userinfo(State(liar): State<Liar>, headers: HeaderMap) -> Response {
    if let Some(instead) = liar.asked("userinfo") {
        return instead.answer().await;
    }
    assert_eq!(headers["authorization"], "Bearer an-access-token");
    Json(liar.change(|says| says.userinfo.clone())).into_response()
}

/// Gives an ID token for a code, once, to whoever has the verifier and the secret.
async fn token(
    State(liar): State<Liar>,
    headers: HeaderMap,
    Form(form): Form<HashMap<String, String>>,
) -> Response {
    if let Some(instead) = liar.asked("token") {
        return instead.answer().await;
    }
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let expected = format!("{}:{}", encoded(CLIENT_ID), encoded(CLIENT_SECRET));
    let basic = format!("Basic {}", data_encoding::BASE64.encode(expected.as_bytes()));
    assert_eq!(headers["authorization"], basic);
    assert_eq!(form["grant_type"], "authorization_code");
    let refused = |word: &str| (StatusCode::BAD_REQUEST, Json(json!({ "error": word }))).into_response();
    let Some(asked) = liar.change(|says| says.codes.remove(&form["code"])) else {
        return refused("invalid_grant");
    };
    let challenge = BASE64URL_NOPAD.encode(&keys::token::sha256(form["code_verifier"].as_bytes()));
    if asked["code_challenge"] != json!(challenge) || asked["redirect_uri"] != json!(form["redirect_uri"]) {
        return refused("invalid_grant");
    }
    let id_token = liar.change(|says| says.id_token(asked["nonce"].as_str().unwrap()));
    Json(json!({ "id_token": id_token, "access_token": "an-access-token", "token_type": "Bearer" }))
        .into_response()
}

impl Says {
    fn id_token(&self, nonce: &str) -> String {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let mut claims = json!({
            "iss": self.issuer, "sub": "person-1", "aud": CLIENT_ID, "nonce": nonce, "iat": now, "exp": now + 300,
        });
        for (name, value) in self.claims.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let header = |algorithm| Header { kid: Some(self.kid.clone()), ..Header::new(algorithm) };
        let encode = |header, key: &EncodingKey| jsonwebtoken::encode(&header, &claims, key).unwrap();
        match self.signed {
            Signed::Well => encode(header(Algorithm::EdDSA), &EncodingKey::from_ed_der(&self.pkcs8)),
            Signed::ByAnother => {
                let other = Ed25519KeyPair::generate().unwrap().to_pkcs8().unwrap();
                encode(header(Algorithm::EdDSA), &EncodingKey::from_ed_der(other.as_ref()))
            }
            Signed::WithPublicKey => {
                encode(header(Algorithm::HS256), &EncodingKey::from_secret(self.key.public_key().as_ref()))
            }
            Signed::WithSecret => {
                encode(header(Algorithm::HS256), &EncodingKey::from_secret(CLIENT_SECRET.as_bytes()))
            }
            Signed::Not => {
                let part = |value: Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
                format!("{}.{}.", part(json!({ "alg": "none", "kid": self.kid })), part(claims))
            }
        }
    }
}
