//! What a ledger's entries say about who holds how much, before and after: the independent half of
//! the comparison. Reads entry changes only, never an operation, a result or an event.

use std::collections::BTreeMap;

use flowctl_stellar::stellar_xdr::{
    Asset, LedgerCloseMeta, LedgerEntryChange, LedgerEntryChanges, LedgerEntryData, LedgerKey, LiquidityPoolEntryBody,
    ScAddress, ScVal, TransactionMeta, TransactionResultMeta, TrustLineAsset,
};

/// Holder, and asset (`native`, `CODE:ISSUER`); for contracts as holders, the token's contract.
pub(crate) type Holding = (String, String);

/// First and last known balance of each holding that a ledger's changes show.
#[derive(Debug, Default)]
pub(crate) struct Balances {
    seen: BTreeMap<Holding, (i128, i128)>,
}

// === impl Balances ===

impl Balances {
    /// Follows all changes of a ledger, in the order in which they were made: first all fees are
    /// charged, then the transactions are applied, then fees are given back. Upgrades are left out:
    /// they move nothing, except in the load-test set, whose accounts begin in one.
    pub(crate) fn of(ledger: &LedgerCloseMeta) -> Self {
        let mut balances = Self::default();
        match ledger {
            LedgerCloseMeta::V0(v0) => {
                balances.old(&v0.tx_processing);
            }
            LedgerCloseMeta::V1(v1) => {
                balances.old(&v1.tx_processing);
            }
            LedgerCloseMeta::V2(v2) => {
                for tx in v2.tx_processing.iter() {
                    balances.follow(&tx.fee_processing);
                }
                for tx in v2.tx_processing.iter() {
                    balances.transaction(&tx.tx_apply_processing);
                }
                for tx in v2.tx_processing.iter() {
                    balances.follow(&tx.post_tx_apply_fee_processing);
                }
            }
        }
        balances
    }

    /// By how much each holding changed; those that did not are left out.
    pub(crate) fn changes(&self) -> BTreeMap<Holding, i128> {
        let changed = self.seen.iter().filter(|(_, (before, after))| before != after);
        changed
            .map(|(holding, (before, after))| (holding.clone(), after - before))
            .collect()
    }

    fn old(&mut self, txs: &[TransactionResultMeta]) {
        for tx in txs {
            self.follow(&tx.fee_processing);
        }
        for tx in txs {
            self.transaction(&tx.tx_apply_processing);
        }
    }

    fn transaction(&mut self, meta: &TransactionMeta) {
        match meta {
            TransactionMeta::V0(operations) => {
                operations.iter().for_each(|operation| self.follow(&operation.changes));
            }
            TransactionMeta::V1(v1) => {
                self.follow(&v1.tx_changes);
                v1.operations
                    .iter()
                    .for_each(|operation| self.follow(&operation.changes));
            }
            TransactionMeta::V2(v2) => {
                self.follow(&v2.tx_changes_before);
                v2.operations
                    .iter()
                    .for_each(|operation| self.follow(&operation.changes));
                self.follow(&v2.tx_changes_after);
            }
            TransactionMeta::V3(v3) => {
                self.follow(&v3.tx_changes_before);
                v3.operations
                    .iter()
                    .for_each(|operation| self.follow(&operation.changes));
                self.follow(&v3.tx_changes_after);
            }
            TransactionMeta::V4(v4) => {
                self.follow(&v4.tx_changes_before);
                v4.operations
                    .iter()
                    .for_each(|operation| self.follow(&operation.changes));
                self.follow(&v4.tx_changes_after);
            }
        }
    }

    fn follow(&mut self, changes: &LedgerEntryChanges) {
        for change in changes.0.iter() {
            match change {
                LedgerEntryChange::State(entry) => {
                    for (holding, balance) in holdings(&entry.data) {
                        let (_, last) = *self.seen.entry(holding.clone()).or_insert((balance, balance));
                        assert_eq!(
                            last, balance,
                            "{holding:?} is not what it was left at: wrong order of changes"
                        );
                    }
                }
                LedgerEntryChange::Created(entry) => {
                    for (holding, balance) in holdings(&entry.data) {
                        let (_, last) = self.seen.entry(holding.clone()).or_insert((0, 0));
                        assert_eq!(*last, 0, "{holding:?} was made twice");
                        *last = balance;
                    }
                }
                LedgerEntryChange::Updated(entry) => {
                    for (holding, balance) in holdings(&entry.data) {
                        let known = self.seen.get_mut(&holding);
                        let (_, last) = known.unwrap_or_else(|| panic!("{holding:?} has no state before its update"));
                        *last = balance;
                    }
                }
                // Comes back from the archive with what it had.
                LedgerEntryChange::Restored(entry) => {
                    for (holding, balance) in holdings(&entry.data) {
                        self.seen.entry(holding).or_insert((balance, balance)).1 = balance;
                    }
                }
                LedgerEntryChange::Removed(key) => self.removed(key),
            }
        }
    }

    fn removed(&mut self, key: &LedgerKey) {
        let (holder, asset) = match key {
            LedgerKey::Account(key) => (key.account_id.to_string(), None),
            LedgerKey::Trustline(key) => match trust_line_asset(&key.asset) {
                Some(asset) => (key.account_id.to_string(), Some(asset)),
                None => return,
            },
            LedgerKey::ClaimableBalance(key) => (key.balance_id.to_string(), None),
            LedgerKey::LiquidityPool(key) => (key.liquidity_pool_id.to_string(), None),
            _ => return,
        };
        let asset = match (key, asset) {
            (LedgerKey::Account(_), _) => Some("native".to_owned()),
            (_, asset) => asset,
        };
        let mut found = false;
        for ((seen, held), (_, last)) in &mut self.seen {
            if *seen == holder && asset.as_ref().is_none_or(|asset| asset == held) {
                *last = 0;
                found = true;
            }
        }
        assert!(found, "{holder} has no state before its removal");
    }
}

fn holdings(data: &LedgerEntryData) -> Vec<(Holding, i128)> {
    match data {
        LedgerEntryData::Account(account) => vec![(
            (account.account_id.to_string(), "native".to_owned()),
            account.balance.into(),
        )],
        LedgerEntryData::Trustline(line) => trust_line_asset(&line.asset)
            .map(|asset| ((line.account_id.to_string(), asset), line.balance.into()))
            .into_iter()
            .collect(),
        LedgerEntryData::ClaimableBalance(balance) => vec![(
            (balance.balance_id.to_string(), asset_name(&balance.asset)),
            balance.amount.into(),
        )],
        LedgerEntryData::LiquidityPool(pool) => {
            let LiquidityPoolEntryBody::LiquidityPoolConstantProduct(body) = &pool.body;
            let holder = pool.liquidity_pool_id.to_string();
            vec![
                (
                    (holder.clone(), asset_name(&body.params.asset_a)),
                    body.reserve_a.into(),
                ),
                ((holder, asset_name(&body.params.asset_b)), body.reserve_b.into()),
            ]
        }
        LedgerEntryData::ContractData(data) => contract_balance(&data.key, &data.val)
            .map(|(holder, amount)| ((holder, data.contract.to_string()), amount))
            .into_iter()
            .collect(),
        _ => Vec::new(),
    }
}

/// What a contract holds, in the form that Stellar assets' contracts store it (CAP-46-6).
fn contract_balance(key: &ScVal, value: &ScVal) -> Option<(String, i128)> {
    let ScVal::Vec(Some(key)) = key else {
        return None;
    };
    let [ScVal::Symbol(name), ScVal::Address(holder @ ScAddress::Contract(_))] = key.as_slice() else {
        return None;
    };
    let ScVal::Map(Some(value)) = value else {
        return None;
    };
    let amount = value.iter().find_map(|entry| match (&entry.key, &entry.val) {
        (ScVal::Symbol(key), ScVal::I128(amount)) if key.0.as_slice() == b"amount" => Some(amount),
        _ => None,
    })?;
    (name.0.as_slice() == b"Balance").then(|| (holder.to_string(), i128::from(amount)))
}

fn trust_line_asset(asset: &TrustLineAsset) -> Option<String> {
    match asset {
        TrustLineAsset::Native | TrustLineAsset::PoolShare(_) => None,
        TrustLineAsset::CreditAlphanum4(asset) => Some(format!("{}:{}", asset.asset_code, asset.issuer)),
        TrustLineAsset::CreditAlphanum12(asset) => Some(format!("{}:{}", asset.asset_code, asset.issuer)),
    }
}

fn asset_name(asset: &Asset) -> String {
    match asset {
        Asset::Native => "native".to_owned(),
        Asset::CreditAlphanum4(asset) => format!("{}:{}", asset.asset_code, asset.issuer),
        Asset::CreditAlphanum12(asset) => format!("{}:{}", asset.asset_code, asset.issuer),
    }
}
