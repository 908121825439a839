//! Tests of the file: what a crash, a full disk, a second server or a wrong file does. Crashes happen to a child process, which
//! is this program again with the name of one ignored test.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flowctl_proto::flowctl::CreatePipelineRunRequest;
use flowctl_proto::flowctl::v1::HealthStatus;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use redb::{Database, TableDefinition};

use super::*;
use crate::registry::{Beat, Caller, Liveness, Options, Registration, Registry};

const CHILD_FILE: &str = "FLOWCTL_TEST_STORE";

fn open(path: &Path) -> Result<Arc<Registry>, StoreError> {
    Registry::open(Options {
        storage: Storage::File(path.to_owned()),
        ..Options::default()
    })
}

async fn register(registry: &Registry, id: &str) -> bool {
    registry.register(Registration::of(id), Caller::default()).await.is_ok()
}

fn beat(service_id: &str, status: HealthStatus) -> Beat<'_> {
    Beat {
        service_id,
        status,
        metrics: &[],
    }
}

/// This program, running one test that is ignored otherwise.
fn start_child(test: &str, file: &Path) -> (Child, impl Iterator<Item = String>) {
    let child = Command::new("sh")
        // A process that meets its limit of file sizes is to see an error, not a signal.
        .args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(CHILD_FILE, file)
        .stdout(Stdio::piped())
        .spawn();
    let mut child = child.unwrap();
    let stdout: ChildStdout = child.stdout.take().unwrap();
    let lines = BufReader::new(stdout).lines().map_while(Result::ok);
    // The test runner prints its own lines, and the name of the test without an end of line.
    let told = lines.filter_map(|line| Some(line.split_once("told: ")?.1.to_owned()));
    (child, told)
}

fn child_file() -> std::path::PathBuf {
    std::env::var_os(CHILD_FILE)
        .expect("only the tests below start this")
        .into()
}

// What a client was promised must be there after the power failed: it will not register again.
#[tokio::test]
async fn nothing_that_was_answered_is_lost_to_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    let mut promised = Vec::new();
    for round in [1, 37, 110] {
        let (mut child, told) = start_child("store::tests::child_that_registers_for_ever", &path);
        promised.extend(told.take(round));
        child.kill().unwrap();
        child.wait().unwrap();

        let registry = open(&path).unwrap();
        for id in &promised {
            assert_eq!(
                registry.get(id).unwrap().liveness,
                Liveness::Restored,
                "{id} of {}",
                promised.len()
            );
            assert!(registry.run(id).is_ok());
            assert_eq!(registry.kept_alerts()[id], b"alert");
        }
        registry.close().await.unwrap();
    }
}

#[tokio::test]
#[ignore = "the child of the test above"]
async fn child_that_registers_for_ever() {
    let registry = open(&child_file()).unwrap();
    for number in 0_u64.. {
        let id = format!("{}-{number}", std::process::id());
        let run = CreatePipelineRunRequest {
            run_id: id.clone(),
            pipeline_name: "pay".to_owned(),
            ..Default::default()
        };
        let (registered, run, alert) = tokio::join!(
            register(&registry, &id),
            registry.create_run(run),
            registry.keep_alert(&id, b"alert".to_vec())
        );
        assert!(registered && run.is_ok() && alert.is_ok());
        registry
            .heartbeat(&beat(&id, HealthStatus::Healthy), Caller::default())
            .unwrap();
        println!("told: {id}");
    }
}

// A disk that was full for a minute must not need somebody who restarts the server, and a client must hear of it.
#[test]
fn a_disk_that_was_full_is_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    let (mut child, told) = start_child("store::tests::child_whose_disk_is_full", &path);
    let told: Vec<_> = told.collect();
    assert!(child.wait().unwrap().success());
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains(path.to_str().unwrap()), "{told:?}");
    assert_eq!(told[1], "written");
    let after = open(&path).unwrap();
    assert!(after.get("after").is_ok());
    assert_eq!(after.get("0").unwrap().reported, HealthStatus::Degraded);
}

#[tokio::test]
#[ignore = "the child of the test above"]
async fn child_whose_disk_is_full() {
    let path = child_file();
    let registry = open(&path).unwrap();
    let (_, most) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, fs::metadata(&path).unwrap().len(), most).unwrap();
    let mut failure = None;
    for number in 0..10_000 {
        let registration = Registration {
            description: "x".repeat(4096),
            ..Registration::of(number.to_string())
        };
        failure = registry.register(registration, Caller::default()).await.err();
        if failure.is_some() {
            break;
        }
    }
    assert!(registry.store_failure().is_some());
    // A sign of life that the full disk did not take is written later, although its service says nothing more.
    registry
        .heartbeat(&beat("0", HealthStatus::Degraded), Caller::default())
        .unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, 1, most).unwrap();
    registry.save().await.unwrap_err();
    setrlimit(Resource::RLIMIT_FSIZE, most, most).unwrap();
    println!("\ntold: {}", failure.unwrap());
    // Nobody registers while a server is called broken: it must find out by itself that the disk is well again.
    let deadline = Instant::now() + Duration::from_secs(60);
    while registry.store_failure().is_some() {
        assert!(Instant::now() < deadline, "still failing");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(register(&registry, "after").await);
    registry.close().await.unwrap();
    println!("told: written");
}

// A disk that is full at the very first start must not leave a file that is refused at every later one.
#[test]
fn a_first_start_that_failed_can_be_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    for _ in 0..2 {
        let (mut child, told) = start_child("store::tests::child_without_room_for_a_file", &path);
        assert_eq!(told.collect::<Vec<_>>(), ["refused"; 3]);
        assert!(child.wait().unwrap().success());
    }
    assert!(open(&path).unwrap().is_empty());
}

#[tokio::test]
#[ignore = "the child of the test above"]
async fn child_without_room_for_a_file() {
    let path = child_file();
    let (_, most) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    println!();
    for bytes in [1, 4096, 20_000] {
        setrlimit(Resource::RLIMIT_FSIZE, bytes, most).unwrap();
        let refused = open(&path).is_err();
        setrlimit(Resource::RLIMIT_FSIZE, most, most).unwrap();
        println!("told: {}", if refused { "refused" } else { "made" });
    }
}

// What a service said, and that it was expired, must survive a clean end: else a restart calls the dead alive.
#[tokio::test]
async fn lives_survive_a_clean_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sub/registry.db");
    let registry = open(&path).unwrap();
    assert!(register(&registry, "a").await);
    registry
        .heartbeat(&beat("a", HealthStatus::Degraded), Caller::default())
        .unwrap();
    let before = registry.get("a").unwrap();
    registry.close().await.unwrap();
    assert!(
        !register(&registry, "late").await,
        "a closed registry promises what it cannot keep"
    );

    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "secrets of alerts are in this file");
    let after = open(&path).unwrap().get("a").unwrap();
    assert_eq!(
        (after.liveness, after.reported),
        (Liveness::Restored, HealthStatus::Degraded)
    );
    assert_eq!(
        (after.last_heartbeat, after.registered_at),
        (before.last_heartbeat, before.registered_at)
    );
}

fn refusal(path: &Path) -> StoreError {
    let error = open(path).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains(path.to_str().unwrap()) && text.contains("; "),
        "no file or no way out: {text}"
    );
    error
}

// Each of these is met by somebody who did nothing wrong but start the server; the error is all they have.
#[tokio::test]
async fn files_that_cannot_be_used_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");

    let registry = open(&path).unwrap();
    assert!(matches!(refusal(&path), StoreError::Locked(_)));
    registry.close().await.unwrap();
    drop(registry);

    let database = Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction
        .open_table(TableDefinition::<&str, u64>::new("meta"))
        .unwrap()
        .insert("format", 7)
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert!(matches!(refusal(&path), StoreError::Newer { found: 7, known: 1, .. }));

    // As the existing server makes it: a page header, then Bolt's mark.
    let mut bolt = vec![0; 4096];
    bolt[16..20].copy_from_slice(&0xED0C_DAED_u32.to_le_bytes());
    fs::write(&path, bolt).unwrap();
    assert!(refusal(&path).to_string().contains("BoltDB"));
    fs::write(&path, "services: []").unwrap();
    assert!(matches!(refusal(&path), StoreError::Foreign { .. }));

    let folder_path = folder.path().join("folder");
    fs::create_dir(&folder_path).unwrap();
    assert!(matches!(refusal(&folder_path), StoreError::Io { .. }));
}

// A damaged file must be called that: not a panic, not a registry from which some services are missing.
#[tokio::test]
async fn a_damaged_file_is_never_believed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    let registry = open(&path).unwrap();
    for number in 0..50 {
        assert!(register(&registry, &format!("service-{number}")).await);
    }
    registry.close().await.unwrap();
    drop(registry);
    let whole = fs::read(&path).unwrap();

    let mut refused = 0;
    let damages = (0..whole.len()).step_by(whole.len() / 60).map(|at| {
        let mut damaged = whole.clone();
        damaged[at] ^= 0xFF;
        damaged
    });
    let cuts = [whole.len() / 2, whole.len() - 1, 5000, 100].map(|length| whole[..length].to_vec());
    for damaged in damages.chain(cuts) {
        fs::write(&path, damaged).unwrap();
        match open(&path) {
            // The damage was where nothing is, or redb has a second copy of it.
            Ok(registry) => {
                assert_eq!(registry.len(), 50);
                registry.close().await.unwrap();
            }
            Err(StoreError::Corrupt { .. } | StoreError::Foreign { .. }) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused >= 4, "{refused}");
}
