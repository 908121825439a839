//! A client in another language: a program that reads a call from each line of its input, and writes what came of it.

use std::net::SocketAddr;
use std::process::Stdio;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::Client;
use crate::support::LIMIT;
use crate::table::{Call, Outcome, Seen};

pub(crate) struct ProgramClient {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

/// A line of its output.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Answer { answer: Value },
    Refused { code: i32, message: String },
}

// === impl ProgramClient ===

impl ProgramClient {
    /// Starts it; it ends with this.
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("the client starts");
        Self {
            input: child.stdin.take().expect("its input"),
            output: BufReader::new(child.stdout.take().expect("its output")).lines(),
            _child: child,
        }
    }
}

impl Client for ProgramClient {
    async fn call(&mut self, server: SocketAddr, call: &Call, seen: &Seen) -> Outcome {
        let line = json!({"server": server, "path": call.path(), "request": call.names(seen)});
        let answered = async {
            self.input
                .write_all(format!("{line}\n").as_bytes())
                .await
                .expect("it reads");
            self.input.flush().await.expect("it reads");
            self.output.next_line().await.expect("it writes")
        };
        let line = timeout(LIMIT, answered).await.expect("it answers in time");
        let line = line.expect("it lives; why it ended is above");
        match serde_json::from_str(&line).expect("a line as it is described") {
            Line::Answer { answer } => Outcome::Names(answer),
            Line::Refused { code, message } => Outcome::Refused { code, message },
        }
    }
}
