//! One message as a processor or consumer sees it, the same for both, whatever it came in.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;
use flowctl_proto::pipeline::v1::{ArchiveSourceMetadata, ConsumeRequest, ProcessRequest};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{BoxError, Outcome};

/// Properties of a message, by name.
pub type Metadata = BTreeMap<String, String>;

/// One message.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Message {
    /// The same in every delivery of the same message, so it serves to recognise a redelivery. May be empty: nothing
    /// makes a peer send one.
    pub trace_id: String,
    /// The message itself, JSON by convention.
    pub payload: Bytes,
    /// Properties of the message.
    pub metadata: Metadata,
    /// Where the message was read from; never there for a consumer, whose request cannot carry it.
    pub archive_source: Option<ArchiveSourceMetadata>,
    /// When the peer sent it, by the peer's clock.
    pub sent_at: Option<SystemTime>,
}

/// A payload that is not what was expected.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// Nothing was sent.
    #[error("the payload is empty: expected JSON")]
    Empty,
    /// Not JSON, or JSON of another shape.
    #[error("cannot read the payload ({bytes} bytes) as JSON: {source}")]
    Json {
        /// Size of the payload.
        bytes: usize,
        /// What is wrong, with line and column.
        #[source]
        source: serde_json::Error,
    },
}

// === impl Message ===

impl Message {
    /// A message with this payload and nothing else, for tests of processors and consumers.
    #[must_use]
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self {
            payload: payload.into(),
            ..Self::default()
        }
    }

    /// The payload as JSON.
    ///
    /// # Errors
    ///
    /// [`PayloadError`], which names line and column.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, PayloadError> {
        if self.payload.is_empty() {
            return Err(PayloadError::Empty);
        }
        serde_json::from_slice(&self.payload).map_err(|source| PayloadError::Json {
            bytes: self.payload.len(),
            source,
        })
    }

    /// Passes on `payload` as JSON with this message's metadata.
    ///
    /// # Errors
    ///
    /// When `payload` cannot be written as JSON.
    pub fn forward<T: Serialize + ?Sized>(self, payload: &T) -> Result<Outcome, BoxError> {
        let payload =
            serde_json::to_vec(payload).map_err(|source| format!("cannot write the answer as JSON: {source}"))?;
        Ok(Outcome::Forward {
            payload: payload.into(),
            metadata: self.metadata,
        })
    }
}

impl From<ProcessRequest> for Message {
    fn from(request: ProcessRequest) -> Self {
        Self {
            trace_id: request.trace_id,
            payload: request.payload,
            metadata: request.metadata,
            archive_source: request.archive_source,
            // A time that this machine cannot represent tells nothing.
            sent_at: request.sent_at.and_then(|at| at.try_into().ok()),
        }
    }
}

impl From<ConsumeRequest> for Message {
    fn from(request: ConsumeRequest) -> Self {
        Self {
            trace_id: request.trace_id,
            payload: request.payload,
            metadata: request.metadata,
            archive_source: None,
            sent_at: request.sent_at.and_then(|at| at.try_into().ok()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Who sends a wrong payload must be able to find the mistake from the answer alone.
    #[test]
    fn a_wrong_payload_is_located() {
        let error = Message::new("{\n  \"a\": x}")
            .json::<serde_json::Value>()
            .expect_err("no JSON");
        assert!(error.to_string().contains("line 2 column 8"), "{error}");
        let error = Message::new("").json::<serde_json::Value>().expect_err("nothing");
        assert!(error.to_string().contains("empty"), "{error}");
    }

    // Downstream steps rely on properties that earlier ones set.
    #[test]
    fn forwarding_keeps_metadata() {
        let mut message = Message::new("1");
        message.metadata.insert("network".into(), "pubnet".into());
        let metadata = message.metadata.clone();
        let outcome = message.forward(&[1, 2]).expect("JSON");
        assert_eq!(
            outcome,
            Outcome::Forward {
                payload: Bytes::from("[1,2]"),
                metadata
            }
        );
    }
}
