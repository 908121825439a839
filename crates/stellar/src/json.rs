//! A ledger as JSON and back, exactly as stellar-xdr's serde gives it (SEP-51: 64-bit numbers and
//! larger are strings, keys and hashes are strkeys or hex). Nothing is renamed, added or left out,
//! so any reader of XDR-JSON understands it.

use serde::Deserialize as _;
use serde_json::Value;
use stellar_xdr::LedgerCloseMeta;

/// A ledger that cannot be written as JSON, or JSON that is not a ledger.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// Encoding failed.
    #[error("cannot write ledger as json: {0}")]
    Encode(#[source] serde_json::Error),
    /// The JSON does not describe a `LedgerCloseMeta`.
    #[error("cannot read ledger from json: {0}; expected a LedgerCloseMeta in XDR-JSON (SEP-51)")]
    Decode(#[source] serde_json::Error),
}

/// The ledger as a JSON value.
///
/// # Errors
///
/// Fails only for values that JSON cannot express.
pub fn to_json(meta: &LedgerCloseMeta) -> Result<Value, JsonError> {
    serde_json::to_value(meta).map_err(JsonError::Encode)
}

/// The ledger as JSON text in UTF-8, without line breaks.
///
/// # Errors
///
/// Fails only for values that JSON cannot express.
pub fn to_vec(meta: &LedgerCloseMeta) -> Result<Vec<u8>, JsonError> {
    serde_json::to_vec(meta).map_err(JsonError::Encode)
}

/// Reads a ledger from a JSON value.
///
/// # Errors
///
/// Fails when the value is not a `LedgerCloseMeta`.
pub fn from_json(value: &Value) -> Result<LedgerCloseMeta, JsonError> {
    LedgerCloseMeta::deserialize(value).map_err(JsonError::Decode)
}

/// Reads a ledger from JSON text, without building a value in between. Nesting deeper than 128
/// levels is refused.
///
/// # Errors
///
/// Fails when the text is not JSON, or not a `LedgerCloseMeta`.
pub fn from_slice(text: &[u8]) -> Result<LedgerCloseMeta, JsonError> {
    serde_json::from_slice(text).map_err(JsonError::Decode)
}
