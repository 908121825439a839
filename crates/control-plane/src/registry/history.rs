//! What a service's numbers were in the last hour: one row each 10 s, the last beat in it counts. Rows are kept in one ring that
//! grows as it fills, and all rings draw on one budget: when that is used up, a ring loses its oldest rows early.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::metrics::{Metrics, Shape};
use super::model::History;
use super::time::{At, from_millis};

/// The time between two rows.
pub(super) const RESOLUTION: Duration = Duration::from_secs(10);
/// Rows of a full ring: an hour.
const ROWS: usize = 360;
/// Rows of the first allocation.
const FIRST_ROWS: usize = 6;
/// What a row has before its numbers: its slot, and the wall clock in milliseconds.
const HEAD: usize = 2;

/// Bytes that all rings together may take.
#[derive(Debug)]
pub(super) struct Budget {
    left: AtomicUsize,
}

/// The history of one service.
#[derive(Debug)]
pub(super) struct Ring {
    shape: Arc<Shape>,
    rows: VecDeque<f64>,
    budget: Arc<Budget>,
    /// What was taken from the budget.
    taken: usize,
}

// === impl Budget ===

impl Budget {
    pub(super) fn new(bytes: usize) -> Arc<Self> {
        let left = AtomicUsize::new(bytes);
        Arc::new(Self { left })
    }

    fn take(&self, bytes: usize) -> bool {
        let taken = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        taken.is_ok()
    }
}

// === impl Ring ===

impl Ring {
    pub(super) fn new(budget: &Arc<Budget>) -> Self {
        Self {
            shape: Arc::default(),
            rows: VecDeque::new(),
            budget: Arc::clone(budget),
            taken: 0,
        }
    }

    /// Keeps the numbers of now, unless the budget is used up.
    pub(super) fn record(&mut self, metrics: &Metrics, now: At) {
        let Some(shape) = metrics.shape() else {
            return;
        };
        if !Arc::ptr_eq(shape, &self.shape) {
            self.reshape(shape);
        }
        let slot = slot(now);
        if self.back_slot() == Some(slot) {
            self.rows.truncate(self.rows.len() - self.width());
        }
        let oldest_kept = slot - ROWS as f64 + 1.0;
        while self.rows.front().is_some_and(|slot| *slot < oldest_kept) {
            self.rows.drain(..self.width());
        }
        if self.has_room() {
            self.rows.extend([slot, now.wall as f64]);
            self.rows.extend(metrics.numbers());
        }
    }

    /// The rows of the last `back`, of the names that are `wanted`.
    pub(super) fn read(&self, back: Duration, now: At, wanted: impl Fn(&str) -> bool) -> History {
        let since = slot(now) - (back.as_millis() / RESOLUTION.as_millis()) as f64;
        let rows: Vec<_> = self.rows.iter().copied().collect();
        let rows = || {
            rows.chunks_exact(self.width())
                .filter(|row| row.first().is_some_and(|slot| *slot >= since))
        };
        let column = |place: usize| {
            rows().filter_map(move |row| Some((from_millis(*row.get(1)? as i64), *row.get(HEAD + place)?)))
        };
        let series = self.shape.names().enumerate().filter(|(_, name)| wanted(name));
        let series = series.map(|(place, name)| {
            let points = column(place).filter(|(_, number)| !number.is_nan());
            (name.to_owned(), points.collect::<Vec<_>>())
        });
        History {
            series: series.filter(|(_, points)| !points.is_empty()).collect(),
        }
    }

    /// New names came: rows get columns for them. Names never go while a service is registered, and a new registration
    /// starts with none, so columns of the old shape that the new one lacks are dropped.
    fn reshape(&mut self, shape: &Arc<Shape>) {
        let old_width = self.width();
        let old: Vec<f64> = std::mem::take(&mut self.rows).into();
        self.give_back();
        let old_shape = std::mem::replace(&mut self.shape, Arc::clone(shape));
        for row in old.chunks_exact(old_width) {
            if !self.has_room() {
                break;
            }
            self.rows.extend(row.iter().take(HEAD));
            for (hint, name) in shape.names().enumerate() {
                let place = old_shape.place(name, hint);
                let number = place.and_then(|place| row.get(HEAD + place));
                self.rows.push_back(number.copied().unwrap_or(f64::NAN));
            }
        }
    }

    /// Makes room for one row: grows, or if that cannot be, drops the oldest row. `false` if there is not a single row's room.
    fn has_room(&mut self) -> bool {
        let (width, rows) = (self.width(), self.rows.len() / self.width());
        if self.taken >= (rows + 1) * width * size_of::<f64>() {
            return true;
        }
        let wanted = (rows * 2).clamp(FIRST_ROWS, ROWS);
        let more = (wanted - rows) * width * size_of::<f64>();
        if wanted > rows && self.budget.take(more) {
            self.taken += more;
            self.rows.reserve_exact((wanted - rows) * width);
            return true;
        }
        self.rows.drain(..width.min(self.rows.len()));
        rows > 0
    }

    fn width(&self) -> usize {
        HEAD + self.shape.len()
    }

    fn back_slot(&self) -> Option<f64> {
        let start = self.rows.len().checked_sub(self.width())?;
        self.rows.get(start).copied()
    }

    fn give_back(&mut self) {
        self.budget.left.fetch_add(self.taken, Ordering::Relaxed);
        self.taken = 0;
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Slots are told by the steady clock: setting the wall clock neither loses rows nor makes them old.
fn slot(now: At) -> f64 {
    (u128::from(now.steady) / RESOLUTION.as_millis()) as f64
}
