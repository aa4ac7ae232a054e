//! One request of somebody who is signed in: who it is, what it asks for, how it fails.

use std::{fmt, sync::Arc};

use axum::{
    extract::{FromRequestParts, OriginalUri},
    http::{HeaderMap, Method, header, request::Parts},
    response::{IntoResponse as _, Redirect, Response},
};
use axum_extra::extract::CookieJar;
use tonic::{Code, Status};

use crate::{
    App, clients,
    pages::Shell,
    problem::{Problem, Service, Stop},
    session::{self, Access, SessionToken},
};

/// Where people go who ask for nothing in particular.
pub(crate) const HOME: &str = "/keys";

/// Names one request in logs, in calls to other services and on pages that say that something failed.
#[derive(Debug, Clone)]
pub(crate) struct Reference(Arc<str>);

impl Reference {
    /// A new one.
    #[must_use]
    pub(crate) fn mint() -> Self {
        Self(uuid::Uuid::now_v7().simple().to_string().into())
    }

    /// 32 hexadecimal characters.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A request of somebody who is signed in. Whoever is not is sent to sign in and comes back.
pub(crate) struct Visit {
    /// The process.
    pub(crate) app: Arc<App>,
    /// Its name.
    pub(crate) reference: Reference,
    /// Who it is.
    pub(crate) access: Arc<Access>,
    /// All cookies.
    pub(crate) jar: CookieJar,
    token: SessionToken,
    here: String,
    json: bool,
}

impl FromRequestParts<Arc<App>> for Visit {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Response> {
        let reference = reference(parts);
        let jar = CookieJar::from_headers(&parts.headers);
        let (here, json) = (here(parts), wants_json(&parts.headers));
        let Some(token) = app.sessions.token(&jar) else {
            return Err(sign_in_first(&here, json));
        };
        match app.sessions.access(&token, session::wanted(&jar), &reference).await {
            Ok(access) => Ok(Self { app: Arc::clone(app), reference, access, jar, token, here, json }),
            Err(status) if status.code() == Code::Unauthenticated => {
                Err((jar.add(app.sessions.end_cookie()), sign_in_first(&here, json)).into_response())
            }
            Err(status) if status.code() == Code::PermissionDenied => {
                Err(Problem::no_workspace(&reference).into_response_as(json, None))
            }
            Err(status) => Err(Problem::of(Service::Keys, &status, &reference).into_response_as(json, None)),
        }
    }
}

impl Visit {
    /// A call in this person's name.
    pub(crate) fn call<T>(&self, message: T) -> tonic::Request<T> {
        clients::authorized(message, &self.access, &self.reference)
    }

    /// Takes the person's password again: further calls say that it was given just now.
    ///
    /// # Errors
    /// See [`crate::session::Sessions::reauthenticate`].
    pub(crate) async fn reauthenticate(&mut self, password: String) -> Result<(), Status> {
        let sessions = &self.app.sessions;
        self.access = sessions.reauthenticate(&self.token, &self.access, password, &self.reference).await?;
        Ok(())
    }

    /// What surrounds every page.
    #[must_use]
    pub(crate) fn shell(&self) -> Shell {
        let access = &self.access;
        Shell {
            email: access.email.clone(),
            workspace: access.workspace.clone(),
            workspace_id: access.workspace_id,
            workspaces: access.workspaces.clone(),
            role: access.role,
            by_provider: access.by_provider,
            here: self.here.clone(),
        }
    }

    /// Makes the next request ask keys anew who the person is, where, and in which workspaces.
    pub(crate) fn renew(&self) {
        self.app.sessions.forget(&self.token);
    }

    /// That a form was opened in the workspace that it would change now: another tab may have switched since.
    ///
    /// # Errors
    /// The answer that says so.
    pub(crate) fn opened_in(&self, workspace: &str) -> Result<(), Stop> {
        if workspace.parse() == Ok(self.access.workspace_id) {
            return Ok(());
        }
        let problem = Problem::other_workspace(&self.access.workspace, &self.reference);
        Err(Stop::new(problem.into_response_as(self.json, Some(self.shell()))))
    }

    /// The answer when a call failed and there is no page without it.
    #[must_use]
    pub(crate) fn stop(&self, service: Service, status: &Status) -> Stop {
        let problem = self.problem(service, status);
        if status.code() == Code::Unauthenticated {
            return Stop::new(sign_in_first(&self.here, self.json));
        }
        Stop::new(problem.into_response_as(self.json, Some(self.shell())))
    }

    /// What a failed call is called on a page that goes on without it.
    #[must_use]
    pub(crate) fn problem(&self, service: Service, status: &Status) -> Problem {
        if status.code() == Code::Unauthenticated {
            self.app.sessions.forget(&self.token);
        }
        Problem::of(service, status, &self.reference)
    }

    /// The answer for what is not there.
    #[must_use]
    pub(crate) fn not_found(&self) -> Stop {
        Stop::new(Problem::not_found(&self.reference).into_response_as(self.json, Some(self.shell())))
    }
}

/// The reference that the router gave the request.
pub(crate) fn reference(parts: &Parts) -> Reference {
    parts.extensions.get::<Reference>().cloned().unwrap_or_else(Reference::mint)
}

/// Where somebody comes back to after signing in: the page asked for, or home for what is no page.
fn here(parts: &Parts) -> String {
    let uri = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |uri| &uri.0);
    match (&parts.method, uri.path_and_query()) {
        (&Method::GET, Some(here)) => local_path(here.as_str()).to_owned(),
        _ => HOME.to_owned(),
    }
}

fn wants_json(headers: &HeaderMap) -> bool {
    headers.get(header::ACCEPT).is_some_and(|accept| accept.as_bytes() == b"application/json")
}

fn sign_in_first(here: &str, json: bool) -> Response {
    if json {
        return Problem::signed_out().into_response_as(true, None);
    }
    if here == HOME {
        return Redirect::to("/sign-in").into_response();
    }
    let query = form_urlencoded::Serializer::new(String::new()).append_pair("next", here).finish();
    Redirect::to(&format!("/sign-in?{query}")).into_response()
}

/// `path` if it leads to a page of ours, else [`HOME`]. Browsers read `//host`, `/\host` and the same with tabs
/// or line ends inside as another site.
#[must_use]
pub(crate) fn local_path(path: &str) -> &str {
    let local = path.starts_with('/')
        && !path.starts_with("//")
        && path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    if local { path } else { HOME }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("/keys/key_1/usage?range=24h&method=GET#log", true)]
    #[case("", false)]
    #[case("keys", false)]
    #[case("https://evil.example", false)]
    #[case("//evil.example", false)]
    #[case("/\\evil.example", false)]
    #[case("/\t/evil.example", false)]
    #[case("/\n/evil.example", false)]
    #[case("/keys\r\nset-cookie: a=b", false)]
    #[case("/keys\\..\\..", false)]
    #[case("javascript:alert(1)", false)]
    #[case("/é", false)]
    fn only_own_pages_are_gone_back_to(#[case] path: &str, #[case] local: bool) {
        assert_eq!(local_path(path), if local { path } else { HOME });
    }
}
