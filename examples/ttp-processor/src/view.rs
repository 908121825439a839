//! One way to look at a ledger, whichever versions its meta, transaction set and transactions
//! have. Only finds things; what they mean is not decided here.

use stellar_xdr::{
    ContractEvent, FeeBumpTransactionInnerTx, GeneralizedTransactionSet, InnerTransactionResultResult, LedgerCloseMeta,
    LedgerEntryChanges, MuxedAccount, Operation, OperationMeta, OperationResult, SequenceNumber, Transaction,
    TransactionEnvelope, TransactionExt, TransactionMeta, TransactionPhase, TransactionResultMeta,
    TransactionResultPair, TransactionResultResult, TxSetComponent, Uint256,
};

/// One transaction as it was applied.
#[derive(Clone, Copy)]
pub(crate) struct Applied<'a> {
    pub(crate) result: &'a TransactionResultPair,
    /// What paying its fee changed, before any transaction of the ledger was applied.
    pub(crate) fee_changes: &'a LedgerEntryChanges,
    pub(crate) meta: &'a TransactionMeta,
    /// What was refunded after all transactions (protocol 23 on).
    pub(crate) post_fee_changes: Option<&'a LedgerEntryChanges>,
}

/// The parts of an envelope that say what was to be done.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    /// Who pays the fee.
    pub(crate) fee_source: Source<'a>,
    /// Who acts, unless an operation names somebody else.
    pub(crate) source: Source<'a>,
    pub(crate) sequence: &'a SequenceNumber,
    pub(crate) operations: &'a [Operation],
    pub(crate) soroban: bool,
}

/// An account that acts. Old envelopes have a bare key.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    Key(&'a Uint256),
    Muxed(&'a MuxedAccount),
}

/// The transactions of a ledger in the order of application.
pub(crate) fn applied(ledger: &LedgerCloseMeta) -> Vec<Applied<'_>> {
    match ledger {
        LedgerCloseMeta::V0(v0) => v0.tx_processing.iter().map(old).collect(),
        LedgerCloseMeta::V1(v1) => v1.tx_processing.iter().map(old).collect(),
        LedgerCloseMeta::V2(v2) => {
            let new = v2.tx_processing.iter().map(|tx| Applied {
                result: &tx.result,
                fee_changes: &tx.fee_processing,
                meta: &tx.tx_apply_processing,
                post_fee_changes: Some(&tx.post_tx_apply_fee_processing),
            });
            new.collect()
        }
    }
}

fn old(tx: &TransactionResultMeta) -> Applied<'_> {
    Applied {
        result: &tx.result,
        fee_changes: &tx.fee_processing,
        meta: &tx.tx_apply_processing,
        post_fee_changes: None,
    }
}

/// All envelopes of a ledger, in the transaction set's order.
pub(crate) fn envelopes(ledger: &LedgerCloseMeta) -> Vec<&TransactionEnvelope> {
    match ledger {
        LedgerCloseMeta::V0(v0) => v0.tx_set.txs.iter().collect(),
        LedgerCloseMeta::V1(v1) => generalized(&v1.tx_set),
        LedgerCloseMeta::V2(v2) => generalized(&v2.tx_set),
    }
}

fn generalized(set: &GeneralizedTransactionSet) -> Vec<&TransactionEnvelope> {
    let GeneralizedTransactionSet::V1(set) = set;
    let mut found = Vec::new();
    for phase in set.phases.iter() {
        match phase {
            TransactionPhase::V0(components) => {
                for component in components.iter() {
                    let TxSetComponent::TxsetCompTxsMaybeDiscountedFee(component) = component;
                    found.extend(component.txs.iter());
                }
            }
            TransactionPhase::V1(parallel) => {
                let clusters = parallel.execution_stages.iter().flat_map(|stage| stage.0.iter());
                found.extend(clusters.flat_map(|cluster| cluster.0.iter()));
            }
        }
    }
    found
}

/// The results of a transaction's operations; `None` when it failed.
pub(crate) fn successful(result: &TransactionResultResult) -> Option<&[OperationResult]> {
    match result {
        TransactionResultResult::TxSuccess(results) => Some(results),
        TransactionResultResult::TxFeeBumpInnerSuccess(pair) => match &pair.result.result {
            InnerTransactionResultResult::TxSuccess(results) => Some(results),
            _ => None,
        },
        _ => None,
    }
}

/// What each operation changed; empty for a transaction that failed.
pub(crate) fn operation_changes(meta: &TransactionMeta) -> Vec<&LedgerEntryChanges> {
    match meta {
        TransactionMeta::V0(operations) => classic(operations),
        TransactionMeta::V1(v1) => classic(&v1.operations),
        TransactionMeta::V2(v2) => classic(&v2.operations),
        TransactionMeta::V3(v3) => classic(&v3.operations),
        TransactionMeta::V4(v4) => v4.operations.iter().map(|operation| &operation.changes).collect(),
    }
}

fn classic(operations: &[OperationMeta]) -> Vec<&LedgerEntryChanges> {
    let changes = operations.iter().map(|operation| &operation.changes);
    changes.collect()
}

/// What changed after the operations: refunds, until protocol 22.
pub(crate) fn changes_after(meta: &TransactionMeta) -> Option<&LedgerEntryChanges> {
    match meta {
        TransactionMeta::V0(_) | TransactionMeta::V1(_) => None,
        TransactionMeta::V2(v2) => Some(&v2.tx_changes_after),
        TransactionMeta::V3(v3) => Some(&v3.tx_changes_after),
        TransactionMeta::V4(v4) => Some(&v4.tx_changes_after),
    }
}

/// What the contracts that an operation called reported. `index` counts from 0.
pub(crate) fn contract_events(meta: &TransactionMeta, index: usize) -> &[ContractEvent] {
    match meta {
        TransactionMeta::V0(_) | TransactionMeta::V1(_) | TransactionMeta::V2(_) => &[],
        TransactionMeta::V3(v3) => v3.soroban_meta.as_ref().map_or(&[], |meta| &meta.events),
        TransactionMeta::V4(v4) => v4.operations.get(index).map_or(&[], |meta| &meta.events),
    }
}

/// What an envelope asks for.
pub(crate) fn request(envelope: &TransactionEnvelope) -> Request<'_> {
    match envelope {
        TransactionEnvelope::TxV0(envelope) => {
            let source = Source::Key(&envelope.tx.source_account_ed25519);
            Request {
                fee_source: source,
                source,
                sequence: &envelope.tx.seq_num,
                operations: &envelope.tx.operations,
                soroban: false,
            }
        }
        TransactionEnvelope::Tx(envelope) => inner(&envelope.tx),
        TransactionEnvelope::TxFeeBump(envelope) => {
            let FeeBumpTransactionInnerTx::Tx(tx) = &envelope.tx.inner_tx;
            Request {
                fee_source: Source::Muxed(&envelope.tx.fee_source),
                ..inner(&tx.tx)
            }
        }
    }
}

fn inner(tx: &Transaction) -> Request<'_> {
    let source = Source::Muxed(&tx.source_account);
    Request {
        fee_source: source,
        source,
        sequence: &tx.seq_num,
        operations: &tx.operations,
        soroban: matches!(tx.ext, TransactionExt::V1(_)),
    }
}
