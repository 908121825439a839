//! Amounts that only the changes of ledger entries tell: reserves of liquidity pools, claimable
//! balances, and what paying a fee took from an account.

use stellar_xdr::{
    AccountId, Asset, ClaimableBalanceEntry, ClaimableBalanceId, LedgerEntry, LedgerEntryChange, LedgerEntryChanges,
    LedgerEntryData, LedgerKey, LiquidityPoolEntryBody, PoolId,
};

/// What an operation did to a liquidity pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PoolChange {
    pub(crate) pool: PoolId,
    pub(crate) assets: [Asset; 2],
    /// Reserves after minus reserves before.
    pub(crate) deltas: [i64; 2],
}

/// How an account's XLM balance changed, in stroops; `None` when the changes do not show the
/// balance both before and after.
pub(crate) fn balance_change(changes: &LedgerEntryChanges, account: &AccountId) -> Option<i64> {
    let mut before = None;
    let mut after = None;
    for change in changes.0.iter() {
        if let Some((step, entry)) = written(change)
            && let LedgerEntryData::Account(found) = &entry.data
            && found.account_id == *account
        {
            match step {
                Step::Before => {
                    before.get_or_insert(found.balance);
                }
                Step::After => after = Some(found.balance),
            }
        }
    }
    Some(after? - before?)
}

/// The liquidity pools that these changes touch, in their order.
pub(crate) fn pool_changes(changes: &LedgerEntryChanges) -> Vec<PoolChange> {
    let mut found: Vec<(PoolChange, [i64; 2])> = Vec::new();
    for change in changes.0.iter() {
        if let LedgerEntryChange::Removed(LedgerKey::LiquidityPool(key)) = change {
            for (seen, before) in &mut found {
                if seen.pool == key.liquidity_pool_id {
                    seen.deltas = before.map(|reserve| -reserve);
                }
            }
        }
        let Some((step, entry)) = written(change) else {
            continue;
        };
        let LedgerEntryData::LiquidityPool(entry) = &entry.data else {
            continue;
        };
        let LiquidityPoolEntryBody::LiquidityPoolConstantProduct(body) = &entry.body;
        let reserves = [body.reserve_a, body.reserve_b];
        let seen = found.iter_mut().find(|(seen, _)| seen.pool == entry.liquidity_pool_id);
        match (step, seen) {
            (Step::Before, Some(_)) => {}
            (Step::After, Some((seen, before))) => {
                seen.deltas = [reserves[0] - before[0], reserves[1] - before[1]];
            }
            (step, None) => {
                let (before, deltas) = match step {
                    Step::Before => (reserves, [0; 2]),
                    Step::After => ([0; 2], reserves),
                };
                let change = PoolChange {
                    pool: entry.liquidity_pool_id.clone(),
                    assets: [body.params.asset_a.clone(), body.params.asset_b.clone()],
                    deltas,
                };
                found.push((change, before));
            }
        }
    }
    found.into_iter().map(|(change, _)| change).collect()
}

/// A claimable balance as it was before these changes.
pub(crate) fn balance_before<'a>(
    changes: &'a LedgerEntryChanges,
    id: &ClaimableBalanceId,
) -> Option<&'a ClaimableBalanceEntry> {
    balances(changes)
        .find_map(|(step, entry)| (matches!(step, Step::Before) && entry.balance_id == *id).then_some(entry))
}

/// A claimable balance that these changes made.
pub(crate) fn balance_made<'a>(
    changes: &'a LedgerEntryChanges,
    id: &ClaimableBalanceId,
) -> Option<&'a ClaimableBalanceEntry> {
    balances(changes)
        .find_map(|(step, entry)| (matches!(step, Step::After) && entry.balance_id == *id).then_some(entry))
}

fn balances(changes: &LedgerEntryChanges) -> impl Iterator<Item = (Step, &ClaimableBalanceEntry)> {
    let written = changes.0.iter().filter_map(written);
    written.filter_map(|(step, entry)| match &entry.data {
        LedgerEntryData::ClaimableBalance(balance) => Some((step, balance)),
        _ => None,
    })
}

/// Whether a change shows an entry as it was or as it became.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Before,
    After,
}

fn written(change: &LedgerEntryChange) -> Option<(Step, &LedgerEntry)> {
    match change {
        LedgerEntryChange::State(entry) => Some((Step::Before, entry)),
        LedgerEntryChange::Created(entry) | LedgerEntryChange::Updated(entry) | LedgerEntryChange::Restored(entry) => {
            Some((Step::After, entry))
        }
        LedgerEntryChange::Removed(_) => None,
    }
}
