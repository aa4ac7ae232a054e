//! Who signs in to ClickHouse. The engine has no users and refuses whoever names one, so between it and the services
//! stands this: it notes who they say they are, and takes the names of those headers out.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex},
};

use parts::{Relay, Way};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const USER: &str = "x-clickhouse-user: ";
const PASSWORD: &str = "x-clickhouse-key: ";
const PIECE_BYTES: usize = 64 * 1024;

type Seen = Arc<Mutex<BTreeSet<(String, String)>>>;

/// Everybody who signed in, with the password.
#[derive(Clone, Default)]
pub(crate) struct Users(Seen);

impl Users {
    /// Stands before the engine; `http://…` for the services.
    pub(crate) async fn before(&self, engine: &str) -> String {
        let seen = self.0.clone();
        let relay = Relay::start(engine, move |there, back| {
            let seen = seen.clone();
            async move { tokio::try_join!(note(there, seen), back.bring()).map(|_| ()) }
        })
        .await;
        format!("http://{}", relay.address())
    }

    /// Users and passwords so far.
    pub(crate) fn seen(&self) -> BTreeSet<(String, String)> {
        self.0.lock().unwrap().clone()
    }
}

/// A head comes in one piece: it is written as one, and is small.
async fn note(mut way: Way, seen: Seen) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let bytes = way.from.read(&mut piece).await?;
        if bytes == 0 {
            return way.to.shutdown().await;
        }
        let found = [USER, PASSWORD].map(|header| taken_out(&mut piece[..bytes], header));
        if let [Some(user), Some(password)] = found {
            seen.lock().unwrap().insert((user, password));
        }
        way.to.write_all(&piece[..bytes]).await?;
    }
}

/// The header's value; its name becomes one that nobody knows.
fn taken_out(piece: &mut [u8], header: &str) -> Option<String> {
    let start =
        piece.windows(header.len()).position(|bytes| bytes.eq_ignore_ascii_case(header.as_bytes()))?;
    let value = &piece[start + header.len()..];
    let value = String::from_utf8_lossy(&value[..value.iter().position(|byte| *byte == b'\r')?]).into_owned();
    piece[start] = b'y';
    Some(value)
}
