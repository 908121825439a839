//! Consumers that live in the runner: each message becomes one line of JSON. They write on a
//! blocking thread, in batches of whatever has arrived, and acknowledge a batch only when it is
//! where it should be.

mod file;
mod lines;
mod stdout;

pub(crate) use file::JsonLinesFile;
pub(crate) use stdout::Stdout;

use tokio::sync::mpsc::UnboundedReceiver;

use crate::chain::Delivery;
use crate::error::RunError;
use crate::metrics::StepMetrics;

/// Messages that are written and acknowledged together at most.
const BATCH: usize = 256;

/// Where lines go.
pub(crate) trait LineSink: Send + 'static {
    /// Writes the lines, each ending in a line break, and returns when they are safe.
    fn write(&mut self, lines: &[u8]) -> std::io::Result<()>;
    /// Where that is, for messages.
    fn place(&self) -> String;
}

/// Writes messages until no more come. Blocks; to be called on a thread that may.
pub(crate) fn write_lines(
    mut sink: impl LineSink,
    step: &str,
    mut input: UnboundedReceiver<Delivery>,
    metrics: &StepMetrics,
) -> Result<(), RunError> {
    let mut batch: Vec<Delivery> = Vec::new();
    let mut text = Vec::new();
    while let Some(first) = input.blocking_recv() {
        batch.push(first);
        while batch.len() < BATCH {
            match input.try_recv() {
                Ok(delivery) => batch.push(delivery),
                Err(_) => break,
            }
        }
        text.clear();
        let mut fault = None;
        let mut whole = 0;
        for delivery in &batch {
            metrics.received();
            if let Err(problem) = lines::append(&mut text, &delivery.message.payload) {
                fault = Some(RunError::NotJson {
                    step: step.to_owned(),
                    ledger: delivery.share.origin().ledger,
                    problem: problem.to_string(),
                });
                break;
            }
            whole += 1;
        }
        sink.write(&text).map_err(|source| {
            metrics.failed();
            RunError::Write {
                step: step.to_owned(),
                place: sink.place(),
                source,
            }
        })?;
        metrics.wrote(text.len());
        for delivery in batch.drain(..).take(whole) {
            metrics.sent();
            delivery.share.finish();
        }
        if let Some(fault) = fault {
            metrics.failed();
            return Err(fault);
        }
    }
    Ok(())
}
