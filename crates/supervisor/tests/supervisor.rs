//! What a supervisor promises to whoever may be killed at any moment.

use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use flowctl_supervisor::journal::{self, Journal};
use flowctl_supervisor::process::Identity;
use flowctl_supervisor::unwind::unwind;
use flowctl_supervisor::{Answer, Program, Report, Request, Undo};

const LIMIT: Duration = Duration::from_secs(10);

struct Running {
    child: Child,
    reports: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(directory: &Path, lock: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_flowctl-supervisor"))
            .arg("run")
            .args([directory, lock])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let reports = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, reports }
    }

    fn answer(&mut self) -> Answer {
        loop {
            let line = self.reports.next().expect("a line").expect("read");
            match serde_json::from_str(&line).expect("a report") {
                Report::Answer(answer) => return answer,
                Report::Exited { .. } => {}
            }
        }
    }

    fn ask(&mut self, request: &Request) -> Answer {
        let mut line = serde_json::to_vec(request).expect("json");
        line.push(b'\n');
        self.child
            .stdin
            .as_mut()
            .expect("piped")
            .write_all(&line)
            .expect("written");
        self.answer()
    }

    fn sleeper(&mut self, directory: &Path, grace_ms: u64) -> Identity {
        let program = Program {
            name: "sleeper".to_owned(),
            executable: PathBuf::from("/bin/sh"),
            arguments: vec!["-c".to_owned(), "trap '' TERM; sleep 1000 & wait; wait".to_owned()],
            environment: Vec::new(),
            log: directory.join("logs/sleeper.log"),
            grace_ms,
        };
        let Answer::Started(pid) = self.ask(&Request::Start(program)) else {
            panic!("started")
        };
        Identity::of(pid).expect("it runs")
    }
}

fn append(file: &Path, word: &str) -> Undo {
    let script = format!("echo {word} >> {}", file.display());
    Undo::Run(vec!["sh".to_owned(), "-c".to_owned(), script])
}

#[test]
fn the_end_of_the_stream_undoes_everything_in_reverse_order() {
    let scratch = tempfile::tempdir().expect("a directory");
    let (directory, file) = (scratch.path().join("cluster"), scratch.path().join("order"));
    let mut supervisor = Running::start(&directory, &scratch.path().join("lock"));
    assert_eq!(supervisor.answer(), Answer::Done);
    supervisor.ask(&Request::Undo(Undo::RemoveDirectory(directory.clone())));
    supervisor.ask(&Request::Undo(append(&file, "first")));
    let stubborn = supervisor.sleeper(&directory, 50);
    supervisor.ask(&Request::Undo(append(&file, "second")));
    drop(supervisor.child.stdin.take());
    assert_eq!(supervisor.answer(), Answer::Stopped(Vec::new()));
    assert!(supervisor.child.wait().expect("ends").success());
    assert!(!stubborn.is_alive(), "it ignores SIGTERM, so it was killed");
    assert_eq!(fs::read_to_string(&file).expect("written"), "second\nfirst\n");
    assert!(!directory.exists());
}

#[test]
fn a_detached_supervisor_outlives_its_client_and_stops_when_asked() {
    let scratch = tempfile::tempdir().expect("a directory");
    let directory = scratch.path().join("cluster");
    let mut supervisor = Running::start(&directory, &scratch.path().join("lock"));
    assert_eq!(supervisor.answer(), Answer::Done);
    supervisor.ask(&Request::Undo(Undo::RemoveDirectory(directory.clone())));
    let sleeper = supervisor.sleeper(&directory, 0);
    supervisor.ask(&Request::Detach);
    drop(supervisor.child.stdin.take());
    // A second one asks for the same place: the answer comes after the first one's end of stream.
    let mut second = Running::start(&directory, &scratch.path().join("lock"));
    assert_eq!(second.answer(), Answer::Busy);
    assert!(second.child.wait().expect("ends").success());
    assert!(sleeper.is_alive());
    let identity = journal::living_supervisor(&directory.join(journal::FILE_NAME)).expect("it lives");
    identity.terminate();
    supervisor.child.wait().expect("ends");
    assert!(!sleeper.is_alive() && !directory.exists());
}

#[test]
fn the_next_supervisor_clears_what_a_killed_one_left() {
    let scratch = tempfile::tempdir().expect("a directory");
    let (directory, lock) = (scratch.path().join("cluster"), scratch.path().join("lock"));
    let file = scratch.path().join("undone");
    let mut killed = Running::start(&directory, &lock);
    assert_eq!(killed.answer(), Answer::Done);
    killed.ask(&Request::Undo(append(&file, "undone")));
    let orphan = killed.sleeper(&directory, 0);
    killed.child.kill().expect("killed");
    killed.child.wait().expect("reaped");
    let mut next = Running::start(&directory, &lock);
    assert_eq!(next.answer(), Answer::Done);
    assert!(orphan.is_gone_within(LIMIT));
    assert_eq!(fs::read_to_string(&file).expect("written"), "undone\n");
    assert_eq!(next.ask(&Request::Stop), Answer::Stopped(Vec::new()));
}

/// What came after belongs to somebody else: undoing again would take it away.
#[test]
fn what_was_undone_is_not_undone_again() {
    let scratch = tempfile::tempdir().expect("a directory");
    let (directory, file) = (scratch.path().join("cluster"), scratch.path().join("undone"));
    let lock = scratch.path().join("lock");
    for _ in 0..2 {
        let mut supervisor = Running::start(&directory, &lock);
        assert_eq!(supervisor.answer(), Answer::Done);
        supervisor.ask(&Request::Undo(append(&file, "undone")));
        assert_eq!(supervisor.ask(&Request::Stop), Answer::Stopped(Vec::new()));
        // Until it ended the place is its own.
        assert!(supervisor.child.wait().expect("ends").success());
    }
    assert_eq!(fs::read_to_string(&file).expect("written"), "undone\nundone\n");
}

/// As sysctls in a container, which not even root can write.
#[test]
fn a_setting_that_stands_as_it_stood_is_not_written() {
    let setting = Path::new("/proc/sys/kernel/ostype");
    let content = fs::read_to_string(setting).expect("read");
    let scratch = tempfile::tempdir().expect("a directory");
    let restore = |content: String| {
        let path = setting.to_owned();
        let mut journal = Journal::open(&scratch.path().join(journal::FILE_NAME)).expect("opens");
        journal
            .push(journal::Entry::Undo(Undo::Restore { path, content }))
            .expect("written");
        unwind(&mut journal, Duration::ZERO)
    };
    assert_eq!(restore(content), Vec::<String>::new());
    assert_eq!(restore("something else".to_owned()).len(), 1);
}

#[test]
fn what_cannot_be_undone_is_told_kept_and_tried_again() {
    let scratch = tempfile::tempdir().expect("a directory");
    let (directory, obstacle) = (scratch.path().join("cluster"), scratch.path().join("obstacle"));
    fs::create_dir(&directory).expect("made");
    fs::write(&obstacle, "").expect("written");
    let path = directory.join(journal::FILE_NAME);
    let mut journal = Journal::open(&path).expect("opens");
    let test = ["test", "!", "-e", &obstacle.display().to_string()]
        .map(str::to_owned)
        .to_vec();
    for step in [Undo::RemoveDirectory(directory.clone()), Undo::Run(test)] {
        journal.push(journal::Entry::Undo(step)).expect("written");
    }
    assert_eq!(
        unwind(&mut journal, Duration::ZERO).len(),
        2,
        "the command, and the directory that is kept"
    );
    fs::remove_file(&obstacle).expect("removed");
    let mut again = Journal::open(&path).expect("opens");
    assert_eq!(unwind(&mut again, Duration::ZERO), Vec::<String>::new());
    assert!(!directory.exists());
}
