//! What control planes say about signs of life, and what it proves. [`Evidence`] folds what one control plane said ([`Heard`])
//! into one sign for each id that an object expects; `status` turns signs into verdicts. Time is an argument ([`Tick`]), the
//! control plane's clock is compared with nothing but itself ([`Mark`]), and a beat that only repeats what is known turns nobody.

mod evidence;
mod expect;
mod guard;
mod heard;
mod ids;
mod object;
mod slot;
#[cfg(test)]
mod tests;
mod track;

pub use evidence::{Evidence, PlaneState, Turned};
pub(crate) use expect::is_live;
pub use expect::{Asked, Expectation, asked_by_pipeline, asked_by_processor};
pub use heard::{Beat, Heard, Identity, IdentityMode, Mark, Reported, Service, Tick};
pub use object::{Heartbeats, IdEvidence, ObjectEvidence, Sign};

use std::time::Duration;

/// The second look at a silent id comes so long after the first. Control planes are heard every 5 s; a little less, so that
/// a look that comes a little early counts.
const LOOK: Duration = Duration::from_millis(4_500);
/// What a look that comes a little early may lack.
const SLACK: Duration = Duration::from_millis(500);
/// A control plane that said nothing for so long cannot be reached.
const UNREACHABLE: Duration = Duration::from_secs(15);
/// Silence of ids is counted in time that the control plane was listened to; between two words of it that is this at most.
const GAP: Duration = Duration::from_secs(10);
/// So far the order of a pod's arrival and a registration may be told wrongly: what is read of pods and of the control plane
/// lags. And so long a pod that ends may beat on.
const DOUBT: Duration = Duration::from_secs(30);
/// Ids that no object expects, at most: kept to find out who registers under another id than its own.
const STRANGERS: usize = 16_384;
/// Longer ids and names are nobody's.
const LONGEST: usize = 320;
