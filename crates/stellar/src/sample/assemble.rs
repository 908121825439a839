//! The XDR around a sample transaction: its envelope, its result, the set that it is in, and its meta,
//! each in the form that its protocol version has. Nothing here changes the network's state.

use stellar_xdr::{
    DependentTxCluster, ExtensionPoint, FeeBumpTransaction, FeeBumpTransactionEnvelope, FeeBumpTransactionInnerTx,
    GeneralizedTransactionSet, Hash, InnerTransactionResult, InnerTransactionResultPair, InnerTransactionResultResult,
    LedgerEntryChanges, MuxedAccount, OperationMeta, OperationMetaV2, ParallelTxExecutionStage, ParallelTxsComponent,
    ScVal, SequenceNumber, SorobanTransactionData, SorobanTransactionMeta, SorobanTransactionMetaV2, Transaction,
    TransactionEnvelope, TransactionExt, TransactionMeta, TransactionMetaV2, TransactionMetaV3, TransactionMetaV4,
    TransactionPhase, TransactionResultMeta, TransactionResultResult, TransactionSetV1, TransactionV0,
    TransactionV0Envelope, TransactionV1Envelope, TxSetComponent, TxSetComponentTxsMaybeDiscountedFee, Uint256,
};

use super::SampleError;
use super::actions::{Action, Done};
use super::close::{BASE_FEE, PROTOCOLS, Planned, Played, RESOURCE_FEE, network_id};

/// The transaction as its sender would have sent it, without signatures.
pub(super) fn envelope(
    planned: &Planned,
    seq_num: SequenceNumber,
    done: &Done,
    protocol: u32,
) -> Result<TransactionEnvelope, SampleError> {
    let operations = done.operations.clone().try_into()?;
    let fee = match planned.action {
        Action::FeeBump => BASE_FEE,
        _ => u32::try_from(planned.fee).unwrap_or(u32::MAX),
    };
    let source_account = MuxedAccount::from(planned.source.clone());
    // Old wallets still sent the first kind of envelope.
    if protocol == PROTOCOLS[0]
        && planned.action == Action::Pay
        && let MuxedAccount::Ed25519(Uint256(key)) = source_account
    {
        return Ok(TransactionEnvelope::TxV0(TransactionV0Envelope {
            tx: TransactionV0 {
                source_account_ed25519: Uint256(key),
                fee,
                seq_num,
                operations,
                ..TransactionV0::default()
            },
            ..TransactionV0Envelope::default()
        }));
    }
    let ext = if planned.action.is_contract() {
        TransactionExt::V1(SorobanTransactionData {
            resource_fee: i64::from(RESOURCE_FEE),
            ..SorobanTransactionData::default()
        })
    } else {
        TransactionExt::V0
    };
    let tx = TransactionV1Envelope {
        tx: Transaction {
            source_account,
            fee,
            seq_num,
            operations,
            ext,
            ..Transaction::default()
        },
        ..TransactionV1Envelope::default()
    };
    if planned.action != Action::FeeBump {
        return Ok(TransactionEnvelope::Tx(tx));
    }
    Ok(TransactionEnvelope::TxFeeBump(FeeBumpTransactionEnvelope {
        tx: FeeBumpTransaction {
            fee_source: MuxedAccount::from(planned.payer.clone()),
            fee: planned.fee,
            inner_tx: FeeBumpTransactionInnerTx::Tx(tx),
            ..FeeBumpTransaction::default()
        },
        ..FeeBumpTransactionEnvelope::default()
    }))
}

pub(super) fn outcome(envelope: &TransactionEnvelope, done: &Done) -> Result<TransactionResultResult, SampleError> {
    let results = done.results.clone().try_into()?;
    if done.failed {
        return Ok(TransactionResultResult::TxFailed(results));
    }
    let TransactionEnvelope::TxFeeBump(envelope) = envelope else {
        return Ok(TransactionResultResult::TxSuccess(results));
    };
    let pair = InnerTransactionResultPair {
        transaction_hash: Hash(envelope.tx.inner_tx.hash(network_id().0)?),
        result: InnerTransactionResult {
            fee_charged: 0,
            result: InnerTransactionResultResult::TxSuccess(results),
            ..InnerTransactionResult::default()
        },
    };
    Ok(TransactionResultResult::TxFeeBumpInnerSuccess(pair))
}

/// A set with one phase for classic transactions and one for contract calls.
pub(super) fn generalized(
    previous: Hash,
    sorted: &[&Played],
    protocol: u32,
) -> Result<GeneralizedTransactionSet, SampleError> {
    let of = |contract: bool| {
        let txs = sorted.iter().filter(|tx| tx.planned.action.is_contract() == contract);
        txs.map(|tx| tx.envelope.clone()).collect::<Vec<_>>()
    };
    let serial = |txs: Vec<TransactionEnvelope>| -> Result<_, SampleError> {
        let component = TxSetComponent::TxsetCompTxsMaybeDiscountedFee(TxSetComponentTxsMaybeDiscountedFee {
            base_fee: Some(i64::from(BASE_FEE)),
            txs: txs.try_into()?,
        });
        Ok(TransactionPhase::V0(vec![component].try_into()?))
    };
    let contracts = if protocol >= PROTOCOLS[2] {
        let cluster = DependentTxCluster(of(true).try_into()?);
        let stage = ParallelTxExecutionStage(vec![cluster].try_into()?);
        TransactionPhase::V1(ParallelTxsComponent {
            base_fee: Some(i64::from(BASE_FEE)),
            execution_stages: vec![stage].try_into()?,
        })
    } else {
        serial(of(true))?
    };
    Ok(GeneralizedTransactionSet::V1(TransactionSetV1 {
        previous_ledger_hash: previous,
        phases: vec![serial(of(false))?, contracts].try_into()?,
    }))
}

pub(super) fn old_results(played: Vec<Played>, protocol: u32) -> Result<Vec<TransactionResultMeta>, SampleError> {
    let results = played.into_iter().map(|mut tx| {
        Ok(TransactionResultMeta {
            result: tx.result.clone(),
            fee_processing: std::mem::take(&mut tx.planned.charge),
            tx_apply_processing: meta(tx, protocol)?,
        })
    });
    results.collect()
}

/// What a transaction changed, in the form of its time. A failed one changed nothing but its
/// account's sequence number.
pub(super) fn meta(tx: Played, protocol: u32) -> Result<TransactionMeta, SampleError> {
    let called = tx.planned.action.is_contract();
    let done = tx.done;
    let changes = if done.failed { Vec::new() } else { done.changes };
    let old = |changes: Vec<LedgerEntryChanges>| -> Vec<OperationMeta> {
        changes.into_iter().map(|changes| OperationMeta { changes }).collect()
    };
    if protocol == PROTOCOLS[0] {
        return Ok(TransactionMeta::V2(TransactionMetaV2 {
            tx_changes_before: tx.before,
            operations: old(changes).try_into()?,
            tx_changes_after: tx.after,
        }));
    }
    if protocol == PROTOCOLS[1] {
        let events = done.events.try_into()?;
        return Ok(TransactionMeta::V3(TransactionMetaV3 {
            tx_changes_before: tx.before,
            operations: old(changes).try_into()?,
            tx_changes_after: tx.after,
            soroban_meta: called.then_some(SorobanTransactionMeta {
                events,
                return_value: ScVal::Void,
                ..SorobanTransactionMeta::default()
            }),
            ..TransactionMetaV3::default()
        }));
    }
    let mut events = Some(done.events);
    let operations = changes.into_iter().map(|changes| {
        Ok(OperationMetaV2 {
            ext: ExtensionPoint::V0,
            changes,
            events: events.take().unwrap_or_default().try_into()?,
        })
    });
    let operations = operations.collect::<Result<Vec<_>, SampleError>>()?;
    Ok(TransactionMeta::V4(TransactionMetaV4 {
        tx_changes_before: tx.before,
        operations: operations.try_into()?,
        tx_changes_after: tx.after,
        soroban_meta: called.then_some(SorobanTransactionMetaV2 {
            return_value: Some(ScVal::Void),
            ..SorobanTransactionMetaV2::default()
        }),
        ..TransactionMetaV4::default()
    }))
}
