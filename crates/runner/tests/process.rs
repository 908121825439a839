//! The runner as a process, with peers over loopback: what a user sees in output files, exit codes
//! and termination messages. Without these a pipeline could lose, repeat or reorder ledgers, or end
//! with a success that is none.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod rig;

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use rig::{Deed, Peer, Place, Runner, ledger_of, real_ledgers, until};

type Range = std::ops::RangeInclusive<u32>;

fn bounded(range: &Range) -> String {
    format!("start_ledger: {}, end_ledger: {}", range.start(), range.end())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_ledger_of_a_range_arrives_once_and_in_order() {
    for streaming in ["false", "true"] {
        let range = 100..=140;
        let place = Place::with(90..=150);
        let processor = Peer::start(|_| Deed::Answer).await;
        let consumer = Peer::start(|_| Deed::Answer).await;
        let config = format!("use_streaming: {streaming}");
        let consumers = [place.to_file(), consumer.step("ExternalConsumer", &config)].join("\n");
        let file = place.pipeline(
            &bounded(&range),
            &processor.step("ExternalProcessor", &config),
            &consumers,
        );
        let end = Runner::run(&place, &file).end().await;
        end.has_code(0);
        let expected: Vec<u32> = range.collect();
        assert_eq!(place.output(), expected);
        assert_eq!(consumer.seen(), expected);
        assert_eq!(place.termination_message(), "", "nothing to complain about");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_ledgers_pass_whole() {
    let Some(folder) = real_ledgers("pubnet-v13-reassembled") else {
        return;
    };
    for streaming in ["false", "true"] {
        let mut place = Place::new();
        place.ledgers.clone_from(&folder);
        let processor = Peer::start(|_| Deed::Answer).await;
        let config = format!("use_streaming: {streaming}");
        let file = place.pipeline(
            &bounded(&(30_822_015..=30_822_025)),
            &processor.step("ExternalProcessor", &config),
            &place.to_file(),
        );
        Runner::run(&place, &file).end().await.has_code(0);
        let expected: Vec<u32> = (30_822_015..=30_822_025).collect();
        assert_eq!(place.output(), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_gap_ends_the_run_with_the_missing_ledger() {
    let Some(folder) = real_ledgers("pubnet-v13-reassembled") else {
        return;
    };
    let mut place = Place::new();
    place.ledgers = folder;
    let file = place.pipeline(&bounded(&(30_820_015..=30_822_015)), "", &place.to_file());
    let end = Runner::run(&place, &file).end().await;
    end.has_code(1);
    assert_eq!(place.output(), [30_820_015]);
    assert!(place.termination_message().contains("30820016"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_ends_the_run_with_the_missing_ledger() {
    let place = Place::with((10..=20).filter(|n| *n != 15));
    let file = place.pipeline(&bounded(&(10..=20)), "", &place.to_file());
    let end = Runner::run_with_checkpoint(&place, &file).end().await;
    end.has_code(1);
    assert!(place.termination_message().contains("ledger 15 is missing"));
    // What was there before the gap is finished, so that a repaired archive goes on behind it.
    assert_eq!(place.output(), [10, 11, 12, 13, 14]);
    assert_eq!(place.checkpoint(), Some(14));
    place.add(15);
    Runner::run_with_checkpoint(&place, &file).end().await.has_code(0);
    assert_eq!(place.output(), (10..=20).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_go_binarys_arguments_work_and_standard_output_is_data_only() {
    let place = Place::with(1..=5);
    let file = place.pipeline("end_ledger: 5", "", "      - {type: StdoutConsumer}");
    let end = Runner::start(&place, &["-config", file.to_str().unwrap()]).end().await;
    end.has_code(0);
    let ledgers: Vec<u32> = end.stdout.lines().map(ledger_of).collect();
    assert_eq!(ledgers, [1, 2, 3, 4, 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_message_stops_the_pipeline_and_says_everything_one_needs() {
    let place = Place::with(1..=9);
    let peer = Peer::start(|ledger| match ledger {
        6 => Deed::Refuse("no such asset"),
        _ => Deed::Answer,
    })
    .await;
    let file = place.pipeline(
        "end_ledger: 9",
        &peer.step("ExternalProcessor", "use_streaming: true"),
        &place.to_file(),
    );
    let end = Runner::run_with_checkpoint(&place, &file).end().await;
    end.has_code(1);
    let message = place.termination_message();
    let address = peer.address.to_string();
    for part in ["ledger 6", "peer", &address, "test.p/6/0", "no such asset"] {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
    assert!(place.output().iter().all(|ledger| *ledger < 6));
    assert!(place.checkpoint().is_none_or(|last| last < 6));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_fails_keeps_the_checkpoint_though_the_other_has_everything() {
    let place = Place::with(1..=9);
    let peer = Peer::start(|ledger| match ledger {
        4 => Deed::Refuse("disk full"),
        _ => Deed::Answer,
    })
    .await;
    let consumers = [place.to_file(), peer.step("ExternalConsumer", "")].join("\n");
    let file = place.pipeline("end_ledger: 9", "", &consumers);
    let end = Runner::run_with_checkpoint(&place, &file).end().await;
    end.has_code(1);
    assert!(place.termination_message().contains("disk full"));
    assert!(place.checkpoint().is_none_or(|last| last < 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skipped_ledgers_are_done() {
    let place = Place::with(1..=10);
    let peer = Peer::start(|ledger| match ledger % 2 {
        0 => Deed::Skip,
        _ => Deed::Answer,
    })
    .await;
    let file = place.pipeline(
        "end_ledger: 10",
        &peer.step("ExternalProcessor", "use_streaming: true"),
        &place.to_file(),
    );
    let end = Runner::run_with_checkpoint(&place, &file).end().await;
    end.has_code(0);
    assert_eq!(place.output(), [1, 3, 5, 7, 9]);
    assert_eq!(place.checkpoint(), Some(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_processor_that_is_not_there_yet_is_waited_for() {
    let place = Place::with(1..=5);
    let [address, admin] = Place::free_addresses();
    let admin = admin.to_string();
    let step = format!("      - {{type: ExternalProcessor, config: {{endpoint: \"{address}\", max_retries: 0}}}}");
    let file = place.pipeline("end_ledger: 5", &step, &place.to_file());
    let mut runner = Runner::start_with(
        &place,
        &["run", file.to_str().unwrap()],
        &[("FLOWCTL_ADMIN_ADDRESS", &admin)],
    );
    until("not ready is told", || http(&admin, "/readyz").contains(" 503 ")).await;
    assert!(http(&admin, "/livez").contains(" 200 "));
    assert!(runner.is_running());
    let _peer = Peer::start_at(address, |_| Deed::Answer).await;
    runner.end().await.has_code(0);
    assert_eq!(place.output(), [1, 2, 3, 4, 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_followed_folder_gives_each_new_ledger_and_ends_well_when_asked() {
    let place = Place::with(1..=3);
    let file = place.pipeline("gap_timeout: 60s", "", &place.to_file());
    let runner = Runner::run_with_checkpoint(&place, &file);
    until("the old ledgers", || place.output() == [1, 2, 3]).await;
    place.add(4);
    until("the next ledger", || place.output() == [1, 2, 3, 4]).await;
    // The later one comes first: it waits for its turn.
    place.add(6);
    place.add(5);
    until("both", || place.output() == [1, 2, 3, 4, 5, 6]).await;
    runner.signal(Signal::SIGTERM);
    runner.end().await.has_code(0);
    assert_eq!(place.checkpoint(), Some(6));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_in_a_followed_folder_is_told_after_its_grace() {
    let place = Place::with([1, 2, 4]);
    let file = place.pipeline("gap_timeout: 300ms", "", &place.to_file());
    let end = Runner::run(&place, &file).end().await;
    end.has_code(1);
    assert!(place.termination_message().contains("ledger 3 is missing"));
    assert_eq!(place.output(), [1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_finishes_what_is_under_way_and_gives_the_rest_back() {
    let place = Place::with(1..=400);
    let peer = Peer::start(|_| Deed::AnswerAfter(Duration::from_millis(10))).await;
    let file = place.pipeline(
        "end_ledger: 400",
        &peer.step("ExternalProcessor", "use_streaming: true, window: {messages: 8}"),
        &place.to_file(),
    );
    let runner = Runner::run_with_checkpoint(&place, &file);
    until("some output", || place.output().len() > 20).await;
    runner.signal(Signal::SIGTERM);
    let end = runner.end().await;
    // The range has an end and is not done: success would mark a batch job complete.
    end.has_code(143);
    let output = place.output();
    let last = *output.last().unwrap();
    assert_eq!(output, (1..=last).collect::<Vec<_>>());
    assert_eq!(place.checkpoint(), Some(last));

    let end = Runner::run_with_checkpoint(&place, &file).end().await;
    end.has_code(0);
    assert_eq!(place.output(), (1..=400).collect::<Vec<_>>(), "none twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_takes_too_long_gives_messages_back() {
    let place = Place::with(1..=20);
    let peer = Peer::start(|ledger| match ledger {
        5 => Deed::Never,
        _ => Deed::Answer,
    })
    .await;
    let file = place.pipeline(
        "start_ledger: 1",
        &peer.step("ExternalProcessor", "use_streaming: true"),
        &place.to_file(),
    );
    let state = place.path("state");
    let runner = Runner::start_with(
        &place,
        &["run", file.to_str().unwrap(), "--grace", "200ms"],
        &[("FLOWCTL_CHECKPOINT_DIR", state.to_str().unwrap())],
    );
    until("it is stuck", || peer.seen().contains(&5) && place.output().len() == 4).await;
    runner.signal(Signal::SIGTERM);
    runner.end().await.has_code(0);
    assert_eq!(place.checkpoint(), Some(4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runner_that_is_killed_again_and_again_loses_nothing() {
    let place = Place::with(1..=300);
    let peer = Peer::start(|_| Deed::AnswerAfter(Duration::from_millis(3))).await;
    let file = place.pipeline(
        "end_ledger: 300",
        &peer.step("ExternalProcessor", "use_streaming: true, window: {messages: 16}"),
        &place.to_file(),
    );
    let mut kills = 0;
    loop {
        let runner = Runner::run_with_checkpoint(&place, &file);
        let before = place.output().len();
        if kills < 4 {
            kills += 1;
            until("it works", || place.output().len() > before + 20).await;
            runner.signal(Signal::SIGKILL);
            assert_eq!(runner.end().await.status.code(), None);
            continue;
        }
        runner.end().await.has_code(0);
        break;
    }
    let output = place.output();
    let distinct: BTreeSet<u32> = output.iter().copied().collect();
    assert_eq!(distinct, (1..=300).collect(), "each ledger is there");
    // After each kill it goes back, never forward over something.
    for pair in output.windows(2) {
        assert!(pair[1] <= pair[0] + 1, "{} follows {}", pair[1], pair[0]);
    }
    assert_eq!(place.checkpoint(), Some(300));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finished_range_is_not_run_again() {
    let place = Place::with(1..=5);
    let file = place.pipeline("end_ledger: 5", "", &place.to_file());
    for _ in 0..2 {
        Runner::run_with_checkpoint(&place, &file).end().await.has_code(0);
    }
    assert_eq!(place.output(), [1, 2, 3, 4, 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_that_was_moved_back_is_refused_and_not_taken_for_done() {
    let place = Place::with(50..=110);
    let run = async |range: &str| {
        let file = place.pipeline(range, "", &place.to_file());
        Runner::run_with_checkpoint(&place, &file).end().await
    };
    run("start_ledger: 100, end_ledger: 110").await.has_code(0);
    run("start_ledger: 50, end_ledger: 80").await.has_code(1);
    let message = place.termination_message();
    for part in ["checkpoint-test.p.json", "start_ledger 100", "50", "remove the file"] {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
    run("start_ledger: 102, end_ledger: 105").await.has_code(0);
    assert_eq!(place.output(), (100..=110).collect::<Vec<_>>(), "none twice");
    fs::remove_file(place.path("state/checkpoint-test.p.json")).unwrap();
    run("start_ledger: 50, end_ledger: 52").await.has_code(0);
    assert!(place.output().ends_with(&[50, 51, 52]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_file_is_told_whole_and_nothing_is_run() {
    let place = Place::with(1..=5);
    let endpoint = "endpoint: \"${TTP_HOST}:1\", timeout: \"${TTP_TIMEOUT}\"";
    let rows = [
        ("timout: 3s, endpoint: \"ttp:1\"", vec!["timout", "timeout"]),
        ("endpoint: ttp", vec!["line 8, column", "the port is missing"]),
        ("endpoint: \"ttp:1\", on_error: drop", vec!["not supported yet", "halt"]),
        (
            "endpoint: \"ttp:1\", ordering: none",
            vec!["not supported yet", "strict"],
        ),
        (
            "endpoint: \"ttp:1\", batch: {count: 3}, dlq: {path: /x}",
            vec!["batch", "dlq"],
        ),
        (endpoint, vec!["TTP_HOST", "TTP_TIMEOUT"]),
    ];
    for (config, expected) in rows {
        let step = format!("      - {{type: ExternalProcessor, config: {{{config}}}}}");
        let file = place.pipeline("end_ledger: 5", &step, &place.to_file());
        for command in ["run", "check"] {
            let end = Runner::start(&place, &[command, file.to_str().unwrap()]).end().await;
            end.has_code(2);
            for part in &expected {
                assert!(end.stderr.contains(part), "{part:?} is not in {}", end.stderr);
            }
        }
    }
    assert!(!place.path("out.jsonl").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn variables_of_the_environment_are_put_in() {
    let place = Place::with(1..=3);
    let peer = Peer::start(|_| Deed::Answer).await;
    let step = "      - {type: ExternalProcessor, config: {endpoint: \"${HOST}:${PORT}\", max_retries: \"${RETRIES}\", use_streaming: \"${STREAM}\"}}";
    let file = place.pipeline("end_ledger: 3", step, &place.to_file());
    let port = peer.address.port().to_string();
    let env = [
        ("HOST", "127.0.0.1"),
        ("PORT", port.as_str()),
        ("RETRIES", "1"),
        ("STREAM", "true"),
    ];
    let runner = Runner::start_with(&place, &["run", file.to_str().unwrap()], &env);
    runner.end().await.has_code(0);
    assert_eq!(place.output(), [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_carry_the_prefix_that_scrapes_keep() {
    let place = Place::with(1..=3);
    let peer = Peer::start(|_| Deed::Answer).await;
    let file = place.pipeline(
        "start_ledger: 1",
        &peer.step("ExternalProcessor", "use_streaming: true"),
        &place.to_file(),
    );
    let [admin] = Place::free_addresses().map(|address| address.to_string());
    let state = place.path("state");
    let env = [
        ("FLOWCTL_ADMIN_ADDRESS", admin.as_str()),
        ("FLOWCTL_CHECKPOINT_DIR", state.to_str().unwrap()),
    ];
    let runner = Runner::start_with(&place, &["run", file.to_str().unwrap()], &env);
    until("the checkpoint is told", || {
        http(&admin, "/metrics").contains("cdp_pipeline_checkpoint_ledger 3")
    })
    .await;
    assert!(http(&admin, "/readyz").contains(" 200 "));
    let metrics = http(&admin, "/metrics");
    for line in [
        "cdp_pipeline_received_total{step=\"peer\"} 3",
        "cdp_pipeline_sent_total{step=\"JSONLinesConsumer\"} 3",
        "cdp_pipeline_errors_total{step=\"peer\"} 0",
        "cdp_pipeline_attempts_total{step=\"peer\",code=\"OK\"} 3",
        "cdp_pipeline_in_flight_messages 0",
        "cdp_pipeline_in_flight_bytes 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    assert!(metrics.contains("cdp_pipeline_endpoint_up{"));
    runner.signal(Signal::SIGINT);
    runner.end().await.has_code(0);
}

/// One HTTP request; empty while nobody listens.
fn http(address: &str, path: &str) -> String {
    use std::io::{Read as _, Write as _};
    let request = || -> std::io::Result<String> {
        let mut stream = std::net::TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    request().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_runner_waits_for_the_first_to_let_go_of_the_checkpoint() {
    let place = Place::with(1..=3);
    let file = place.pipeline("start_ledger: 1", "", &place.to_file());
    let first = Runner::run_with_checkpoint(&place, &file);
    until("the first works", || place.output() == [1, 2, 3]).await;
    let mut second = Runner::run_with_checkpoint(&place, &file);
    place.add(4);
    until("the first goes on", || place.output() == [1, 2, 3, 4]).await;
    assert!(second.is_running());
    first.signal(Signal::SIGTERM);
    first.end().await.has_code(0);
    place.add(5);
    until("the second takes over", || place.output() == [1, 2, 3, 4, 5]).await;
    second.signal(Signal::SIGTERM);
    second.end().await.has_code(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_without_a_ca_file_works_where_the_system_trusts_nobody() {
    use tokio::io::AsyncReadExt as _;
    const TLS_HANDSHAKE: u8 = 22;
    let place = Place::with(1..=3);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let step = format!("      - {{type: ExternalProcessor, config: {{endpoint: \"https://{address}\"}}}}");
    let file = place.pipeline("end_ledger: 3", &step, &place.to_file());
    // As in an image that holds the runner only.
    let (no_file, no_folder) = (place.path("no.pem"), place.path("no-certificates"));
    fs::write(&no_file, "").unwrap();
    fs::create_dir(&no_folder).unwrap();
    let env = [
        ("SSL_CERT_FILE", no_file.to_str().unwrap()),
        ("SSL_CERT_DIR", no_folder.to_str().unwrap()),
    ];
    let runner = Runner::start_with(&place, &["run", file.to_str().unwrap()], &env);
    let (mut stream, _) = tokio::time::timeout(rig::DEADLINE, listener.accept())
        .await
        .expect("the runner calls")
        .unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), TLS_HANDSHAKE);
    runner.signal(Signal::SIGTERM);
    runner.end().await.has_code(143);
}

#[test]
fn a_missing_file_is_a_bad_file() {
    let place = Place::new();
    assert!(!fs::exists(place.path("nothing.yaml")).unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let end = runtime.block_on(Runner::start(&place, &["run", "nothing.yaml"]).end());
    end.has_code(2);
    assert!(place.termination_message().contains("nothing.yaml"));
}
