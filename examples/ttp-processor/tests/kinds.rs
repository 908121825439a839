//! Each kind of operation, alone in a ledger, with the events it must give. Ledgers are put together
//! here by hand, so that results and entries say exactly what a case needs. Long because every kind
//! has its case.

#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails its test")]

use flowctl_stellar::sample::NETWORK_PASSPHRASE;
use flowctl_stellar::stellar_xdr::*;
use ttp_processor::{ExtractError, Extractor, Kind, Network, Problem, TokenEvent};

fn id(name: u8) -> AccountId {
    AccountId(PublicKey::PublicKeyTypeEd25519(Uint256([name; 32])))
}

fn to(name: u8) -> MuxedAccount {
    MuxedAccount::from(id(name))
}

fn muxed(name: u8, id: u64) -> MuxedAccount {
    MuxedAccount::MuxedEd25519(MuxedAccountMed25519 {
        id,
        ed25519: Uint256([name; 32]),
    })
}

const SOURCE: u8 = 1;
const OTHER: u8 = 2;
const ISSUER: u8 = 9;

fn usd() -> Asset {
    Asset::CreditAlphanum4(AlphaNum4 {
        asset_code: AssetCode4(*b"USD\0"),
        issuer: id(ISSUER),
    })
}

fn pool() -> PoolId {
    PoolId(Hash([5; 32]))
}

fn balance() -> ClaimableBalanceId {
    ClaimableBalanceId::ClaimableBalanceIdTypeV0(Hash([6; 32]))
}

/// One operation with its result and what it changed.
type Case = (OperationBody, OperationResultTr, Vec<LedgerEntryChange>);

fn transaction(source: u8, cases: &[Case]) -> Transaction {
    let operations = cases.iter().map(|(body, ..)| Operation {
        source_account: None,
        body: body.clone(),
    });
    Transaction {
        source_account: to(source),
        operations: operations.collect::<Vec<_>>().try_into().unwrap(),
        ..Transaction::default()
    }
}

fn results(cases: &[Case]) -> VecM<OperationResult> {
    let results = cases
        .iter()
        .map(|(_, result, _)| OperationResult::OpInner(result.clone()));
    results.collect::<Vec<_>>().try_into().unwrap()
}

fn meta(cases: &[Case]) -> TransactionMetaV3 {
    let operations = cases.iter().map(|(.., changes)| OperationMeta {
        changes: LedgerEntryChanges(changes.clone().try_into().unwrap()),
    });
    TransactionMetaV3 {
        operations: operations.collect::<Vec<_>>().try_into().unwrap(),
        ..TransactionMetaV3::default()
    }
}

/// A ledger with one transaction.
fn ledger(envelope: TransactionEnvelope, result: TransactionResultResult, meta: TransactionMeta) -> LedgerCloseMeta {
    let hash = envelope.hash(Network::from_passphrase(NETWORK_PASSPHRASE).0).unwrap();
    let component = TxSetComponent::TxsetCompTxsMaybeDiscountedFee(TxSetComponentTxsMaybeDiscountedFee {
        base_fee: None,
        txs: vec![envelope].try_into().unwrap(),
    });
    let mut ledger = LedgerCloseMetaV1 {
        tx_set: GeneralizedTransactionSet::V1(TransactionSetV1 {
            previous_ledger_hash: Hash::default(),
            phases: vec![TransactionPhase::V0(vec![component].try_into().unwrap())]
                .try_into()
                .unwrap(),
        }),
        tx_processing: vec![TransactionResultMeta {
            result: TransactionResultPair {
                transaction_hash: Hash(hash),
                result: TransactionResult {
                    fee_charged: 100,
                    result,
                    ..TransactionResult::default()
                },
            },
            tx_apply_processing: meta,
            ..TransactionResultMeta::default()
        }]
        .try_into()
        .unwrap(),
        ..LedgerCloseMetaV1::default()
    };
    ledger.ledger_header.header.ledger_seq = 77;
    ledger.ledger_header.header.scp_value.close_time = TimePoint(1_700_000_000);
    LedgerCloseMeta::V1(ledger)
}

fn envelope(tx: Transaction) -> TransactionEnvelope {
    TransactionEnvelope::Tx(TransactionV1Envelope {
        tx,
        ..TransactionV1Envelope::default()
    })
}

fn extract(ledger: &LedgerCloseMeta) -> Result<Vec<TokenEvent>, ExtractError> {
    Extractor::for_known_networks()
        .extract(ledger)
        .map(|events| events.events)
}

/// The events of a successful transaction, without its fee.
fn events_of(source: u8, cases: &[Case]) -> Vec<TokenEvent> {
    let success = TransactionResultResult::TxSuccess(results(cases));
    let ledger = ledger(
        envelope(transaction(source, cases)),
        success,
        TransactionMeta::V3(meta(cases)),
    );
    let mut events = extract(&ledger).unwrap();
    let fee = events.remove(0);
    assert_eq!((fee.kind, fee.amount.0, fee.op_index), (Kind::Fee, 100, None));
    assert_eq!(fee.from, Some(id(source).to_string()));
    for event in &events {
        assert_eq!((event.ledger, event.tx_index), (77, 1));
        assert_eq!(event.closed_at.to_string(), "2023-11-14T22:13:20Z");
        assert!(event.op_index.is_some());
    }
    events
}

/// Events in short: kind, from, to, asset, amount.
fn short(events: &[TokenEvent]) -> Vec<String> {
    let name = |address: &Option<String>| match address.as_deref() {
        None => "-".to_owned(),
        Some(address) if address == id(SOURCE).to_string() => "source".to_owned(),
        Some(address) if address == id(OTHER).to_string() => "other".to_owned(),
        Some(address) if address == id(ISSUER).to_string() => "issuer".to_owned(),
        Some(address) if address == pool().to_string() => "pool".to_owned(),
        Some(address) if address == balance().to_string() => "balance".to_owned(),
        Some(address) => address.chars().take(1).collect(),
    };
    let usd = format!("USD:{}", id(ISSUER));
    let events = events.iter().map(|event| {
        let kind = serde_json::to_value(event.kind).unwrap();
        let asset = if event.asset == usd {
            "usd"
        } else {
            event.asset.get(..6).unwrap()
        };
        let (from, to) = (name(&event.from), name(&event.to));
        format!("{} {from} {to} {asset} {}", kind.as_str().unwrap(), event.amount)
    });
    events.collect()
}

fn pay(destination: MuxedAccount, asset: Asset, amount: i64) -> Case {
    let body = OperationBody::Payment(PaymentOp {
        destination,
        asset,
        amount,
    });
    (body, OperationResultTr::Payment(PaymentResult::Success), Vec::new())
}

#[test]
fn payments_to_and_from_the_issuer_are_burn_and_mint() {
    let cases = [
        pay(to(OTHER), Asset::Native, 5),
        pay(to(OTHER), usd(), 6),
        pay(to(ISSUER), usd(), 7),
    ];
    let events = events_of(SOURCE, &cases);
    assert_eq!(
        short(&events),
        [
            "transfer source other native 5",
            "transfer source other usd 6",
            "burn source - usd 7"
        ]
    );
    assert_eq!(
        events.iter().map(|event| event.op_index).collect::<Vec<_>>(),
        [Some(1), Some(2), Some(3)]
    );
    let cases = [pay(to(OTHER), usd(), 8), pay(to(ISSUER), usd(), 9)];
    assert_eq!(
        short(&events_of(ISSUER, &cases)),
        ["mint - other usd 8", "transfer issuer issuer usd 9"]
    );
}

#[test]
fn muxed_accounts_are_named_by_the_account_that_holds_the_tokens() {
    let events = events_of(SOURCE, &[pay(muxed(OTHER, u64::MAX), Asset::Native, 5)]);
    assert_eq!(short(&events), ["transfer source other native 5"]);
    assert_eq!(events[0].to_muxed_id.as_deref(), Some("18446744073709551615"));
    assert_eq!(events[0].from_muxed_id, None);
}

fn order_book(sold: (Asset, i64), bought: (Asset, i64)) -> ClaimAtom {
    ClaimAtom::OrderBook(ClaimOfferAtom {
        seller_id: id(OTHER),
        offer_id: 1,
        asset_sold: sold.0,
        amount_sold: sold.1,
        asset_bought: bought.0,
        amount_bought: bought.1,
    })
}

#[test]
fn path_payments_are_their_exchanges_and_then_a_payment() {
    let atoms = vec![
        order_book((usd(), 10), (Asset::Native, 40)),
        ClaimAtom::LiquidityPool(ClaimLiquidityAtom {
            liquidity_pool_id: pool(),
            asset_sold: Asset::Native,
            amount_sold: 3,
            asset_bought: usd(),
            amount_bought: 10,
        }),
    ];
    let wanted = [
        "transfer source other native 40",
        "transfer other source usd 10",
        "transfer source pool usd 10",
        "transfer pool source native 3",
        "transfer source other native 3",
    ];
    let receive = OperationBody::PathPaymentStrictReceive(PathPaymentStrictReceiveOp {
        send_asset: Asset::Native,
        send_max: 50,
        destination: to(OTHER),
        dest_asset: Asset::Native,
        dest_amount: 3,
        path: vec![usd()].try_into().unwrap(),
    });
    let received = PathPaymentStrictReceiveResult::Success(PathPaymentStrictReceiveResultSuccess {
        offers: atoms.clone().try_into().unwrap(),
        ..PathPaymentStrictReceiveResultSuccess::default()
    });
    let case = (
        receive,
        OperationResultTr::PathPaymentStrictReceive(received),
        Vec::new(),
    );
    assert_eq!(short(&events_of(SOURCE, &[case])), wanted);

    let send = OperationBody::PathPaymentStrictSend(PathPaymentStrictSendOp {
        send_asset: Asset::Native,
        send_amount: 40,
        destination: to(OTHER),
        dest_asset: Asset::Native,
        dest_min: 1,
        path: vec![usd()].try_into().unwrap(),
    });
    let sent = PathPaymentStrictSendResult::Success(PathPaymentStrictSendResultSuccess {
        offers: atoms.try_into().unwrap(),
        last: SimplePaymentResult {
            destination: id(OTHER),
            asset: Asset::Native,
            amount: 3,
        },
    });
    let case = (send, OperationResultTr::PathPaymentStrictSend(sent), Vec::new());
    assert_eq!(short(&events_of(SOURCE, &[case])), wanted);
}

#[test]
fn every_kind_of_offer_gives_its_exchanges() {
    let claimed = |atom: ClaimAtom| ManageOfferSuccessResult {
        offers_claimed: vec![atom].try_into().unwrap(),
        offer: ManageOfferSuccessResultOffer::Deleted,
    };
    // Until protocol 10 sellers were named by their bare key.
    let old = ClaimAtom::V0(ClaimOfferAtomV0 {
        seller_ed25519: Uint256([OTHER; 32]),
        offer_id: 1,
        asset_sold: usd(),
        amount_sold: 2,
        asset_bought: Asset::Native,
        amount_bought: 8,
    });
    let atom = order_book((usd(), 2), (Asset::Native, 8));
    let sold = |atom: &ClaimAtom| ManageSellOfferResult::Success(claimed(atom.clone()));
    let sell = OperationBody::ManageSellOffer(ManageSellOfferOp::default());
    let passive = OperationBody::CreatePassiveSellOffer(CreatePassiveSellOfferOp::default());
    let buy = OperationBody::ManageBuyOffer(ManageBuyOfferOp::default());
    let cases = [
        (sell, OperationResultTr::ManageSellOffer(sold(&old)), Vec::new()),
        (
            passive.clone(),
            OperationResultTr::CreatePassiveSellOffer(sold(&atom)),
            Vec::new(),
        ),
        // What stellar-core really writes for a passive offer in some versions.
        (passive, OperationResultTr::ManageSellOffer(sold(&atom)), Vec::new()),
        (
            buy,
            OperationResultTr::ManageBuyOffer(ManageBuyOfferResult::Success(claimed(atom))),
            Vec::new(),
        ),
    ];
    let one = ["transfer source other native 8", "transfer other source usd 2"];
    assert_eq!(short(&events_of(SOURCE, &cases)), one.repeat(4));
    // The issuer sells what it did not have before.
    assert_eq!(
        short(&events_of(ISSUER, &cases[..1])),
        ["transfer issuer other native 8", "burn other - usd 2"]
    );
}

#[test]
fn accounts_are_created_and_merged_with_their_balance() {
    let create = OperationBody::CreateAccount(CreateAccountOp {
        destination: id(OTHER),
        starting_balance: 11,
    });
    let cases = [
        (
            create,
            OperationResultTr::CreateAccount(CreateAccountResult::Success),
            Vec::new(),
        ),
        (
            OperationBody::AccountMerge(to(OTHER)),
            OperationResultTr::AccountMerge(AccountMergeResult::Success(12)),
            Vec::new(),
        ),
    ];
    assert_eq!(
        short(&events_of(SOURCE, &cases)),
        ["transfer source other native 11", "transfer source other native 12"]
    );
}

#[test]
fn inflation_mints_its_payouts() {
    let payouts = vec![InflationPayout {
        destination: id(OTHER),
        amount: 13,
    }];
    let result = OperationResultTr::Inflation(InflationResult::Success(payouts.try_into().unwrap()));
    let case = (OperationBody::Inflation, result, Vec::new());
    assert_eq!(short(&events_of(SOURCE, &[case])), ["mint - other native 13"]);
}

fn entry(data: LedgerEntryData) -> LedgerEntry {
    LedgerEntry {
        data,
        ..LedgerEntry::default()
    }
}

fn balance_entry(id: ClaimableBalanceId, asset: Asset, amount: i64) -> LedgerEntry {
    entry(LedgerEntryData::ClaimableBalance(ClaimableBalanceEntry {
        balance_id: id,
        asset,
        amount,
        ..ClaimableBalanceEntry::default()
    }))
}

#[test]
fn claimable_balances_hold_what_was_put_into_them() {
    let create = OperationBody::CreateClaimableBalance(CreateClaimableBalanceOp {
        asset: usd(),
        amount: 14,
        ..CreateClaimableBalanceOp::default()
    });
    let created = OperationResultTr::CreateClaimableBalance(CreateClaimableBalanceResult::Success(balance()));
    let claim = OperationBody::ClaimClaimableBalance(ClaimClaimableBalanceOp { balance_id: balance() });
    let claimed = OperationResultTr::ClaimClaimableBalance(ClaimClaimableBalanceResult::Success);
    let clawback = OperationBody::ClawbackClaimableBalance(ClawbackClaimableBalanceOp { balance_id: balance() });
    let clawed = OperationResultTr::ClawbackClaimableBalance(ClawbackClaimableBalanceResult::Success);
    let before = vec![LedgerEntryChange::State(balance_entry(balance(), usd(), 14))];
    let cases = [
        (create, created, Vec::new()),
        (claim.clone(), claimed.clone(), before.clone()),
        (clawback, clawed, before),
    ];
    assert_eq!(
        short(&events_of(SOURCE, &cases)),
        [
            "transfer source balance usd 14",
            "transfer balance source usd 14",
            "clawback balance - usd 14"
        ]
    );
    assert_eq!(
        short(&events_of(ISSUER, &cases[..2])),
        ["mint - balance usd 14", "burn balance - usd 14"]
    );
    // Without the entry nobody knows how much it was.
    let case = [(claim, claimed, Vec::new())];
    let success = TransactionResultResult::TxSuccess(results(&case));
    let ledger = ledger(
        envelope(transaction(SOURCE, &case)),
        success,
        TransactionMeta::V3(meta(&case)),
    );
    let error = extract(&ledger).unwrap_err();
    assert!(
        matches!(
            error,
            ExtractError::Transaction {
                ledger: 77,
                problem: Problem::Entry { operation: 1, .. },
                ..
            }
        ),
        "{error}"
    );
}

fn pool_entry(reserve_a: i64, reserve_b: i64) -> LedgerEntry {
    let params = LiquidityPoolConstantProductParameters {
        asset_a: Asset::Native,
        asset_b: usd(),
        fee: 30,
    };
    entry(LedgerEntryData::LiquidityPool(LiquidityPoolEntry {
        liquidity_pool_id: pool(),
        body: LiquidityPoolEntryBody::LiquidityPoolConstantProduct(LiquidityPoolEntryConstantProduct {
            params,
            reserve_a,
            reserve_b,
            ..LiquidityPoolEntryConstantProduct::default()
        }),
    }))
}

#[test]
fn pools_take_and_give_what_their_reserves_say() {
    let deposit = OperationBody::LiquidityPoolDeposit(LiquidityPoolDepositOp {
        liquidity_pool_id: pool(),
        ..LiquidityPoolDepositOp::default()
    });
    let withdraw = OperationBody::LiquidityPoolWithdraw(LiquidityPoolWithdrawOp {
        liquidity_pool_id: pool(),
        ..LiquidityPoolWithdrawOp::default()
    });
    let grown = vec![
        LedgerEntryChange::State(pool_entry(10, 20)),
        LedgerEntryChange::Updated(pool_entry(11, 22)),
    ];
    let shrunk = vec![
        LedgerEntryChange::State(pool_entry(11, 22)),
        LedgerEntryChange::Updated(pool_entry(8, 16)),
    ];
    let cases = [
        (
            deposit,
            OperationResultTr::LiquidityPoolDeposit(LiquidityPoolDepositResult::Success),
            grown,
        ),
        (
            withdraw,
            OperationResultTr::LiquidityPoolWithdraw(LiquidityPoolWithdrawResult::Success),
            shrunk,
        ),
    ];
    assert_eq!(
        short(&events_of(SOURCE, &cases)),
        [
            "transfer source pool native 1",
            "transfer source pool usd 2",
            "transfer pool source native 3",
            "transfer pool source usd 6",
        ]
    );
    assert_eq!(
        short(&events_of(ISSUER, &cases)),
        [
            "transfer issuer pool native 1",
            "mint - pool usd 2",
            "transfer pool issuer native 3",
            "burn pool - usd 6"
        ]
    );
}

#[test]
fn a_revoked_pool_share_becomes_claimable_balances() {
    let preimage = HashIdPreimage::PoolRevokeOpId(HashIdPreimageRevokeId {
        source_account: id(ISSUER),
        liquidity_pool_id: pool(),
        ..HashIdPreimageRevokeId::default()
    });
    let digest = <sha2::Sha256 as sha2::Digest>::digest(preimage.to_xdr(Limits::none()).unwrap());
    let made = ClaimableBalanceId::ClaimableBalanceIdTypeV0(Hash(digest.into()));
    let changes = vec![
        LedgerEntryChange::State(pool_entry(10, 20)),
        LedgerEntryChange::Removed(LedgerKey::LiquidityPool(LedgerKeyLiquidityPool {
            liquidity_pool_id: pool(),
        })),
        LedgerEntryChange::Created(balance_entry(made.clone(), Asset::Native, 10)),
    ];
    let flags = OperationBody::SetTrustLineFlags(SetTrustLineFlagsOp::default());
    let case = (
        flags,
        OperationResultTr::SetTrustLineFlags(SetTrustLineFlagsResult::Success),
        changes.clone(),
    );
    // The issuer held the share: its own asset gets no balance.
    let wanted = ["transfer pool B native 10", "burn pool - usd 20"];
    let events = events_of(ISSUER, &[case]);
    assert_eq!(short(&events), wanted);
    assert_eq!(events[0].to, Some(made.to_string()));
    let allow = OperationBody::AllowTrust(AllowTrustOp::default());
    let case = (allow, OperationResultTr::AllowTrust(AllowTrustResult::Success), changes);
    assert_eq!(short(&events_of(ISSUER, &[case])), wanted);
}

#[test]
fn clawbacks_name_who_lost_the_tokens() {
    let body = OperationBody::Clawback(ClawbackOp {
        asset: usd(),
        from: muxed(OTHER, 4),
        amount: 15,
    });
    let case = (body, OperationResultTr::Clawback(ClawbackResult::Success), Vec::new());
    let events = events_of(ISSUER, &[case]);
    assert_eq!(short(&events), ["clawback other - usd 15"]);
    assert_eq!(events[0].from_muxed_id.as_deref(), Some("4"));
}

// --- fees ---

#[test]
fn failed_transactions_pay_and_do_nothing_else() {
    let case = [pay(to(OTHER), Asset::Native, 5)];
    let failed = TransactionResultResult::TxFailed(results(&case));
    let ledger = ledger(
        envelope(transaction(SOURCE, &case)),
        failed,
        TransactionMeta::V3(TransactionMetaV3::default()),
    );
    assert_eq!(short(&extract(&ledger).unwrap()), ["fee source - native 100"]);
}

#[test]
fn a_fee_bump_is_paid_by_who_bumped() {
    let case = [pay(to(OTHER), Asset::Native, 5)];
    let inner = TransactionV1Envelope {
        tx: transaction(SOURCE, &case),
        ..TransactionV1Envelope::default()
    };
    let bump = TransactionEnvelope::TxFeeBump(FeeBumpTransactionEnvelope {
        tx: FeeBumpTransaction {
            fee_source: to(ISSUER),
            inner_tx: FeeBumpTransactionInnerTx::Tx(inner),
            ..FeeBumpTransaction::default()
        },
        ..FeeBumpTransactionEnvelope::default()
    });
    let result = TransactionResultResult::TxFeeBumpInnerSuccess(InnerTransactionResultPair {
        transaction_hash: Hash::default(),
        result: InnerTransactionResult {
            result: InnerTransactionResultResult::TxSuccess(results(&case)),
            ..InnerTransactionResult::default()
        },
    });
    let ledger = ledger(bump, result, TransactionMeta::V3(meta(&case)));
    assert_eq!(
        short(&extract(&ledger).unwrap()),
        ["fee issuer - native 100", "transfer source other native 5"]
    );
}

// --- contracts ---

fn symbol(name: &str) -> ScVal {
    ScVal::Symbol(ScSymbol(name.try_into().unwrap()))
}

fn address(name: u8) -> ScVal {
    ScVal::Address(ScAddress::Account(id(name)))
}

fn text(text: &str) -> ScVal {
    ScVal::String(ScString(text.try_into().unwrap()))
}

/// The events that a contract call gives when the contract reports this.
fn reported(contract: &ContractId, topics: Vec<ScVal>, data: ScVal) -> Vec<TokenEvent> {
    let body = OperationBody::InvokeHostFunction(InvokeHostFunctionOp::default());
    let result = OperationResultTr::InvokeHostFunction(InvokeHostFunctionResult::Success(Hash::default()));
    let cases = [(body, result, Vec::new())];
    let event = ContractEvent {
        contract_id: Some(contract.clone()),
        type_: ContractEventType::Contract,
        body: ContractEventBody::V0(ContractEventV0 {
            topics: topics.try_into().unwrap(),
            data,
        }),
        ..ContractEvent::default()
    };
    let mut meta = meta(&cases);
    meta.soroban_meta = Some(SorobanTransactionMeta {
        events: vec![event].try_into().unwrap(),
        ..SorobanTransactionMeta::default()
    });
    // 150 were taken, and 50 given back.
    let account = |balance| {
        entry(LedgerEntryData::Account(AccountEntry {
            account_id: id(SOURCE),
            balance,
            ..AccountEntry::default()
        }))
    };
    let changes = vec![
        LedgerEntryChange::State(account(10)),
        LedgerEntryChange::Updated(account(60)),
    ];
    meta.tx_changes_after = LedgerEntryChanges(changes.try_into().unwrap());
    let tx = Transaction {
        ext: TransactionExt::V1(SorobanTransactionData::default()),
        ..transaction(SOURCE, &cases)
    };
    let success = TransactionResultResult::TxSuccess(results(&cases));
    let mut events = extract(&ledger(envelope(tx), success, TransactionMeta::V3(meta))).unwrap();
    let (charge, refund) = (events.remove(0), events.pop().unwrap());
    assert_eq!(
        short(&[charge, refund]),
        ["fee source - native 150", "fee source - native -50"]
    );
    events
}

/// The contract reserved for `usd`, as the extraction names it for a payment.
fn usd_contract() -> ContractId {
    let events = events_of(SOURCE, &[pay(to(OTHER), usd(), 1)]);
    events[0].contract_id.parse().unwrap()
}

#[test]
fn asset_contracts_report_under_the_name_of_their_asset() {
    let (usd, contract) = (text(&format!("USD:{}", id(ISSUER))), usd_contract());
    let amount = || ScVal::from(16_i128);
    let of = |topics: Vec<ScVal>| short(&reported(&contract, topics, amount()));
    assert_eq!(
        of(vec![symbol("transfer"), address(SOURCE), address(OTHER), usd.clone()]),
        ["transfer source other usd 16"]
    );
    // Until protocol 22 the contract itself did not tell an issuer from others.
    assert_eq!(
        of(vec![symbol("transfer"), address(ISSUER), address(OTHER), usd.clone()]),
        ["mint - other usd 16"]
    );
    assert_eq!(
        of(vec![symbol("transfer"), address(OTHER), address(ISSUER), usd.clone()]),
        ["burn other - usd 16"]
    );
    assert_eq!(
        of(vec![symbol("mint"), address(ISSUER), address(OTHER), usd.clone()]),
        ["mint - other usd 16"]
    );
    assert_eq!(
        of(vec![symbol("mint"), address(OTHER), usd.clone()]),
        ["mint - other usd 16"]
    );
    assert_eq!(
        of(vec![symbol("clawback"), address(ISSUER), address(OTHER), usd.clone()]),
        ["clawback other - usd 16"]
    );
    assert_eq!(
        of(vec![symbol("clawback"), address(OTHER), usd.clone()]),
        ["clawback other - usd 16"]
    );
    assert_eq!(of(vec![symbol("burn"), address(OTHER), usd]), ["burn other - usd 16"]);
}

#[test]
fn receivers_numbers_are_kept_from_contracts_too() {
    let number = |value: ScVal| {
        let entries = [("amount", ScVal::from(17_i128)), ("to_muxed_id", value)];
        let entries = entries.map(|(key, val)| ScMapEntry { key: symbol(key), val });
        let data = ScVal::Map(Some(ScMap(entries.to_vec().try_into().unwrap())));
        let topics = vec![symbol("transfer"), address(SOURCE), address(OTHER), text("native")];
        let events = reported(&usd_contract(), topics, data);
        assert_eq!(events[0].amount.0, 17);
        events[0].to_muxed_id.clone()
    };
    assert_eq!(number(ScVal::U64(18)).as_deref(), Some("18"));
    assert_eq!(number(text("order 19")).as_deref(), Some("order 19"));
    assert_eq!(
        number(ScVal::Bytes(ScBytes(vec![1, 0xAB].try_into().unwrap()))).as_deref(),
        Some("01ab")
    );
}

#[test]
fn a_contract_cannot_pretend_to_be_an_asset() {
    let contract = ContractId(Hash([8; 32]));
    let topics = vec![
        symbol("transfer"),
        address(SOURCE),
        address(OTHER),
        text(&format!("USD:{}", id(ISSUER))),
    ];
    let events = reported(&contract, topics, ScVal::from(i128::MAX));
    assert_eq!(events[0].asset, contract.to_string());
    assert_eq!(events[0].amount.0, i128::MAX);
    assert_eq!(
        serde_json::to_value(&events[0]).unwrap()["amount"],
        i128::MAX.to_string()
    );
}

#[test]
fn other_contract_events_are_no_token_events() {
    let contract = ContractId(Hash([8; 32]));
    let amount = || ScVal::from(1_i128);
    for (topics, data) in [
        (vec![], amount()),
        (vec![symbol("transfer")], amount()),
        (vec![symbol("transfer"), address(SOURCE)], amount()),
        (vec![symbol("transfer"), address(SOURCE), ScVal::U32(1)], amount()),
        (vec![symbol("transfer"), address(SOURCE), address(OTHER)], ScVal::U32(1)),
        (vec![symbol("approve"), address(SOURCE), address(OTHER)], amount()),
        (vec![text("transfer"), address(SOURCE), address(OTHER)], amount()),
    ] {
        assert!(reported(&contract, topics, data).is_empty());
    }
}

// --- what cannot be read ---

#[test]
fn ledgers_of_unknown_networks_are_refused() {
    let case = [pay(to(OTHER), Asset::Native, 5)];
    let success = TransactionResultResult::TxSuccess(results(&case));
    let ledger = ledger(
        envelope(transaction(SOURCE, &case)),
        success,
        TransactionMeta::V3(meta(&case)),
    );
    let wrong = Extractor::for_passphrase("another network");
    assert!(matches!(
        wrong.extract(&ledger),
        Err(ExtractError::NoEnvelope { ledger: 77, .. })
    ));
    let right = Extractor::for_passphrase(NETWORK_PASSPHRASE);
    assert_eq!(right.extract(&ledger).unwrap().events.len(), 2);

    let LedgerCloseMeta::V1(mut strange) = ledger else {
        panic!("version 1 was made");
    };
    let mut processing = strange.tx_processing.to_vec();
    processing[0].result.transaction_hash = Hash([0; 32]);
    strange.tx_processing = processing.try_into().unwrap();
    let strange = LedgerCloseMeta::V1(strange);
    assert!(matches!(
        extract(&strange),
        Err(ExtractError::UnknownNetwork { ledger: 77 })
    ));
}

#[test]
fn results_that_do_not_fit_the_operations_are_refused() {
    let case = [pay(to(OTHER), Asset::Native, 5)];
    let problem = |result: TransactionResultResult, meta: TransactionMetaV3| {
        let ledger = ledger(envelope(transaction(SOURCE, &case)), result, TransactionMeta::V3(meta));
        match extract(&ledger) {
            Err(ExtractError::Transaction { problem, .. }) => problem,
            other => panic!("{other:?}"),
        }
    };
    let none = TransactionResultResult::TxSuccess(VecM::default());
    assert!(matches!(
        problem(none, meta(&case)),
        Problem::Counts {
            operations: 1,
            results: 0,
            changes: 1
        }
    ));
    let other = OperationResult::OpInner(OperationResultTr::Inflation(InflationResult::NotTime));
    let other = TransactionResultResult::TxSuccess(vec![other].try_into().unwrap());
    assert!(matches!(problem(other, meta(&case)), Problem::Result(1)));
}

#[test]
fn a_ledger_without_transactions_has_no_events() {
    let events = Extractor::for_known_networks()
        .extract(&LedgerCloseMeta::default())
        .unwrap();
    assert!(events.events.is_empty());
    let error = Extractor::for_known_networks()
        .extract_slice(b"{\"v9\": {}}")
        .unwrap_err();
    assert!(error.to_string().contains("LedgerCloseMeta"), "{error}");
}
