//! Serves [`Extractor`] as a pipeline step: a ledger as XDR-JSON comes in, its token transfer events go out. A ledger without
//! events goes on with an empty list, so that the next step can tell a quiet ledger from a missing one.

use std::process::ExitCode;

use clap::Parser;
use flowctl_sdk::control_plane::{ProcessorMetadata, Registration, Role};
use flowctl_sdk::{BoxError, Message, Outcome, Processor, ServeArgs, Service};
use ttp_processor::Extractor;

/// Finds the token transfers in Stellar ledgers: payload in, one ledger as XDR-JSON; payload out, its events.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Passphrase of the ledgers' network; without it, known networks are recognised
    #[arg(long, env = "NETWORK_PASSPHRASE")]
    network_passphrase: Option<String>,

    #[command(flatten)]
    serve: ServeArgs,
}

struct TokenTransfers {
    extractor: Extractor,
}

// === impl TokenTransfers ===

impl Processor for TokenTransfers {
    async fn process(&self, message: Message) -> Result<Outcome, BoxError> {
        let extractor = self.extractor.clone();
        // Reading a large ledger takes a processor for tens of milliseconds; health checks must not wait for it.
        let work = move || -> Result<Outcome, BoxError> {
            let events = extractor.extract_slice(&message.payload)?;
            message.forward(&events)
        };
        tokio::task::spawn_blocking(work).await?
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let extractor = match args.network_passphrase.as_deref() {
        None | Some("") => Extractor::for_known_networks(),
        Some(passphrase) => Extractor::for_passphrase(passphrase),
    };
    // For a control plane, if there is one.
    let registration = Registration::new(Role::Processor, env!("CARGO_PKG_NAME"))
        .input_event_types(["stellar.ledger.v1"])
        .output_event_types(["stellar.token.transfer.v1"])
        .metadata(ProcessorMetadata {
            network: args.network_passphrase.unwrap_or_default(),
            processor_type: "token_transfer".to_owned(),
            event_types: Vec::new(),
        });
    Service::processor(TokenTransfers { extractor })
        .name(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
        .registration(registration)
        .run_with(&args.serve)
        .await
}
