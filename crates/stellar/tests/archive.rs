//! Reading archives: what a user loses when a file is missing, doubled, damaged or misnamed, and
//! the layouts that ledger files come in.

#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails its test")]

use std::fs;
use std::path::{Path, PathBuf};

use flowctl_stellar::sample::{self, Options, Samples};
use flowctl_stellar::stellar_xdr::{
    LedgerCloseMeta, LedgerCloseMetaBatch, LedgerHeaderHistoryEntry, Limits, WriteXdr as _,
};
use flowctl_stellar::{Archive, ArchiveError, FileName, LedgerRange, sequence};
use tempfile::TempDir;

const OPTIONS: Options = Options {
    start: 10,
    ledgers: 12,
    transactions: 3,
    ledgers_per_file: 4,
    seed: 7,
};

/// Sample ledgers 10 to 21 in files 10–11, 12–15, 16–19 and 20–21.
fn archive() -> (TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    let files = sample::write(dir.path(), &OPTIONS).unwrap();
    assert_eq!(files.len(), 4);
    (dir, files)
}

fn metas(count: usize) -> Vec<LedgerCloseMeta> {
    let mut samples = Samples::new(&OPTIONS).unwrap();
    (0..count).map(|_| samples.close().unwrap()).collect()
}

fn pack(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, zstd::encode_all(content, 0).unwrap()).unwrap();
}

fn batch(metas: &[LedgerCloseMeta]) -> Vec<u8> {
    let batch = LedgerCloseMetaBatch {
        start_sequence: sequence(&metas[0]),
        end_sequence: sequence(&metas[metas.len() - 1]),
        ledger_close_metas: metas.to_vec().try_into().unwrap(),
    };
    batch.to_xdr(Limits::none()).unwrap()
}

/// As stellar-core's meta stream has it: each ledger behind its length.
fn framed(metas: &[LedgerCloseMeta]) -> Vec<u8> {
    let mut content = Vec::new();
    for meta in metas {
        let xdr = meta.to_xdr(Limits::none()).unwrap();
        content.extend((u32::try_from(xdr.len()).unwrap() | 1 << 31).to_be_bytes());
        content.extend(xdr);
    }
    content
}

/// Ledger numbers that were read, and the error that ended it.
fn read(dir: &Path, start: u32, end: Option<u32>) -> (Vec<u32>, Option<ArchiveError>) {
    let archive = match Archive::open(dir) {
        Ok(archive) => archive,
        Err(error) => return (Vec::new(), Some(error)),
    };
    let mut found = Vec::new();
    let mut ledgers = archive.ledgers(LedgerRange { start, end });
    for ledger in &mut ledgers {
        match ledger {
            Ok(ledger) => {
                assert_eq!(ledger.sequence, sequence(&ledger.meta));
                assert!((ledger.file.start..=ledger.file.end).contains(&ledger.sequence));
                found.push(ledger.sequence);
            }
            Err(error) => {
                assert!(ledgers.next().is_none(), "nothing comes after an error");
                return (found, Some(error));
            }
        }
    }
    (found, None)
}

fn numbers(start: u32, end: u32) -> Vec<u32> {
    (start..=end).collect()
}

#[test]
fn any_range_is_read_in_order() {
    let (dir, _) = archive();
    for (start, end) in [(10, 21), (11, 11), (13, 18), (16, 19), (21, 21)] {
        let (found, error) = read(dir.path(), start, Some(end));
        assert!(error.is_none(), "{error:?}");
        assert_eq!(found, numbers(start, end));
    }
}

#[test]
fn a_range_without_end_stops_after_the_last_ledger() {
    let (dir, _) = archive();
    let (found, error) = read(dir.path(), 18, None);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(found, numbers(18, 21));
    // A pipeline that has read everything and starts again is not at fault.
    let (found, error) = read(dir.path(), 22, None);
    assert!(error.is_none() && found.is_empty(), "{error:?}");
    let (_, error) = read(dir.path(), 23, None);
    assert!(
        matches!(
            error,
            Some(ArchiveError::Missing {
                first: 23,
                count: None,
                ..
            })
        ),
        "{error:?}"
    );
}

#[test]
fn missing_ledgers_are_named_with_their_neighbours() {
    let (dir, files) = archive();
    fs::remove_file(&files[1]).unwrap();
    let (found, error) = read(dir.path(), 10, Some(21));
    assert_eq!(found, [10, 11]);
    let Some(ArchiveError::Missing {
        first,
        count,
        before,
        after,
        ..
    }) = error
    else {
        panic!("{error:?}");
    };
    assert_eq!((first, count), (12, Some(4)));
    assert_eq!(before.as_deref(), files[0].file_name().unwrap().to_str());
    assert_eq!(after.as_deref(), files[2].file_name().unwrap().to_str());

    let (found, error) = read(dir.path(), 8, Some(11));
    assert!(found.is_empty());
    assert!(
        matches!(
            error,
            Some(ArchiveError::Missing {
                first: 8,
                count: Some(2),
                before: None,
                ..
            })
        ),
        "{error:?}"
    );
    let (found, error) = read(dir.path(), 20, Some(30));
    assert_eq!(found, [20, 21]);
    assert!(
        matches!(
            error,
            Some(ArchiveError::Missing {
                first: 22,
                count: Some(9),
                after: None,
                ..
            })
        ),
        "{error:?}"
    );
}

/// A copy tool's temporary file goes between listing and looking, a link's target may be gone for good.
#[test]
fn an_entry_that_is_gone_does_not_hide_the_others_and_its_ledgers_are_named() {
    let (dir, files) = archive();
    fs::write(dir.path().join("x.tmp"), b"half of something").unwrap();
    let link = |name: &str| std::os::unix::fs::symlink(dir.path().join("gone"), dir.path().join(name)).unwrap();
    link("y.tmp");
    link("folder");
    link("of-unknown-range.xdr.zst");
    let (found, error) = read(dir.path(), 10, None);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(found, numbers(10, 21));

    fs::remove_file(&files[1]).unwrap();
    std::os::unix::fs::symlink(dir.path().join("gone"), &files[1]).unwrap();
    let (found, error) = read(dir.path(), 10, None);
    assert_eq!(found, numbers(10, 11));
    assert!(
        matches!(
            error,
            Some(ArchiveError::Missing {
                first: 12,
                count: Some(4),
                ..
            })
        ),
        "{error:?}"
    );
}

#[test]
fn an_empty_folder_says_that_it_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("README.md"), "no ledgers").unwrap();
    let (_, error) = read(dir.path(), 5, None);
    let error = error.expect("an error").to_string();
    assert!(
        error.contains("ledger 5") && error.contains("no ledger files"),
        "{error}"
    );
    assert!(matches!(
        Archive::open(&dir.path().join("absent")),
        Err(ArchiveError::Io { .. })
    ));
}

#[test]
fn ranges_that_cannot_be_are_refused() {
    let (dir, _) = archive();
    for (start, end) in [(0, Some(3)), (12, Some(11))] {
        let (_, error) = read(dir.path(), start, end);
        assert!(matches!(error, Some(ArchiveError::Range { .. })), "{error:?}");
    }
}

#[test]
fn overlapping_files_give_each_ledger_once() {
    let (dir, _) = archive();
    let metas = metas(12);
    pack(&dir.path().join(FileName::write(11, 17)), &batch(&metas[1..8]));
    pack(&dir.path().join(FileName::write(13, 13)), &batch(&metas[3..4]));
    let (found, error) = read(dir.path(), 10, Some(21));
    assert!(error.is_none(), "{error:?}");
    assert_eq!(found, numbers(10, 21));
}

#[test]
fn partitions_suffixes_and_layouts_are_all_read() {
    let dir = tempfile::tempdir().unwrap();
    let metas = metas(12);
    let at = |name: &str| dir.path().join("FFFFFFFF--0-63999").join(name);
    pack(&at("FFFFFFF5--10.xdr.zstd"), &batch(&metas[..1]));
    pack(&at("FFFFFFF4--11.xdr.zst"), &metas[1].to_xdr(Limits::none()).unwrap());
    pack(&at(&FileName::write(12, 14)), &framed(&metas[2..5]));
    // Names that do not tell: one with a hole, which another file fills.
    pack(
        &dir.path().join("stream.xdr.zst"),
        &framed(&[&metas[5..7], &metas[9..12]].concat()),
    );
    pack(&dir.path().join("more/rest.xdr.zstd"), &batch(&metas[7..9]));
    fs::write(dir.path().join(".config.json"), "{}").unwrap();
    let (found, error) = read(dir.path(), 10, None);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(found, numbers(10, 21));
}

#[test]
fn a_hole_inside_a_file_is_a_gap_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let metas = metas(6);
    pack(
        &dir.path().join("stream.xdr.zst"),
        &framed(&[&metas[..2], &metas[4..]].concat()),
    );
    let ranges = Archive::open(dir.path()).unwrap().ranges();
    let ranges: Vec<_> = ranges.iter().map(|range| (range.start, range.end)).collect();
    assert_eq!(ranges, [(10, Some(11)), (14, Some(15))]);
    let (found, error) = read(dir.path(), 10, None);
    assert_eq!(found, [10, 11]);
    assert!(
        matches!(
            error,
            Some(ArchiveError::Missing {
                first: 12,
                count: Some(2),
                ..
            })
        ),
        "{error:?}"
    );
}

/// Reads one file under the name of ledger 10; gives the offset of the problem that must be there.
fn offset_of_problem(content: &[u8]) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    pack(&dir.path().join(FileName::write(10, 11)), content);
    let (_, error) = read(dir.path(), 10, None);
    match error {
        Some(ArchiveError::Content { path, offset, .. }) => {
            assert!(path.ends_with(FileName::write(10, 11)));
            offset
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn damage_is_reported_with_its_place() {
    let metas = metas(3);
    let whole = batch(&metas[..2]);
    assert_eq!(offset_of_problem(b""), 0);
    assert_eq!(offset_of_problem(b"this is no ledger at all"), 0);
    let cut = whole.len() - 100;
    assert!(offset_of_problem(&whole[..cut]) <= cut as u64);
    assert_eq!(
        offset_of_problem(&[whole.as_slice(), b"rest"].concat()),
        whole.len() as u64
    );
    // A count that is not the range's.
    let mut miscounted = whole.clone();
    miscounted[11] = 3;
    assert_eq!(offset_of_problem(&miscounted), 8);
    // A length mark that is not the ledger's: too short, and too long.
    for by in [-4_i64, 4] {
        let mut frames = framed(&metas[..2]);
        let len = u32::from_be_bytes(frames[..4].try_into().unwrap());
        let len = u32::try_from(i64::from(len) + by).unwrap();
        frames[..4].copy_from_slice(&len.to_be_bytes());
        let offset = offset_of_problem(&frames);
        assert!(offset <= u64::from(len & !(1 << 31)) + 4, "{offset}");
    }
}

#[test]
fn content_that_is_not_what_the_name_says_is_refused() {
    let metas = metas(4);
    // Another ledger, one too many, one too few, and one out of order.
    offset_of_problem(&batch(&metas[2..4]));
    offset_of_problem(&framed(&metas[..3]));
    offset_of_problem(&batch(&metas[..1]));
    offset_of_problem(&framed(&[metas[1].clone(), metas[0].clone()]));
}

#[test]
fn a_file_that_is_not_compressed_is_reported_by_name() {
    let (dir, files) = archive();
    fs::write(&files[2], b"plain text").unwrap();
    let (found, error) = read(dir.path(), 10, None);
    assert_eq!(found, numbers(10, 15));
    assert!(
        matches!(&error, Some(ArchiveError::Content { path, offset: 0, .. }) if *path == files[2]),
        "{error:?}"
    );
    // Half of a real file: cut while it was copied.
    let packed = fs::read(&files[3]).unwrap();
    fs::write(&files[2], &packed[..packed.len() / 2]).unwrap();
    let (_, error) = read(dir.path(), 16, Some(16));
    assert!(matches!(error, Some(ArchiveError::Content { .. })), "{error:?}");
}

#[test]
fn a_name_that_contradicts_itself_is_refused() {
    let (dir, files) = archive();
    let wrong = dir.path().join("FFFFFFFF--10-11.xdr.zst");
    fs::rename(&files[0], &wrong).unwrap();
    let error = Archive::open(dir.path()).unwrap_err();
    assert!(
        matches!(&error, ArchiveError::Name { path, .. } if *path == wrong),
        "{error}"
    );
}

/// A small file that unpacks to an endless ledger ends the reading, not the process.
#[test]
fn a_bomb_is_refused() {
    let header = LedgerHeaderHistoryEntry::default();
    let mut content = vec![0; 4];
    content.extend(header.to_xdr(Limits::none()).unwrap());
    content.extend([0; 32]);
    // So many transactions; zeros are transactions too.
    content.extend(u32::MAX.to_be_bytes());
    content.resize(100 << 20, 0);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FileName::write(10, 10));
    pack(&path, &content);
    assert!(fs::metadata(&path).unwrap().len() < 1 << 20);
    let (found, error) = read(dir.path(), 10, None);
    assert!(found.is_empty());
    let Some(ArchiveError::Content { problem, .. }) = error else {
        panic!("{error:?}");
    };
    assert!(problem.contains("more than"), "{problem}");
}
