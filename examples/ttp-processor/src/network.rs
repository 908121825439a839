//! Which Stellar network a ledger is from. A transaction's hash and an asset's contract both depend
//! on the network's passphrase, which the ledger itself does not carry.

use sha2::{Digest, Sha256};
use stellar_xdr::{
    Asset, ContractId, ContractIdPreimage, Hash, HashIdPreimage, HashIdPreimageContractId, Limits, WriteXdr,
};

/// Passphrases of networks that are recognized without being told: the public ones, stellar-core's
/// own for stand-alone networks and tests, and the samples'.
pub const KNOWN_PASSPHRASES: [&str; 6] = [
    "Public Global Stellar Network ; September 2015",
    "Test SDF Network ; September 2015",
    "Test SDF Future Network ; October 2022",
    "Standalone Network ; February 2017",
    "(V) (;,,;) (V)",
    flowctl_stellar::sample::NETWORK_PASSPHRASE,
];

/// A network's id: the SHA-256 of its passphrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(pub [u8; 32]);

// === impl Network ===

impl Network {
    /// The network with this passphrase.
    #[must_use]
    pub fn from_passphrase(passphrase: &str) -> Self {
        Self(Sha256::digest(passphrase).into())
    }

    /// The contract that is reserved for an asset (CAP-46-6).
    pub(crate) fn asset_contract(self, asset: &Asset) -> Result<ContractId, stellar_xdr::Error> {
        let preimage = HashIdPreimage::ContractId(HashIdPreimageContractId {
            network_id: Hash(self.0),
            contract_id_preimage: ContractIdPreimage::Asset(asset.clone()),
        });
        hash(&preimage).map(ContractId)
    }
}

/// SHA-256 of a value's XDR.
pub(crate) fn hash(value: &impl WriteXdr) -> Result<Hash, stellar_xdr::Error> {
    let xdr = value.to_xdr(Limits::none())?;
    Ok(Hash(Sha256::digest(xdr).into()))
}
