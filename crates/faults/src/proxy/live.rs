//! The handle of an open watch, by which it is disturbed from outside.

use tokio::sync::mpsc;

use crate::{rule::WatchFault, signature::Signature};

/// An open watch.
#[derive(Debug)]
pub(super) struct Live {
    signature: Signature,
    faults: mpsc::UnboundedSender<WatchFault>,
}

// === impl Live ===

impl Live {
    /// A watch that takes faults from the receiver for as long as it is open.
    pub(super) fn new(signature: Signature) -> (Self, mpsc::UnboundedReceiver<WatchFault>) {
        let (faults, receiver) = mpsc::unbounded_channel();
        (Self { signature, faults }, receiver)
    }

    pub(super) fn signature(&self) -> &Signature {
        &self.signature
    }

    pub(super) fn is_open(&self) -> bool {
        !self.faults.is_closed()
    }

    /// Whether it was still open to be disturbed.
    pub(super) fn disturb(&self, fault: WatchFault) -> bool {
        self.faults.send(fault).is_ok()
    }
}
