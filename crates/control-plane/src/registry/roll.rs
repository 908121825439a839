//! Who has beaten since when: read from all tables once for everybody who asks within half a second. Each reader of beats
//! would otherwise hold up the beats of everybody by its own look at every service.

use std::sync::Arc;
use std::time::Duration;

/// A roll call is good for so long.
pub(super) const GOOD_FOR: Duration = Duration::from_millis(500);

/// A moment of the registry's steady clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub(super) u64);

/// Everybody who has beaten and was not told to be expired, at one moment.
#[derive(Debug)]
pub struct RollCall {
    pub(super) at: Moment,
    /// Sorted by id, with the last beat.
    pub(super) beaten: Vec<(Arc<str>, Moment)>,
}

// === impl RollCall ===

impl RollCall {
    /// When it was begun: whoever asks the next one for what came since then misses nothing.
    #[must_use]
    pub fn at(&self) -> Moment {
        self.at
    }

    /// Who has beaten at `since` or later, sorted by id.
    pub fn since(&self, since: Moment) -> impl Iterator<Item = &Arc<str>> {
        let later = self.beaten.iter().filter(move |(_, at)| *at >= since);
        later.map(|(id, _)| id)
    }
}
