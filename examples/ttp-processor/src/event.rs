//! The events themselves and their JSON: what moved, from whom, to whom, and where in the ledger
//! that is written. Kinds and meaning follow CAP-67 and Stellar's token transfer processor. No
//! knowledge of XDR here.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What happened to the tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// From one holder to another.
    Transfer,
    /// The issuer (or a token contract) made new ones: no `from`.
    Mint,
    /// They went back to their issuer, or were destroyed: no `to`.
    Burn,
    /// The issuer took them back: no `to`.
    Clawback,
    /// Paid for a transaction: no `to`. Negative for the part of a Soroban fee that was refunded.
    Fee,
}

/// An amount in the token's smallest unit (stroops, 1e-7, for Stellar assets). A string in JSON:
/// contracts count in 128 bits, and JSON readers lose digits behind 53.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(pub i128);

/// One movement of tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub struct TokenEvent {
    /// What happened.
    pub kind: Kind,
    /// Who had the tokens before: an account (`G…`), contract (`C…`), claimable balance (`B…`) or
    /// liquidity pool (`L…`). Absent for a mint.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from: Option<String>,
    /// Who has them after. Absent for burn, clawback and fee.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub to: Option<String>,
    /// `native`, `CODE:ISSUER`, or the contract (`C…`) of a token that is no Stellar asset.
    pub asset: String,
    /// How much.
    pub amount: Amount,
    /// The ledger's number.
    pub ledger: u32,
    /// When the ledger closed (RFC 3339, UTC).
    pub closed_at: Timestamp,
    /// Hash of the transaction, hexadecimal; of the outer one for a fee bump.
    pub tx_hash: String,
    /// Which transaction of the ledger in the order of application, from 1.
    pub tx_index: u32,
    /// Which operation of the transaction, from 1. Absent for fees.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub op_index: Option<u32>,
    /// The token's contract; for a Stellar asset the one that is reserved for it, deployed or not.
    pub contract_id: String,
    /// The number behind `from`, when the sender was named by a muxed address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from_muxed_id: Option<String>,
    /// The number (or, from a contract, text or hexadecimal bytes) behind `to`, when the receiver
    /// was named by a muxed address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub to_muxed_id: Option<String>,
}

/// All events of one ledger, in the order of its transactions: the fee of each, then its
/// operations' events, then a refund. A ledger without events has an empty list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub struct LedgerEvents {
    /// The ledger's number.
    pub ledger: u32,
    /// When it closed (RFC 3339, UTC).
    pub closed_at: Timestamp,
    /// What moved.
    pub events: Vec<TokenEvent>,
}

// === impl Amount ===

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Amount {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}
