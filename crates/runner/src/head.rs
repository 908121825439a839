//! The head of a pipeline: ledgers are read and encoded on a blocking thread, one ahead, and enter
//! the window when their size is known. Where the window is full, reading stops.

use std::ops::ControlFlow;

use flowctl_bridge::Window;
use tokio::runtime::Handle as Runtime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::blueprint::FolderSettings;
use crate::handle::{Handle, Message};
use crate::ledger_reader::{Draft, LedgerReader};
use crate::metrics::StepMetrics;
use crate::source::{FolderReader, Reading, SourceError};
use crate::tracker::Tracker;

/// Drafts that wait for the window; the memory beyond it.
const AHEAD: usize = 1;

/// What the reading thread needs.
pub(crate) struct Reader {
    pub(crate) folder: FolderSettings,
    pub(crate) start: Option<u32>,
    pub(crate) ledgers: LedgerReader,
    pub(crate) stop: CancellationToken,
    pub(crate) metrics: StepMetrics,
}

/// The channel between the reading thread and the window.
pub(crate) fn drafts() -> (mpsc::Sender<Draft>, mpsc::Receiver<Draft>) {
    mpsc::channel(AHEAD)
}

/// Reads until the range ends or somebody asks to stop. Blocks.
pub(crate) fn read(reader: &Reader, runtime: Runtime, drafts: &mpsc::Sender<Draft>) -> Result<Reading, SourceError> {
    let folder = FolderReader::new(&reader.folder, reader.start, &reader.stop, runtime);
    folder.read(|ledger| {
        let draft = reader.ledgers.read(&ledger)?;
        drop(ledger);
        reader.metrics.received();
        match drafts.blocking_send(draft) {
            Ok(()) => Ok(ControlFlow::Continue(())),
            Err(_) if reader.stop.is_cancelled() => Ok(ControlFlow::Break(())),
            Err(_) => Err(SourceError::Abandoned),
        }
    })
}

/// Lets drafts into the window and sends them on. Ends when the reading thread ends, or at once
/// when somebody asks to stop: what has not entered yet was never promised.
pub(crate) async fn enter(
    mut drafts: mpsc::Receiver<Draft>,
    out: mpsc::UnboundedSender<Message>,
    window: Window,
    tracker: Tracker,
    stop: CancellationToken,
    metrics: StepMetrics,
) {
    let stopped = async { stop.cancelled().await };
    let let_in = async {
        while let Some(Draft { payload, origin }) = drafts.recv().await {
            let permit = window.enter(payload.len()).await;
            metrics.at(origin.ledger);
            let message = Message {
                payload,
                metadata: origin.metadata.clone(),
                handle: Handle::start(origin, permit, &tracker),
            };
            metrics.sent();
            if out.send(message).is_err() {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = stopped => {}
        () = let_in => {}
    }
}
