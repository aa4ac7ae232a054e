//! One workspace sees nothing of another, not even that something is there.

use proto::{
    keys::{
        CreateKeyRequest, CreateWorkspaceRequest, DeleteKeyRequest, GetKeyRequest, GetWorkspaceRequest, Key,
        ListKeysRequest, ListWorkspacesRequest, RefreshRequest, RevealKeyRequest, UpdateKeyRequest,
        VerificationCode, VerifyKeyRequest, Workspace,
    },
    resource::{key_name, parse_workspace_name, workspace_name},
};
use tonic::{Code, Status};

use crate::harness::{EMAIL, PASSWORD, Running, bearer, reason};

#[tokio::test]
async fn a_foreign_key_is_as_one_that_never_was() {
    let run = Running::start().await;
    let (foreign, stranger) = run.add_tenant("eve@example.org").await;
    let made = run.make("secret plans").await;
    let theirs = made.key.unwrap().name;
    let never = key_name(parse_workspace_name(&foreign).unwrap(), domain::KeyId::generate());
    let never_there = key_name(domain::WorkspaceId::generate(), domain::KeyId::generate());
    for name in [&theirs, &never, &never_there] {
        let (mut keys, name) = (run.keys(), name.clone());
        let get = GetKeyRequest { name: name.clone() };
        check(&keys.get_key(bearer(&stranger, get)).await.unwrap_err(), "key", &name);
        let reveal = RevealKeyRequest { name: name.clone() };
        check(&keys.reveal_key(bearer(&stranger, reveal)).await.unwrap_err(), "key", &name);
        let delete = DeleteKeyRequest { name: name.clone(), ..Default::default() };
        check(&keys.delete_key(bearer(&stranger, delete)).await.unwrap_err(), "key", &name);
        let key = Some(Key { name: name.clone(), display_name: "x".into(), ..Key::default() });
        let update = UpdateKeyRequest { key, update_mask: None };
        check(&keys.update_key(bearer(&stranger, update)).await.unwrap_err(), "key", &name);
    }
    for parent in [&run.workspace, &workspace_name(domain::WorkspaceId::generate())] {
        let (mut keys, parent) = (run.keys(), parent.clone());
        let key = Some(Key { display_name: "x".into(), ..Key::default() });
        let create = CreateKeyRequest { parent: parent.clone(), key, ..Default::default() };
        check(&keys.create_key(bearer(&stranger, create)).await.unwrap_err(), "workspace", &parent);
        let list = ListKeysRequest { parent: parent.clone(), ..Default::default() };
        check(&keys.list_keys(bearer(&stranger, list)).await.unwrap_err(), "workspace", &parent);
        let verify = VerifyKeyRequest { parent: parent.clone(), secret: made.secret.clone() };
        check(&keys.verify_key(bearer(&stranger, verify)).await.unwrap_err(), "workspace", &parent);
        let get = GetWorkspaceRequest { name: parent.clone() };
        let got = run.workspaces().get_workspace(bearer(&stranger, get)).await;
        check(&got.unwrap_err(), "workspace", &parent);
    }
    let verify = VerifyKeyRequest { parent: foreign.clone(), secret: made.secret };
    let verified = run.keys().verify_key(bearer(&stranger, verify)).await.unwrap().into_inner();
    assert_eq!((verified.code(), verified.key), (VerificationCode::NotFound, None));
    let list = ListKeysRequest { parent: foreign, show_deleted: true, ..Default::default() };
    assert!(run.keys().list_keys(bearer(&stranger, list)).await.unwrap().into_inner().keys.is_empty());
    assert_eq!(run.postgres.query("select version, delete_time is null from keys"), "1\tt\n");
}

/// The same words for everything that is not the caller's.
fn check(status: &Status, what: &str, name: &str) {
    assert_eq!((status.code(), reason(status).as_str()), (Code::NotFound, "NOT_FOUND"));
    assert_eq!(status.message(), format!("no {what} has the name {name}"));
}

#[tokio::test]
async fn a_service_does_what_is_not_for_people_only() {
    let run = Running::start().await;
    let key = Some(Key { display_name: "by a service".into(), ..Key::default() });
    let create = CreateKeyRequest { parent: run.workspace.clone(), key, ..Default::default() };
    let made = run.keys().create_key(bearer(&run.machine, create)).await.unwrap().into_inner();
    let name = made.key.unwrap().name;
    let actors = run.postgres.query("select left(actor, 4) from key_events");
    assert_eq!(actors, "svc_\n");

    let reveal = RevealKeyRequest { name: name.clone() };
    let error = run.keys().reveal_key(bearer(&run.machine, reveal)).await.unwrap_err();
    assert_eq!((error.code(), reason(&error).as_str()), (Code::PermissionDenied, "PEOPLE_ONLY"));
    let workspace = Some(Workspace { display_name: "mine".into(), ..Workspace::default() });
    let create = CreateWorkspaceRequest { workspace };
    let error = run.workspaces().create_workspace(bearer(&run.machine, create)).await.unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied);

    let list = bearer(&run.machine, ListWorkspacesRequest::default());
    let found = run.workspaces().list_workspaces(list).await.unwrap().into_inner().workspaces;
    assert_eq!(found.iter().map(|found| &found.name).collect::<Vec<_>>(), [&run.workspace]);
    let get = GetWorkspaceRequest { name: run.workspace.clone() };
    let got = run.workspaces().get_workspace(bearer(&run.machine, get)).await.unwrap().into_inner();
    assert_eq!(got, found[0]);
    let delete = DeleteKeyRequest { name, ..Default::default() };
    run.keys().delete_key(bearer(&run.machine, delete)).await.unwrap();
}

#[tokio::test]
async fn a_person_is_in_the_workspaces_that_they_made() {
    let run = Running::start().await;
    for name in ["Zebra", "Mill", "Äther"] {
        let workspace = Some(Workspace { display_name: name.into(), ..Workspace::default() });
        run.workspaces().create_workspace(run.ask(CreateWorkspaceRequest { workspace })).await.unwrap();
    }
    let (mut names, mut resources, mut page_token) = (Vec::new(), Vec::new(), String::new());
    loop {
        let request = ListWorkspacesRequest { page_size: 3, page_token };
        let page = run.workspaces().list_workspaces(run.ask(request)).await.unwrap().into_inner();
        for found in page.workspaces {
            let get = GetWorkspaceRequest { name: found.name.clone() };
            assert_eq!(run.workspaces().get_workspace(run.ask(get)).await.unwrap().into_inner(), found);
            names.push(found.display_name);
            resources.push(found.name);
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["Analytical Engines", "Mill", "Zebra", "Äther"]);

    // The token is for one workspace; a refresh gives one for another.
    let zebra = resources[2].clone();
    let list = ListKeysRequest { parent: zebra.clone(), ..Default::default() };
    assert_eq!(run.keys().list_keys(run.ask(list.clone())).await.unwrap_err().code(), Code::NotFound);
    let request = proto::keys::SignInRequest { email: EMAIL.to_uppercase(), password: PASSWORD.into() };
    let session_token = run.sessions().sign_in(request).await.unwrap().into_inner().session_token;
    let refresh = RefreshRequest { session_token: session_token.clone(), workspace: zebra };
    let refreshed = run.sessions().refresh(refresh).await.unwrap().into_inner();
    let token = refreshed.access_token.unwrap().token;
    assert!(run.keys().list_keys(bearer(&token, list)).await.is_ok());

    let (foreign, _) = run.add_tenant("eve@example.org").await;
    for workspace in [foreign, workspace_name(domain::WorkspaceId::generate())] {
        let refresh = RefreshRequest { session_token: session_token.clone(), workspace };
        let error = run.sessions().refresh(refresh).await.unwrap_err();
        assert_eq!((error.code(), reason(&error).as_str()), (Code::PermissionDenied, "NOT_A_MEMBER"));
    }
}
