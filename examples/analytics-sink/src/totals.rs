//! The totals and how a ledger's events change them. No gRPC and no HTTP here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{LedgerEvents, Ledgers, Seen, Sum};

/// What happened to the tokens, as the events name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// From one holder to another.
    Transfer,
    /// New tokens.
    Mint,
    /// Tokens that are gone.
    Burn,
    /// Tokens that their issuer took back.
    Clawback,
    /// Paid for a transaction; negative when given back.
    Fee,
}

/// Everything that was counted.
#[derive(Debug, Clone)]
pub struct Totals {
    ledgers: Ledgers,
    counted: u64,
    duplicates: u64,
    assets: BTreeMap<String, AssetTotals>,
}

/// Number of events and sum of their amounts, in the token's smallest unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct KindTotals {
    /// How many.
    pub events: u64,
    /// How much.
    pub amount: Sum,
}

/// The totals of one asset.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct AssetTotals {
    /// Events of all kinds.
    pub events: u64,
    /// From one holder to another.
    pub transfers: KindTotals,
    /// New.
    pub mints: KindTotals,
    /// Gone.
    pub burns: KindTotals,
    /// Taken back by the issuer.
    pub clawbacks: KindTotals,
    /// Paid for transactions.
    pub fees: KindTotals,
    /// What holders received: transfers and mints.
    pub amount_in: Sum,
    /// What holders gave: transfers, burns, clawbacks and fees. `amount_in` minus `amount_out` is the change of all
    /// holders' balances together.
    pub amount_out: Sum,
}

/// The totals as they are served.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Ledgers that were counted.
    pub ledgers: u64,
    /// The lowest of them.
    pub first: Option<u32>,
    /// The highest of them.
    pub last: Option<u32>,
    /// Ledgers between the two that did not come.
    pub missing: u64,
    /// Ledgers that came again and were not counted again.
    pub duplicates_ignored: u64,
    /// Assets that were counted; `assets` may show fewer.
    pub assets_known: usize,
    /// The assets with most events first, then by name.
    pub assets: Vec<AssetReport>,
}

/// One asset of a [`Report`].
#[derive(Debug, Clone, Serialize)]
pub struct AssetReport {
    /// `native`, `CODE:ISSUER`, or a token's contract.
    pub asset: String,
    /// Its totals.
    #[serde(flatten)]
    pub totals: AssetTotals,
}

// === impl Totals ===

impl Totals {
    /// Nothing counted; remembers ledgers as [`Ledgers::new`] says.
    #[must_use]
    pub fn new(max_ranges: usize) -> Self {
        Self {
            ledgers: Ledgers::new(max_ranges),
            counted: 0,
            duplicates: 0,
            assets: BTreeMap::new(),
        }
    }

    /// Counts a ledger, whole or (when it was counted before) not at all.
    pub fn add(&mut self, ledger: &LedgerEvents) -> Seen {
        let seen = self.ledgers.insert(ledger.ledger);
        match seen {
            Seen::Before => self.duplicates += 1,
            Seen::New => {
                self.counted += 1;
                for event in &ledger.events {
                    // Most events are of an asset that is known, and its name need not be copied.
                    if let Some(totals) = self.assets.get_mut(&event.asset) {
                        totals.add(event.kind, event.amount);
                    } else {
                        let totals = self.assets.entry(event.asset.clone()).or_default();
                        totals.add(event.kind, event.amount);
                    }
                }
            }
        }
        seen
    }

    /// The totals of an asset.
    #[must_use]
    pub fn asset(&self, name: &str) -> Option<&AssetTotals> {
        self.assets.get(name)
    }

    /// The highest ledger that was counted.
    #[must_use]
    pub fn last_ledger(&self) -> Option<u32> {
        self.ledgers.last()
    }

    /// What is served: at most `limit` assets.
    #[must_use]
    pub fn report(&self, limit: usize) -> Report {
        let mut assets: Vec<_> = self.assets.iter().collect();
        // The sort is stable and the map is in the order of names.
        assets.sort_by_key(|(_, totals)| std::cmp::Reverse(totals.events));
        let assets = assets.into_iter().take(limit).map(|(asset, totals)| AssetReport {
            asset: asset.clone(),
            totals: totals.clone(),
        });
        Report {
            ledgers: self.counted,
            first: self.ledgers.first(),
            last: self.ledgers.last(),
            missing: self.ledgers.missing(),
            duplicates_ignored: self.duplicates,
            assets_known: self.assets.len(),
            assets: assets.collect(),
        }
    }
}

// === impl AssetTotals ===

impl AssetTotals {
    fn add(&mut self, kind: Kind, amount: i128) {
        let (totals, received, given) = match kind {
            Kind::Transfer => (&mut self.transfers, true, true),
            Kind::Mint => (&mut self.mints, true, false),
            Kind::Burn => (&mut self.burns, false, true),
            Kind::Clawback => (&mut self.clawbacks, false, true),
            Kind::Fee => (&mut self.fees, false, true),
        };
        totals.events += 1;
        totals.amount.add(amount);
        self.events += 1;
        if received {
            self.amount_in.add(amount);
        }
        if given {
            self.amount_out.add(amount);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TokenEvent;

    fn ledger(ledger: u32, events: &[(Kind, &str, i128)]) -> LedgerEvents {
        let events = events.iter().map(|(kind, asset, amount)| TokenEvent {
            kind: *kind,
            asset: (*asset).to_owned(),
            amount: *amount,
        });
        LedgerEvents {
            ledger,
            events: events.collect(),
        }
    }

    // Delivery is at least once: a total that counts a redelivery is wrong, and nobody would notice.
    #[test]
    fn a_redelivered_ledger_counts_once() {
        let mut totals = Totals::new(16);
        let events = ledger(7, &[(Kind::Transfer, "native", 5)]);
        assert_eq!(totals.add(&events), Seen::New);
        assert_eq!(totals.add(&events), Seen::Before);
        let report = totals.report(10);
        assert_eq!((report.ledgers, report.duplicates_ignored), (1, 1));
        assert_eq!(report.assets[0].totals.transfers.events, 1);
        assert_eq!(report.assets[0].totals.transfers.amount.value(), Some(5));
    }

    // What holders have together changes by what came in minus what went out.
    #[test]
    fn in_minus_out_is_the_change_of_balances() {
        let mut totals = Totals::new(16);
        let asset = "USD:GISSUER";
        totals.add(&ledger(
            1,
            &[
                (Kind::Mint, asset, 100),
                (Kind::Transfer, asset, 40),
                (Kind::Burn, asset, 10),
                (Kind::Clawback, asset, 5),
                (Kind::Fee, "native", 100),
                (Kind::Fee, "native", -30),
            ],
        ));
        let usd = totals.asset(asset).expect("counted");
        assert_eq!(
            (usd.events, usd.amount_in.value(), usd.amount_out.value()),
            (4, Some(140), Some(55))
        );
        let native = totals.asset("native").expect("counted");
        assert_eq!((native.fees.events, native.amount_out.value()), (2, Some(70)));
    }

    // A ledger without events was there all the same: a gap in the numbers must mean a ledger that is missing.
    #[test]
    fn a_quiet_ledger_is_counted() {
        let mut totals = Totals::new(16);
        for number in [4, 5, 7] {
            totals.add(&ledger(number, &[]));
        }
        let report = totals.report(10);
        assert_eq!(
            (report.ledgers, report.first, report.last, report.missing),
            (3, Some(4), Some(7), 1)
        );
    }

    // What is asked for first is what happens most.
    #[test]
    fn busiest_assets_come_first() {
        let mut totals = Totals::new(16);
        let mint = |asset| (Kind::Mint, asset, 1);
        totals.add(&ledger(1, &[mint("C"), mint("B"), mint("A"), mint("B")]));
        let names = |limit| -> Vec<_> {
            let report = totals.report(limit);
            assert_eq!(report.assets_known, 3);
            report.assets.into_iter().map(|asset| asset.asset).collect()
        };
        assert_eq!(names(10), ["B", "A", "C"]);
        assert_eq!(names(1), ["B"]);
    }
}
