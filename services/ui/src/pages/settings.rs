//! The workspace's settings. Only what somebody has changed is sent, and only if the settings are still those that
//! the form was opened with, so that nobody undoes what another one did.

use askama::Template;
use axum::{
    Form,
    extract::Query,
    http::StatusCode,
    response::{IntoResponse as _, Redirect, Response},
};
use prost_types::FieldMask;
use proto::{
    keys::{AddressStorage, GetWorkspaceRequest, UpdateWorkspaceRequest, Workspace},
    resource::workspace_name,
};
use serde::Deserialize;
use time::OffsetDateTime;

use super::{Shell, permission::require};
use crate::{
    format::{Moment, Show},
    problem::{Service, Stop, page},
    roles::Right,
    violations::{Violations, refusal},
    visit::Visit,
};

const NAME: &str = "workspace.display_name";
const AUDIT_DAYS: &str = "workspace.audit_retention_days";
const REQUEST_DAYS: &str = "workspace.request_retention_days";
const ADDRESSES: &str = "workspace.address_storage";
const COPIES: &str = "workspace.keep_copies";

/// What edges may keep of addresses: in the form, for people, what it means.
const STORAGES: [(&str, &str, &str); 3] = [
    ("whole", "Whole", "192.0.2.17"),
    ("truncated", "Network only", "192.0.2.0, or /48 of IPv6"),
    ("none", "Nothing", "no address at all"),
];

/// What was done just before.
#[derive(Default, Deserialize)]
pub(crate) struct ShowQuery {
    #[serde(default)]
    done: String,
}

/// The form, as it was filled in.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Settings {
    #[serde(default)]
    workspace: String,
    /// What the settings were when the form was opened.
    #[serde(default)]
    opened: String,
    #[serde(default)]
    display_name: String,
    #[serde(default)]
    keep_copies: String,
    /// That all copies may be destroyed.
    #[serde(default)]
    destroy_copies: String,
    #[serde(default)]
    disable_exposed_keys: String,
    #[serde(default)]
    address_storage: String,
    #[serde(default)]
    request_retention_days: String,
    #[serde(default)]
    audit_retention_days: String,
}

#[derive(Template)]
#[template(path = "settings.html")]
struct SettingsPage {
    shell: Shell,
    form: Settings,
    errors: Violations,
    is_saved: bool,
    /// Whether the destruction of copies is asked about.
    asks_about_copies: bool,
    suspended: Option<Moment>,
}

/// `GET /settings`
pub(crate) async fn show(visit: Visit, Query(query): Query<ShowQuery>) -> Result<Response, Stop> {
    require(&visit, Right::ChangeWorkspace).await?;
    let workspace = get(&visit).await?;
    Ok(page(&SettingsPage {
        form: Settings::of(&workspace),
        errors: Violations::default(),
        is_saved: query.done == "saved",
        asks_about_copies: false,
        suspended: suspended(&workspace),
        shell: visit.shell(),
    }))
}

/// `POST /settings`
pub(crate) async fn save(visit: Visit, Form(form): Form<Settings>) -> Result<Response, Stop> {
    visit.opened_in(&form.workspace)?;
    require(&visit, Right::ChangeWorkspace).await?;
    let is = get(&visit).await?;
    let current = Settings::of(&is);
    if form.opened != current.opened {
        let text = "Somebody changed these settings after you opened them, so nothing was saved. They are shown as \
                    they are now; make your change again.";
        let errors = Violations::whole(text);
        return Ok(again(&visit, StatusCode::CONFLICT, current, errors, &is));
    }
    let (wanted, paths) = match form.changes(&is) {
        Ok(changes) => changes,
        Err(errors) => return Ok(again(&visit, StatusCode::UNPROCESSABLE_ENTITY, form, errors, &is)),
    };
    if paths.is_empty() {
        return Ok(Redirect::to("/settings?done=saved").into_response());
    }
    let update_mask = Some(FieldMask { paths });
    let request = visit.call(UpdateWorkspaceRequest { workspace: Some(wanted), update_mask });
    match visit.app.clients.workspaces.clone().update_workspace(request).await {
        Ok(_) => {
            visit.renew();
            Ok(Redirect::to("/settings?done=saved").into_response())
        }
        Err(status) => {
            let code = refusal(&status).ok_or_else(|| visit.stop(Service::Keys, &status))?;
            let errors = Violations::of(&status, &[NAME, AUDIT_DAYS, REQUEST_DAYS, ADDRESSES]);
            Ok(again(&visit, code, form, errors, &is))
        }
    }
}

/// The form once more, with what is wrong.
fn again(visit: &Visit, code: StatusCode, form: Settings, errors: Violations, is: &Workspace) -> Response {
    let page = page(&SettingsPage {
        shell: visit.shell(),
        asks_about_copies: errors.at(COPIES).is_some(),
        form,
        errors,
        is_saved: false,
        suspended: suspended(is),
    });
    (code, page).into_response()
}

/// The workspace as it is now.
pub(super) async fn get(visit: &Visit) -> Result<Workspace, Stop> {
    let request = visit.call(GetWorkspaceRequest { name: workspace_name(visit.access.workspace_id) });
    let workspace = visit.app.clients.workspaces.clone().get_workspace(request).await;
    Ok(workspace.map_err(|status| visit.stop(Service::Keys, &status))?.into_inner())
}

fn suspended(workspace: &Workspace) -> Option<Moment> {
    Moment::of(workspace.suspend_time.as_ref(), Show::Full, OffsetDateTime::now_utc())
}

const fn storage_name(storage: AddressStorage) -> &'static str {
    match storage {
        AddressStorage::Truncated => "truncated",
        AddressStorage::None => "none",
        AddressStorage::Whole | AddressStorage::Unspecified => "whole",
    }
}

fn storage(name: &str) -> Option<AddressStorage> {
    let known = [AddressStorage::Whole, AddressStorage::Truncated, AddressStorage::None];
    known.into_iter().find(|storage| storage_name(*storage) == name)
}

fn ticked(is: bool) -> String {
    if is { "on".to_owned() } else { String::new() }
}

impl Settings {
    /// The form of a workspace as it is.
    fn of(workspace: &Workspace) -> Self {
        let mut form = Self {
            display_name: workspace.display_name.clone(),
            keep_copies: ticked(workspace.keep_copies),
            disable_exposed_keys: ticked(workspace.disable_exposed_keys),
            address_storage: storage_name(workspace.address_storage()).to_owned(),
            request_retention_days: workspace.request_retention_days.to_string(),
            audit_retention_days: workspace.audit_retention_days.to_string(),
            ..Self::default()
        };
        form.opened = form.fingerprint();
        form
    }

    /// All settings in one text that differs when one of them does.
    fn fingerprint(&self) -> String {
        let parts = [
            &self.keep_copies,
            &self.disable_exposed_keys,
            &self.address_storage,
            &self.request_retention_days,
            &self.audit_retention_days,
            &self.display_name,
        ];
        parts.map(String::as_str).join("/")
    }

    /// What the form changes of the workspace, and the paths of it.
    fn changes(&self, is: &Workspace) -> Result<(Workspace, Vec<String>), Violations> {
        let mut errors = Violations::default();
        let mut days = |field: &str, text: &str| {
            let days = text.trim().parse::<i32>();
            days.unwrap_or_else(|_| {
                errors.add(field, "Write a number of days.");
                0
            })
        };
        let mut wanted = is.clone();
        wanted.display_name = self.display_name.trim().to_owned();
        wanted.request_retention_days = days(REQUEST_DAYS, &self.request_retention_days);
        wanted.audit_retention_days = days(AUDIT_DAYS, &self.audit_retention_days);
        wanted.keep_copies = !self.keep_copies.is_empty();
        wanted.disable_exposed_keys = !self.disable_exposed_keys.is_empty();
        match storage(&self.address_storage) {
            Some(storage) => wanted.address_storage = storage.into(),
            None => errors.add(ADDRESSES, "Choose one."),
        }
        if is.keep_copies && !wanted.keep_copies && self.destroy_copies.is_empty() {
            errors.add(
                COPIES,
                "This destroys all copies for good, also if it is switched on again. Confirm it.",
            );
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let differ = [
            ("display_name", wanted.display_name != is.display_name),
            ("request_retention_days", wanted.request_retention_days != is.request_retention_days),
            ("audit_retention_days", wanted.audit_retention_days != is.audit_retention_days),
            ("keep_copies", wanted.keep_copies != is.keep_copies),
            ("disable_exposed_keys", wanted.disable_exposed_keys != is.disable_exposed_keys),
            ("address_storage", wanted.address_storage() != is.address_storage()),
        ];
        let paths = differ.into_iter().filter(|(_, differs)| *differs).map(|(path, _)| path.to_owned());
        Ok((wanted, paths.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace() -> Workspace {
        Workspace {
            display_name: "Acme".to_owned(),
            audit_retention_days: 400,
            request_retention_days: 90,
            keep_copies: true,
            address_storage: AddressStorage::Whole.into(),
            ..Workspace::default()
        }
    }

    #[test]
    fn only_what_changed_is_sent() {
        let is = workspace();
        assert_eq!(Settings::of(&is).changes(&is).unwrap().1, Vec::<String>::new());
        let form = Settings { address_storage: "none".to_owned(), ..Settings::of(&is) };
        let (wanted, paths) = form.changes(&is).unwrap();
        assert_eq!(
            (paths, wanted.address_storage()),
            (vec!["address_storage".to_owned()], AddressStorage::None)
        );
    }

    #[test]
    fn copies_are_destroyed_only_after_a_second_yes() {
        let is = workspace();
        let form = Settings { keep_copies: String::new(), ..Settings::of(&is) };
        assert!(form.changes(&is).unwrap_err().at(COPIES).is_some());
        let form = Settings { destroy_copies: "on".to_owned(), ..form };
        assert_eq!(form.changes(&is).unwrap().1, ["keep_copies"]);
    }

    #[test]
    fn what_is_no_number_is_said_at_the_field() {
        let is = workspace();
        let form = Settings { audit_retention_days: "a year".to_owned(), ..Settings::of(&is) };
        assert_eq!(form.changes(&is).unwrap_err().at(AUDIT_DAYS), Some("Write a number of days."));
        let form = Settings { address_storage: "half".to_owned(), ..Settings::of(&is) };
        assert_eq!(form.changes(&is).unwrap_err().at(ADDRESSES), Some("Choose one."));
    }

    #[test]
    fn each_setting_is_in_the_fingerprint() {
        let before = Settings::of(&workspace()).opened;
        let changes: [fn(&mut Workspace); 6] = [
            |w| w.display_name.push('x'),
            |w| w.audit_retention_days = 30,
            |w| w.request_retention_days = 37,
            |w| w.keep_copies = false,
            |w| w.disable_exposed_keys = true,
            |w| w.address_storage = AddressStorage::None.into(),
        ];
        for change in changes {
            let mut other = workspace();
            change(&mut other);
            assert_ne!(Settings::of(&other).opened, before);
        }
    }
}
