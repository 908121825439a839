//! What each classic operation moved, told from the operation, its result, and, where neither says
//! the amount, the entries that it changed. Every exchange is two movements, one in each direction;
//! a path payment is its exchanges and then a payment by the sender.

use stellar_xdr::{
    AccountMergeResult, Asset, ClaimAtom, ClaimableBalanceId, CreateClaimableBalanceResult, HashIdPreimage,
    HashIdPreimageRevokeId, InflationResult, LedgerEntryChanges, ManageBuyOfferResult, ManageSellOfferResult,
    Operation, OperationBody, OperationResult, OperationResultTr, PathPaymentStrictReceiveResult,
    PathPaymentStrictSendResult, PoolId,
};

use crate::contract;
use crate::entries;
use crate::error::Problem;
use crate::event::Kind;
use crate::extract::Transaction;
use crate::network;
use crate::party::Party;
use crate::view::{self, Source};

/// One operation of a successful transaction.
pub(crate) struct Step<'a> {
    /// Which one, from 0.
    pub(crate) index: usize,
    pub(crate) operation: &'a Operation,
    pub(crate) result: &'a OperationResult,
    pub(crate) changes: &'a LedgerEntryChanges,
}

/// Adds the events of one operation.
pub(crate) fn events(step: &Step<'_>, tx: &mut Transaction<'_>) -> Result<(), Problem> {
    use OperationBody as Op;
    use OperationResultTr as Tr;

    let number = step.number();
    let source = step.operation.source_account.as_ref();
    let source = Party::source(source.map_or(tx.request.source, Source::Muxed));
    let OperationResult::OpInner(result) = step.result else {
        return Err(Problem::Result(number));
    };
    match (&step.operation.body, result) {
        (Op::CreateAccount(op), Tr::CreateAccount(_)) => {
            let to = Party::account(&op.destination);
            tx.moved(&Asset::Native, source, to, op.starting_balance)
        }
        (Op::Payment(op), Tr::Payment(_)) => tx.moved(&op.asset, source, Party::muxed(&op.destination), op.amount),
        (Op::PathPaymentStrictReceive(op), Tr::PathPaymentStrictReceive(result)) => {
            let PathPaymentStrictReceiveResult::Success(result) = result else {
                return Err(Problem::Result(number));
            };
            exchanges(&result.offers, &source, tx)?;
            tx.moved(&op.dest_asset, source, Party::muxed(&op.destination), op.dest_amount)
        }
        (Op::PathPaymentStrictSend(op), Tr::PathPaymentStrictSend(result)) => {
            let PathPaymentStrictSendResult::Success(result) = result else {
                return Err(Problem::Result(number));
            };
            exchanges(&result.offers, &source, tx)?;
            tx.moved(
                &op.dest_asset,
                source,
                Party::muxed(&op.destination),
                result.last.amount,
            )
        }
        (Op::ManageSellOffer(_), Tr::ManageSellOffer(result))
        | (Op::CreatePassiveSellOffer(_), Tr::CreatePassiveSellOffer(result) | Tr::ManageSellOffer(result)) => {
            let ManageSellOfferResult::Success(result) = result else {
                return Err(Problem::Result(number));
            };
            exchanges(&result.offers_claimed, &source, tx)
        }
        (Op::ManageBuyOffer(_), Tr::ManageBuyOffer(result)) => {
            let ManageBuyOfferResult::Success(result) = result else {
                return Err(Problem::Result(number));
            };
            exchanges(&result.offers_claimed, &source, tx)
        }
        (Op::AccountMerge(destination), Tr::AccountMerge(result)) => {
            let AccountMergeResult::Success(amount) = result else {
                return Err(Problem::Result(number));
            };
            tx.moved(&Asset::Native, source, Party::muxed(destination), *amount)
        }
        (Op::Inflation, Tr::Inflation(result)) => {
            let InflationResult::Success(payouts) = result else {
                return Err(Problem::Result(number));
            };
            for payout in payouts.iter() {
                let to = Some(Party::account(&payout.destination));
                tx.push(Kind::Mint, &Asset::Native, None, to, payout.amount)?;
            }
            Ok(())
        }
        (Op::CreateClaimableBalance(op), Tr::CreateClaimableBalance(result)) => {
            let CreateClaimableBalanceResult::Success(id) = result else {
                return Err(Problem::Result(number));
            };
            tx.moved(&op.asset, source, Party::balance(id), op.amount)
        }
        (Op::ClaimClaimableBalance(op), Tr::ClaimClaimableBalance(_)) => {
            let (asset, amount) = step.balance(&op.balance_id)?;
            tx.moved(asset, Party::balance(&op.balance_id), source, amount)
        }
        (Op::ClawbackClaimableBalance(op), Tr::ClawbackClaimableBalance(_)) => {
            let (asset, amount) = step.balance(&op.balance_id)?;
            let from = Some(Party::balance(&op.balance_id));
            tx.push(Kind::Clawback, asset, from, None, amount)
        }
        (Op::Clawback(op), Tr::Clawback(_)) => {
            let from = Some(Party::muxed(&op.from));
            tx.push(Kind::Clawback, &op.asset, from, None, op.amount)
        }
        (Op::AllowTrust(_), Tr::AllowTrust(_)) | (Op::SetTrustLineFlags(_), Tr::SetTrustLineFlags(_)) => {
            revoked(step, tx)
        }
        (Op::LiquidityPoolDeposit(op), Tr::LiquidityPoolDeposit(_)) => {
            let (assets, deltas) = step.pool(&op.liquidity_pool_id)?;
            for (asset, delta) in assets.iter().zip(deltas) {
                tx.moved(asset, source.clone(), Party::pool(&op.liquidity_pool_id), delta)?;
            }
            Ok(())
        }
        (Op::LiquidityPoolWithdraw(op), Tr::LiquidityPoolWithdraw(_)) => {
            let (assets, deltas) = step.pool(&op.liquidity_pool_id)?;
            for (asset, delta) in assets.iter().zip(deltas) {
                tx.moved(asset, Party::pool(&op.liquidity_pool_id), source.clone(), -delta)?;
            }
            Ok(())
        }
        (Op::InvokeHostFunction(_), Tr::InvokeHostFunction(_)) => {
            for event in view::contract_events(tx.meta, step.index) {
                if let Some(reported) = contract::read(event, tx.tokens)? {
                    tx.report(reported);
                }
            }
            Ok(())
        }
        // These move no tokens.
        (Op::SetOptions(_), Tr::SetOptions(_))
        | (Op::ChangeTrust(_), Tr::ChangeTrust(_))
        | (Op::ManageData(_), Tr::ManageData(_))
        | (Op::BumpSequence(_), Tr::BumpSequence(_))
        | (Op::BeginSponsoringFutureReserves(_), Tr::BeginSponsoringFutureReserves(_))
        | (Op::EndSponsoringFutureReserves, Tr::EndSponsoringFutureReserves(_))
        | (Op::RevokeSponsorship(_), Tr::RevokeSponsorship(_))
        | (Op::ExtendFootprintTtl(_), Tr::ExtendFootprintTtl(_))
        | (Op::RestoreFootprint(_), Tr::RestoreFootprint(_)) => Ok(()),
        _ => Err(Problem::Result(number)),
    }
}

/// The exchanges of one taker, in the order in which they happened.
fn exchanges(atoms: &[ClaimAtom], taker: &Party, tx: &mut Transaction<'_>) -> Result<(), Problem> {
    for atom in atoms {
        let (maker, sold, bought) = match atom {
            ClaimAtom::V0(atom) => (
                Party::seller(&atom.seller_ed25519),
                (&atom.asset_sold, atom.amount_sold),
                (&atom.asset_bought, atom.amount_bought),
            ),
            ClaimAtom::OrderBook(atom) => (
                Party::account(&atom.seller_id),
                (&atom.asset_sold, atom.amount_sold),
                (&atom.asset_bought, atom.amount_bought),
            ),
            ClaimAtom::LiquidityPool(atom) => (
                Party::pool(&atom.liquidity_pool_id),
                (&atom.asset_sold, atom.amount_sold),
                (&atom.asset_bought, atom.amount_bought),
            ),
        };
        tx.moved(bought.0, taker.clone(), maker.clone(), bought.1)?;
        tx.moved(sold.0, maker, taker.clone(), sold.1)?;
    }
    Ok(())
}

/// When a pool share's asset loses its authorization, the pool pays the share out into claimable
/// balances (CAP-38), whose ids follow from the transaction. An asset's issuer gets none: what it
/// would hold of its own asset ceases to exist.
fn revoked(step: &Step<'_>, tx: &mut Transaction<'_>) -> Result<(), Problem> {
    for change in entries::pool_changes(step.changes) {
        for (asset, delta) in change.assets.iter().zip(change.deltas) {
            if delta == 0 {
                continue;
            }
            let preimage = HashIdPreimage::PoolRevokeOpId(HashIdPreimageRevokeId {
                source_account: tx.source_account(),
                seq_num: tx.request.sequence.clone(),
                op_num: step.number() - 1,
                liquidity_pool_id: change.pool.clone(),
                asset: asset.clone(),
            });
            let id = ClaimableBalanceId::ClaimableBalanceIdTypeV0(network::hash(&preimage)?);
            let pool = Party::pool(&change.pool);
            match entries::balance_made(step.changes, &id) {
                Some(_) => tx.moved(asset, pool, Party::balance(&id), -delta)?,
                None => tx.push(Kind::Burn, asset, Some(pool), None, -delta)?,
            }
        }
    }
    Ok(())
}

// === impl Step ===

impl<'a> Step<'a> {
    /// Which operation, from 1.
    pub(crate) fn number(&self) -> u32 {
        u32::try_from(self.index + 1).unwrap_or(u32::MAX)
    }

    /// Asset and amount of a claimable balance that the operation takes away.
    fn balance(&self, id: &ClaimableBalanceId) -> Result<(&'a Asset, i64), Problem> {
        match entries::balance_before(self.changes, id) {
            Some(entry) => Ok((&entry.asset, entry.amount)),
            None => Err(self.missing(format!("claimable balance {id}"))),
        }
    }

    /// A pool's assets and how its reserves changed.
    fn pool(&self, id: &PoolId) -> Result<([Asset; 2], [i64; 2]), Problem> {
        let mut changes = entries::pool_changes(self.changes).into_iter();
        match changes.find(|change| change.pool == *id) {
            Some(change) => Ok((change.assets, change.deltas)),
            None => Err(self.missing(format!("liquidity pool {id}"))),
        }
    }

    fn missing(&self, entry: String) -> Problem {
        Problem::Entry {
            operation: self.number(),
            entry,
        }
    }
}
