//! What the fakes know of the OpenID Connect provider: it takes any code for the flow that it gave.

use proto::keys as k;
use tonic::{Code, Response, Status};

use crate::{fake_team::refused, fakes::Fakes};

pub(crate) const FLOW: &str = "kmflow_of-this-browser.1790000000";
pub(crate) const STATE: &str = "state-of-the-flow";
pub(crate) const PROVIDER_URL: &str = "https://id.example.com/auth?client_id=keymeter";

/// All of it; tests change it at will.
#[derive(Default)]
pub(crate) struct Provider {
    /// Empty if there is none.
    pub(crate) display_name: String,
    /// Requests as they came.
    pub(crate) begun: Vec<k::BeginProviderSignInRequest>,
    pub(crate) finished: Vec<k::FinishProviderSignInRequest>,
    pub(crate) again: Vec<k::ReauthenticateByProviderRequest>,
    /// Whether sessions began there.
    pub(crate) is_method: bool,
}

impl Fakes {
    pub(crate) fn provider_name(&self) -> k::GetProviderResponse {
        k::GetProviderResponse { display_name: self.change(|state| state.provider.display_name.clone()) }
    }

    pub(crate) fn begin(
        &self,
        request: k::BeginProviderSignInRequest,
    ) -> Result<Response<k::BeginProviderSignInResponse>, Status> {
        self.enter("BeginProviderSignIn")?;
        self.change(|state| state.provider.begun.push(request));
        let (authorization_url, flow) = (PROVIDER_URL.to_owned(), FLOW.to_owned());
        Ok(Response::new(k::BeginProviderSignInResponse { authorization_url, flow }))
    }

    pub(crate) fn finish(
        &self,
        request: k::FinishProviderSignInRequest,
    ) -> Result<Response<k::FinishProviderSignInResponse>, Status> {
        self.enter("FinishProviderSignIn")?;
        check(request.answer.as_ref())?;
        let session_token = self.change(|state| {
            state.provider.finished.push(request);
            state.provider.is_method = true;
            state.sessions.push(format!("session-{}", state.calls.len()));
            state.sessions.last().unwrap().clone()
        });
        let workspace = self.change(|state| state.team.workspaces[0].name.clone());
        let (access_token, workspace) = self.access_of(&workspace);
        Ok(Response::new(k::FinishProviderSignInResponse { session_token, access_token, workspace }))
    }

    pub(crate) fn prove_again(
        &self,
        request: k::ReauthenticateByProviderRequest,
    ) -> Result<Response<k::ReauthenticateByProviderResponse>, Status> {
        self.enter("ReauthenticateByProvider")?;
        check(request.answer.as_ref())?;
        let (access_token, workspace) = self.access_of(&request.workspace);
        self.change(|state| {
            state.failures.remove("RevealKey");
            state.provider.again.push(request);
        });
        Ok(Response::new(k::ReauthenticateByProviderResponse { access_token, workspace }))
    }

    pub(crate) fn method(&self) -> k::SignInMethod {
        let by_provider = self.change(|state| state.provider.is_method);
        if by_provider { k::SignInMethod::Provider } else { k::SignInMethod::Password }
    }
}

fn check(answer: Option<&k::ProviderAnswer>) -> Result<(), Status> {
    let good = answer.is_some_and(|told| told.flow == FLOW && told.state == STATE && told.error.is_empty());
    if good {
        Ok(())
    } else {
        Err(refused(Code::Unauthenticated, "PROVIDER_SIGN_IN_ENDED", "begun elsewhere"))
    }
}
