//! Looks at the TLS files for as long as the server runs.

use tokio::time::{MissedTickBehavior, interval};

use super::metrics::TlsMetrics;
use super::tls::{LOOK_EVERY, Look, Tls};

/// Never returns, unless reading files panics.
pub(crate) async fn follow(mut tls: Tls, metrics: TlsMetrics) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        // Disks can be slow, and network disks can stand still.
        let looked = tokio::task::spawn_blocking(move || {
            let look = tls.look();
            (tls, look)
        });
        let Ok((back, look)) = looked.await else { return };
        tls = back;
        match look {
            Look::Same => {}
            Look::Replaced => {
                metrics.replaced.inc();
                metrics.broken.set(0);
                tracing::info!("new TLS files are in use for new connections");
            }
            Look::Broken(error) => {
                metrics.broken.set(1);
                tracing::error!(%error, "the TLS files changed and cannot be used; the ones before stay in use");
            }
        }
    }
}
