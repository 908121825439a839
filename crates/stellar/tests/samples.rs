//! The samples are what they say they are: the same every time, and a chain whose headers vouch for
//! what is below them.

#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails its test")]

use std::fs;

use flowctl_stellar::sample::{self, Options, SampleError, Samples};
use flowctl_stellar::stellar_xdr::{Hash, LedgerCloseMeta, Limits, TransactionResultSet, WriteXdr};
use flowctl_stellar::{header, sequence};
use sha2::{Digest as _, Sha256};

fn hash(value: &impl WriteXdr) -> Hash {
    Hash(Sha256::digest(value.to_xdr(Limits::none()).unwrap()).into())
}

fn ledgers(options: &Options) -> Vec<LedgerCloseMeta> {
    let mut samples = Samples::new(options).unwrap();
    (0..options.ledgers).map(|_| samples.close().unwrap()).collect()
}

#[test]
fn the_same_options_give_the_same_files() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let options = Options::default();
    let files = sample::write(one.path(), &options).unwrap();
    assert_eq!(files.len(), 16);
    sample::write(other.path(), &options).unwrap();
    for file in files {
        let name = file.file_name().unwrap();
        assert_eq!(fs::read(&file).unwrap(), fs::read(other.path().join(name)).unwrap());
    }
    let manifest = fs::read_to_string(one.path().join(".config.json")).unwrap();
    assert!(manifest.contains("not a real one"), "{manifest}");
    assert_ne!(ledgers(&options), ledgers(&Options { seed: 2, ..options }));
}

#[test]
fn headers_are_a_chain_and_vouch_for_their_ledgers() {
    let ledgers = ledgers(&Options::default());
    for pair in ledgers.windows(2) {
        let (before, entry) = (header(&pair[0]), header(&pair[1]));
        assert_eq!(sequence(&pair[1]), sequence(&pair[0]) + 1);
        assert_eq!(entry.header.previous_ledger_hash, before.hash);
        assert_eq!(entry.header.total_coins, before.header.total_coins);
        assert!(entry.header.scp_value.close_time > before.header.scp_value.close_time);
    }
    for ledger in &ledgers {
        let entry = header(ledger);
        assert_eq!(entry.hash, hash(&entry.header));
        let old = |txs: &[flowctl_stellar::stellar_xdr::TransactionResultMeta]| {
            txs.iter().map(|tx| tx.result.clone()).collect::<Vec<_>>()
        };
        let (results, set_hash) = match ledger {
            LedgerCloseMeta::V0(v0) => {
                let mut hasher = Sha256::new_with_prefix(v0.tx_set.previous_ledger_hash.0);
                for tx in v0.tx_set.txs.iter() {
                    hasher.update(tx.to_xdr(Limits::none()).unwrap());
                }
                (old(&v0.tx_processing), Hash(hasher.finalize().into()))
            }
            LedgerCloseMeta::V1(v1) => (old(&v1.tx_processing), hash(&v1.tx_set)),
            LedgerCloseMeta::V2(v2) => {
                let results = v2.tx_processing.iter().map(|tx| tx.result.clone());
                (results.collect(), hash(&v2.tx_set))
            }
        };
        assert_eq!(results.len(), 8);
        let results = results.try_into().unwrap();
        assert_eq!(entry.header.tx_set_result_hash, hash(&TransactionResultSet { results }));
        assert_eq!(entry.header.scp_value.tx_set_hash, set_hash);
    }
}

#[test]
fn long_chains_and_odd_options_hold() {
    let options = Options {
        start: 2,
        ledgers: 2_000,
        transactions: 31,
        ledgers_per_file: 7,
        seed: 99,
    };
    assert_eq!(ledgers(&options).len(), 2_000);
    for bad in [
        Options { start: 1, ..options },
        Options { ledgers: 0, ..options },
        Options {
            start: u32::MAX,
            ..options
        },
        Options {
            transactions: 1_001,
            ..options
        },
        Options {
            ledgers_per_file: 0,
            ..options
        },
    ] {
        assert!(matches!(Samples::new(&bad), Err(SampleError::Options(_))), "{bad:?}");
    }
}
