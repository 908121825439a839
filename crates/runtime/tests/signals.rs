//! What signals do to a program, shown on a real one: this test binary, started again as the program.

use std::io::{BufRead as _, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};

use flowctl_runtime::Shutdown;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PROGRAM: &str = "FLOWCTL_TEST_PROGRAM";

/// Not a test but the program: says what it does, and drains for ever.
#[test]
fn program() {
    if std::env::var_os(PROGRAM).is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let shutdown = Shutdown::on_signals().expect("handlers");
        println!("\nrunning");
        shutdown.requested().await;
        println!("\ndraining");
        std::future::pending::<()>().await;
    });
}

fn start() -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut child = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "program", "--nocapture"])
        .env(PROGRAM, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    (child, lines)
}

fn wait_for(lines: &mut Lines<BufReader<ChildStdout>>, wanted: &str) {
    let found = lines.any(|line| line.expect("a line") == wanted);
    assert!(found, "the program ended before it was {wanted}");
}

// A kubelet's SIGTERM must begin a drain, and a person's second Ctrl-C must end it, with the code that a shell expects.
#[test]
fn the_first_signal_asks_and_the_second_ends() {
    for (first, second, code) in [
        (Signal::SIGTERM, Signal::SIGINT, 130),
        (Signal::SIGINT, Signal::SIGTERM, 143),
    ] {
        let (mut child, mut lines) = start();
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
        wait_for(&mut lines, "running");
        kill(pid, first).expect("a signal");
        wait_for(&mut lines, "draining");
        kill(pid, second).expect("a signal");
        assert_eq!(child.wait().expect("an end").code(), Some(code));
    }
}
