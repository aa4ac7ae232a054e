//! Members, roles and invitations.

use proto::keys::{
    DeleteInvitationRequest, GetInvitationResponse, GetMemberRequest, ListInvitationsRequest,
    ListKeysRequest, ListMembersRequest, Member, RemoveMemberRequest, Role, UpdateMemberRequest,
};
use tonic::{Code, Response, Status};

use crate::{
    harness::{EMAIL, PASSWORD, Running, bearer, field, sign_in},
    team::{Person, refused},
};

async fn remove(run: &Running, by: &Person, who: &Person) -> Result<(), Status> {
    let request = RemoveMemberRequest { name: who.name.clone() };
    run.members().remove_member(bearer(&by.token, request)).await.map(|_| ())
}

#[tokio::test]
async fn a_person_is_invited_and_comes_in() {
    let run = Running::start().await;
    let (name, token) = run.invite(&run.admin, " Bob@Example.org ", Role::Viewer).await.unwrap();
    assert!(token.starts_with("kminv_"));
    assert!(!run.postgres.query("select i::text from invitations i").contains(&token[6..]), "kept as a hash");
    refused(
        run.invite(&run.admin, "bob@example.org", Role::Member).await,
        Code::AlreadyExists,
        "ALREADY_INVITED",
    );
    refused(run.invite(&run.admin, EMAIL, Role::Member).await, Code::AlreadyExists, "ALREADY_MEMBER");
    let list = ListInvitationsRequest { parent: run.workspace.clone(), ..Default::default() };
    let open = run.members().list_invitations(run.ask(list.clone())).await.unwrap().into_inner().invitations;
    assert_eq!(open.len(), 1);
    assert_eq!(
        (&open[0].name, open[0].email.as_str(), open[0].role()),
        (&name, "bob@example.org", Role::Viewer)
    );
    let lasts = open[0].expire_time.unwrap().seconds - open[0].create_time.unwrap().seconds;
    assert_eq!(lasts, 7 * 86_400);

    // Whoever has the token may know what it is for, and comes to nothing by looking.
    let told = run.look_at(&token).await.unwrap();
    assert_eq!(
        told,
        GetInvitationResponse {
            invitation: open.into_iter().next(),
            workspace_display_name: "Analytical Engines".into()
        }
    );
    assert_eq!(field(&run.look_at("").await.unwrap_err()), "token");
    refused(run.look_at(&name).await, Code::Unauthenticated, "NOT_SIGNED_IN");

    // A new account chooses its password.
    assert_eq!(field(&run.accept(&token, "short").await.unwrap_err()), "password");
    let (_, access) = run.accept(&token, "a new password").await.unwrap();
    let list_keys = ListKeysRequest { parent: run.workspace.clone(), ..Default::default() };
    run.keys().list_keys(bearer(&access, list_keys)).await.unwrap();
    assert_eq!(run.member("bob@example.org").await.role(), Role::Viewer);
    let again = run.accept(&token, "a new password").await;
    refused(again, Code::Unauthenticated, "NOT_SIGNED_IN");
    refused(run.look_at(&token).await, Code::Unauthenticated, "NOT_SIGNED_IN");
    let request =
        proto::keys::SignInRequest { email: "bob@example.org".into(), password: "a new password".into() };
    assert_eq!(run.sessions().sign_in(request).await.unwrap().into_inner().workspace, run.workspace);
    let open = run.members().list_invitations(run.ask(list)).await.unwrap().into_inner().invitations;
    assert!(open.is_empty());
}

#[tokio::test]
async fn an_account_that_is_there_gives_its_password() {
    let run = Running::start().await;
    run.add_tenant("eve@example.org").await;
    let (_, token) = run.invite(&run.admin, "eve@example.org", Role::Member).await.unwrap();
    for _ in 0..10 {
        refused(run.accept(&token, "not hers at all").await, Code::Unauthenticated, "NOT_SIGNED_IN");
    }
    refused(run.accept(&token, PASSWORD).await, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
    assert_eq!(run.postgres.query("select count(*) from memberships where role = 'member'"), "0\n");
    let _ = run.postgres.query("delete from sign_in_attempts");
    run.accept(&token, PASSWORD).await.unwrap();
    let workspaces =
        "select count(*) from memberships join accounts using (account_id) where email like 'eve%'";
    assert_eq!(run.postgres.query(workspaces), "2\n");
    assert_eq!(run.postgres.query("select count(*) from accounts"), "2\n");
}

#[tokio::test]
async fn an_invitation_ends() {
    let run = Running::start().await;
    let (name, token) = run.invite(&run.admin, "bob@example.org", Role::Member).await.unwrap();
    let delete = DeleteInvitationRequest { name: name.clone() };
    run.members().delete_invitation(run.ask(delete.clone())).await.unwrap();
    refused(run.members().delete_invitation(run.ask(delete)).await, Code::NotFound, "NOT_FOUND");
    refused(run.accept(&token, PASSWORD).await, Code::Unauthenticated, "NOT_SIGNED_IN");

    let (_, token) = run.invite(&run.admin, "bob@example.org", Role::Member).await.unwrap();
    let _ = run.postgres.query("update invitations set expire_time = now()");
    refused(run.look_at(&token).await, Code::Unauthenticated, "NOT_SIGNED_IN");
    refused(run.accept(&token, PASSWORD).await, Code::Unauthenticated, "NOT_SIGNED_IN");
    let (_, token) =
        run.invite(&run.admin, "bob@example.org", Role::Member).await.expect("the old one has ended");

    // It goes with the member that made it.
    let admin = run.join("carol@example.org", Role::Admin).await;
    let (_, by_admin) = run.invite(&admin.token, "mallory@example.org", Role::Viewer).await.unwrap();
    remove(&run, &run.owner().await, &admin).await.unwrap();
    refused(run.accept(&by_admin, PASSWORD).await, Code::Unauthenticated, "NOT_SIGNED_IN");
    run.accept(&token, PASSWORD).await.expect("the owner's invitation stays");
}

#[tokio::test]
async fn nobody_takes_more_than_the_own_role_gives() {
    let run = Running::start().await;
    let owner = run.owner().await;
    let admin = run.join("admin@example.org", Role::Admin).await;
    let other_admin = run.join("other@example.org", Role::Admin).await;
    let member = run.join("member@example.org", Role::Member).await;
    let viewer = run.join("viewer@example.org", Role::Viewer).await;
    let denied = |result: Result<_, Status>| refused(result, Code::PermissionDenied, "ROLE_NOT_ALLOWED");

    // The own role, up or down.
    for (person, role) in [(&owner, Role::Admin), (&admin, Role::Owner), (&admin, Role::Member)] {
        denied(run.set_role(person, person, role).await.map(|_| ()));
    }
    // Admins neither touch nor make owners and admins.
    denied(run.set_role(&admin, &owner, Role::Viewer).await.map(|_| ()));
    denied(run.set_role(&admin, &other_admin, Role::Viewer).await.map(|_| ()));
    denied(run.set_role(&admin, &member, Role::Owner).await.map(|_| ()));
    denied(run.set_role(&admin, &member, Role::Admin).await.map(|_| ()));
    denied(remove(&run, &admin, &owner).await);
    denied(remove(&run, &admin, &other_admin).await);
    denied(run.invite(&admin.token, "x@example.org", Role::Owner).await.map(|_| ()));
    denied(run.invite(&admin.token, "x@example.org", Role::Admin).await.map(|_| ()));
    let (by_owner, _) = run.invite(&owner.token, "x@example.org", Role::Admin).await.unwrap();
    let delete = DeleteInvitationRequest { name: by_owner };
    denied(run.members().delete_invitation(bearer(&admin.token, delete)).await.map(|_| ()));
    // Members and viewers manage nobody.
    for (person, other) in [(&member, &viewer), (&viewer, &member)] {
        denied(run.set_role(person, &viewer, Role::Member).await.map(|_| ()));
        denied(remove(&run, person, other).await);
        denied(run.invite(&person.token, "y@example.org", Role::Viewer).await.map(|_| ()));
    }
    // Nothing of it happened.
    let roles = "select string_agg(role, ' ' order by role) from memberships";
    assert_eq!(run.postgres.query(roles), "admin admin member owner viewer\n");

    // What they may do, they may.
    assert_eq!(run.set_role(&admin, &viewer, Role::LogViewer).await.unwrap().role(), Role::LogViewer);
    assert_eq!(run.set_role(&owner, &other_admin, Role::Owner).await.unwrap().role(), Role::Owner);
    assert_eq!(run.set_role(&owner, &other_admin, Role::Viewer).await.unwrap().role(), Role::Viewer);
    remove(&run, &admin, &member).await.unwrap();
    for person in [&viewer, &admin] {
        remove(&run, person, person).await.expect("everybody may go");
    }
}

#[tokio::test]
async fn the_last_owner_stays() {
    let run = Running::start().await;
    let owner = run.owner().await;
    refused(remove(&run, &owner, &owner).await, Code::FailedPrecondition, "LAST_OWNER");
    let second = run.join("second@example.org", Role::Owner).await;
    remove(&run, &owner, &owner).await.expect("there is another owner");
    refused(remove(&run, &second, &second).await, Code::FailedPrecondition, "LAST_OWNER");
    refused(run.set_role(&second, &owner, Role::Admin).await, Code::NotFound, "NOT_FOUND");
}

/// Their access tokens say "owner" all the while.
#[tokio::test]
async fn of_two_owners_who_act_on_each_other_at_once_one_stays() {
    let run = Running::start().await;
    let ada = run.owner().await;
    for round in 0..8 {
        let eve = run.join(&format!("eve{round}@example.org"), Role::Owner).await;
        let (left, right) = if round % 2 == 0 {
            let (left, right) =
                tokio::join!(run.set_role(&ada, &eve, Role::Viewer), run.set_role(&eve, &ada, Role::Viewer));
            (left.map(|_| ()), right.map(|_| ()))
        } else {
            tokio::join!(remove(&run, &ada, &eve), remove(&run, &eve, &ada))
        };
        assert!(left.is_ok() != right.is_ok(), "{left:?} {right:?}");
        assert_eq!(run.postgres.query("select count(*) from memberships where role = 'owner'"), "1\n");
        // As before, whoever won.
        let restore = "delete from memberships m using accounts a where a.account_id = m.account_id and email <> 'ada@example.org';
                       insert into memberships select account_id, workspace_id, 'owner', now() from accounts, workspaces
                       where email = 'ada@example.org' on conflict (account_id, workspace_id) do update set role = 'owner'";
        let _ = run.postgres.query(restore);
    }
}

#[tokio::test]
async fn a_removed_member_gets_no_further_token() {
    let run = Running::start().await;
    let owner = run.owner().await;
    run.add_tenant("eve@example.org").await;
    let (_, invitation) = run.invite(&run.admin, "eve@example.org", Role::Member).await.unwrap();
    let (session, token) = run.accept(&invitation, PASSWORD).await.unwrap();
    let name = run.member("eve@example.org").await.name;
    let eve = Person { name, email: "eve@example.org".into(), session, token };
    run.refresh(&eve).await.unwrap();
    remove(&run, &owner, &eve).await.unwrap();
    refused(run.refresh(&eve).await, Code::PermissionDenied, "NOT_A_MEMBER");
    let elsewhere = sign_in(&mut run.sessions(), &eve.email).await.unwrap();
    assert_ne!(elsewhere.workspace, run.workspace, "other workspaces stay hers");
    // A token that is still out changes no member any more.
    let admin = run.join("admin@example.org", Role::Admin).await;
    remove(&run, &owner, &admin).await.unwrap();
    let late = run.invite(&admin.token, "x@example.org", Role::Viewer).await;
    refused(late, Code::PermissionDenied, "NOT_A_MEMBER");
}

#[tokio::test]
async fn a_new_role_comes_with_the_next_token() {
    let run = Running::start().await;
    let owner = run.owner().await;
    let bob = run.join("bob@example.org", Role::Viewer).await;
    let make = async |token: &str| {
        let key = Some(proto::keys::Key { display_name: "k".into(), ..Default::default() });
        let parent = run.workspace.clone();
        let request = proto::keys::CreateKeyRequest { parent, key, ..Default::default() };
        run.keys().create_key(bearer(token, request)).await.map(|_| ())
    };
    refused(make(&bob.token).await, Code::PermissionDenied, "ROLE_NOT_ALLOWED");
    run.set_role(&owner, &bob, Role::Member).await.unwrap();
    make(&run.refresh(&bob).await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn members_are_listed_and_their_fields_checked() {
    let run = Running::start().await;
    let mut emails = vec![EMAIL.to_owned()];
    for number in 0..4 {
        emails.push(run.join(&format!("p{number}@example.org"), Role::Viewer).await.email);
    }
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListMembersRequest { parent: run.workspace.clone(), page_size: 2, page_token };
        let page = run.members().list_members(run.ask(request)).await.unwrap().into_inner();
        found.extend(page.members);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(
        found.iter().map(|member| &member.email).collect::<Vec<_>>(),
        emails.iter().collect::<Vec<_>>()
    );
    let get = GetMemberRequest { name: found[1].name.clone() };
    assert_eq!(run.members().get_member(run.ask(get)).await.unwrap().into_inner(), found[1]);

    let update = async |change: &dyn Fn(&mut UpdateMemberRequest)| {
        let mut request = UpdateMemberRequest { member: Some(found[1].clone()), update_mask: None };
        change(&mut request);
        field(&run.members().update_member(run.ask(request)).await.map(Response::into_inner).unwrap_err())
    };
    let mask = |path: &str| Some(prost_types::FieldMask { paths: vec![path.into()] });
    assert_eq!(update(&|request| request.member.as_mut().unwrap().role = 0).await, "member.role");
    assert_eq!(update(&|request| request.member.as_mut().unwrap().role = 77).await, "member.role");
    assert_eq!(update(&|request| request.member = Some(Member::default())).await, "member.name");
    assert_eq!(update(&|request| request.update_mask = mask("email")).await, "update_mask");
    assert_eq!(field(&run.invite(&run.admin, "nobody", Role::Viewer).await.unwrap_err()), "invitation.email");
    let unset = run.invite(&run.admin, "a@b", Role::Unspecified).await;
    assert_eq!(field(&unset.unwrap_err()), "invitation.role");
}
