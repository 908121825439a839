//! The sample network's contracts: the ones reserved for assets, with balances as contract data and
//! events as CAP-46-6 (from protocol 23 on, CAP-67) has them, and one token that is no asset.

use stellar_xdr::{
    AccountId, Asset, ContractDataDurability, ContractDataEntry, ContractEvent, ContractEventBody, ContractEventType,
    ContractEventV0, ContractId, ContractIdPreimage, ExtensionPoint, HashIdPreimage, HashIdPreimageContractId,
    HostFunction, InvokeContractArgs, InvokeHostFunctionOp, LedgerEntryData, LedgerKey, LedgerKeyContractData,
    OperationBody, ScAddress, ScMap, ScMapEntry, ScString, ScSymbol, ScVal, ScVec,
};

use super::state::{State, contract, digest, hash};
use super::{NETWORK_PASSPHRASE, SampleError};

/// The first protocol whose asset contracts report mints and clawbacks without naming the
/// administrator.
pub(super) const UNIFIED_EVENTS: u32 = 23;

/// The contract that is reserved for an asset.
pub(super) fn asset_contract(asset: &Asset) -> Result<ContractId, SampleError> {
    let preimage = HashIdPreimage::ContractId(HashIdPreimageContractId {
        network_id: digest(NETWORK_PASSPHRASE),
        contract_id_preimage: ContractIdPreimage::Asset(asset.clone()),
    });
    hash(&preimage).map(ContractId)
}

/// A contract that holds what users give it.
pub(super) fn vault() -> ContractId {
    contract("vault")
}

/// A contract that begins with all points.
pub(super) fn treasury() -> ContractId {
    contract("treasury")
}

/// A token that is no Stellar asset (SEP-41).
pub(super) fn points() -> ContractId {
    contract("points")
}

pub(super) fn of_account(account: &AccountId) -> ScVal {
    ScVal::Address(ScAddress::Account(account.clone()))
}

pub(super) fn of_contract(contract: &ContractId) -> ScVal {
    ScVal::Address(ScAddress::Contract(contract.clone()))
}

pub(super) fn symbol(name: &str) -> Result<ScVal, SampleError> {
    Ok(ScVal::Symbol(ScSymbol(name.try_into()?)))
}

/// The name that an asset's contract puts into its events (SEP-11).
pub(super) fn asset_name(asset: &Asset) -> Result<ScVal, SampleError> {
    let name = match asset {
        Asset::Native => "native".to_owned(),
        Asset::CreditAlphanum4(asset) => format!("{}:{}", asset.asset_code, asset.issuer),
        Asset::CreditAlphanum12(asset) => format!("{}:{}", asset.asset_code, asset.issuer),
    };
    Ok(ScVal::String(ScString(name.as_str().try_into()?)))
}

/// An event of a token's contract.
pub(super) fn event(token: &ContractId, topics: Vec<ScVal>, data: ScVal) -> Result<ContractEvent, SampleError> {
    Ok(ContractEvent {
        ext: ExtensionPoint::V0,
        contract_id: Some(token.clone()),
        type_: ContractEventType::Contract,
        body: ContractEventBody::V0(ContractEventV0 {
            topics: topics.try_into()?,
            data,
        }),
    })
}

/// A call of a contract's function.
pub(super) fn call(contract: &ContractId, function: &str, args: Vec<ScVal>) -> Result<OperationBody, SampleError> {
    Ok(OperationBody::InvokeHostFunction(InvokeHostFunctionOp {
        host_function: HostFunction::InvokeContract(InvokeContractArgs {
            contract_address: ScAddress::Contract(contract.clone()),
            function_name: ScSymbol(function.try_into()?),
            args: args.try_into()?,
        }),
        auth: Vec::new().try_into()?,
    }))
}

/// Data of a transfer to a muxed address (CAP-67).
pub(super) fn amount_and_id(amount: i128, id: u64) -> Result<ScVal, SampleError> {
    map(vec![("amount", ScVal::from(amount)), ("to_muxed_id", ScVal::U64(id))])
}

/// Adds to what a contract holds of a token, or takes from it.
pub(super) fn credit(
    state: &mut State,
    token: &ContractId,
    holder: &ContractId,
    amount: i128,
) -> Result<(), SampleError> {
    let contract = ScAddress::Contract(token.clone());
    let name = vec![symbol("Balance")?, of_contract(holder)];
    let key = ScVal::Vec(Some(ScVec(name.try_into()?)));
    let found = state.get(&LedgerKey::ContractData(LedgerKeyContractData {
        contract: contract.clone(),
        key: key.clone(),
        durability: ContractDataDurability::Persistent,
    }));
    let held = match found {
        Some(LedgerEntryData::ContractData(entry)) => balance(&entry.val),
        _ => 0,
    };
    let held = held + amount;
    if held < 0 {
        return Err(SampleError::Scenario("a contract gives more than it has"));
    }
    let val = map(vec![
        ("amount", ScVal::from(held)),
        ("authorized", ScVal::Bool(true)),
        ("clawback", ScVal::Bool(false)),
    ])?;
    state.put(LedgerEntryData::ContractData(ContractDataEntry {
        ext: ExtensionPoint::V0,
        contract,
        key,
        durability: ContractDataDurability::Persistent,
        val,
    }));
    Ok(())
}

fn balance(val: &ScVal) -> i128 {
    let ScVal::Map(Some(map)) = val else {
        return 0;
    };
    let amounts = map.iter().filter_map(|entry| match &entry.val {
        ScVal::I128(parts) => Some(i128::from(parts)),
        _ => None,
    });
    amounts.sum()
}

fn map(entries: Vec<(&str, ScVal)>) -> Result<ScVal, SampleError> {
    let entries = entries
        .into_iter()
        .map(|(key, val)| Ok(ScMapEntry { key: symbol(key)?, val }));
    let entries = entries.collect::<Result<Vec<_>, SampleError>>()?;
    Ok(ScVal::Map(Some(ScMap(entries.try_into()?))))
}
