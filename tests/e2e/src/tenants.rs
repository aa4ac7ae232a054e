//! The tenant matrix: every RPC of both servers, as the protos have them, asked by every role, by services of every
//! scope and by nobody, about the own and a foreign workspace. What is expected follows from the table.

use access::{
    Claims, Role, Scope, Subject,
    table::{Who, who},
};
use bytes::{Buf as _, BufMut as _};
use domain::{AccountId, InvitationId, KeyId, RequestId, SecretId, ServiceTokenId, WorkspaceId};
use prost::Message as _;
use prost_types::{DescriptorProto, FileDescriptorSet};
use time::{Duration, OffsetDateTime};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};
use tonic_types::StatusExt as _;

use crate::{
    stack::Stack,
    team::{Team, Things},
};

/// Messages as bytes, so that any RPC can be asked.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}

/// An RPC of the protos.
struct Rpc {
    /// `/package.Service/Method`
    path: String,
    /// Which field of its request names what it is about, `key.name`; `None` if none does.
    field: Option<Vec<u32>>,
    /// What that is.
    noun: &'static str,
}

/// What a name may be of.
const NOUNS: [&str; 7] = ["Workspace", "ServiceToken", "Invitation", "Member", "Secret", "Request", "Key"];

fn rpcs() -> Vec<Rpc> {
    let files = FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap().file;
    let message = |name: &str| -> DescriptorProto {
        let found = files.iter().flat_map(|file| {
            let package = file.package();
            file.message_type.iter().filter(move |message| name == format!(".{package}.{}", message.name()))
        });
        found.clone().next().unwrap_or_else(|| panic!("{name} is defined")).clone()
    };
    let number = |of: &DescriptorProto, name: &str| {
        let field = of.field.iter().find(|field| field.name() == name)?;
        Some(u32::try_from(field.number()).unwrap())
    };
    let mut rpcs = Vec::new();
    for file in &files {
        for service in &file.service {
            for method in &service.method {
                let request = message(method.input_type());
                let direct = |name| number(&request, name).map(|number| vec![number]);
                // The one message in it that is a resource of its own: UpdateKeyRequest.key.
                let nested = || {
                    let mut fields = request.field.iter().filter(|field| {
                        method.name().starts_with("Update") && field.type_name().starts_with(".keymeter")
                    });
                    let field = fields.next()?;
                    let inner = number(&message(field.type_name()), "name")?;
                    Some(vec![u32::try_from(field.number()).unwrap(), inner])
                };
                let parent = direct("parent");
                let noun = if parent.is_some() {
                    "Workspace"
                } else {
                    NOUNS.into_iter().find(|noun| method.name().ends_with(noun)).unwrap_or("")
                };
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                let field = parent.or_else(|| direct("name")).or_else(nested);
                assert!(field.is_none() || !noun.is_empty(), "{path}: name in NOUNS what it is about");
                rpcs.push(Rpc { path, field, noun });
            }
        }
    }
    rpcs
}

impl Rpc {
    /// The request with this name in it and nothing else.
    fn request(&self, name: &str) -> Vec<u8> {
        let Some(field) = &self.field else { return Vec::new() };
        field.iter().rev().fold(name.as_bytes().to_vec(), |inner, number| {
            let mut outer = Vec::new();
            prost::encoding::bytes::encode(*number, &inner, &mut outer);
            outer
        })
    }
}

async fn ask(channel: &Channel, rpc: &Rpc, token: Option<&str>, name: &str) -> Result<(), Status> {
    let mut request = Request::new(rpc.request(name));
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    // One message is a stream of one.
    let path = rpc.path.parse().unwrap();
    let mut messages = grpc.server_streaming(request, path, Raw).await?.into_inner();
    while messages.message().await?.is_some() {}
    Ok(())
}

fn reason(answer: &Result<(), Status>) -> (Code, String) {
    match answer {
        Ok(()) => (Code::Ok, String::new()),
        Err(status) => {
            let info = status.get_details_error_info();
            (status.code(), info.map(|info| info.reason).unwrap_or_default())
        }
    }
}

/// An answer without the name that was asked for, which it may repeat; all names asked for are equally long.
fn words(status: &Status, name: &str) -> (Code, String, Vec<u8>) {
    let details: Vec<u8> = status.details().to_vec();
    let mut bytes = Vec::new();
    let mut rest = details.as_slice();
    while let Some((first, tail)) = rest.split_first() {
        if let Some(tail) = rest.strip_prefix(name.as_bytes()) {
            bytes.push(0);
            rest = tail;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    (status.code(), status.message().replace(name, "{}"), bytes)
}

/// A thing of that noun in a workspace that never was.
fn never(noun: &str, workspace_id: WorkspaceId) -> String {
    let workspace = format!("workspaces/{workspace_id}");
    match noun {
        "Workspace" => workspace,
        "Key" => format!("{workspace}/keys/{}", KeyId::generate()),
        "Secret" => format!("{workspace}/keys/{}/secrets/{}", KeyId::generate(), SecretId::generate()),
        "Request" => format!("{workspace}/requests/{}", RequestId::generate()),
        "Member" => format!("{workspace}/members/{}", AccountId::generate()),
        "Invitation" => format!("{workspace}/invitations/{}", InvitationId::generate()),
        "ServiceToken" => format!("{workspace}/serviceTokens/{}", ServiceTokenId::generate()),
        _ => String::new(),
    }
}

fn claims(role: Role, scopes: &[String]) -> Claims {
    let now = OffsetDateTime::now_utc();
    Claims {
        subject: Subject::Account(AccountId::generate()),
        workspace_id: WorkspaceId::generate(),
        role,
        scopes: scopes.to_vec(),
        authenticated: (role != Role::Service).then_some(now),
        expires: now + Duration::MINUTE,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_rpc_answers_every_caller_as_the_table_says() {
    let stack = Stack::start().await;
    let team = Team::gather(&stack).await;
    let (keys, query) = (stack.keys_channel().await, stack.query_channel().await);
    let own = stack.workspace.strip_prefix("workspaces/").unwrap().parse::<WorkspaceId>().unwrap();
    let Things { workspace_id: foreign, .. } = team.foreign;
    let (mut asked, mut admitted, mut refused) = (0, 0, 0);
    for rpc in rpcs() {
        let channel = if rpc.path.starts_with("/keymeter.usage.") { &query } else { &keys };
        let allowed = who(&rpc.path).expect("a row");
        // Nobody: only what is public is answered at all.
        for name in [never(rpc.noun, own), team.foreign.name(rpc.noun)] {
            let answer = reason(&ask(channel, &rpc, None, &name).await);
            let missing = answer == (Code::Unauthenticated, "ACCESS_TOKEN_MISSING".to_owned());
            assert_eq!(missing, allowed != Who::Public, "{} without a token: {answer:?}", rpc.path);
            asked += 1;
        }
        if allowed == Who::Public {
            continue;
        }
        for caller in &team.callers {
            let expected = allowed.admit(&claims(caller.role, &caller.scopes), OffsetDateTime::now_utc());
            let token = Some(caller.token.as_str());
            let what = format!("{} by {} {:?}", rpc.path, caller.role, caller.scopes);
            let names = [
                never(rpc.noun, own),
                team.foreign.name(rpc.noun),
                never(rpc.noun, foreign),
                never(rpc.noun, WorkspaceId::generate()),
            ];
            let mut answers = Vec::new();
            for name in &names {
                answers.push(ask(channel, &rpc, token, name).await);
                asked += 1;
            }
            match &expected {
                Err(_) => {
                    refused += 1;
                    for answer in &answers {
                        assert_eq!(reason(answer), reason(&expected), "{what}");
                    }
                }
                Ok(()) => {
                    admitted += 1;
                    let code = reason(&answers[0]).0;
                    let reached = !matches!(
                        code,
                        Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented | Code::Internal
                    );
                    assert!(reached, "{what} about the own workspace: {:?}", answers[0]);
                }
            }
            // What is there of others, what is not, and what never was are one and the same.
            if rpc.field.is_some() {
                let foreign = answers.iter().zip(&names).skip(1);
                let refusals: Vec<_> =
                    foreign.map(|(answer, name)| words(answer.as_ref().expect_err(&what), name)).collect();
                if expected.is_ok() {
                    assert_eq!(refusals[0].0, Code::NotFound, "{what}");
                }
                assert!(refusals.iter().all(|refusal| *refusal == refusals[0]), "{what}: {refusals:?}");
            }
        }
    }
    println!("{asked} calls: {admitted} pairs of RPC and caller admitted, {refused} refused, 0 leaks");
    assert!(asked > 1_000 && admitted > 100 && refused > 100);
}

/// An RPC that is served but has no row would be refused like this one, which has neither.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unlisted_rpc_is_refused_by_both_servers() {
    let stack = Stack::start().await;
    let token = stack.signed(()).await.metadata().get("authorization").unwrap().clone();
    let token = token.to_str().unwrap().strip_prefix("Bearer ").unwrap().to_owned();
    for channel in [stack.keys_channel().await, stack.query_channel().await] {
        for path in ["/keymeter.keys.v1.KeysService/DropKeys", "/keymeter.usage.v1.UsageService/DropAll"] {
            let rpc = Rpc { path: path.to_owned(), field: None, noun: "" };
            let answer = ask(&channel, &rpc, Some(&token), "").await;
            assert_eq!(reason(&answer), (Code::Unimplemented, "RPC_NOT_LISTED".to_owned()));
        }
    }
}

#[test]
fn scopes_and_roles_are_all_asked() {
    assert_eq!(Team::kinds().len(), Role::ALL.len() + Scope::ALL.len());
}
