//! Peers that behave in every way the wire allows, and what a pipeline gets from each: whatever
//! happens, each message ends exactly once, in order, and a failure names its cause. Without this
//! a user would lose or reorder ledgers when a processor restarts, stalls or misbehaves.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod peer;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use flowctl_bridge::{CallMode, Failure, Gate, Outcome, Role, WindowLimits};
use peer::{Do, Health, Peer, Rig, Seen, id, request, until};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

const COUNT: usize = 60;

type Behave = fn(&Seen) -> Do;

fn number(seen: &Seen) -> usize {
    seen.id.split('/').nth(1).unwrap().parse().unwrap()
}

fn output(n: usize) -> Outcome {
    let request = request(n, 8);
    Outcome::Output {
        payload: request.payload,
        metadata: [("seen".to_owned(), request.trace_id)].into(),
    }
}

async fn delivers_everything(name: &str, mode: CallMode, script: Behave) -> (Peer, Rig) {
    let peer = Peer::start(script).await;
    let rig = Rig::new(Role::Processor, peer.settings(mode));
    let results = rig.run(COUNT).await;
    assert_eq!(results.len(), COUNT, "{name}");
    for (n, result) in results.into_iter().enumerate() {
        match result {
            Ok(outcome) => assert_eq!(outcome, output(n), "{name}: message {n}"),
            Err(error) => panic!("{name}: message {n}: {error}"),
        }
    }
    let window = rig.caller.window().limits().messages;
    let most = peer.board.most_under_way.load(Ordering::SeqCst);
    // After a cut the peer may not have noticed yet that the first copies are nobody's.
    if !name.contains("cut") && !name.contains("silent") {
        assert!(most <= window, "{name}: {most} under way, window {window}");
    }
    (peer, rig)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_peer_does_on_a_stream_nothing_is_lost_and_order_is_kept() {
    let rows: [(&str, Behave); 10] = [
        ("works", |_| Do::Answer),
        ("slow", |_| Do::AnswerAfter(Duration::from_millis(3))),
        ("answers twice", |_| Do::Twice),
        ("answers strangers", |_| Do::WithStranger),
        ("answers out of order", |seen| match number(seen) % 5 {
            4 => Do::Flush,
            _ => Do::Keep,
        }),
        ("ends the stream now and then", |seen| match seen.on_stream {
            7 => Do::End,
            _ => Do::Answer,
        }),
        ("breaks the stream now and then", |seen| match seen.on_stream {
            7 => Do::Fail(Status::unavailable("restarting")),
            _ => Do::Answer,
        }),
        ("is cut off", |seen| match (number(seen) % 20, seen.before) {
            (9, 0) => Do::Cut,
            _ => Do::Answer,
        }),
        ("is silent once", |seen| match (number(seen), seen.before) {
            (10, 0) => Do::Nothing,
            _ => Do::Answer,
        }),
        ("takes its time at first", |seen| match seen.on_stream {
            0 => Do::AnswerAfter(Duration::from_millis(50)),
            _ => Do::Answer,
        }),
    ];
    for (name, script) in rows {
        let (peer, rig) = delivers_everything(name, CallMode::Streaming, script).await;
        let expected: Vec<_> = (0..COUNT).map(id).collect();
        assert_eq!(peer.first_seen(), expected, "{name}: order at the peer");
        let spurious = rig.count("spurious_answers");
        match name {
            // The last answer may come after everything is done.
            "answers twice" | "answers strangers" => assert!(spurious >= COUNT as f64 - 1.0),
            _ => assert_eq!(spurious, 0.0, "{name}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_peer_does_with_calls_nothing_is_lost_and_order_is_kept() {
    let rows: [(&str, Behave); 6] = [
        ("works", |_| Do::Answer),
        ("answers out of order", |seen| {
            let steps = 20_u64.saturating_sub(number(seen) as u64 % 16);
            Do::AnswerAfter(Duration::from_millis(steps))
        }),
        ("is unavailable twice", |seen| match seen.before {
            0 | 1 => Do::Fail(Status::unavailable("restarting")),
            _ => Do::Answer,
        }),
        ("is cut off", |seen| match (number(seen), seen.before) {
            (9, 0) => Do::Cut,
            _ => Do::Answer,
        }),
        ("is silent once", |seen| match (number(seen), seen.before) {
            (10, 0) => Do::Nothing,
            _ => Do::Answer,
        }),
        ("is busy and says for how long", |seen| match seen.before {
            0 => Do::Fail(Status::with_error_details(
                Code::ResourceExhausted,
                "busy",
                ErrorDetails::with_retry_info(Some(Duration::from_millis(5))),
            )),
            _ => Do::Answer,
        }),
    ];
    for (name, script) in rows {
        delivers_everything(name, CallMode::Unary, script).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_heal_ends_one_message_with_its_cause() {
    type Check = fn(&Failure) -> bool;
    let permanent: Check = |failure| matches!(failure, Failure::Permanent { .. });
    let exhausted: Check = |failure| matches!(failure, Failure::Exhausted { attempts: 4, .. });
    let refused: Check = |failure| matches!(failure, Failure::Refused { message } if message == "bad ledger");
    let violation: Check = |failure| matches!(failure, Failure::Violation(_));
    let rows: [(&str, Option<CallMode>, Do, Check); 8] = [
        ("ERROR", None, Do::Refuse("bad ledger"), refused),
        ("no status", None, Do::NoStatus, violation),
        ("oversize", None, Do::Huge, permanent),
        (
            "INVALID_ARGUMENT",
            None,
            Do::Fail(Status::invalid_argument("no")),
            permanent,
        ),
        (
            "RESOURCE_EXHAUSTED",
            None,
            Do::Fail(Status::resource_exhausted("too large")),
            permanent,
        ),
        ("UNAVAILABLE", None, Do::Fail(Status::unavailable("no")), exhausted),
        ("silence", None, Do::Nothing, exhausted),
        ("wrong id", Some(CallMode::Unary), Do::WrongId, violation),
    ];
    for (name, only, deed, check) in rows {
        for mode in [CallMode::Unary, CallMode::Streaming] {
            if only.is_some_and(|only| only != mode) {
                continue;
            }
            let deed = deed.clone();
            let peer = Peer::start(move |seen| match number(seen) {
                5 => deed.clone(),
                _ => Do::Answer,
            })
            .await;
            let mut settings = peer.settings(mode);
            settings.timeout = if name == "oversize" {
                Duration::from_secs(15)
            } else {
                Duration::from_millis(100)
            };
            let rig = Rig::new(Role::Processor, settings);
            for (n, result) in rig.run(8).await.into_iter().enumerate() {
                match (n, result) {
                    (5, Err(error)) => {
                        assert!(check(&error.failure), "{name} {mode:?}: {error}");
                        assert_eq!(error.trace_id, id(5));
                        assert_eq!(error.endpoint, peer.relay.address.to_string());
                    }
                    (5, Ok(outcome)) => panic!("{name} {mode:?}: ended with {outcome:?}"),
                    (n, result) => assert_eq!(result.unwrap(), output(n), "{name} {mode:?}"),
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_peer_that_answers_one_after_the_other_is_not_a_failed_one() {
    for mode in [CallMode::Unary, CallMode::Streaming] {
        let peer = Peer::start(|_| Do::InTurn(Duration::from_millis(100))).await;
        let mut settings = peer.settings(mode);
        // A full window takes longer than all attempts of one message together.
        settings.timeout = Duration::from_millis(350);
        settings.window.messages = 32;
        assert_eq!(settings.max_retries, 3);
        let rig = Rig::new(Role::Processor, settings);
        for (n, result) in rig.run(40).await.into_iter().enumerate() {
            assert_eq!(result.unwrap(), output(n), "{mode:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_skipped_message_is_done() {
    for mode in [CallMode::Unary, CallMode::Streaming] {
        let peer = Peer::start(|seen| match number(seen) % 2 {
            0 => Do::Skip,
            _ => Do::Answer,
        })
        .await;
        let rig = Rig::new(Role::Processor, peer.settings(mode));
        for (n, result) in rig.run(10).await.into_iter().enumerate() {
            let expected = if n % 2 == 0 { Outcome::Filtered } else { output(n) };
            assert_eq!(result.unwrap(), expected);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_gets_what_it_asks_to_get_again_and_each_message_in_order() {
    for mode in [CallMode::Unary, CallMode::Streaming] {
        // More redeliveries than max_retries: RETRY is not a failure.
        let peer = Peer::start(|seen| match (number(seen), seen.before) {
            (4, 0..=5) => Do::Redeliver,
            _ => Do::AnswerAfter(Duration::from_millis(1)),
        })
        .await;
        let rig = Rig::new(Role::Consumer, peer.settings(mode));
        let results = rig.run(20).await;
        assert!(results.into_iter().all(|result| result.unwrap() == Outcome::Consumed));
        assert_eq!(peer.first_seen(), (0..20).map(id).collect::<Vec<_>>());
        assert_eq!(rig.count("redeliveries"), 6.0);
        if mode == CallMode::Unary {
            let most = peer.board.most_under_way.load(Ordering::SeqCst);
            assert_eq!(most, 1, "concurrent calls could overtake each other");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_not_serving_gets_nothing_until_it_serves() {
    let peer = Peer::start_with(Health::NotServing, |_| Do::Answer).await;
    let rig = Rig::new(Role::Processor, peer.settings(CallMode::Streaming));
    let submitted = rig.caller.submit(request(0, 8)).await;
    until("the peer was checked", || {
        rig.caller.complaints().contains("NOT_SERVING")
    })
    .await;
    assert_eq!(peer.seen(), 0);
    assert_eq!(*rig.caller.gate().borrow(), Gate::Waiting);
    let reporter = peer.health.as_ref().unwrap();
    reporter
        .set_service_status("", tonic_health::ServingStatus::Serving)
        .await;
    assert_eq!(submitted.outcome().await.unwrap(), output(0));

    reporter
        .set_service_status("", tonic_health::ServingStatus::NotServing)
        .await;
    let mut gate = rig.caller.gate();
    gate.wait_for(|gate| *gate == Gate::Closed).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_without_a_health_service_is_up() {
    let peer = Peer::start_with(Health::Dialect, |_| Do::Answer).await;
    let rig = Rig::new(Role::Consumer, peer.settings(CallMode::Streaming));
    assert_eq!(rig.run(3).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_wait_for_a_peer_that_goes_away_and_comes_back() {
    for mode in [CallMode::Unary, CallMode::Streaming] {
        let peer = Peer::start(|_| Do::Answer).await;
        peer.relay.go_away().await;
        let mut settings = peer.settings(mode);
        // No attempt may be counted while nobody listens.
        settings.max_retries = 0;
        let rig = Rig::new(Role::Processor, settings);
        let held = rig.caller.submit(request(0, 8)).await;
        until("the peer was tried", || !rig.caller.complaints().is_empty()).await;
        peer.relay.come_back().await;
        assert_eq!(held.outcome().await.unwrap(), output(0), "{mode:?}");

        let mut gate = rig.caller.gate();
        peer.relay.go_away().await;
        gate.wait_for(|gate| *gate == Gate::Closed).await.unwrap();
        let held = rig.caller.submit(request(1, 8)).await;
        peer.relay.come_back().await;
        assert_eq!(held.outcome().await.unwrap(), output(1), "{mode:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn total_timeout_ends_even_a_held_message() {
    for mode in [CallMode::Unary, CallMode::Streaming] {
        let peer = Peer::start(|_| Do::Redeliver).await;
        let mut settings = peer.settings(mode);
        settings.total_timeout = Some(Duration::from_millis(200));
        let rig = Rig::new(Role::Consumer, settings);
        let error = rig.run(1).await.remove(0).unwrap_err();
        assert!(
            matches!(error.failure, Failure::TotalTimeout { .. }),
            "{mode:?}: {error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_window_holds_whoever_submits() {
    for mode in [CallMode::Unary, CallMode::Streaming] {
        let peer = Peer::start(|_| Do::WhenReleased).await;
        let mut settings = peer.settings(mode);
        settings.timeout = Duration::from_secs(15);
        settings.window = WindowLimits {
            messages: 4,
            bytes: 1024,
        };
        let rig = Rig::new(Role::Processor, settings);
        let mut accepted = Vec::new();
        for n in 0..4 {
            accepted.push(rig.caller.submit(request(n, 8)).await);
        }
        let caller = Arc::clone(&rig.caller);
        let fifth = tokio::spawn(async move { caller.submit(request(4, 8)).await });
        until("the peer has work", || peer.seen() >= 1).await;
        assert!(!fifth.is_finished(), "the window is full");
        peer.release();
        for submitted in accepted {
            submitted.outcome().await.unwrap();
        }
        assert_eq!(fifth.await.unwrap().outcome().await.unwrap(), output(4));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_bound_of_the_window_is_ever_exceeded() {
    let limits = WindowLimits {
        messages: 6,
        bytes: 4000,
    };
    for mode in [CallMode::Unary, CallMode::Streaming] {
        let peer = Peer::start(|seen| match number(seen) % 3 {
            0 => Do::AnswerAfter(Duration::from_millis(2)),
            _ => Do::Answer,
        })
        .await;
        let mut settings = peer.settings(mode);
        settings.window = limits;
        let rig = Rig::new(Role::Processor, settings);
        let mut random = fastrand::Rng::with_seed(7);
        let sizes: Vec<usize> = (0..200).map(|_| random.usize(8..2500)).collect();
        let results = rig.run_sized(sizes.into_iter()).await;
        assert!(results.iter().all(Result::is_ok));
        let most = peer.board.most_under_way.load(Ordering::SeqCst);
        let most_bytes = peer.board.most_bytes.load(Ordering::SeqCst);
        assert!(most <= limits.messages, "{mode:?}: {most} messages");
        assert!(most_bytes <= limits.bytes, "{mode:?}: {most_bytes} bytes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_over_the_limit_is_a_named_error_and_is_not_sent() {
    for mode in [CallMode::Unary, CallMode::Streaming] {
        let peer = Peer::start(|_| Do::Answer).await;
        let rig = Rig::new(Role::Processor, peer.settings(mode));
        let huge = rig.caller.submit(request(0, flowctl_bridge::MAX_MESSAGE_BYTES)).await;
        let error = huge.outcome().await.unwrap_err();
        assert!(matches!(error.failure, Failure::TooLarge { .. }), "{error}");
        assert_eq!(peer.seen(), 0);
        let next = rig.caller.submit(request(1, 8)).await;
        assert_eq!(next.outcome().await.unwrap(), output(1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_stream_is_replaced_without_losing_anything() {
    let peer = Peer::start(|_| Do::AnswerAfter(Duration::from_millis(2))).await;
    let mut settings = peer.settings(CallMode::Streaming);
    settings.stream_max_age = Duration::from_millis(30);
    let rig = Rig::new(Role::Processor, settings);
    let results = rig.run(COUNT).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(peer.seen(), COUNT, "nothing had to be sent twice");
    assert!(rig.count("streams_reopened") >= 1.0);
}
