//! As whom keys and query are asked: a service token or a session, traded for access tokens of five minutes.
//! Nothing here prints any of them.

use std::{fmt, fs, path::Path};

use domain::WorkspaceId;
use proto::{
    keys::{AccessToken, ExchangeTokenRequest, RefreshRequest},
    resource::{parse_workspace_name, workspace_name},
};
use time::{Duration, OffsetDateTime};
use tonic::metadata::{Ascii, MetadataValue};

use crate::{
    arguments::Connection,
    clients::Clients,
    failure::{Exit, Failure},
    session::{self, Session},
    words,
};

/// An access token is not used in its last half minute, so that it does not end on its way.
const RENEW_BEFORE: Duration = Duration::seconds(30);
/// The variable of a service token.
const TOKEN: &str = "KEYMETER_TOKEN";
/// Longest token that is sent, in bytes.
const TOKEN_BYTES_MAX: usize = 512;

/// A proof of who asks.
pub(crate) enum Credentials {
    /// `kmsvc_…`, of a program.
    ServiceToken(String),
    /// Of a person.
    Session(Session),
}

/// What calls carry for some minutes.
pub(crate) struct Access {
    /// `Bearer <token>`
    pub(crate) bearer: MetadataValue<Ascii>,
    /// Whose keys and calls are meant.
    pub(crate) workspace_id: WorkspaceId,
    expires: OffsetDateTime,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

impl Credentials {
    /// From the file that was named, the environment, or whoever signed in, in this order.
    pub(crate) fn find(connection: &Connection) -> Result<Self, Failure> {
        if let Some(path) = &connection.token_file {
            let token =
                fs::read_to_string(path).map_err(|error| Failure::file("--token-file", path, &error))?;
            return service_token(&token, &format!("the file {}", path.display()));
        }
        if let Some(token) = std::env::var_os(TOKEN) {
            return service_token(&token.to_string_lossy(), TOKEN);
        }
        let kept = session::kept(&connection.keys_url)?;
        kept.map(Self::Session).ok_or_else(|| {
            let why = format!(
                "not signed in at {}: run `keymeter sign-in`, or set {TOKEN} to a service token",
                connection.keys_url
            );
            Failure::new(Exit::Denied, why)
        })
    }

    /// An access token for the workspace that was asked for, or the token's own.
    pub(crate) async fn trade(&self, clients: &Clients) -> Result<Access, Failure> {
        let wanted = clients.connection.workspace;
        match self {
            Self::ServiceToken(token) => {
                let exchange = ExchangeTokenRequest { service_token: token.clone() };
                let answer = clients
                    .open(exchange, async |mut sessions, call| sessions.exchange_token(call).await)
                    .await?;
                let access = Access::new(answer.access_token, &answer.workspace)?;
                let own = access.workspace_id;
                if let Some(wanted) = wanted.filter(|wanted| *wanted != own) {
                    let why = format!("the service token is for the workspace {own}, not for {wanted}");
                    return Err(Failure::new(Exit::Denied, why));
                }
                Ok(access)
            }
            Self::Session(session) => {
                let workspace = wanted.map(workspace_name).unwrap_or_default();
                let refresh = RefreshRequest { session_token: session.token.clone(), workspace };
                let answer =
                    clients.open(refresh, async |mut sessions, call| sessions.refresh(call).await).await?;
                Access::new(answer.access_token, &answer.workspace)
            }
        }
    }
}

impl Access {
    pub(crate) fn new(token: Option<AccessToken>, workspace: &str) -> Result<Self, Failure> {
        let odd = || Failure::new(Exit::Failed, "keys gave no access token; is it a version of our own?");
        let token = token.ok_or_else(odd)?;
        let mut bearer: MetadataValue<Ascii> =
            format!("Bearer {}", token.token).parse().map_err(|_| odd())?;
        bearer.set_sensitive(true);
        let expires = words::time(token.expire_time.as_ref()).ok_or_else(odd)?;
        Ok(Self { bearer, workspace_id: parse_workspace_name(workspace).map_err(|_| odd())?, expires })
    }

    pub(crate) fn is_good(&self, now: OffsetDateTime) -> bool {
        now < self.expires - RENEW_BEFORE
    }
}

/// The token in a text that `place` holds, which is named where the token can not be.
fn service_token(text: &str, place: &str) -> Result<Credentials, Failure> {
    let token = text.trim();
    let is_plausible =
        !token.is_empty() && token.len() <= TOKEN_BYTES_MAX && token.bytes().all(|b| b.is_ascii_graphic());
    if is_plausible {
        return Ok(Credentials::ServiceToken(token.to_owned()));
    }
    let why = format!("{place} holds no service token; it is kmsvc_… and nothing else");
    Err(Failure::new(Exit::Denied, why))
}

/// What a file says, but for white space around it; `-` is standard input.
pub(crate) fn first_line(path: &Path) -> Result<String, Failure> {
    let text = if path == Path::new("-") {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line)
    } else {
        fs::read_to_string(path)
    };
    let text = text.map_err(|error| Failure::file("--password-file", path, &error))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_token_is_told_by_its_place_alone() {
        for bad in ["", " \n", "kmsvc_a b", "kmsvc_é", &"x".repeat(TOKEN_BYTES_MAX + 1)] {
            let failure = service_token(bad, "KEYMETER_TOKEN").unwrap_err();
            let expected = "KEYMETER_TOKEN holds no service token; it is kmsvc_… and nothing else";
            assert_eq!((failure.exit, failure.text()), (Exit::Denied, Some(expected)));
        }
        let token = service_token(" kmsvc_1\n", "x").unwrap();
        assert!(matches!(&token, Credentials::ServiceToken(token) if token == "kmsvc_1"));
        assert_eq!(format!("{token:?}"), "Credentials");
    }
}
