//! An operator that comes back to a converged cluster, and one whose watches are lost: both look at everything and write
//! nothing.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use flowctl_bench::usage::{self, Usage};
use flowctl_testkit::{Error, Result, wait};
use kube::config::Kubeconfig;
use serde::{Deserialize, Serialize};

use super::{
    Operators, REST, log,
    program::{Operator, Programs},
    relay::Relay,
    scene::{self, Scene},
};

/// Looking at everything takes no longer, unless something is wrong.
const LIMIT: Duration = Duration::from_secs(600);
/// Longer than the attempts after which a watch begins with a list again.
const CUT: Duration = Duration::from_secs(10);
/// Kinds that are watched.
const KINDS: usize = 10;

/// A restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Restarted {
    /// From the start of the process until every object was looked at.
    pub(super) seconds: f64,
    /// What it used until then.
    pub(super) usage: Usage,
    /// Mutating requests, until it had rested for a while.
    pub(super) writes: u64,
    /// Passes until then.
    pub(super) passes: u64,
}

/// All watches lost and begun anew.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Relisted {
    /// Before.
    pub(super) before: Usage,
    /// After; its peak is of the time between.
    pub(super) after: Usage,
    /// Mutating requests.
    pub(super) writes: u64,
}

/// Starts an operator and waits until it has looked at everything.
pub(super) async fn verify(
    scene: &Scene,
    programs: &Programs,
    arguments: &Operators,
    place: &str,
    count: usize,
) -> Result<Restarted> {
    let begun = Instant::now();
    let operator = Operator::start(scene, programs, arguments, place, None)?;
    looked_at(&operator, count).await?;
    let (seconds, usage) = (begun.elapsed().as_secs_f64(), operator.usage()?);
    operator.rests(REST).await?;
    let counts = operator.counts().await;
    operator.stop().await?;
    Ok(Restarted {
        seconds,
        usage,
        writes: counts.writes,
        passes: counts.passes,
    })
}

/// Starts an operator, cuts it off until it gives its watches up, and waits until it has listed everything anew.
pub(super) async fn relist(
    scene: &Scene,
    programs: &Programs,
    arguments: &Operators,
    place: &str,
    count: usize,
) -> Result<Relisted> {
    let relay = Relay::start(apiserver(scene)?).await?;
    let kubeconfig = scene::through(scene.kubeconfig.path(), relay.port())?;
    let operator = Operator::start(scene, programs, arguments, place, Some(kubeconfig.path()))?;
    looked_at(&operator, count).await?;
    operator.rests(REST).await?;
    let before = operator.usage()?;
    usage::forget_peak(operator.pid()).map_err(Error::io("forget the peak"))?;
    let mark = log::mark(scene)?;
    relay.cut();
    tokio::time::sleep(CUT).await;
    relay.mend();
    wait::until_explained("everything is listed anew", LIMIT, async || {
        let events = log::since(scene, mark)?;
        let lists = events
            .iter()
            .filter(|event| log::is_of_operator(event, place) && event.verb == "list");
        let kinds: std::collections::BTreeSet<_> = lists
            .filter_map(|event| Some(event.object_ref.as_ref()?.resource.clone()))
            .collect();
        Ok(if kinds.len() >= KINDS {
            Ok(())
        } else {
            Err(format!("{kinds:?}"))
        })
    })
    .await?;
    operator.rests(REST).await?;
    let (after, writes) = (operator.usage()?, operator.counts().await.writes);
    operator.stop().await?;
    Ok(Relisted { before, after, writes })
}

async fn looked_at(operator: &Operator, count: usize) -> Result<()> {
    wait::until_explained("every object was looked at", LIMIT, async || {
        let counts = operator.counts().await;
        let all = usize::try_from(counts.passes).unwrap_or(usize::MAX) >= 2 * count;
        Ok(if all { Ok(()) } else { Err(format!("{counts:?}")) })
    })
    .await
}

fn apiserver(scene: &Scene) -> Result<SocketAddr> {
    let file = Kubeconfig::read_from(scene.kubeconfig.path()).map_err(|error| Error::impossible(error.to_string()))?;
    let server = file
        .clusters
        .first()
        .and_then(|cluster| cluster.cluster.as_ref()?.server.clone());
    let port = server
        .as_deref()
        .and_then(|server| server.rsplit(':').next()?.trim_end_matches('/').parse().ok());
    let port: u16 = port.ok_or_else(|| Error::impossible("the kubeconfig names no port of the apiserver"))?;
    Ok((Ipv4Addr::LOCALHOST, port).into())
}
