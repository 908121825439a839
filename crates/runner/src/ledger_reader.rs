//! `LedgerReader`: a ledger becomes a message. The payload is the ledger's meta as XDR-JSON,
//! exactly as stellar-xdr writes it; everything about where it came from goes into metadata and
//! provenance. A pipeline without this step gets the same payload: services take JSON, nothing else.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;
use flowctl_bridge::ArchiveSource;
use flowctl_stellar::{Ledger, LedgerFile, closed_at, json};

use crate::handle::Origin;
use crate::source::SourceError;

/// Makes messages of ledgers.
#[derive(Clone, Debug)]
pub(crate) struct LedgerReader {
    /// Key of the pipeline, the first part of each correlation id.
    pub(crate) pipeline: String,
    /// Name of the network.
    pub(crate) network: Option<String>,
}

/// A message that has not entered the window yet.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) payload: Bytes,
    pub(crate) origin: Origin,
}

// === impl LedgerReader ===

impl LedgerReader {
    pub(crate) fn read(&self, ledger: &Ledger) -> Result<Draft, SourceError> {
        let sequence = ledger.sequence;
        let payload = json::to_vec(&ledger.meta).map_err(|error| SourceError::Encode {
            ledger: sequence,
            reason: error.to_string(),
        })?;
        let mut metadata = BTreeMap::from([
            ("ledger_sequence".to_owned(), sequence.to_string()),
            ("ledger_closed_at".to_owned(), closed_at(&ledger.meta).to_string()),
            ("pipeline".to_owned(), self.pipeline.clone()),
        ]);
        if let Some(network) = &self.network {
            metadata.insert("network".to_owned(), network.clone());
        }
        Ok(Draft {
            payload: payload.into(),
            origin: Origin {
                ledger: sequence,
                // One message for each ledger, so the last part is always 0 here.
                trace_id: format!("{}/{sequence}/0", self.pipeline),
                metadata,
                archive: provenance(&ledger.file),
            },
        })
    }
}

fn provenance(file: &LedgerFile) -> ArchiveSource {
    let file_name = file.name.rsplit('/').next().unwrap_or(&file.name);
    ArchiveSource {
        source_type: "FS".to_owned(),
        file_path: file.name.clone(),
        file_name: file_name.to_owned(),
        start_ledger: file.start,
        end_ledger: file.end,
        processed_at: Some(prost_types::Timestamp::from(SystemTime::now())),
        file_size: i64::try_from(file.size).unwrap_or(i64::MAX),
        ..ArchiveSource::default()
    }
}
