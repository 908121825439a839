//! Sample ledgers.

/// Passphrase of the network that the sample ledgers say they are from.
pub const NETWORK_PASSPHRASE: &str = "flowctl sample network ; not a real one";
