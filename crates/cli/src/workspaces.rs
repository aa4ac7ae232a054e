//! The workspaces that whoever asks can choose from.

use proto::keys::ListWorkspacesRequest;
use serde_json::{Value, json};

use crate::{
    clients::Clients,
    failure::{Failure, Service},
    json,
    screen::Screen,
    table::Table,
};

const PAGE_SIZE: i32 = 1_000;

/// Prints them, at most a page.
pub(crate) async fn list(clients: &mut Clients, screen: &Screen) -> Result<(), Failure> {
    let list = ListWorkspacesRequest { page_size: PAGE_SIZE, ..ListWorkspacesRequest::default() };
    let client = clients.workspaces.clone();
    let page =
        clients.read(Service::Keys, list, async |call| client.clone().list_workspaces(call).await).await?;
    if screen.is_json {
        let all = page.workspaces.iter().map(|each| json::of("keymeter.keys.v1.Workspace", each));
        return screen.document(&json!({ "workspaces": all.collect::<Value>() }));
    }
    let mut table = Table::new(&["ID", "NAME"]);
    for workspace in &page.workspaces {
        let id = workspace.name.rsplit('/').next().unwrap_or_default();
        table.row([id.to_owned(), workspace.display_name.clone()]);
    }
    screen.table(&table)
}
