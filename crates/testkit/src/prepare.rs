//! Everything of a tier that is done once per machine, apart from starting a cluster: packages, programs, images, the
//! supervisor. Whoever measures something (a deadline, the state of the machine) does it first. It starts nothing.

use crate::{Result, Tier, cluster, preflight};

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
    cluster::prepare(tier).await
}
