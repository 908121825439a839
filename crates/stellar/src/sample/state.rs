//! The sample network's ledger entries, and what changed since somebody last asked: each entry's
//! state before and after, once, as stellar-core's meta tells it.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use stellar_xdr::{
    AccountEntry, AccountId, AlphaNum4, AlphaNum12, Asset, AssetCode4, AssetCode12, ContractId, Hash, LedgerEntry,
    LedgerEntryChange, LedgerEntryChanges, LedgerEntryData, LedgerKey, LedgerKeyAccount, LedgerKeyTrustLine, Limits,
    PublicKey, SequenceNumber, Thresholds, TrustLineAsset, TrustLineEntry, Uint256, WriteXdr,
};

use super::SampleError;

/// Holders may hold it, and the issuer may take it back.
pub(super) const AUTHORIZED_CLAWBACK: u32 = 1 | 4;

/// All entries of the network.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The ledger that is being closed.
    pub(super) ledger: u32,
    entries: BTreeMap<LedgerKey, LedgerEntry>,
    /// How touched entries were before; `None` for those that did not exist.
    before: BTreeMap<LedgerKey, Option<LedgerEntry>>,
}

/// SHA-256 of a value's XDR.
pub(super) fn hash(value: &impl WriteXdr) -> Result<Hash, SampleError> {
    Ok(digest(value.to_xdr(Limits::none())?))
}

pub(super) fn digest(bytes: impl AsRef<[u8]>) -> Hash {
    Hash(Sha256::digest(bytes).into())
}

/// An account whose key is made from a name; nobody has the secret key.
pub(super) fn account(name: &str) -> AccountId {
    let Hash(key) = digest(format!("sample account {name}"));
    AccountId(PublicKey::PublicKeyTypeEd25519(Uint256(key)))
}

/// A contract whose id is made from a name.
pub(super) fn contract(name: &str) -> ContractId {
    ContractId(digest(format!("sample contract {name}")))
}

pub(super) fn usd() -> Asset {
    Asset::CreditAlphanum4(AlphaNum4 {
        asset_code: AssetCode4(*b"SUSD"),
        issuer: account("issuer"),
    })
}

pub(super) fn gold() -> Asset {
    Asset::CreditAlphanum12(AlphaNum12 {
        asset_code: AssetCode12(*b"SAMPLEGOLD\0\0"),
        issuer: account("issuer"),
    })
}

pub(super) fn line_asset(asset: &Asset) -> TrustLineAsset {
    match asset {
        Asset::Native => TrustLineAsset::Native,
        Asset::CreditAlphanum4(asset) => TrustLineAsset::CreditAlphanum4(asset.clone()),
        Asset::CreditAlphanum12(asset) => TrustLineAsset::CreditAlphanum12(asset.clone()),
    }
}

pub(super) fn line_key(account: &AccountId, asset: TrustLineAsset) -> LedgerKey {
    LedgerKey::Trustline(LedgerKeyTrustLine {
        account_id: account.clone(),
        asset,
    })
}

pub(super) fn account_key(account: &AccountId) -> LedgerKey {
    LedgerKey::Account(LedgerKeyAccount {
        account_id: account.clone(),
    })
}

// === impl State ===

impl State {
    /// Adds or replaces an entry.
    pub(super) fn put(&mut self, data: LedgerEntryData) {
        let key = data.to_key();
        let old = self.entries.get(&key).cloned();
        self.before.entry(key.clone()).or_insert(old);
        let entry = LedgerEntry {
            last_modified_ledger_seq: self.ledger,
            data,
            ..LedgerEntry::default()
        };
        self.entries.insert(key, entry);
    }

    pub(super) fn get(&self, key: &LedgerKey) -> Option<&LedgerEntryData> {
        self.entries.get(key).map(|entry| &entry.data)
    }

    pub(super) fn remove(&mut self, key: &LedgerKey) {
        if let Some(old) = self.entries.remove(key) {
            self.before.entry(key.clone()).or_insert(Some(old));
        }
    }

    /// What changed since the last call.
    pub(super) fn changes(&mut self) -> Result<LedgerEntryChanges, SampleError> {
        let mut changes = Vec::new();
        for (key, before) in std::mem::take(&mut self.before) {
            let existed = before.is_some();
            changes.extend(before.map(LedgerEntryChange::State));
            match (self.entries.get(&key), existed) {
                (Some(entry), true) => changes.push(LedgerEntryChange::Updated(entry.clone())),
                (Some(entry), false) => changes.push(LedgerEntryChange::Created(entry.clone())),
                (None, true) => changes.push(LedgerEntryChange::Removed(key)),
                // Came and went.
                (None, false) => {}
            }
        }
        Ok(LedgerEntryChanges(changes.try_into()?))
    }

    pub(super) fn new_account(&mut self, id: &AccountId, balance: i64) {
        self.put(LedgerEntryData::Account(AccountEntry {
            account_id: id.clone(),
            balance,
            seq_num: SequenceNumber(i64::from(self.ledger) << 32),
            thresholds: Thresholds([1, 0, 0, 0]),
            ..AccountEntry::default()
        }));
    }

    pub(super) fn new_line(&mut self, id: &AccountId, asset: TrustLineAsset, balance: i64) {
        self.put(LedgerEntryData::Trustline(TrustLineEntry {
            account_id: id.clone(),
            asset,
            balance,
            limit: i64::MAX,
            flags: AUTHORIZED_CLAWBACK,
            ..TrustLineEntry::default()
        }));
    }

    pub(super) fn account_entry(&self, id: &AccountId) -> Result<AccountEntry, SampleError> {
        match self.get(&account_key(id)) {
            Some(LedgerEntryData::Account(entry)) => Ok(entry.clone()),
            _ => Err(SampleError::Scenario("an account does not exist")),
        }
    }

    pub(super) fn line(&self, id: &AccountId, asset: TrustLineAsset) -> Result<TrustLineEntry, SampleError> {
        match self.get(&line_key(id, asset)) {
            Some(LedgerEntryData::Trustline(entry)) => Ok(entry.clone()),
            _ => Err(SampleError::Scenario("a trust line does not exist")),
        }
    }

    /// Adds to an account's balance, or with a negative amount takes from it. An issuer has none of
    /// its own asset to change.
    pub(super) fn credit(&mut self, id: &AccountId, asset: &Asset, amount: i64) -> Result<(), SampleError> {
        let issuer = match asset {
            Asset::Native => {
                let mut entry = self.account_entry(id)?;
                entry.balance = sum(entry.balance, amount)?;
                self.put(LedgerEntryData::Account(entry));
                return Ok(());
            }
            Asset::CreditAlphanum4(asset) => &asset.issuer,
            Asset::CreditAlphanum12(asset) => &asset.issuer,
        };
        if issuer == id {
            return Ok(());
        }
        let mut entry = self.line(id, line_asset(asset))?;
        entry.balance = sum(entry.balance, amount)?;
        self.put(LedgerEntryData::Trustline(entry));
        Ok(())
    }

    pub(super) fn pay(
        &mut self,
        asset: &Asset,
        from: &AccountId,
        to: &AccountId,
        amount: i64,
    ) -> Result<(), SampleError> {
        self.credit(from, asset, -amount)?;
        self.credit(to, asset, amount)
    }

    /// All XLM of all accounts; what pools, contracts and claimable balances hold is not in it.
    pub(super) fn account_balances(&self) -> i64 {
        let balances = self.entries.values().map(|entry| match &entry.data {
            LedgerEntryData::Account(account) => account.balance,
            _ => 0,
        });
        balances.sum()
    }
}

fn sum(balance: i64, amount: i64) -> Result<i64, SampleError> {
    let sum = balance.checked_add(amount).filter(|sum| *sum >= 0);
    sum.ok_or(SampleError::Scenario("a balance would overflow or fall below zero"))
}
