//! `SERVICE healthcheck`: asks the service that runs with this environment whether it is ready, for images without a
//! shell. Reads no other setting than the health address.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{self, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs as _},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use clap::Command;
use rustls::{ClientConnection, StreamOwned, pki_types::ServerName};
use tls::{Identity, Settings};

const TIMEOUT: Duration = Duration::from_secs(2);
/// Most bytes of an answer that are printed.
const ANSWER_BYTES_MAX: u64 = 16 * 1024;

pub(crate) fn is_asked(arguments: &[OsString]) -> bool {
    matches!(arguments, [_, asked] if asked == "healthcheck")
}

/// Prints what `/readyz` says; 0 if that is 200, else 1.
///
/// # Errors
/// If nothing answers at the health address, which is named.
pub(crate) fn run(command: &Command, given: &BTreeMap<String, OsString>) -> anyhow::Result<i32> {
    let health = |name: &str| name.ends_with("_HEALTH_ADDR");
    let argument = command
        .get_arguments()
        .find(|argument| argument.get_env().and_then(|name| name.to_str()).is_some_and(health))
        .context("this program has no health address")?;
    let name = argument.get_env().unwrap_or_default().to_string_lossy();
    let value =
        given.get(&*name).map(OsString::as_os_str).or(argument.get_default_values().first().map(|os| &**os));
    let text = value.unwrap_or_default().to_string_lossy();
    // A name is good here, though none to listen at: so one can ask a service on another machine.
    let found = text
        .to_socket_addrs()
        .with_context(|| format!("{name} is {text}, where nothing can be asked"))?
        .next();
    let address = reachable(found.with_context(|| format!("{name} is {text}, which has no address"))?);
    let identity = identity(given)?;
    let host = if address.ip().is_loopback() { "localhost" } else { host_of(&text) };
    let answer = ask(address, host, identity.as_ref())
        .with_context(|| format!("nothing answers at {name}, {address}"))?;
    ensure!(
        answer.starts_with("HTTP/"),
        "what answers at {name}, {address}, speaks TLS: set KEYMETER_IDENTITY_*_FILE as the service has them"
    );
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    writeln!(io::stdout(), "{}", body.trim_end())?;
    Ok(i32::from(head.split(' ').nth(1) != Some("200")))
}

/// Who listens everywhere is asked on the loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

fn host_of(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']'])
}

/// Who the service is, and so who asks it.
fn identity(given: &BTreeMap<String, OsString>) -> anyhow::Result<Option<Identity>> {
    let file = |what| given.get(&format!("KEYMETER_IDENTITY_{what}_FILE")).map(Into::into);
    let settings = Settings {
        identity_cert_file: file("CERT"),
        identity_key_file: file("KEY"),
        identity_ca_file: file("CA"),
    };
    settings.identity()
}

fn ask(address: SocketAddr, host: &str, identity: Option<&Identity>) -> anyhow::Result<String> {
    let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let Some(identity) = identity else { return Ok(exchange(stream, host)?) };
    let name = ServerName::try_from(host.to_owned())?;
    let client = ClientConnection::new(Arc::new(identity.client()), name)?;
    Ok(exchange(StreamOwned::new(client, stream), host)?)
}

fn exchange(mut stream: impl Read + Write, host: &str) -> io::Result<String> {
    write!(stream, "GET /readyz HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}
