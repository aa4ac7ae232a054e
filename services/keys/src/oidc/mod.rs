//! Sign-in at an OpenID Connect provider: authorization code with PKCE (OpenID Connect Core 1.0, RFC 7636). Knows the
//! provider and what it says of a person; never accounts.

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::Full;
use jsonwebtoken::jwk::Jwk;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use time::{Duration, OffsetDateTime};

use crate::fields;

mod discovery;
mod flow;
mod id_token;
mod kept;
mod refusal;
mod settings;
mod web;

pub use flow::{FLOW_BYTES_MAX, OPEN_FOR};
pub use refusal::Refusal;
pub use settings::Settings;

use discovery::{Document, Proof};
use flow::Flow;
use id_token::{Expected, Fault, IdToken};
use kept::Kept;
use web::{Away, Web};

/// What the provider is asked for.
const SCOPE: &str = "openid email";
/// How far the provider's clock may be from ours.
const LEEWAY: Duration = Duration::minutes(1);
/// Keys of the provider that are looked at, at most.
const KEYS_MAX: usize = 64;
/// What is logged of the provider's own words.
const WORD_CHARS_MAX: usize = 64;

/// The provider.
pub struct Provider {
    settings: Settings,
    web: Web,
    document: Kept<Document>,
    keys: Kept<Vec<Jwk>>,
}

/// A sign-in that has begun.
pub struct Begun {
    /// Where to send the browser.
    pub authorization_url: String,
    /// What its browser has to bring back.
    pub flow: SecretString,
}

/// What a browser brought back.
pub struct Answer {
    /// Of [`Begun`].
    pub flow: SecretString,
    /// As it stood in the address.
    pub state: String,
    /// As it stood in the address.
    pub code: SecretString,
    /// As it stood in the address; empty if all went well.
    pub error: String,
    /// As when it began.
    pub redirect_uri: String,
}

/// Whom the provider has vouched for.
pub struct Person {
    /// The provider's name for the person, for good.
    pub subject: String,
    /// When the person last proved there who they are, if the provider says so.
    pub authenticate_time: Option<OffsetDateTime>,
    /// What the flow is known by, so that it is taken once.
    pub flow_hash: Vec<u8>,
    begin_time: OffsetDateTime,
    email: Option<Email>,
    access_token: Option<SecretString>,
}

/// An e-mail address, as far as the provider knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Email {
    /// In lower case.
    pub address: String,
    /// Whether the provider says that it is the person's.
    pub is_verified: bool,
}

impl Person {
    /// Whether the provider has asked the person anew for this flow.
    #[must_use]
    pub fn was_asked_again(&self) -> bool {
        self.authenticate_time.is_some_and(|at| at >= self.begin_time - LEEWAY)
    }
}

/// What the token endpoint gives.
#[derive(Deserialize)]
struct Tokens {
    id_token: SecretString,
    access_token: Option<SecretString>,
}

/// Why it gives nothing.
#[derive(Deserialize)]
struct TokenError {
    error: String,
}

impl Provider {
    /// The provider of `settings`; asks it nothing yet.
    ///
    /// # Errors
    /// If the system has no certificates to check it by.
    pub fn new(settings: Settings) -> anyhow::Result<Self> {
        Ok(Self { settings, web: Web::new()?, document: Kept::default(), keys: Kept::default() })
    }

    /// Its name for people.
    #[must_use]
    pub fn display_name(&self) -> &str {
        &self.settings.display_name
    }

    /// Its name in tokens.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.settings.issuer
    }

    /// The way there; `again` if the person has to be asked even if the provider knows the browser.
    ///
    /// # Errors
    /// The provider does not answer.
    pub async fn begin(
        &self,
        redirect_uri: &str,
        again: bool,
        now: OffsetDateTime,
    ) -> Result<Begun, Refusal> {
        let document = self.document().await?;
        let flow = Flow::begin(now);
        let (state, nonce, challenge) = (flow.state(), flow.nonce(), flow.challenge());
        let mut query = form_urlencoded::Serializer::new(String::new());
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.settings.client_id)
            .append_pair("redirect_uri", redirect_uri)
            .append_pair("scope", SCOPE)
            .append_pair("state", &state)
            .append_pair("nonce", &nonce)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        if again {
            query.append_pair("prompt", "login").append_pair("max_age", "0");
        }
        let endpoint = document.authorization.to_string();
        let joint = if endpoint.contains('?') { '&' } else { '?' };
        let authorization_url = format!("{endpoint}{joint}{}", query.finish());
        Ok(Begun { authorization_url, flow: flow.into_secret() })
    }

    /// Whom the provider vouches for. The state is looked at before anything is asked.
    ///
    /// # Errors
    /// The flow has ended or is another browser's; the provider refused, does not answer, or says what is not good.
    pub async fn person(&self, answer: &Answer, now: OffsetDateTime) -> Result<Person, Refusal> {
        let flow = Flow::parse(&answer.flow, now).ok_or(Refusal::Ended)?;
        if !flow.is_of(&answer.state) {
            return Err(Refusal::Ended);
        }
        match answer.error.as_str() {
            "" if !answer.code.expose_secret().is_empty() => {}
            word @ ("server_error" | "temporarily_unavailable") => return Err(Away::new(word).into()),
            word => return Err(Refusal::Refused(short(word))),
        }
        let document = self.document().await?;
        let tokens = self.exchange(&document, answer, &flow).await?;
        let expected = Expected {
            issuer: &self.settings.issuer,
            client_id: &self.settings.client_id,
            nonce: &flow.nonce(),
        };
        let told = self.check(&document, tokens.id_token.expose_secret(), &expected, now).await?;
        Ok(Person {
            email: told.email(),
            authenticate_time: told.auth_time(),
            subject: told.sub,
            flow_hash: flow.hash(),
            begin_time: flow.begin_time(),
            access_token: tokens.access_token,
        })
    }

    /// The person's address: of the ID token, or else of the userinfo endpoint, where there is one.
    ///
    /// # Errors
    /// The provider does not answer, or speaks of another person.
    pub async fn email(&self, person: &Person) -> Result<Option<Email>, Refusal> {
        let document = self.document().await?;
        let (Some(endpoint), None, Some(token)) = (&document.userinfo, &person.email, &person.access_token)
        else {
            return Ok(person.email.clone());
        };
        let told: discovery::Userinfo = self.web.read(endpoint, Some(token)).await?;
        if told.sub != person.subject {
            return Err(Refusal::Token("userinfo is of another person"));
        }
        Ok(email(told.email.as_deref(), told.email_verified.as_ref()))
    }

    async fn document(&self) -> Result<std::sync::Arc<Document>, Refusal> {
        let read = async || {
            let wire = self.web.read(&self.settings.discovery(), None).await?;
            Document::of(wire, &self.settings)
        };
        Ok(self.document.get(read).await?)
    }

    /// Checks an ID token; a key that is not known is looked for once more, since providers change theirs.
    async fn check(
        &self,
        document: &Document,
        token: &str,
        expected: &Expected<'_>,
        now: OffsetDateTime,
    ) -> Result<IdToken, Refusal> {
        let read = async || {
            let wire: discovery::Keys = self.web.read(&document.keys, None).await?;
            Ok(wire.known(KEYS_MAX))
        };
        let keys = self.keys.get(read).await?;
        match id_token::check(token, &keys, expected, now) {
            Ok(told) => Ok(told),
            Err(Fault::Bad(why)) => Err(Refusal::Token(why)),
            Err(Fault::UnknownKey) => {
                let newer = self.keys.newer(&keys, read).await?;
                let newer = newer.ok_or(Refusal::Token("no key of the provider's has signed it"))?;
                id_token::check(token, &newer, expected, now).map_err(|fault| match fault {
                    Fault::Bad(why) => Refusal::Token(why),
                    Fault::UnknownKey => Refusal::Token("no key of the provider's has signed it"),
                })
            }
        }
    }

    async fn exchange(&self, document: &Document, answer: &Answer, flow: &Flow) -> Result<Tokens, Refusal> {
        let request = self.token_request(document, answer, flow)?;
        let (status, body) = self.web.send(request).await?;
        if status == StatusCode::OK {
            let tokens = serde_json::from_slice(&body);
            return tokens.map_err(|_| Away::new("the token endpoint gives no ID token").into());
        }
        let word =
            serde_json::from_slice(&body).map_or_else(|_| String::new(), |told: TokenError| told.error);
        if word == "invalid_grant" {
            return Err(Refusal::Refused(word));
        }
        Err(Away::new(format!("the token endpoint answers {} {}", status.as_u16(), short(&word))).into())
    }

    fn token_request(
        &self,
        document: &Document,
        answer: &Answer,
        flow: &Flow,
    ) -> Result<Request<Full<Bytes>>, Away> {
        let (id, secret) = (&self.settings.client_id, self.settings.client_secret.expose_secret());
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "authorization_code")
            .append_pair("code", answer.code.expose_secret())
            .append_pair("redirect_uri", &answer.redirect_uri)
            .append_pair("code_verifier", &flow.verifier());
        let mut request = request(Method::POST, &document.token)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        match document.proof {
            Proof::Basic => request = request.header(header::AUTHORIZATION, web::basic(id, secret)),
            Proof::Post => {
                form.append_pair("client_id", id).append_pair("client_secret", secret);
            }
        }
        request.body(Full::from(form.finish())).map_err(|_| Away::new("no such request"))
    }
}

fn request(method: Method, address: &Uri) -> http::request::Builder {
    Request::builder().method(method).uri(address).header(header::ACCEPT, "application/json")
}

/// What is fit for the log of a word that somebody else chose.
fn short(word: &str) -> String {
    word.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(WORD_CHARS_MAX).collect()
}

/// Some providers write the truth in quotes.
fn email(address: Option<&str>, is_verified: Option<&serde_json::Value>) -> Option<Email> {
    let address = fields::email("email", address?).ok()?;
    let is_verified = is_verified.is_some_and(|told| told == true || told == "true");
    Some(Email { address, is_verified })
}
