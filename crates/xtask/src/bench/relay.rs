//! A way to the apiserver that can be cut: to see what an operator with full caches does when its watches are lost and it
//! must list everything anew.

use std::net::SocketAddr;

use flowctl_testkit::{Error, Result};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use super::program::listen;

/// Passes bytes on; dropping it ends it.
pub(super) struct Relay {
    port: u16,
    passes: watch::Sender<bool>,
    _task: JoinSet<()>,
}

// === impl Relay ===

impl Relay {
    /// Begins to pass on to this address.
    pub(super) async fn start(target: SocketAddr) -> Result<Self> {
        let listener = listen().await?;
        let port = listener.local_addr().map_err(Error::io("listen on loopback"))?.port();
        let (passes, passing) = watch::channel(true);
        let mut task = JoinSet::new();
        task.spawn(pass(listener, target, passing));
        Ok(Self {
            port,
            passes,
            _task: task,
        })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Ends all connections, and refuses new ones.
    pub(super) fn cut(&self) {
        self.passes.send_replace(false);
    }

    /// Takes new connections again.
    pub(super) fn mend(&self) {
        self.passes.send_replace(true);
    }
}

async fn pass(listener: TcpListener, target: SocketAddr, mut passing: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            changed = passing.changed() => {
                if changed.is_err() {
                    return;
                }
                if !*passing.borrow() {
                    connections.shutdown().await;
                }
            }
            Ok((mut client, _)) = listener.accept() => {
                if *passing.borrow() {
                    connections.spawn(async move {
                        if let Ok(mut server) = TcpStream::connect(target).await {
                            // Either side may end it.
                            let _ = copy_bidirectional(&mut client, &mut server).await;
                        }
                    });
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}
