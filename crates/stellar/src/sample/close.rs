//! Closing sample ledgers: charge all fees, apply the transactions, give back what contracts did
//! not use, and put everything under a header that follows the one before.

use stellar_xdr::{
    AccountId, Asset, ExtensionPoint, Hash, LedgerCloseMeta, LedgerCloseMetaV0, LedgerCloseMetaV1, LedgerCloseMetaV2,
    LedgerEntryChanges, LedgerEntryData, LedgerHeader, LedgerHeaderHistoryEntry, LedgerUpgrade, Limits, StellarValue,
    TimePoint, TransactionEnvelope, TransactionResult, TransactionResultMetaV1, TransactionResultPair,
    TransactionResultSet, TransactionSet, UpgradeEntryMeta, UpgradeType, WriteXdr,
};

use super::actions::{Action, Done, Memory, ROUND, Rng, Scene, UNIT, USERS};
use super::assemble::{envelope, generalized, meta, old_results, outcome};
use super::exchange;
use super::state::{State, account, digest, gold, hash, line_asset, usd};
use super::{NETWORK_PASSPHRASE, Options, SampleError, contracts};

/// What an operation costs, in stroops.
pub(super) const BASE_FEE: u32 = 100;
/// What a contract call may use, and what it leaves over.
pub(super) const RESOURCE_FEE: u32 = 50_000;
const REFUND: i64 = 20_000;

/// What the vault has before the first ledger, in stroops of XLM.
const VAULT: i64 = 1_000 * UNIT;

/// 2024-01-01 00:00:00 UTC; a ledger closes every five seconds from there.
const FIRST_CLOSE: u64 = 1_704_067_200;

/// Protocol versions of the three parts of a chain, each the last one of its meta version or a
/// typical one.
pub(super) const PROTOCOLS: [u32; 3] = [19, 22, 23];

/// The sample network between two ledgers.
pub(super) struct Chain {
    state: State,
    rng: Rng,
    memory: Memory,
    options: Options,
    /// Of the ledger closed last.
    header: LedgerHeader,
    /// How many actions there were.
    played: usize,
}

/// A transaction that is in the set, but not applied yet.
pub(super) struct Planned {
    pub(super) action: Action,
    pub(super) source: AccountId,
    pub(super) payer: AccountId,
    pub(super) fee: i64,
    pub(super) charge: LedgerEntryChanges,
}

/// A transaction that was applied.
pub(super) struct Played {
    pub(super) planned: Planned,
    pub(super) envelope: TransactionEnvelope,
    pub(super) result: TransactionResultPair,
    pub(super) before: LedgerEntryChanges,
    pub(super) done: Done,
    /// What was given back right after it (until protocol 22).
    pub(super) after: LedgerEntryChanges,
    /// What was given back after all (from protocol 23 on).
    pub(super) post: LedgerEntryChanges,
}

// === impl Chain ===

impl Chain {
    pub(super) fn new(options: &Options) -> Result<Self, SampleError> {
        let mut state = State::default();
        state.ledger = options.start - 1;
        let fee_pool = 1_000 * UNIT;
        let reserves = [4_000_000 * UNIT, 1_000_000 * UNIT];
        genesis(&mut state, reserves)?;
        state.changes()?;
        let header = LedgerHeader {
            ledger_version: PROTOCOLS[0],
            ledger_seq: options.start - 1,
            total_coins: state.account_balances() + reserves[0] + VAULT + fee_pool,
            fee_pool,
            base_fee: BASE_FEE,
            base_reserve: 5_000_000,
            max_tx_set_size: 1_000,
            id_pool: 2,
            ..LedgerHeader::default()
        };
        Ok(Self {
            state,
            rng: Rng(options.seed),
            memory: Memory::default(),
            options: *options,
            header,
            played: 0,
        })
    }

    /// Closes the next ledger.
    pub(super) fn close(&mut self) -> Result<LedgerCloseMeta, SampleError> {
        let ledger = self.header.ledger_seq.checked_add(1);
        let ledger = ledger.ok_or(SampleError::Options("ledger numbers have 32 bits"))?;
        self.state.ledger = ledger;
        let protocol = self.protocol(ledger);

        let planned = (0..self.options.transactions).map(|_| self.plan(protocol));
        let planned = planned.collect::<Result<Vec<_>, _>>()?;
        let played = planned.into_iter().map(|planned| self.play(planned, protocol));
        let mut played = played.collect::<Result<Vec<_>, _>>()?;
        if protocol >= PROTOCOLS[2] {
            for tx in played.iter_mut().filter(|tx| tx.planned.action.is_contract()) {
                self.state.credit(&tx.planned.payer, &Asset::Native, REFUND)?;
                tx.post = self.state.changes()?;
            }
        }
        self.seal(ledger, protocol, played)
    }

    fn protocol(&self, ledger: u32) -> u32 {
        let third = (ledger - self.options.start) / self.options.ledgers.div_ceil(3);
        match third {
            0 => PROTOCOLS[0],
            1 => PROTOCOLS[1],
            _ => PROTOCOLS[2],
        }
    }

    /// Chooses the next transaction and charges its fee.
    fn plan(&mut self, protocol: u32) -> Result<Planned, SampleError> {
        let action = ROUND[self.played % ROUND.len()];
        self.played += 1;
        // There were no contracts yet.
        let action = if action.is_contract() && protocol < PROTOCOLS[1] {
            Action::Pay
        } else {
            action
        };
        let source = action.source(&mut self.rng);
        let (payer, fee) = match action {
            Action::FeeBump => (account("bank"), BASE_FEE * 2),
            action if action.is_contract() => (source.clone(), BASE_FEE + RESOURCE_FEE),
            action => (source.clone(), BASE_FEE * action.operations()),
        };
        let fee = i64::from(fee);
        self.state.credit(&payer, &Asset::Native, -fee)?;
        Ok(Planned {
            action,
            source,
            payer,
            fee,
            charge: self.state.changes()?,
        })
    }

    fn play(&mut self, planned: Planned, protocol: u32) -> Result<Played, SampleError> {
        let mut entry = self.state.account_entry(&planned.source)?;
        entry.seq_num.0 += 1;
        let sequence = entry.seq_num.clone();
        self.state.put(LedgerEntryData::Account(entry));
        let before = self.state.changes()?;

        let mut scene = Scene {
            state: &mut self.state,
            rng: &mut self.rng,
            memory: &mut self.memory,
            protocol,
            source: planned.source.clone(),
            sequence: sequence.clone(),
            done: Done::default(),
        };
        scene.play(planned.action)?;
        let done = scene.done;

        let mut after = LedgerEntryChanges::default();
        let mut charged = planned.fee;
        if planned.action.is_contract() {
            charged -= REFUND;
            if protocol < PROTOCOLS[2] {
                self.state.credit(&planned.payer, &Asset::Native, REFUND)?;
                after = self.state.changes()?;
            }
        }
        let envelope = envelope(&planned, sequence, &done, protocol)?;
        let result = TransactionResultPair {
            transaction_hash: Hash(envelope.hash(network_id().0)?),
            result: TransactionResult {
                fee_charged: charged,
                result: outcome(&envelope, &done)?,
                ..TransactionResult::default()
            },
        };
        Ok(Played {
            planned,
            envelope,
            result,
            before,
            done,
            after,
            post: LedgerEntryChanges::default(),
        })
    }

    /// Puts the transactions into a ledger, under its header.
    fn seal(&mut self, ledger: u32, protocol: u32, played: Vec<Played>) -> Result<LedgerCloseMeta, SampleError> {
        let previous = hash(&self.header)?;
        let results = played.iter().map(|tx| tx.result.clone()).collect::<Vec<_>>();
        let fees: i64 = results.iter().map(|result| result.result.fee_charged).sum();
        let next_protocol = self.protocol(ledger.saturating_add(1));
        let upgrades = (next_protocol != protocol).then_some(LedgerUpgrade::Version(next_protocol));
        let packed = upgrades
            .iter()
            .map(|upgrade| Ok(UpgradeType(upgrade.to_xdr(Limits::none())?.try_into()?)));
        let packed = packed.collect::<Result<Vec<_>, SampleError>>()?;
        let upgraded = upgrades.into_iter().map(|upgrade| UpgradeEntryMeta {
            upgrade,
            changes: LedgerEntryChanges::default(),
        });
        let upgrades_processing = upgraded.collect::<Vec<_>>().try_into()?;

        let mut header = LedgerHeader {
            ledger_version: next_protocol,
            previous_ledger_hash: previous.clone(),
            scp_value: StellarValue {
                close_time: TimePoint(FIRST_CLOSE + 5 * u64::from(ledger - self.options.start)),
                upgrades: packed.try_into()?,
                ..StellarValue::default()
            },
            tx_set_result_hash: hash(&TransactionResultSet {
                results: results.try_into()?,
            })?,
            ledger_seq: ledger,
            fee_pool: self.header.fee_pool + fees,
            ..self.header.clone()
        };
        let mut envelopes = played.iter().collect::<Vec<_>>();
        envelopes.sort_by(|a, b| a.result.transaction_hash.cmp(&b.result.transaction_hash));

        if protocol == PROTOCOLS[0] {
            let txs = envelopes.iter().map(|tx| tx.envelope.clone()).collect::<Vec<_>>();
            let mut contents = previous.0.to_vec();
            for tx in &txs {
                contents.extend(tx.to_xdr(Limits::none())?);
            }
            header.scp_value.tx_set_hash = digest(contents);
            return Ok(LedgerCloseMeta::V0(LedgerCloseMetaV0 {
                ledger_header: self.follow(header)?,
                tx_set: TransactionSet {
                    previous_ledger_hash: previous,
                    txs: txs.try_into()?,
                },
                tx_processing: old_results(played, protocol)?.try_into()?,
                upgrades_processing,
                ..LedgerCloseMetaV0::default()
            }));
        }
        let tx_set = generalized(previous, &envelopes, protocol)?;
        header.scp_value.tx_set_hash = hash(&tx_set)?;
        let ledger_header = self.follow(header)?;
        if protocol == PROTOCOLS[1] {
            return Ok(LedgerCloseMeta::V1(LedgerCloseMetaV1 {
                ledger_header,
                tx_set,
                tx_processing: old_results(played, protocol)?.try_into()?,
                upgrades_processing,
                ..LedgerCloseMetaV1::default()
            }));
        }
        let processing = played.into_iter().map(|mut tx| {
            Ok(TransactionResultMetaV1 {
                ext: ExtensionPoint::V0,
                result: tx.result.clone(),
                fee_processing: std::mem::take(&mut tx.planned.charge),
                post_tx_apply_fee_processing: std::mem::take(&mut tx.post),
                tx_apply_processing: meta(tx, protocol)?,
            })
        });
        let processing = processing.collect::<Result<Vec<_>, SampleError>>()?;
        Ok(LedgerCloseMeta::V2(LedgerCloseMetaV2 {
            ledger_header,
            tx_set,
            tx_processing: processing.try_into()?,
            upgrades_processing,
            ..LedgerCloseMetaV2::default()
        }))
    }

    /// Makes this header the last one.
    fn follow(&mut self, header: LedgerHeader) -> Result<LedgerHeaderHistoryEntry, SampleError> {
        self.header = header.clone();
        Ok(LedgerHeaderHistoryEntry {
            hash: hash(&header)?,
            header,
            ..LedgerHeaderHistoryEntry::default()
        })
    }
}

pub(super) fn network_id() -> Hash {
    digest(NETWORK_PASSPHRASE)
}

/// Who is there before the first ledger, and with what.
fn genesis(state: &mut State, reserves: [i64; 2]) -> Result<(), SampleError> {
    let million = 1_000_000 * UNIT;
    state.new_account(&account("bank"), 10_000 * million);
    state.new_account(&account("issuer"), million);
    let users = (0..USERS).map(|number| account(&format!("user {number}")));
    for id in users.chain([account("guest")]) {
        state.new_account(&id, 1_000 * million);
        for asset in [usd(), gold()] {
            state.new_line(&id, line_asset(&asset), 1_000 * million);
        }
    }
    let maker = exchange::maker();
    state.new_account(&maker, 10_000 * million);
    for asset in [usd(), gold()] {
        state.new_line(&maker, line_asset(&asset), 10_000 * million);
    }
    for id in [exchange::USD_FOR_XLM, exchange::GOLD_FOR_USD] {
        state.put(LedgerEntryData::Offer(exchange::offer(id)));
    }
    exchange::open_pool(state, reserves, 2_000_000 * UNIT)?;
    let native = contracts::asset_contract(&Asset::Native)?;
    contracts::credit(state, &native, &contracts::vault(), VAULT.into())?;
    let all_points = i128::from(i64::MAX) << 50;
    contracts::credit(state, &contracts::points(), &contracts::treasury(), all_points)
}
