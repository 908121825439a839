//! Accepts connections, and shakes hands where TLS is asked for: each in a task of its own, so that one slow client delays
//! nobody. It must not outlive the drain: dropping the receiver ends it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, Open, Stream};
use super::metrics::ConnectionMetrics;
use super::tls::CurrentTls;

/// For one TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// After the system refused to accept, for lack of file descriptors: trying at once would only burn the processor.
const BREATH: Duration = Duration::from_millis(100);
/// Connections that are ready and wait for the server to take them.
const READY: usize = 128;

/// What accepting needs.
pub(crate) struct Listen {
    pub(crate) tcp: TcpListener,
    pub(crate) tls: Option<CurrentTls>,
    pub(crate) most: usize,
    pub(crate) metrics: ConnectionMetrics,
    /// Cancelled when connections that are still open are cut.
    pub(crate) cut: CancellationToken,
}

// === impl Listen ===

impl Listen {
    /// The connections, as they come. The listening socket closes when `stopping` is cancelled or the stream is dropped.
    pub(crate) fn spawn(self, stopping: CancellationToken) -> ReceiverStream<io::Result<Connection>> {
        let (ready, connections) = mpsc::channel(READY);
        tokio::spawn(async move {
            tokio::select! {
                () = self.accept(ready.clone()) => {}
                () = stopping.cancelled() => {}
                () = ready.closed() => {}
            }
        });
        ReceiverStream::new(connections)
    }

    async fn accept(&self, ready: mpsc::Sender<io::Result<Connection>>) {
        let places = Arc::new(Semaphore::new(self.most));
        loop {
            let (tcp, peer) = match self.tcp.accept().await {
                Ok(accepted) => accepted,
                Err(error) if is_about_the_peer(&error) => continue,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(BREATH).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&places).try_acquire_owned() else {
                // Closing tells the client at once; leaving it in the queue would let it wait for its own timeout.
                self.metrics.refused.inc();
                continue;
            };
            let open = Open::new(&self.metrics.open, permit);
            // Answers are small; waiting to fill a packet would cost each of them 40 ms.
            let _ = tcp.set_nodelay(true);
            let (tls, ready, cut) = (self.tls.clone(), ready.clone(), self.cut.clone());
            let failed = self.metrics.failed_handshakes.clone();
            let Some(tls) = tls else {
                if ready
                    .send(Ok(Connection::new(Stream::Plain(tcp), peer, open, cut)))
                    .await
                    .is_err()
                {
                    return;
                }
                continue;
            };
            tokio::spawn(async move {
                match handshake(&tls, tcp).await {
                    Ok(stream) => drop(ready.send(Ok(Connection::new(stream, peer, open, cut))).await),
                    Err(error) => {
                        failed.inc();
                        tracing::debug!(%peer, %error, "a TLS handshake failed");
                    }
                }
            });
        }
    }
}

async fn handshake(tls: &CurrentTls, tcp: TcpStream) -> io::Result<Stream> {
    let stream = timeout(HANDSHAKE, tls.acceptor().accept(tcp)).await??;
    Ok(Stream::Tls(Box::new(stream)))
}

fn is_about_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}
