//! A relay between a client and a server, on the way of which things get lost. What does is for its user to say; it
//! knows no protocol.

use std::{io, net::SocketAddr};

use tokio::{
    io::AsyncWriteExt as _,
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// A relay to one server, which may come and go.
pub struct Relay {
    address: SocketAddr,
}

/// One half of a connection: from where, and to where.
pub struct Way {
    /// Where bytes come from.
    pub from: OwnedReadHalf,
    /// Where they go.
    pub to: OwnedWriteHalf,
}

impl Way {
    /// Brings everything, until one side hangs up.
    ///
    /// # Errors
    /// If one side does in the middle.
    pub async fn bring(mut self) -> io::Result<()> {
        tokio::io::copy(&mut self.from, &mut self.to).await?;
        self.to.shutdown().await
    }
}

impl Relay {
    /// A relay to `server` (a URL or `host:port`). `carry` brings what is said on one connection, first the way to the
    /// server, then the way back; when it ends, both sides are hung up on.
    ///
    /// # Panics
    /// If no port can be had.
    pub async fn start<F>(server: &str, carry: impl Fn(Way, Way) -> F + Send + 'static) -> Self
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port of the system's choice is free");
        let address = listener.local_addr().expect("it is bound");
        let server = server.rsplit('/').next().unwrap_or(server).to_owned();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // Without the server the client is hung up on, and tries again.
                let Ok(server) = TcpStream::connect(&server).await else { continue };
                let ((from_client, to_client), (from_server, to_server)) =
                    (client.into_split(), server.into_split());
                let there = Way { from: from_client, to: to_server };
                tokio::spawn(carry(there, Way { from: from_server, to: to_client }));
            }
        });
        Self { address }
    }

    /// `host:port` for the client.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }
}
