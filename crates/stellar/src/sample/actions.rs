//! What happens on the sample network: one kind of transaction after the other, round and round, so
//! that every kind of token movement is there after some ledgers. Longer than other files because
//! it is a list: each arm is one kind of transaction, with its operations, results and effects.

use std::collections::VecDeque;

use stellar_xdr::{
    AccountId, AccountMergeResult, Asset, ChangeTrustAsset, ChangeTrustOp, ChangeTrustResult, ClaimAtom,
    ClaimClaimableBalanceOp, ClaimClaimableBalanceResult, ClaimPredicate, ClaimableBalanceEntry, ClaimableBalanceId,
    Claimant, ClaimantV0, ClawbackClaimableBalanceOp, ClawbackClaimableBalanceResult, ClawbackOp, ClawbackResult,
    ContractEvent, CreateAccountOp, CreateAccountResult, CreateClaimableBalanceOp, CreateClaimableBalanceResult,
    DataEntry, DataValue, HashIdPreimage, HashIdPreimageOperationId, HashIdPreimageRevokeId, InvokeHostFunctionResult,
    InvokeHostFunctionSuccessPreImage, LedgerEntryChanges, LedgerEntryData, LedgerKey, LedgerKeyClaimableBalance,
    LiquidityPoolDepositOp, LiquidityPoolDepositResult, LiquidityPoolParameters, LiquidityPoolWithdrawOp,
    LiquidityPoolWithdrawResult, ManageBuyOfferOp, ManageBuyOfferResult, ManageDataOp, ManageDataResult,
    ManageOfferSuccessResult, ManageOfferSuccessResultOffer, ManageSellOfferOp, ManageSellOfferResult, MuxedAccount,
    MuxedAccountMed25519, Operation, OperationBody, OperationResult, OperationResultTr, PathPaymentStrictReceiveOp,
    PathPaymentStrictReceiveResult, PathPaymentStrictReceiveResultSuccess, PathPaymentStrictSendOp,
    PathPaymentStrictSendResult, PathPaymentStrictSendResultSuccess, PaymentOp, PaymentResult, Price, ScVal,
    SequenceNumber, SetTrustLineFlagsOp, SetTrustLineFlagsResult, SimplePaymentResult, TrustLineAsset,
};

use super::SampleError;
use super::contracts::{self, UNIFIED_EVENTS};
use super::exchange::{self, Give};
use super::state::{AUTHORIZED_CLAWBACK, State, account, account_key, gold, hash, line_asset, usd};

/// One stroop is a ten-millionth.
pub(super) const UNIT: i64 = 10_000_000;

/// How many ordinary users there are.
pub(super) const USERS: u64 = 8;

/// A kind of transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Pay,
    PayUsd,
    Mint,
    Burn,
    Create,
    Merge,
    PathReceive,
    PathSend,
    Buy,
    Sell,
    CreateBalance,
    ClaimBalance,
    ClawbackBalance,
    Clawback,
    Deposit,
    Withdraw,
    Visit,
    Revoke,
    Welcome,
    Fail,
    FeeBump,
    Data,
    ContractDeposit,
    ContractWithdraw,
    ContractMint,
    ContractBurn,
    ContractClawback,
    Points,
}

/// The order in which they happen.
pub(super) const ROUND: [Action; 28] = [
    Action::Pay,
    Action::Create,
    Action::PayUsd,
    Action::ContractDeposit,
    Action::PathReceive,
    Action::CreateBalance,
    Action::Visit,
    Action::Mint,
    Action::ContractWithdraw,
    Action::Buy,
    Action::ClaimBalance,
    Action::Revoke,
    Action::Fail,
    Action::ContractMint,
    Action::PathSend,
    Action::ClawbackBalance,
    Action::Merge,
    Action::Welcome,
    Action::ContractBurn,
    Action::Sell,
    Action::FeeBump,
    Action::Clawback,
    Action::Deposit,
    Action::ContractClawback,
    Action::Burn,
    Action::Data,
    Action::Withdraw,
    Action::Points,
];

/// Numbers that look random and are always the same (SplitMix64).
#[derive(Clone, Debug)]
pub(super) struct Rng(pub(super) u64);

/// What later actions need from earlier ones.
#[derive(Debug, Default)]
pub(super) struct Memory {
    newcomers: VecDeque<AccountId>,
    balances: VecDeque<(ClaimableBalanceId, AccountId)>,
    /// Balances that the guest got when its pool share was taken apart.
    payouts: Vec<ClaimableBalanceId>,
}

/// Where an action takes place.
pub(super) struct Scene<'a> {
    pub(super) state: &'a mut State,
    pub(super) rng: &'a mut Rng,
    pub(super) memory: &'a mut Memory,
    pub(super) protocol: u32,
    pub(super) source: AccountId,
    pub(super) sequence: SequenceNumber,
    pub(super) done: Done,
}

/// What an action did, operation by operation.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) operations: Vec<Operation>,
    pub(super) results: Vec<OperationResult>,
    pub(super) changes: Vec<LedgerEntryChanges>,
    /// Of the contract that the only operation called.
    pub(super) events: Vec<ContractEvent>,
    pub(super) failed: bool,
}

// === impl Action ===

impl Action {
    /// How many operations it has; fees are charged by it before it happens.
    pub(super) fn operations(self) -> u32 {
        match self {
            Self::ClawbackBalance | Self::Visit => 2,
            Self::Welcome => 3,
            _ => 1,
        }
    }

    pub(super) fn is_contract(self) -> bool {
        matches!(
            self,
            Self::ContractDeposit
                | Self::ContractWithdraw
                | Self::ContractMint
                | Self::ContractBurn
                | Self::ContractClawback
                | Self::Points
        )
    }

    /// Whose transaction it is.
    pub(super) fn source(self, rng: &mut Rng) -> AccountId {
        match self {
            Self::Create | Self::Merge | Self::ClaimBalance | Self::Points => account("bank"),
            Self::Mint
            | Self::ClawbackBalance
            | Self::Clawback
            | Self::Revoke
            | Self::Welcome
            | Self::ContractMint
            | Self::ContractClawback => account("issuer"),
            Self::Deposit | Self::Withdraw => exchange::maker(),
            Self::Visit => account("guest"),
            _ => rng.user(),
        }
    }
}

// === impl Rng ===

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    pub(super) fn user(&mut self) -> AccountId {
        account(&format!("user {}", self.next() % USERS))
    }

    /// One to a thousand units.
    fn amount(&mut self) -> i64 {
        UNIT + i64::try_from(self.next() % (999 * UNIT as u64)).unwrap_or(0)
    }
}

// === impl Scene ===

impl Scene<'_> {
    /// Lets it happen.
    pub(super) fn play(&mut self, action: Action) -> Result<(), SampleError> {
        let source = self.source.clone();
        let amount = self.rng.amount();
        let user = self.rng.user();
        let issuer = account("issuer");
        match action {
            Action::Pay | Action::FeeBump => self.pay(&Asset::Native, &user, amount),
            Action::PayUsd | Action::Mint => self.pay(&usd(), &user, amount),
            Action::Burn => self.pay(&usd(), &issuer, amount),
            Action::Fail => {
                let body = payment(&Asset::Native, MuxedAccount::from(user), i64::MAX);
                self.done.failed = true;
                self.done(None, body, OperationResultTr::Payment(PaymentResult::Underfunded))
            }
            Action::Create => {
                let ledger = self.state.ledger;
                let destination = account(&format!("newcomer {ledger} {}", self.sequence.0));
                self.state.credit(&source, &Asset::Native, -amount)?;
                self.state.new_account(&destination, amount);
                self.memory.newcomers.push_back(destination.clone());
                let body = OperationBody::CreateAccount(CreateAccountOp {
                    destination,
                    starting_balance: amount,
                });
                self.done(
                    None,
                    body,
                    OperationResultTr::CreateAccount(CreateAccountResult::Success),
                )
            }
            Action::Merge => {
                let Some(leaver) = self.memory.newcomers.pop_front() else {
                    return self.pay(&Asset::Native, &user, amount);
                };
                let balance = self.state.account_entry(&leaver)?.balance;
                self.state.remove(&account_key(&leaver));
                self.state.credit(&source, &Asset::Native, balance)?;
                let body = OperationBody::AccountMerge(MuxedAccount::from(source));
                let result = AccountMergeResult::Success(balance);
                self.done(Some(leaver), body, OperationResultTr::AccountMerge(result))
            }
            Action::PathReceive => self.path_receive(&user, amount / 1_000),
            Action::PathSend => self.path_send(&user, amount),
            Action::Buy => {
                let atom = exchange::take(self.state, exchange::USD_FOR_XLM, &source, amount)?;
                let body = OperationBody::ManageBuyOffer(ManageBuyOfferOp {
                    selling: Asset::Native,
                    buying: usd(),
                    buy_amount: amount,
                    price: Price { n: 4, d: 1 },
                    offer_id: 0,
                });
                let result = ManageBuyOfferResult::Success(filled(atom)?);
                self.done(None, body, OperationResultTr::ManageBuyOffer(result))
            }
            Action::Sell => {
                let sold = amount / 1_000;
                let atom = exchange::take(self.state, exchange::GOLD_FOR_USD, &source, sold)?;
                let body = OperationBody::ManageSellOffer(ManageSellOfferOp {
                    selling: usd(),
                    buying: gold(),
                    amount: sold * 50,
                    price: Price { n: 1, d: 50 },
                    offer_id: 0,
                });
                let result = ManageSellOfferResult::Success(filled(atom)?);
                self.done(None, body, OperationResultTr::ManageSellOffer(result))
            }
            Action::CreateBalance => {
                let asset = if amount % 2 == 0 { Asset::Native } else { gold() };
                let id = self.create_balance(None, &asset, amount, &user)?;
                self.memory.balances.push_back((id, user));
                Ok(())
            }
            Action::ClaimBalance => {
                let Some((id, claimant)) = self.memory.balances.pop_front() else {
                    return self.pay(&Asset::Native, &user, amount);
                };
                self.claim(&claimant, id)
            }
            Action::ClawbackBalance => {
                let id = self.create_balance(Some(user.clone()), &usd(), amount, &user)?;
                self.take_balance(&id)?;
                let body = OperationBody::ClawbackClaimableBalance(ClawbackClaimableBalanceOp { balance_id: id });
                let result = ClawbackClaimableBalanceResult::Success;
                self.done(None, body, OperationResultTr::ClawbackClaimableBalance(result))
            }
            Action::Clawback => {
                self.state.credit(&user, &usd(), -amount)?;
                let body = OperationBody::Clawback(ClawbackOp {
                    asset: usd(),
                    from: MuxedAccount::from(user),
                    amount,
                });
                self.done(None, body, OperationResultTr::Clawback(ClawbackResult::Success))
            }
            Action::Deposit => self.deposit(&source, amount),
            Action::Withdraw => {
                let [a, b] = exchange::redeem(self.state, &source, amount)?;
                self.state.credit(&source, &Asset::Native, a)?;
                self.state.credit(&source, &usd(), b)?;
                let body = OperationBody::LiquidityPoolWithdraw(LiquidityPoolWithdrawOp {
                    liquidity_pool_id: exchange::pool_id()?,
                    amount,
                    min_amount_a: 0,
                    min_amount_b: 0,
                });
                let result = LiquidityPoolWithdrawResult::Success;
                self.done(None, body, OperationResultTr::LiquidityPoolWithdraw(result))
            }
            Action::Visit => {
                exchange::share_line(self.state, &source, true)?;
                let parameters = LiquidityPoolParameters::LiquidityPoolConstantProduct(exchange::pool_parameters());
                let body = OperationBody::ChangeTrust(ChangeTrustOp {
                    line: ChangeTrustAsset::PoolShare(parameters),
                    limit: i64::MAX,
                });
                self.done(None, body, OperationResultTr::ChangeTrust(ChangeTrustResult::Success))?;
                self.deposit(&source, amount)
            }
            Action::Revoke => self.revoke(),
            Action::Welcome => {
                self.flags(0, 1)?;
                for id in std::mem::take(&mut self.memory.payouts) {
                    self.claim(&account("guest"), id)?;
                }
                Ok(())
            }
            Action::Data => {
                let value = Some(DataValue(amount.to_be_bytes().try_into()?));
                let data_name = stellar_xdr::String64("sample".try_into()?);
                self.state.put(LedgerEntryData::Data(DataEntry {
                    account_id: source,
                    data_name: data_name.clone(),
                    data_value: value.clone().unwrap_or_default(),
                    ..DataEntry::default()
                }));
                let body = OperationBody::ManageData(ManageDataOp {
                    data_name,
                    data_value: value,
                });
                self.done(None, body, OperationResultTr::ManageData(ManageDataResult::Success))
            }
            Action::ContractDeposit
            | Action::ContractWithdraw
            | Action::ContractMint
            | Action::ContractBurn
            | Action::ContractClawback
            | Action::Points => self.contract(action, &user, amount),
        }
    }

    fn pay(&mut self, asset: &Asset, to: &AccountId, amount: i64) -> Result<(), SampleError> {
        let source = self.source.clone();
        self.state.pay(asset, &source, to, amount)?;
        let body = payment(asset, self.perhaps_muxed(to, amount), amount);
        self.done(None, body, OperationResultTr::Payment(PaymentResult::Success))
    }

    /// Exchanges number some of their customers' payments.
    fn perhaps_muxed(&self, to: &AccountId, amount: i64) -> MuxedAccount {
        match MuxedAccount::from(to.clone()) {
            MuxedAccount::Ed25519(ed25519) if amount % 3 == 0 => MuxedAccount::MuxedEd25519(MuxedAccountMed25519 {
                id: amount.unsigned_abs() % 1_000,
                ed25519,
            }),
            plain => plain,
        }
    }

    /// XLM to `SUSD` to `SAMPLEGOLD`, by way of both offers.
    fn path_receive(&mut self, to: &AccountId, amount: i64) -> Result<(), SampleError> {
        let source = self.source.clone();
        let first = exchange::take(self.state, exchange::USD_FOR_XLM, &source, amount * 50)?;
        let second = exchange::take(self.state, exchange::GOLD_FOR_USD, &source, amount)?;
        self.state.pay(&gold(), &source, to, amount)?;
        let body = OperationBody::PathPaymentStrictReceive(PathPaymentStrictReceiveOp {
            send_asset: Asset::Native,
            send_max: amount * 200,
            destination: MuxedAccount::from(to.clone()),
            dest_asset: gold(),
            dest_amount: amount,
            path: vec![usd()].try_into()?,
        });
        let result = PathPaymentStrictReceiveResult::Success(PathPaymentStrictReceiveResultSuccess {
            offers: vec![first, second].try_into()?,
            last: last(to, gold(), amount),
        });
        self.done(None, body, OperationResultTr::PathPaymentStrictReceive(result))
    }

    /// XLM to `SUSD` or back, by way of the pool.
    fn path_send(&mut self, to: &AccountId, amount: i64) -> Result<(), SampleError> {
        let source = self.source.clone();
        let (give, send_asset, dest_asset) = if amount % 2 == 0 {
            (Give::Xlm, Asset::Native, usd())
        } else {
            (Give::Usd, usd(), Asset::Native)
        };
        let (atom, got) = exchange::swap(self.state, give, &source, amount)?;
        self.state.pay(&dest_asset, &source, to, got)?;
        let body = OperationBody::PathPaymentStrictSend(PathPaymentStrictSendOp {
            send_asset,
            send_amount: amount,
            destination: MuxedAccount::from(to.clone()),
            dest_asset: dest_asset.clone(),
            dest_min: 1,
            path: Vec::new().try_into()?,
        });
        let result = PathPaymentStrictSendResult::Success(PathPaymentStrictSendResultSuccess {
            offers: vec![atom].try_into()?,
            last: last(to, dest_asset, got),
        });
        self.done(None, body, OperationResultTr::PathPaymentStrictSend(result))
    }

    fn create_balance(
        &mut self,
        creator: Option<AccountId>,
        asset: &Asset,
        amount: i64,
        claimant: &AccountId,
    ) -> Result<ClaimableBalanceId, SampleError> {
        let payer = creator.clone().unwrap_or_else(|| self.source.clone());
        self.state.credit(&payer, asset, -amount)?;
        let preimage = HashIdPreimage::OpId(HashIdPreimageOperationId {
            source_account: self.source.clone(),
            seq_num: self.sequence.clone(),
            op_num: self.number(),
        });
        let id = ClaimableBalanceId::ClaimableBalanceIdTypeV0(hash(&preimage)?);
        self.put_balance(&id, asset, amount, claimant)?;
        let body = OperationBody::CreateClaimableBalance(CreateClaimableBalanceOp {
            asset: asset.clone(),
            amount,
            claimants: vec![anytime(claimant)].try_into()?,
        });
        let result = CreateClaimableBalanceResult::Success(id.clone());
        self.done(creator, body, OperationResultTr::CreateClaimableBalance(result))?;
        Ok(id)
    }

    fn put_balance(
        &mut self,
        id: &ClaimableBalanceId,
        asset: &Asset,
        amount: i64,
        claimant: &AccountId,
    ) -> Result<(), SampleError> {
        self.state.put(LedgerEntryData::ClaimableBalance(ClaimableBalanceEntry {
            balance_id: id.clone(),
            claimants: vec![anytime(claimant)].try_into()?,
            asset: asset.clone(),
            amount,
            ..ClaimableBalanceEntry::default()
        }));
        Ok(())
    }

    /// Removes a balance; says what was in it.
    fn take_balance(&mut self, id: &ClaimableBalanceId) -> Result<(Asset, i64), SampleError> {
        let key = LedgerKey::ClaimableBalance(LedgerKeyClaimableBalance { balance_id: id.clone() });
        let Some(LedgerEntryData::ClaimableBalance(entry)) = self.state.get(&key) else {
            return Err(SampleError::Scenario("a claimable balance does not exist"));
        };
        let held = (entry.asset.clone(), entry.amount);
        self.state.remove(&key);
        Ok(held)
    }

    fn claim(&mut self, claimant: &AccountId, id: ClaimableBalanceId) -> Result<(), SampleError> {
        let (asset, amount) = self.take_balance(&id)?;
        self.state.credit(claimant, &asset, amount)?;
        let body = OperationBody::ClaimClaimableBalance(ClaimClaimableBalanceOp { balance_id: id });
        let result = ClaimClaimableBalanceResult::Success;
        self.done(
            Some(claimant.clone()),
            body,
            OperationResultTr::ClaimClaimableBalance(result),
        )
    }

    fn deposit(&mut self, who: &AccountId, shares: i64) -> Result<(), SampleError> {
        exchange::deposit(self.state, who, shares)?;
        let body = OperationBody::LiquidityPoolDeposit(LiquidityPoolDepositOp {
            liquidity_pool_id: exchange::pool_id()?,
            max_amount_a: i64::MAX,
            max_amount_b: i64::MAX,
            min_price: Price { n: 1, d: 1_000 },
            max_price: Price { n: 1_000, d: 1 },
        });
        let result = LiquidityPoolDepositResult::Success;
        self.done(None, body, OperationResultTr::LiquidityPoolDeposit(result))
    }

    /// The guest loses its authorization, and its pool share becomes two claimable balances.
    fn revoke(&mut self) -> Result<(), SampleError> {
        let guest = account("guest");
        let pool = exchange::pool_id()?;
        let shares = self
            .state
            .line(&guest, TrustLineAsset::PoolShare(pool.clone()))?
            .balance;
        let parts = exchange::redeem(self.state, &guest, shares)?;
        exchange::share_line(self.state, &guest, false)?;
        for (asset, amount) in [Asset::Native, usd()].into_iter().zip(parts) {
            let preimage = HashIdPreimage::PoolRevokeOpId(HashIdPreimageRevokeId {
                source_account: self.source.clone(),
                seq_num: self.sequence.clone(),
                op_num: self.number(),
                liquidity_pool_id: pool.clone(),
                asset: asset.clone(),
            });
            let id = ClaimableBalanceId::ClaimableBalanceIdTypeV0(hash(&preimage)?);
            self.put_balance(&id, &asset, amount, &guest)?;
            self.memory.payouts.push(id);
        }
        self.flags(1, 0)
    }

    /// Changes the flags of the guest's trust line.
    fn flags(&mut self, clear_flags: u32, set_flags: u32) -> Result<(), SampleError> {
        let guest = account("guest");
        let mut line = self.state.line(&guest, line_asset(&usd()))?;
        line.flags = (line.flags & !clear_flags | set_flags) & AUTHORIZED_CLAWBACK;
        self.state.put(LedgerEntryData::Trustline(line));
        let body = OperationBody::SetTrustLineFlags(SetTrustLineFlagsOp {
            trustor: guest,
            asset: usd(),
            clear_flags,
            set_flags,
        });
        let result = SetTrustLineFlagsResult::Success;
        self.done(None, body, OperationResultTr::SetTrustLineFlags(result))
    }

    fn contract(&mut self, action: Action, user: &AccountId, amount: i64) -> Result<(), SampleError> {
        let (source, vault) = (self.source.clone(), contracts::vault());
        let wide = i128::from(amount);
        let asset = match action {
            Action::ContractDeposit | Action::ContractWithdraw => Asset::Native,
            _ => usd(),
        };
        let token = contracts::asset_contract(&asset)?;
        let administrator =
            |protocol: u32| (protocol < UNIFIED_EVENTS).then(|| contracts::of_account(&account("issuer")));
        let mut data = ScVal::from(wide);
        let (token, function, parties, name) = match action {
            Action::ContractWithdraw => {
                // Less than any deposit, so that the vault never runs out.
                let out = amount / 2_000;
                data = ScVal::from(i128::from(out));
                contracts::credit(self.state, &token, &vault, -i128::from(out))?;
                self.state.credit(user, &asset, out)?;
                let parties = vec![contracts::of_contract(&vault), contracts::of_account(user)];
                (token, "transfer", parties, Some(asset))
            }
            Action::ContractDeposit => {
                self.state.credit(&source, &asset, -amount)?;
                contracts::credit(self.state, &token, &vault, wide)?;
                let parties = vec![contracts::of_account(&source), contracts::of_contract(&vault)];
                (token, "transfer", parties, Some(asset))
            }
            Action::ContractMint => {
                self.state.credit(user, &asset, amount)?;
                if self.protocol >= UNIFIED_EVENTS && amount % 3 == 0 {
                    data = contracts::amount_and_id(wide, 7)?;
                }
                let parties = administrator(self.protocol).into_iter();
                let parties = parties.chain([contracts::of_account(user)]).collect();
                (token, "mint", parties, Some(asset))
            }
            Action::ContractClawback => {
                self.state.credit(user, &asset, -amount)?;
                let parties = administrator(self.protocol).into_iter();
                let parties = parties.chain([contracts::of_account(user)]).collect();
                (token, "clawback", parties, Some(asset))
            }
            Action::ContractBurn => {
                self.state.credit(&source, &asset, -amount)?;
                (token, "burn", vec![contracts::of_account(&source)], Some(asset))
            }
            _ => {
                let (points, treasury) = (contracts::points(), contracts::treasury());
                // More than 64 bits hold.
                let many = wide << 40;
                data = ScVal::from(many);
                contracts::credit(self.state, &points, &treasury, -many)?;
                contracts::credit(self.state, &points, &vault, many)?;
                let parties = vec![contracts::of_contract(&treasury), contracts::of_contract(&vault)];
                (points, "transfer", parties, None)
            }
        };
        let mut topics = vec![contracts::symbol(function)?];
        topics.extend(parties.iter().cloned());
        topics.extend(name.as_ref().map(contracts::asset_name).transpose()?);
        let event = contracts::event(&token, topics, data.clone())?;
        let args = parties.into_iter().chain([data]).collect();
        let body = contracts::call(&token, function, args)?;
        let returned = InvokeHostFunctionSuccessPreImage {
            return_value: ScVal::Void,
            events: vec![event.clone()].try_into()?,
        };
        self.done.events.push(event);
        let result = InvokeHostFunctionResult::Success(hash(&returned)?);
        self.done(None, body, OperationResultTr::InvokeHostFunction(result))
    }

    /// Which operation is next, from 0.
    fn number(&self) -> u32 {
        u32::try_from(self.done.operations.len()).unwrap_or(u32::MAX)
    }

    /// Ends an operation: everything that changed since the last one belongs to it.
    fn done(
        &mut self,
        source: Option<AccountId>,
        body: OperationBody,
        result: OperationResultTr,
    ) -> Result<(), SampleError> {
        self.done.operations.push(Operation {
            source_account: source.map(MuxedAccount::from),
            body,
        });
        self.done.results.push(OperationResult::OpInner(result));
        self.done.changes.push(self.state.changes()?);
        Ok(())
    }
}

fn payment(asset: &Asset, destination: MuxedAccount, amount: i64) -> OperationBody {
    OperationBody::Payment(PaymentOp {
        destination,
        asset: asset.clone(),
        amount,
    })
}

fn last(destination: &AccountId, asset: Asset, amount: i64) -> SimplePaymentResult {
    SimplePaymentResult {
        destination: destination.clone(),
        asset,
        amount,
    }
}

/// The result of an offer that one claim filled.
fn filled(atom: ClaimAtom) -> Result<ManageOfferSuccessResult, SampleError> {
    Ok(ManageOfferSuccessResult {
        offers_claimed: vec![atom].try_into()?,
        offer: ManageOfferSuccessResultOffer::Deleted,
    })
}

fn anytime(destination: &AccountId) -> Claimant {
    Claimant::ClaimantTypeV0(ClaimantV0 {
        destination: destination.clone(),
        predicate: ClaimPredicate::Unconditional,
    })
}
