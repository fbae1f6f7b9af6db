//! A TCP proxy in front of a broker; tests cut its connections. The broker's listener must advertise the
//! proxy's address, otherwise clients bypass the proxy.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// Forwards bytes in both directions until dropped.
pub(super) struct Proxy {
    cuts: watch::Sender<u64>,
    closed_until: Arc<Mutex<Option<Instant>>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Listens on `address` and connects every client to `upstream`.
    pub async fn start(address: SocketAddr, upstream: &str) -> Result<Self> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("the proxy cannot listen on {address}"))?;
        let (cuts, cut) = watch::channel(0);
        let closed_until = Arc::new(Mutex::new(None));
        let accepting = tokio::spawn(accept(listener, upstream.to_string(), cut, closed_until.clone()));
        Ok(Self {
            cuts,
            closed_until,
            accepting,
        })
    }

    /// Closes all connections; for this time it closes new ones at once.
    pub fn cut(&self, closed: Duration) {
        *self.closed_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + closed);
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Connections end when the sender of the cuts is dropped.
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    upstream: String,
    cut: watch::Receiver<u64>,
    closed_until: Arc<Mutex<Option<Instant>>>,
) {
    loop {
        // Fails if the client has already closed the connection, or if there are no file descriptors left;
        // the client retries.
        let Ok((client, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let until = *closed_until.lock().unwrap_or_else(PoisonError::into_inner);
        if until.is_none_or(|until| until <= Instant::now()) {
            // Cloned here and not in the task: a cut that happens in between must reach it.
            tokio::spawn(pass(client, upstream.clone(), cut.clone()));
        }
    }
}

async fn pass(mut client: TcpStream, upstream: String, mut cut: watch::Receiver<u64>) {
    cut.mark_unchanged();
    let passing = async {
        let mut broker = TcpStream::connect(&upstream).await?;
        // Small requests must not wait for each other.
        client.set_nodelay(true)?;
        broker.set_nodelay(true)?;
        copy_bidirectional(&mut client, &mut broker).await
    };
    tokio::select! {
        // Both connections end with it in any case.
        _ = passing => {}
        _ = cut.changed() => {}
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn connections_forward_bytes_until_a_cut_and_after_it() {
        let server = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let upstream = server.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = server.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = client.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        let address = crate::systems::process::free_address().unwrap();
        let proxy = Proxy::start(address, &upstream).await.unwrap();
        for _ in 0..2 {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(b"hello").await.unwrap();
            let mut answer = [0; 5];
            client.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"hello");
            proxy.cut(Duration::ZERO);
            assert_eq!(client.read(&mut answer).await.unwrap_or(0), 0);
        }
        proxy.cut(Duration::from_secs(3600));
        let mut client = TcpStream::connect(address).await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0);
    }
}
