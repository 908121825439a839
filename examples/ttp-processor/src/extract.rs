//! From a closed ledger to its token events. Fees come from every transaction, everything else from
//! successful ones only. Events are derived from what the ledger's classic operations did, not from
//! the copies that newer stellar-core versions may add to the meta, so all versions give the same.
//! Before protocol 8 a few operations changed XLM balances in ways that no result tells; those are
//! not repaired here.

use std::collections::HashMap;
use std::rc::Rc;

use jiff::Timestamp;
use stellar_xdr::{
    AccountId, Asset, Hash, LedgerCloseMeta, MuxedAccount, PublicKey, TransactionEnvelope, TransactionMeta,
};

use crate::contract::Reported;
use crate::entries;
use crate::error::{ExtractError, Problem};
use crate::event::{Amount, Kind, LedgerEvents, TokenEvent};
use crate::network::{KNOWN_PASSPHRASES, Network};
use crate::operations::{self, Step};
use crate::party::{Party, Token, Tokens};
use crate::view::{self, Applied, Request, Source};

/// Takes token events from ledgers of one network.
#[derive(Clone, Debug, Default)]
pub struct Extractor {
    /// `None`: found out for each ledger, among the known ones.
    network: Option<Network>,
}

/// The transaction whose events are being collected.
pub(crate) struct Transaction<'a> {
    pub(crate) request: Request<'a>,
    pub(crate) meta: &'a TransactionMeta,
    pub(crate) tokens: &'a mut Tokens,
    ledger: u32,
    closed_at: Timestamp,
    hash: String,
    index: u32,
    operation: Option<u32>,
    events: &'a mut Vec<TokenEvent>,
}

// === impl Extractor ===

impl Extractor {
    /// For ledgers of the network with this passphrase.
    #[must_use]
    pub fn for_passphrase(passphrase: &str) -> Self {
        Self {
            network: Some(Network::from_passphrase(passphrase)),
        }
    }

    /// For ledgers of any known network ([`KNOWN_PASSPHRASES`]): each ledger's is found out by
    /// hashing one of its transactions.
    #[must_use]
    pub fn for_known_networks() -> Self {
        Self::default()
    }

    /// Takes the events of a ledger.
    ///
    /// # Errors
    ///
    /// Fails when the ledger is from another network, or its parts contradict each other.
    pub fn extract(&self, meta: &LedgerCloseMeta) -> Result<LedgerEvents, ExtractError> {
        let ledger = flowctl_stellar::sequence(meta);
        let seconds = flowctl_stellar::closed_at(meta);
        let closed_at = i64::try_from(seconds)
            .ok()
            .and_then(|seconds| Timestamp::from_second(seconds).ok())
            .ok_or(ExtractError::CloseTime { ledger, seconds })?;
        let mut events = Vec::new();
        let applied = view::applied(meta);
        if !applied.is_empty() {
            let (network, envelopes) = self.envelopes(meta, &applied)?;
            let mut tokens = Tokens::new(network);
            for (index, tx) in (1..).zip(&applied) {
                let hash = &tx.result.transaction_hash;
                let Some(envelope) = envelopes.get(hash) else {
                    return Err(ExtractError::NoEnvelope {
                        ledger,
                        tx_hash: hash.to_string(),
                    });
                };
                let mut transaction = Transaction {
                    request: view::request(envelope),
                    meta: tx.meta,
                    tokens: &mut tokens,
                    ledger,
                    closed_at,
                    hash: hash.to_string(),
                    index,
                    operation: None,
                    events: &mut events,
                };
                transaction.collect(tx).map_err(|problem| ExtractError::Transaction {
                    ledger,
                    tx_hash: hash.to_string(),
                    problem,
                })?;
            }
        }
        Ok(LedgerEvents {
            ledger,
            closed_at,
            events,
        })
    }

    /// Takes the events of a ledger in XDR-JSON.
    ///
    /// # Errors
    ///
    /// As [`Self::extract`], and when the value is not a ledger.
    pub fn extract_json(&self, ledger: &serde_json::Value) -> Result<LedgerEvents, ExtractError> {
        self.extract(&flowctl_stellar::json::from_json(ledger)?)
    }

    /// Takes the events of a ledger in XDR-JSON text; quicker than going through a value.
    ///
    /// # Errors
    ///
    /// As [`Self::extract`], and when the text is not JSON or not a ledger.
    pub fn extract_slice(&self, ledger: &[u8]) -> Result<LedgerEvents, ExtractError> {
        self.extract(&flowctl_stellar::json::from_slice(ledger)?)
    }

    /// The ledger's network, and its envelopes by transaction hash.
    fn envelopes<'a>(
        &self,
        meta: &'a LedgerCloseMeta,
        applied: &[Applied<'_>],
    ) -> Result<(Network, HashMap<Hash, &'a TransactionEnvelope>), ExtractError> {
        let ledger = flowctl_stellar::sequence(meta);
        let envelopes = view::envelopes(meta);
        let wanted = |network: &Network| {
            let hash = envelopes.first().and_then(|first| first.hash(network.0).ok());
            hash.is_some_and(|hash| applied.iter().any(|tx| tx.result.transaction_hash.0 == hash))
        };
        let network = match self.network {
            Some(network) => network,
            None => KNOWN_PASSPHRASES
                .into_iter()
                .map(Network::from_passphrase)
                .find(wanted)
                .ok_or(ExtractError::UnknownNetwork { ledger })?,
        };
        // An envelope that cannot be hashed is reported as missing, by the hash of its result.
        let by_hash = envelopes
            .iter()
            .filter_map(|envelope| Some((Hash(envelope.hash(network.0).ok()?), *envelope)));
        Ok((network, by_hash.collect()))
    }
}

// === impl Transaction ===

impl Transaction<'_> {
    fn collect(&mut self, tx: &Applied<'_>) -> Result<(), Problem> {
        let (fee, refund) = self.fee(tx);
        self.push_fee(fee)?;
        if let Some(results) = view::successful(&tx.result.result.result) {
            let operations = self.request.operations;
            let changes = view::operation_changes(tx.meta);
            if operations.len() != results.len() || operations.len() != changes.len() {
                return Err(Problem::Counts {
                    operations: operations.len(),
                    results: results.len(),
                    changes: changes.len(),
                });
            }
            let steps = operations.iter().zip(results).zip(changes).enumerate();
            for (index, ((operation, result), changes)) in steps {
                let step = Step {
                    index,
                    operation,
                    result,
                    changes,
                };
                self.operation = Some(step.number());
                operations::events(&step, self)?;
            }
            self.operation = None;
        }
        if refund != 0 {
            self.push_fee(-refund)?;
        }
        Ok(())
    }

    /// What was charged before the transaction was applied, and what was given back after. Only
    /// Soroban fees are ever given back. `fee_charged` is what remains; protocol 20 forgot to
    /// subtract there, so the charge is read from the payer's balance where that is shown.
    fn fee(&self, tx: &Applied<'_>) -> (i64, i64) {
        let charged = tx.result.result.fee_charged;
        if !self.request.soroban {
            return (charged, 0);
        }
        let payer = account_id(self.request.fee_source);
        let refunds = [view::changes_after(tx.meta), tx.post_fee_changes];
        let refund = refunds
            .into_iter()
            .flatten()
            .filter_map(|changes| entries::balance_change(changes, &payer))
            .sum();
        let taken = entries::balance_change(tx.fee_changes, &payer);
        (taken.map_or(charged + refund, |taken| -taken), refund)
    }

    fn push_fee(&mut self, amount: i64) -> Result<(), Problem> {
        let payer = Party::source(self.request.fee_source);
        self.push(Kind::Fee, &Asset::Native, Some(payer), None, amount)
    }

    /// The account that the transaction's sequence number is from.
    pub(crate) fn source_account(&self) -> AccountId {
        account_id(self.request.source)
    }

    /// Tokens went from one holder to another; what leaves an issuer is new, what reaches it is gone.
    pub(crate) fn moved(&mut self, asset: &Asset, from: Party, to: Party, amount: i64) -> Result<(), Problem> {
        let token = self.tokens.get(asset)?;
        self.record(Kind::Transfer, &token, Some(from), Some(to), Amount(amount.into()));
        Ok(())
    }

    /// An event of a Stellar asset.
    pub(crate) fn push(
        &mut self,
        kind: Kind,
        asset: &Asset,
        from: Option<Party>,
        to: Option<Party>,
        amount: i64,
    ) -> Result<(), Problem> {
        let token = self.tokens.get(asset)?;
        self.record(kind, &token, from, to, Amount(amount.into()));
        Ok(())
    }

    /// An event that a contract reported.
    pub(crate) fn report(&mut self, reported: Reported) {
        let Reported {
            kind,
            token,
            from,
            to,
            amount,
        } = reported;
        self.record(kind, &token, from, to, amount);
    }

    fn record(&mut self, kind: Kind, token: &Rc<Token>, from: Option<Party>, to: Option<Party>, amount: Amount) {
        let issuer = token.issuer.as_deref();
        let is_issuer =
            |party: &Option<Party>| issuer.is_some() && party.as_ref().map(|party| party.address.as_str()) == issuer;
        let (kind, from, to) = match (kind, is_issuer(&from), is_issuer(&to)) {
            (Kind::Transfer, true, false) => (Kind::Mint, None, to),
            (Kind::Transfer, false, true) => (Kind::Burn, from, None),
            _ => (kind, from, to),
        };
        let (from, from_muxed_id) = split(from);
        let (to, to_muxed_id) = split(to);
        self.events.push(TokenEvent {
            kind,
            from,
            to,
            asset: token.name.clone(),
            amount,
            ledger: self.ledger,
            closed_at: self.closed_at,
            tx_hash: self.hash.clone(),
            tx_index: self.index,
            op_index: self.operation,
            contract_id: token.contract_id.clone(),
            from_muxed_id,
            to_muxed_id,
        });
    }
}

fn split(party: Option<Party>) -> (Option<String>, Option<String>) {
    party.map_or((None, None), |party| (Some(party.address), party.muxed_id))
}

fn account_id(source: Source<'_>) -> AccountId {
    let key = match source {
        Source::Key(key) | Source::Muxed(MuxedAccount::Ed25519(key)) => key,
        Source::Muxed(MuxedAccount::MuxedEd25519(muxed)) => &muxed.ed25519,
    };
    AccountId(PublicKey::PublicKeyTypeEd25519(key.clone()))
}
