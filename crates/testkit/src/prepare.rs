//! Everything of a tier that is done once per machine, apart from starting a cluster: packages, programs, images, the
//! supervisor. Whoever measures something (a deadline, the state of the machine) does it first. It starts nothing.

use crate::binaries::{Binaries, Program};
use crate::{Result, Tier, cluster, preflight, python};

/// Installs and builds what the tier needs and does not have yet: minutes on a fresh machine, an instant later on.
/// Progress goes to standard error. Nothing is done for [`Tier::Plain`].
///
/// # Errors
/// When the tier cannot run here (says what to do), or when something cannot be installed or built.
pub async fn prepare(tier: Tier) -> Result<()> {
    if tier == Tier::Plain {
        return Ok(());
    }
    preflight::can_run(tier)?;
    preflight::announce(tier)?;
    if tier == Tier::Api {
        // A machine with built programs of a cluster may have no Go, and the tests that need one say so.
        let clients = [
            Binaries::ensure(&[Program::ConformanceClient]).await.map(drop),
            python::command().await.map(drop),
        ];
        for why in clients.into_iter().filter_map(Result::err) {
            eprintln!("a client in another language cannot be tried: {why}");
        }
    }
    cluster::prepare(tier).await
}
