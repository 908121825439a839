//! Token events that contracts report themselves: of Stellar assets' own contracts (CAP-46-6, and
//! CAP-67 from protocol 23 on) and of other tokens with the same interface (SEP-41). A contract may
//! report anything, so an event that does not have the interface's form is no token event, and an
//! asset's name is believed only from the contract that is reserved for that asset.

use std::rc::Rc;

use stellar_xdr::{
    AccountId, AlphaNum4, AlphaNum12, Asset, AssetCode, ContractEvent, ContractEventBody, ContractEventType,
    Int128Parts, ScAddress, ScString, ScVal,
};

use crate::event::{Amount, Kind};
use crate::party::{Party, Token, Tokens};

/// A token event as the contract reported it.
pub(crate) struct Reported {
    pub(crate) kind: Kind,
    pub(crate) token: Rc<Token>,
    pub(crate) from: Option<Party>,
    pub(crate) to: Option<Party>,
    pub(crate) amount: Amount,
}

/// Reads a contract's event; `None` when it is not a token event.
pub(crate) fn read(event: &ContractEvent, tokens: &mut Tokens) -> Result<Option<Reported>, stellar_xdr::Error> {
    let (ContractEventType::Contract, Some(contract)) = (event.type_, &event.contract_id) else {
        return Ok(None);
    };
    let ContractEventBody::V0(body) = &event.body;
    let Some(parsed) = parse(&body.topics, &body.data) else {
        return Ok(None);
    };
    let contract_id = contract.to_string();
    let named = match parsed.asset.and_then(asset_named) {
        Some(asset) => Some(tokens.get(&asset)?),
        None => None,
    };
    let token = named
        .filter(|token| token.contract_id == contract_id)
        .unwrap_or_else(|| {
            Rc::new(Token {
                name: contract_id.clone(),
                issuer: None,
                contract_id,
            })
        });
    Ok(Some(Reported {
        kind: parsed.kind,
        token,
        from: parsed.from,
        to: parsed.to,
        amount: parsed.amount,
    }))
}

struct Parsed<'a> {
    kind: Kind,
    from: Option<Party>,
    to: Option<Party>,
    amount: Amount,
    /// The name that a Stellar asset's contract adds (SEP-11).
    asset: Option<&'a ScString>,
}

fn parse<'a>(topics: &'a [ScVal], data: &ScVal) -> Option<Parsed<'a>> {
    let (ScVal::Symbol(name), rest) = topics.split_first()? else {
        return None;
    };
    let (rest, asset) = match rest {
        [rest @ .., ScVal::String(asset)] => (rest, Some(asset)),
        rest => (rest, None),
    };
    let parties = rest
        .iter()
        .map(|topic| match topic {
            ScVal::Address(address) => Some(Party::contract_address(address)),
            _ => None,
        })
        .collect::<Option<Vec<_>>>()?;
    let (amount, to_muxed_id) = amount(data)?;
    // Until protocol 22, mint and clawback also named the administrator, first.
    let (kind, from, to) = match (name.0.as_slice(), &parties[..]) {
        (b"transfer", [from, to]) => (Kind::Transfer, Some(from), Some(to)),
        (b"mint", [to] | [_, to]) => (Kind::Mint, None, Some(to)),
        (b"burn", [from]) => (Kind::Burn, Some(from), None),
        (b"clawback", [from] | [_, from]) => (Kind::Clawback, Some(from), None),
        _ => return None,
    };
    let to = to.cloned().map(|to| Party {
        muxed_id: to_muxed_id.or(to.muxed_id),
        ..to
    });
    Some(Parsed {
        kind,
        from: from.cloned(),
        to,
        amount,
        asset,
    })
}

/// An amount alone, or (CAP-67) a map with the amount and the receiver's number.
fn amount(data: &ScVal) -> Option<(Amount, Option<String>)> {
    match data {
        ScVal::I128(parts) => Some((int128(parts), None)),
        ScVal::Map(Some(map)) => {
            let get = |wanted: &[u8]| {
                let entry = map
                    .iter()
                    .find(|entry| matches!(&entry.key, ScVal::Symbol(key) if key.0.as_slice() == wanted));
                entry.map(|entry| &entry.val)
            };
            let Some(ScVal::I128(parts)) = get(b"amount") else {
                return None;
            };
            let id = match get(b"to_muxed_id") {
                Some(ScVal::U64(id)) => Some(id.to_string()),
                Some(ScVal::String(id)) => Some(String::from_utf8_lossy(&id.0).into_owned()),
                Some(ScVal::Bytes(id)) => Some(hex(&id.0)),
                _ => None,
            };
            Some((int128(parts), id))
        }
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn int128(parts: &Int128Parts) -> Amount {
    Amount((i128::from(parts.hi) << 64) | i128::from(parts.lo))
}

/// The asset that `native` or `CODE:ISSUER` names.
fn asset_named(name: &ScString) -> Option<Asset> {
    let name = std::str::from_utf8(&name.0).ok()?;
    if name == "native" {
        return Some(Asset::Native);
    }
    let (code, issuer) = name.split_once(':')?;
    let issuer: AccountId = match issuer.parse().ok()? {
        ScAddress::Account(issuer) => issuer,
        _ => return None,
    };
    Some(match code.parse().ok()? {
        AssetCode::CreditAlphanum4(asset_code) => Asset::CreditAlphanum4(AlphaNum4 { asset_code, issuer }),
        AssetCode::CreditAlphanum12(asset_code) => Asset::CreditAlphanum12(AlphaNum12 { asset_code, issuer }),
    })
}
