//! One table of what clients of both dialects send and get (`table.yaml`), and clients that carry it out: one on the gRPC
//! library of Go and one on that of Python, with our `.proto` files, and one that knows only numbers of fields. A client in Rust
//! goes through the same promises in `observed.rs`.

mod numbers;
mod program;
#[path = "../support/raw.rs"]
mod raw;
#[path = "../support/mod.rs"]
mod support;
mod table;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use flowctl_control_plane::ServerArgs;
use flowctl_testkit::binaries::{self, Binaries, Program};
use flowctl_testkit::{Tier, python, tier};
use numbers::Numbers;
use program::ProgramClient;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use support::{LIMIT, args, start};
use table::{Call, Outcome, Row, Seen, rows};
use tokio::process::Command;

/// Carries out calls.
trait Client {
    /// Sends what the call sends, and gives what came back.
    async fn call(&mut self, server: SocketAddr, call: &Call, seen: &Seen) -> Outcome;
}

/// Carries out the whole table, each row on a server of its own, and tells everything that is not as it says.
async fn conforms(mut client: impl Client) {
    let mut wrong = Vec::new();
    for row in rows() {
        if let Err(why) = holds(&mut client, &row).await {
            wrong.push(format!("{}: {why}", row.row));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

async fn holds(client: &mut impl Client, row: &Row) -> Result<(), String> {
    let server = start(ServerArgs {
        advertise_address: Some("flowctl.example:8080".to_owned()),
        heartbeat_ttl: Duration::from_secs(row.ttl_seconds.unwrap_or(30)),
        no_persistence: true,
        ..args()
    })
    .await;
    let mut seen = Seen::default();
    for (number, call) in row.calls.iter().enumerate() {
        let deadline = Instant::now() + LIMIT;
        loop {
            let outcome = client.call(server.address, call, &seen).await;
            let Err(why) = call.check(&outcome, &mut seen) else {
                break;
            };
            if !call.until || Instant::now() > deadline {
                server.stop().await;
                return Err(format!(
                    "call {} ({}): {why}; it got {outcome:?}",
                    number + 1,
                    call.call
                ));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    server.stop().await;
    Ok(())
}

// The numbers are what every deployed client has compiled in. A wrong one in our .proto files would be wrong in our server and in
// every client made from them, so that all of those tests would pass, and every real client would see rubbish.
#[tokio::test]
async fn a_client_that_knows_only_numbers_of_fields() {
    conforms(Numbers::default()).await;
}

// Existing clients are Go programs: what Go's gRPC does not take from a server of another make would shut all of them out.
#[tokio::test]
async fn a_client_in_go() {
    let Some(_granted) = tier::require(Tier::Api) else {
        return;
    };
    let Some(programs) = tier::or_skip(Binaries::ensure(&[Program::ConformanceClient]).await) else {
        return;
    };
    let mut command = Command::new(programs.path(Program::ConformanceClient).expect("just built"));
    command.arg(descriptors());
    conforms(ProgramClient::start(command)).await;
}

// The same for Python, whose gRPC is another library, and a stricter one.
#[tokio::test]
async fn a_client_in_python() {
    let Some(_granted) = tier::require(Tier::Api) else {
        return;
    };
    let Some(mut command) = tier::or_skip(python::command().await) else {
        return;
    };
    let descriptors = binaries::project_root().join("crates/proto/src/generated/descriptors.bin");
    command
        .arg(python::folder().join("conformance_client.py"))
        .arg(descriptors);
    conforms(ProgramClient::start(command)).await;
}

/// Our `.proto` files, compiled.
fn descriptors() -> PathBuf {
    binaries::project_root().join("crates/proto/src/generated/descriptors.bin")
}

// A call that no row makes is one that nothing here shows.
#[test]
fn every_call_of_both_dialects_is_in_the_table() {
    let called: BTreeSet<String> = rows()
        .iter()
        .flat_map(|row| &row.calls)
        .filter(|call| call.refused.is_none())
        .map(Call::path)
        .collect();
    let served = FileDescriptorSet::decode(flowctl_proto::FILE_DESCRIPTOR_SET).expect("our descriptors");
    for file in &served.file {
        for service in file
            .service
            .iter()
            .filter(|_| ["flowctl", "flowctl.v1"].contains(&file.package()))
        {
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                assert!(called.contains(&path), "{path} is answered in no row");
            }
        }
    }
}
