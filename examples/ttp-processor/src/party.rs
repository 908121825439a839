//! Names for the two sides of a movement and for what is moved. Muxed accounts are reduced to the
//! account that holds the tokens; their number is kept beside it.

use std::collections::HashMap;
use std::rc::Rc;

use stellar_xdr::{AccountId, Asset, ClaimableBalanceId, MuxedAccount, PoolId, PublicKey, ScAddress, Uint256};

use crate::network::Network;
use crate::view::Source;

/// Somebody or something that holds tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Party {
    pub(crate) address: String,
    pub(crate) muxed_id: Option<String>,
}

/// What is moved.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// `native`, `CODE:ISSUER`, or a contract's address.
    pub(crate) name: String,
    /// Address of the issuer, whose own balance does not exist.
    pub(crate) issuer: Option<String>,
    pub(crate) contract_id: String,
}

/// The Stellar assets of one ledger, named once each: a ledger moves few assets many times.
pub(crate) struct Tokens {
    network: Network,
    known: HashMap<Asset, Rc<Token>>,
}

// === impl Party ===

impl Party {
    fn plain(address: impl ToString) -> Self {
        Self {
            address: address.to_string(),
            muxed_id: None,
        }
    }

    fn key(key: &Uint256) -> Self {
        Self::plain(PublicKey::PublicKeyTypeEd25519(key.clone()))
    }

    pub(crate) fn account(account: &AccountId) -> Self {
        Self::plain(account)
    }

    pub(crate) fn muxed(account: &MuxedAccount) -> Self {
        match account {
            MuxedAccount::Ed25519(key) => Self::key(key),
            MuxedAccount::MuxedEd25519(muxed) => Self {
                muxed_id: Some(muxed.id.to_string()),
                ..Self::key(&muxed.ed25519)
            },
        }
    }

    pub(crate) fn source(source: Source<'_>) -> Self {
        match source {
            Source::Key(key) => Self::key(key),
            Source::Muxed(account) => Self::muxed(account),
        }
    }

    pub(crate) fn seller(key: &Uint256) -> Self {
        Self::key(key)
    }

    pub(crate) fn pool(pool: &PoolId) -> Self {
        Self::plain(pool)
    }

    pub(crate) fn balance(balance: &ClaimableBalanceId) -> Self {
        Self::plain(balance)
    }

    pub(crate) fn contract_address(address: &ScAddress) -> Self {
        match address {
            ScAddress::MuxedAccount(muxed) => Self {
                muxed_id: Some(muxed.id.to_string()),
                ..Self::key(&muxed.ed25519)
            },
            ScAddress::MuxedContract(muxed) => Self {
                muxed_id: Some(muxed.id.to_string()),
                ..Self::plain(&muxed.contract_id)
            },
            ScAddress::Account(_)
            | ScAddress::Contract(_)
            | ScAddress::ClaimableBalance(_)
            | ScAddress::LiquidityPool(_) => Self::plain(address),
        }
    }
}

// === impl Tokens ===

impl Tokens {
    pub(crate) fn new(network: Network) -> Self {
        Self {
            network,
            known: HashMap::new(),
        }
    }

    pub(crate) fn get(&mut self, asset: &Asset) -> Result<Rc<Token>, stellar_xdr::Error> {
        if let Some(token) = self.known.get(asset) {
            return Ok(Rc::clone(token));
        }
        let issuer = match asset {
            Asset::Native => None,
            Asset::CreditAlphanum4(asset) => Some(asset.issuer.to_string()),
            Asset::CreditAlphanum12(asset) => Some(asset.issuer.to_string()),
        };
        let token = Rc::new(Token {
            name: asset_name(asset),
            issuer,
            contract_id: self.network.asset_contract(asset)?.to_string(),
        });
        self.known.insert(asset.clone(), Rc::clone(&token));
        Ok(token)
    }
}

/// `native` or `CODE:ISSUER`.
fn asset_name(asset: &Asset) -> String {
    match asset {
        Asset::Native => "native".to_owned(),
        Asset::CreditAlphanum4(asset) => format!("{}:{}", asset.asset_code, asset.issuer),
        Asset::CreditAlphanum12(asset) => format!("{}:{}", asset.asset_code, asset.issuer),
    }
}
