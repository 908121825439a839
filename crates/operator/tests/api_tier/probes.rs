//! What an operator says of itself: its probes and its metrics.

use std::{net::SocketAddr, time::Duration};

use flowctl_testkit::{Error, wait};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::support::{LIMIT, TestResult};

/// What the operator answers on its address for probes and metrics.
pub(crate) async fn ask(address: SocketAddr, path: &str) -> Result<String, std::io::Error> {
    let mut connection = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    Ok(answer)
}

pub(crate) async fn readiness(address: SocketAddr, expected: &str) -> TestResult {
    let what = format!("/readyz says {expected:?}");
    wait::until_explained(&what, LIMIT, async || {
        let answer = ask(address, "/readyz").await.unwrap_or_else(|error| error.to_string());
        Ok(if answer.contains(expected) { Ok(()) } else { Err(answer) })
    })
    .await
}

pub(crate) async fn free_address() -> Result<SocketAddr, Error> {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .map_err(Error::io("find a free port"))?;
    listener.local_addr().map_err(Error::io("find a free port"))
}

/// Passes over objects of a kind that ended with nothing to do, as the operator counts them.
async fn settled(address: SocketAddr, kind: &str) -> usize {
    let metrics = ask(address, "/metrics").await.unwrap_or_default();
    let series = format!("flowctl_operator_reconciles_total{{kind=\"{kind}\",outcome=\"settled\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&series));
    line.and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// Waits until the operator at this address has made so many passes of either kind that found nothing to do.
pub(crate) async fn looked_at(address: SocketAddr, passes: usize, limit: Duration) -> TestResult {
    wait::until_explained("the operator has looked at every object", limit, async || {
        let seen = [
            settled(address, "Pipeline").await,
            settled(address, "ExternalProcessor").await,
        ];
        Ok(if seen.iter().all(|seen| *seen >= passes) {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        })
    })
    .await
}
