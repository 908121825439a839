//! Takes one ledger's events a message. Of the events only what is summed is read, so a newer processor may add to them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flowctl_runtime::Metrics;
use flowctl_sdk::{BoxError, Consumer, Consumption, Message};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use serde::{Deserialize, Deserializer, de};

use crate::{Kind, Seen, Totals};

/// One message: what a ledger did with tokens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LedgerEvents {
    /// The ledger's number.
    pub ledger: u32,
    /// In any order.
    pub events: Vec<TokenEvent>,
}

/// One event, as far as it is summed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TokenEvent {
    /// What happened.
    pub kind: Kind,
    /// `native`, `CODE:ISSUER`, or a token's contract.
    pub asset: String,
    /// In the token's smallest unit (stroops for Stellar assets); a string in JSON.
    #[serde(deserialize_with = "amount")]
    pub amount: i128,
}

/// The consumer; clones share its totals.
#[derive(Debug, Clone)]
pub struct Sink {
    totals: Arc<Mutex<Totals>>,
    ledgers: Counter,
    duplicates: Counter,
    events: Counter,
    last_ledger: Gauge,
}

// === impl Sink ===

impl Sink {
    /// Starts from `totals` and counts in `metrics` what it does with them.
    #[must_use]
    pub fn new(totals: Totals, metrics: &Metrics) -> Self {
        let this = Self {
            totals: Arc::new(Mutex::new(totals)),
            ledgers: Counter::default(),
            duplicates: Counter::default(),
            events: Counter::default(),
            last_ledger: Gauge::default(),
        };
        metrics.register(|registry| {
            let registry = registry.sub_registry_with_prefix("analytics");
            registry.register("ledgers", "Ledgers counted", this.ledgers.clone());
            registry.register(
                "duplicates",
                "Ledgers that came again and were not counted again",
                this.duplicates.clone(),
            );
            registry.register("events", "Events counted", this.events.clone());
            registry.register("last_ledger", "Highest ledger counted", this.last_ledger.clone());
        });
        this
    }

    /// The totals now. Nothing is consumed while the guard lives.
    pub fn totals(&self) -> MutexGuard<'_, Totals> {
        // Counting does not panic; if it did, totals that lack one ledger are better than none.
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Consumer for Sink {
    async fn consume(&self, message: Message) -> Result<Consumption, BoxError> {
        // All of the message is read before any of it is counted.
        let ledger: LedgerEvents = message.json()?;
        let mut totals = self.totals();
        match totals.add(&ledger) {
            Seen::Before => {
                self.duplicates.inc();
            }
            Seen::New => {
                self.ledgers.inc();
                self.events.inc_by(u64::try_from(ledger.events.len())?);
                self.last_ledger.set(totals.last_ledger().unwrap_or_default().into());
            }
        }
        Ok(Consumption::Consumed)
    }
}

fn amount<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i128, D::Error> {
    let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        de::Error::invalid_value(
            de::Unexpected::Str(&text),
            &"a whole number of up to 128 bits as a string",
        )
    })
}
