//! What every client of NATS has to know of a cluster: that there are several addresses, that a server may be cut off
//! from the others and not know it, and which reads are not old. Makes no stream and knows no part of the product.

use std::{
    convert::Infallible,
    fmt,
    hash::{BuildHasher as _, RandomState},
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::{
    Client, ConnectOptions, ReconnectToServer, Server, ServerAddr,
    connection::State,
    jetstream::{
        Context, ContextBuilder, kv,
        message::StreamMessage,
        stream::{Config, Info, LastRawMessageError, LastRawMessageErrorKind, Stream},
    },
};

/// Longest wait for one answer of JetStream. A leader that dies answers nothing; the next one is asked again.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// A server that is gone without a word is noticed after two of these.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// Between two looks whether JetStream answers on a connection.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// So many looks in a row without an answer are enough: an election takes less.
const UNANSWERED_MAX: u32 = 4;
/// Servers of a stream hear each other every second; one that was silent for longer may be on the other side.
const SILENT_AFTER: Duration = Duration::from_secs(2);

/// The servers of one cluster. Prints without passwords.
#[derive(Clone)]
pub struct Servers {
    addresses: Vec<ServerAddr>,
    credentials: Option<(String, String)>,
    identity: Option<tls::Identity>,
}

impl Servers {
    /// Reads addresses with commas between them, such as `nats://a:4222,nats://b:4222`.
    ///
    /// # Errors
    /// If one is none.
    pub fn parse(addresses: &str) -> io::Result<Self> {
        let parse = |(address, number): (&str, usize)| {
            // Not repeated here, since there may be a password in it.
            let what = format!(
                "number {number} is no address of NATS, such as nats://host:4222 with commas between several"
            );
            let parsed = address.trim().parse().ok().filter(|server: &ServerAddr| !server.host().is_empty());
            parsed.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, what))
        };
        let credentials = proto::nats::credentials(addresses);
        let addresses = addresses.split(',').zip(1..).map(parse).collect::<io::Result<_>>()?;
        Ok(Self { addresses, credentials, identity: None })
    }

    /// Takes only servers that show a certificate of the identity's authorities, and shows its own.
    #[must_use]
    pub fn secured_by(self, identity: Option<tls::Identity>) -> Self {
        Self { identity, ..self }
    }

    /// Options that sign in as the addresses say, and have answers sent to where no other user may listen.
    #[must_use]
    pub fn options(&self) -> ConnectOptions {
        self.credentials.clone().map_or_else(ConnectOptions::new, |(user, password)| {
            let inbox = inbox_of(&user);
            let options = ConnectOptions::with_user_and_password(user, password);
            match inbox {
                Some(inbox) => options.custom_inbox_prefix(inbox),
                None => options,
            }
        })
    }

    /// Connects to one of them by `options` (see [`Self::options`]), and to another whenever that one is gone.
    ///
    /// # Errors
    /// As [`ConnectOptions::connect`].
    pub async fn connect(&self, options: ConnectOptions) -> Result<Client, async_nats::ConnectError> {
        let left = Arc::<Mutex<Option<ServerAddr>>>::default();
        // The client itself would choose among all, and might stay.
        let go_on = move |servers: Vec<Server>, _| {
            let next = another(&servers, &mut left.lock().unwrap_or_else(PoisonError::into_inner));
            async move { next.map(|addr| ReconnectToServer { addr, delay: None }) }
        };
        let mut options = options.ping_interval(PING_INTERVAL).reconnect_to_server_callback(go_on);
        if let Some(identity) = &self.identity {
            options = options.require_tls(true).tls_client_config(identity.client());
        }
        options.connect(self.addresses.as_slice()).await
    }

    /// For as long as it is polled, leaves a server whose JetStream answers nothing for another one: a server that was
    /// cut off from the others keeps its clients, and can do nothing for them.
    pub async fn leave_deaf(&self, context: &Context) -> Infallible {
        if self.addresses.len() < 2 {
            return std::future::pending().await;
        }
        let client = context.client();
        let mut unanswered = 0;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let is_deaf =
                client.connection_state() == State::Connected && context.query_account().await.is_err();
            unanswered = if is_deaf { unanswered + 1 } else { 0 };
            if unanswered == UNANSWERED_MAX {
                tracing::warn!("JetStream does not answer on this server of NATS: trying another");
                unanswered = 0;
                // It fails only if the client has ended.
                let _ = client.force_reconnect().await;
            }
        }
    }
}

/// Any of the servers that failed least, but not the one that is left; `None` where there is no choice, or where none was
/// connected to yet.
fn another(servers: &[Server], left: &mut Option<ServerAddr>) -> Option<ServerAddr> {
    let last = left.as_ref().or_else(|| Some(&servers.iter().find(|server| server.did_connect)?.addr))?;
    let others = servers.iter().filter(|server| server.addr != *last);
    let next = others.min_by_key(|server| (server.failed_attempts, RandomState::new().hash_one(())))?;
    *left = Some(next.addr.clone());
    left.clone()
}

/// Beginning of the subjects that a user's answers come to, as `deploy/nats/users` lets that user hear them; `None` for a
/// name that can not be part of a subject.
fn inbox_of(user: &str) -> Option<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    (!user.is_empty() && user.chars().all(fits)).then(|| format!("_INBOX_{user}"))
}

/// JetStream with a limit on every wait, for answers to requests and to publishers alike.
#[must_use]
pub fn context(client: Client) -> Context {
    ContextBuilder::new().timeout(ANSWER_TIMEOUT).ack_timeout(ANSWER_TIMEOUT).build(client)
}

/// Reads a number of servers that hold a stream.
///
/// # Errors
/// If it is none of 1, 3 and 5.
pub fn replicas(text: &str) -> Result<usize, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err("must be 1, 3 or 5, and no more than there are servers of NATS".to_owned()),
    }
}

/// The newest message under a subject, which may have wildcards, as the stream's leader has it. A direct get, which
/// buckets of key and value answer with otherwise, may be answered by a server that lacks the newest ones.
///
/// # Errors
/// If NATS is away or the stream has no leader now.
pub async fn newest<I: Send + Sync>(
    stream: &Stream<I>,
    subject: &str,
) -> Result<Option<StreamMessage>, LastRawMessageError> {
    match stream.get_last_raw_message_by_subject(subject).await {
        Ok(message) => Ok(Some(message)),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, server) in self.addresses.iter().enumerate() {
            let comma = if number > 0 { ", " } else { "" };
            write!(f, "{comma}{}://{}:{}", server.scheme(), server.host(), server.port())?;
        }
        Ok(())
    }
}

/// What a bucket has under a key, as its leader has it, and the revision to change that by; 0 if there never was anything.
///
/// # Errors
/// As [`newest`].
pub async fn value(
    bucket: &kv::Store,
    key: &str,
) -> Result<(Option<StreamMessage>, u64), LastRawMessageError> {
    let Some(message) = newest(&bucket.stream, &format!("{}{key}", bucket.prefix)).await? else {
        return Ok((None, 0));
    };
    let revision = message.sequence;
    let is_mark =
        ["KV-Operation", "Nats-Marker-Reason"].iter().any(|name| message.headers.get(*name).is_some());
    Ok(((!is_mark).then_some(message), revision))
}

/// Whether the server that said this of a stream leads most of the stream's servers. One that was cut off from the
/// others goes on saying that it leads for some ten seconds, and what it says is old.
#[must_use]
pub fn is_led(info: &Info) -> bool {
    let Some(cluster) = &info.cluster else { return true };
    let heard = cluster.replicas.iter().filter(|peer| !peer.offline && peer.active < SILENT_AFTER).count();
    2 * (heard + 1) > cluster.replicas.len() + 1
}

/// Has so many servers hold a stream that is there, if there are others now, and changes nothing else of it. Says whether
/// it did; a stream that is not there is left to whoever makes it.
///
/// # Errors
/// If NATS is away, or has fewer servers.
pub async fn spread(context: &Context, stream: &str, replicas: usize) -> Result<bool, async_nats::Error> {
    use async_nats::jetstream::{ErrorCode, context::GetStreamErrorKind};
    let known = match context.get_stream(stream).await {
        Ok(known) => known,
        Err(error) => {
            return match error.kind() {
                GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                    Ok(false)
                }
                _ => Err(error.into()),
            };
        }
    };
    let config = &known.cached_info().config;
    if config.num_replicas == replicas {
        return Ok(false);
    }
    context.update_stream(Config { num_replicas: replicas, ..config.clone() }).await?;
    tracing::info!(stream, replicas, "changed how many servers hold the stream");
    Ok(true)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::one("nats://127.0.0.1:4222", "nats://127.0.0.1:4222")]
    #[case::without_a_port("a", "nats://a:4222")]
    #[case::several("nats://a:1, nats://b:2,c", "nats://a:1, nats://b:2, nats://c:4222")]
    #[case::passwords("nats://ada:p%40ss@a,nats://bob:secret@b:1", "nats://a:4222, nats://b:1")]
    fn addresses_are_read_and_shown_without_passwords(#[case] addresses: &str, #[case] shown: &str) {
        let servers = Servers::parse(addresses).unwrap();
        assert_eq!((servers.to_string(), format!("{servers:?}")), (shown.to_owned(), shown.to_owned()));
    }

    #[rstest]
    #[case::empty("", 1)]
    #[case::an_empty_one("nats://a,", 2)]
    #[case::a_bad_one("nats://a,nats://b,nats://ada:secret@[", 3)]
    fn what_is_no_address_is_said_by_its_number(#[case] addresses: &str, #[case] number: u32) {
        let said = Servers::parse(addresses).unwrap_err().to_string();
        assert!(
            said.starts_with(&format!("number {number} is no address")) && !said.contains("secret"),
            "{said}"
        );
    }

    #[rstest]
    #[case::a_service("keys", Some("_INBOX_keys"))]
    #[case::an_edge("edge-eu_1", Some("_INBOX_edge-eu_1"))]
    #[case::all(">", None)]
    #[case::several("a.b", None)]
    #[case::a_space("a b", None)]
    #[case::none("", None)]
    fn answers_come_to_the_user_alone(#[case] user: &str, #[case] inbox: Option<&str>) {
        assert_eq!(inbox_of(user).as_deref(), inbox);
    }

    #[test]
    fn replicas_can_be_counted_by_a_majority() {
        assert_eq!(["1", "3", "5"].map(replicas), [Ok(1), Ok(3), Ok(5)]);
        for bad in ["0", "2", "4", "7", "three", ""] {
            assert!(replicas(bad).unwrap_err().contains("1, 3 or 5"));
        }
    }
}
