//! Events against facts that the extraction did not make: the ledger headers' fee pool, and every
//! balance in the ledgers' entries. Over real ledgers where the machine has them, and over the
//! samples always.

mod balances;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use balances::{Balances, Holding};
use flowctl_stellar::stellar_xdr::{
    LedgerCloseMeta, Limits, TransactionResultMeta, TransactionResultSet, WriteXdr as _,
};
use flowctl_stellar::{Archive, ArchiveError, Ledger, LedgerRange, header, json, sample};
use sha2::{Digest as _, Sha256};
use ttp_processor::{Extractor, Kind, LedgerEvents};

/// A set of real ledgers; `None`, and a line that says so, where the machine does not have them.
fn real(set: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/real-ledgers");
    let dir = root.join(set);
    if dir.is_dir() {
        return Some(dir);
    }
    println!("skipped: no real ledgers in {}", dir.display());
    None
}

fn read(dir: &Path, start: u32, end: Option<u32>) -> Vec<Ledger> {
    let archive = Archive::open(dir).expect("archive opens");
    let ledgers: Result<Vec<_>, _> = archive.ledgers(LedgerRange { start, end }).collect();
    ledgers.expect("ledgers are read")
}

/// Everything that an archive has, one list for each stretch without a gap.
fn whole(dir: &Path) -> Vec<Vec<Ledger>> {
    let ranges = Archive::open(dir).expect("archive opens").ranges();
    ranges
        .into_iter()
        .map(|range| {
            let ledgers = read(dir, range.start, range.end);
            let found = ledgers.iter().map(|ledger| ledger.sequence);
            assert!(found.eq(range.start..=range.end.expect("an archive ends")));
            ledgers
        })
        .collect()
}

fn extract(ledger: &Ledger) -> LedgerEvents {
    let events = Extractor::for_known_networks().extract(&ledger.meta);
    events.unwrap_or_else(|error| panic!("ledger {}: {error}", ledger.sequence))
}

/// Whether the header vouches for the meta's results: their hash is in it. (The load-test set joins
/// transactions of one run with headers of another, so its fee pools are somebody else's.)
fn vouched(ledger: &Ledger) -> bool {
    let old = |txs: &[TransactionResultMeta]| txs.iter().map(|tx| tx.result.clone()).collect();
    let results: Vec<_> = match &ledger.meta {
        LedgerCloseMeta::V0(v0) => old(&v0.tx_processing),
        LedgerCloseMeta::V1(v1) => old(&v1.tx_processing),
        LedgerCloseMeta::V2(v2) => v2.tx_processing.iter().map(|tx| tx.result.clone()).collect(),
    };
    let set = TransactionResultSet {
        results: results.try_into().expect("as many as before"),
    };
    let hash: [u8; 32] = Sha256::digest(set.to_xdr(Limits::none()).expect("encodes")).into();
    header(&ledger.meta).header.tx_set_result_hash.0 == hash
}

/// The fees of each ledger are what its header's fee pool grew by.
fn assert_fee_pools(ledgers: &[Ledger]) {
    for pair in ledgers.windows(2) {
        let [before, ledger] = pair else {
            unreachable!("windows of two");
        };
        assert_eq!(before.sequence + 1, ledger.sequence);
        assert!(
            vouched(ledger),
            "ledger {} has other results than its header",
            ledger.sequence
        );
        let fee_pool = |ledger: &Ledger| i128::from(header(&ledger.meta).header.fee_pool);
        let events = extract(ledger);
        let fees = events.events.iter().filter(|event| event.kind == Kind::Fee);
        let sum: i128 = fees.map(|event| event.amount.0).sum();
        assert_eq!(
            sum,
            fee_pool(ledger) - fee_pool(before),
            "fees of ledger {}",
            ledger.sequence
        );
    }
}

/// What came in minus what went out is what every balance changed by: accounts, trust lines,
/// claimable balances, liquidity pools, and contracts' balances of Stellar assets.
fn assert_balances(ledger: &Ledger) {
    let events = extract(ledger);
    let mut moved: BTreeMap<Holding, i128> = BTreeMap::new();
    let mut asset_contracts = BTreeSet::new();
    for event in &events.events {
        // Only the contract itself knows how a token that is no Stellar asset keeps its balances.
        if event.asset == event.contract_id {
            continue;
        }
        asset_contracts.insert(event.contract_id.clone());
        let mut add = |holder: &Option<String>, amount: i128| {
            if let Some(holder) = holder {
                let asset = if holder.starts_with('C') {
                    &event.contract_id
                } else {
                    &event.asset
                };
                *moved.entry((holder.clone(), asset.clone())).or_default() += amount;
            }
        };
        add(&event.from, -event.amount.0);
        add(&event.to, event.amount.0);
    }
    moved.retain(|_, amount| *amount != 0);
    let mut changed = Balances::of(&ledger.meta).changes();
    changed.retain(|(holder, asset), _| !holder.starts_with('C') || asset_contracts.contains(asset));
    let missing: Vec<_> = changed
        .iter()
        .filter(|(holding, amount)| moved.get(*holding) != Some(*amount))
        .collect();
    let wrong: Vec<_> = moved
        .iter()
        .filter(|(holding, amount)| changed.get(*holding) != Some(*amount))
        .collect();
    assert!(
        missing.is_empty() && wrong.is_empty(),
        "ledger {}: the entries say {missing:#?}, the events {wrong:#?}",
        ledger.sequence
    );
}

fn summary(set: &str, ledgers: &[Ledger]) {
    let mut kinds: BTreeMap<Kind, usize> = BTreeMap::new();
    for ledger in ledgers {
        for event in extract(ledger).events {
            *kinds.entry(event.kind).or_default() += 1;
        }
    }
    let numbers: Vec<_> = ledgers.iter().map(|ledger| ledger.sequence).collect();
    println!("{set}: ledgers {numbers:?}, {kinds:?}");
}

#[test]
fn real_fees_are_what_the_fee_pool_grew_by() {
    let Some(dir) = real("pubnet-v13-reassembled") else {
        return;
    };
    let ledgers = read(&dir, 30_822_015, Some(30_822_025));
    assert_eq!(ledgers.len(), 11);
    assert_fee_pools(&ledgers);
}

#[test]
fn real_balances_change_by_what_was_moved() {
    let Some(dir) = real("pubnet-v13-reassembled") else {
        return;
    };
    let mut ledgers = read(&dir, 30_820_015, Some(30_820_015));
    ledgers.extend(read(&dir, 30_822_015, Some(30_822_025)));
    assert_eq!(ledgers.len(), 12);
    ledgers.iter().for_each(assert_balances);
    summary("pubnet-v13-reassembled", &ledgers);
}

#[test]
fn real_protocol_21_ledger_decodes_and_balances() {
    let Some(dir) = real("pubnet-galexie-sample") else {
        return;
    };
    let ledgers = whole(&dir).concat();
    assert_eq!(ledgers.len(), 1);
    ledgers.iter().for_each(assert_balances);
    summary("pubnet-galexie-sample", &ledgers);
}

#[test]
fn real_protocol_23_ledgers_decode_and_balance() {
    let Some(dir) = real("standalone-v23-loadtest") else {
        return;
    };
    let ledgers = whole(&dir).concat();
    assert_eq!(ledgers.len(), 3);
    ledgers.iter().for_each(assert_balances);
    let unvouched = ledgers.iter().filter(|ledger| !vouched(ledger)).count();
    println!("fee pools not compared: {unvouched} headers do not vouch for their results");
    summary("standalone-v23-loadtest", &ledgers);
}

#[test]
fn a_gap_is_named_not_skipped() {
    let Some(dir) = real("pubnet-v13-reassembled") else {
        return;
    };
    let archive = Archive::open(&dir).expect("archive opens");
    let range = LedgerRange {
        start: 30_820_015,
        end: Some(30_822_015),
    };
    let mut ledgers = archive.ledgers(range);
    assert_eq!(ledgers.next().unwrap().unwrap().sequence, 30_820_015);
    let error = ledgers.next().unwrap().unwrap_err();
    assert!(
        matches!(
            error,
            ArchiveError::Missing {
                first: 30_820_016,
                count: Some(1_999),
                ..
            }
        ),
        "{error}"
    );
    assert!(ledgers.next().is_none(), "nothing comes after the gap");
}

/// The samples, as a reader of their folder sees them.
fn samples() -> Vec<Ledger> {
    let dir = tempfile::tempdir().expect("temporary folder");
    let options = sample::Options::default();
    sample::write(dir.path(), &options).expect("samples are written");
    let ledgers = whole(dir.path()).concat();
    assert_eq!(ledgers.len(), options.ledgers as usize);
    ledgers
}

#[test]
fn sample_fees_and_balances_agree_with_the_events() {
    let ledgers = samples();
    ledgers.iter().for_each(assert_balances);
    assert_fee_pools(&ledgers);
    summary("samples", &ledgers);
}

/// A demo on the samples shows every kind of event, in every version of the meta.
#[test]
fn samples_have_every_kind_in_every_meta_version() {
    let mut seen = BTreeMap::<u8, BTreeSet<Kind>>::new();
    for ledger in samples() {
        let version = match &ledger.meta {
            LedgerCloseMeta::V0(_) => 0,
            LedgerCloseMeta::V1(_) => 1,
            LedgerCloseMeta::V2(_) => 2,
        };
        let kinds = extract(&ledger).events.into_iter().map(|event| event.kind);
        seen.entry(version).or_default().extend(kinds);
    }
    let all = BTreeSet::from([Kind::Transfer, Kind::Mint, Kind::Burn, Kind::Clawback, Kind::Fee]);
    let wanted = BTreeMap::from([(0, all.clone()), (1, all.clone()), (2, all)]);
    assert_eq!(seen, wanted);
}

/// What a processor gets over the wire is JSON: nothing may be lost on the way.
#[test]
fn events_are_the_same_through_json() {
    let mut ledgers = samples();
    for set in ["pubnet-galexie-sample", "standalone-v23-loadtest"] {
        ledgers.extend(real(set).map(|dir| whole(&dir).concat()).unwrap_or_default());
    }
    let extractor = Extractor::for_known_networks();
    for ledger in &ledgers {
        let text = json::to_vec(&ledger.meta).expect("ledger becomes json");
        let value = serde_json::from_slice(&text).expect("it is json");
        assert_eq!(json::to_json(&ledger.meta).expect("ledger becomes json"), value);
        let direct = extract(ledger);
        assert_eq!(extractor.extract_slice(&text).expect("events from text"), direct);
        assert_eq!(extractor.extract_json(&value).expect("events from value"), direct);
        let events = serde_json::to_string(&direct).expect("events become json");
        let back: LedgerEvents = serde_json::from_str(&events).expect("events are read back");
        assert_eq!(back, direct);
    }
}
