//! The session of whoever signed in: kept in one file that nobody else may read, sent only to where it was made.

use std::{
    fmt, fs,
    io::{ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::PathBuf,
};

use proto::keys::{ReauthenticateRequest, SignInRequest, SignOutRequest};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tonic::transport::Uri;

use crate::{
    access::{Access, first_line},
    arguments::{Password, SignIn},
    clients::Clients,
    failure::{Exit, Failure},
    screen::Screen,
};

/// What is kept.
#[derive(Serialize, Deserialize)]
pub(crate) struct Session {
    keys_url: String,
    email: String,
    /// Opaque; it is the session.
    pub(crate) token: String,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}

/// Starts a session and keeps it in the place of any other.
pub(crate) async fn sign_in(clients: &mut Clients, asked: &SignIn, screen: &Screen) -> Result<(), Failure> {
    let password = password(&asked.password, &asked.email)?;
    let sign_in = SignInRequest { email: asked.email.clone(), password };
    let answer = clients.open(sign_in, async |mut sessions, call| sessions.sign_in(call).await).await?;
    let session = Session {
        keys_url: clients.connection.keys_url.to_string(),
        email: asked.email.clone(),
        token: answer.session_token,
    };
    keep(&session)?;
    if screen.is_json {
        return screen.document(&json!({ "email": session.email, "workspace": answer.workspace }));
    }
    screen.note(&format!("Signed in as {} in {}.", session.email, answer.workspace));
    Ok(())
}

/// Ends the session that is kept, at keys and here. Here also if keys can not be reached, which is told.
pub(crate) async fn sign_out(clients: &mut Clients, screen: &Screen) -> Result<(), Failure> {
    let kept = kept(&clients.connection.keys_url)?;
    let ended = match kept {
        Some(session) => {
            let sign_out = SignOutRequest { session_token: session.token };
            clients.open(sign_out, async |mut sessions, call| sessions.sign_out(call).await).await.map(drop)
        }
        None => Ok(()),
    };
    let path = path()?;
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(Failure::file("the session", &path, &error));
        }
        _ => {}
    }
    ended.map_err(|failure| failure.with("the session is forgotten here; at keys it ends after 12 hours"))?;
    if screen.is_json {
        return screen.document(&json!({}));
    }
    screen.note("Signed out.");
    Ok(())
}

/// Takes the password again, for what asks for it.
pub(crate) async fn reauthenticate(clients: &mut Clients, asked: &Password) -> Result<(), Failure> {
    let Some(session) = kept(&clients.connection.keys_url)? else {
        let why = "only people see a secret again: run `keymeter sign-in` first";
        return Err(Failure::new(Exit::Denied, why));
    };
    let reauthenticate = ReauthenticateRequest {
        password: password(asked, &session.email)?,
        session_token: session.token,
        workspace: clients.connection.workspace.map(proto::resource::workspace_name).unwrap_or_default(),
    };
    let answer =
        clients.open(reauthenticate, async |mut sessions, call| sessions.reauthenticate(call).await).await?;
    clients.set_access(Access::new(answer.access_token, &answer.workspace)?);
    Ok(())
}

/// The session that was made at `keys_url`, if there is one.
pub(crate) fn kept(keys_url: &Uri) -> Result<Option<Session>, Failure> {
    let path = path()?;
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::file("the session", &path, &error)),
    };
    let session: Session = serde_json::from_str(&text).map_err(|_| {
        let why = format!("the session {} is damaged: sign in again", path.display());
        Failure::new(Exit::Denied, why)
    })?;
    Ok(Some(session).filter(|session| session.keys_url == keys_url.to_string()))
}

/// Written whole or not at all, and never readable by others.
fn keep(session: &Session) -> Result<(), Failure> {
    let path = path()?;
    let failed = |error| Failure::file("the session", &path, &error);
    let folder = path.parent().ok_or_else(|| failed(ErrorKind::InvalidFilename.into()))?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let new = path.with_extension("json.new");
    let _ = fs::remove_file(&new);
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(failed)?;
    let text = serde_json::to_vec(session).map_err(|error| failed(error.into()))?;
    file.write_all(&text).and_then(|()| fs::rename(&new, &path)).map_err(failed)
}

/// `$XDG_CONFIG_HOME/keymeter/session.json`, in `~/.config` by default.
fn path() -> Result<PathBuf, Failure> {
    let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")));
    let config = config
        .ok_or_else(|| Failure::new(Exit::Failed, "set HOME or XDG_CONFIG_HOME, where sessions are kept"))?;
    Ok(config.join("keymeter/session.json"))
}

fn password(asked: &Password, email: &str) -> Result<String, Failure> {
    if let Some(path) = &asked.password_file {
        return first_line(path);
    }
    rpassword::prompt_password(format!("Password of {email}: ")).map_err(|error| {
        Failure::usage(format!("no terminal to ask for the password ({error}): give --password-file"))
    })
}
