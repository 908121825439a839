//! The sample network's market: two offers of a market maker that never run out, and a liquidity
//! pool. Exchanges change entries and give the claim that the operation's result shows.

use stellar_xdr::{
    AccountId, Asset, ClaimAtom, ClaimLiquidityAtom, ClaimOfferAtom, LedgerEntryData, LedgerKey,
    LedgerKeyLiquidityPool, LedgerKeyOffer, LiquidityPoolConstantProductParameters, LiquidityPoolEntry,
    LiquidityPoolEntryBody, LiquidityPoolEntryConstantProduct, LiquidityPoolParameters, OfferEntry, PoolId, Price,
    TrustLineAsset,
};

use super::SampleError;
use super::state::{State, account, gold, hash, line_key, usd};

/// Sells `SUSD` at 4 XLM.
pub(super) const USD_FOR_XLM: i64 = 1;
/// Sells `SAMPLEGOLD` at 50 `SUSD`.
pub(super) const GOLD_FOR_USD: i64 = 2;

/// What pools charge, in hundredths of a percent; the protocol has no other.
const POOL_FEE: i32 = 30;

/// What a pool is for; its id is the hash of this.
pub(super) fn pool_parameters() -> LiquidityPoolConstantProductParameters {
    LiquidityPoolConstantProductParameters {
        asset_a: Asset::Native,
        asset_b: usd(),
        fee: POOL_FEE,
    }
}

pub(super) fn pool_id() -> Result<PoolId, SampleError> {
    let parameters = LiquidityPoolParameters::LiquidityPoolConstantProduct(pool_parameters());
    hash(&parameters).map(PoolId)
}

pub(super) fn maker() -> AccountId {
    account("market maker")
}

/// An offer as the market maker makes it.
pub(super) fn offer(id: i64) -> OfferEntry {
    let (selling, buying, n) = if id == USD_FOR_XLM {
        (usd(), Asset::Native, 4)
    } else {
        (gold(), usd(), 50)
    };
    OfferEntry {
        seller_id: maker(),
        offer_id: id,
        selling,
        buying,
        amount: 1 << 55,
        price: Price { n, d: 1 },
        ..OfferEntry::default()
    }
}

/// Puts the pool into place with these reserves, and its shares to the market maker.
pub(super) fn open_pool(state: &mut State, reserves: [i64; 2], shares: i64) -> Result<(), SampleError> {
    let pool = pool_id()?;
    state.new_line(&maker(), TrustLineAsset::PoolShare(pool.clone()), shares);
    put_pool(
        state,
        pool,
        LiquidityPoolEntryConstantProduct {
            params: pool_parameters(),
            reserve_a: reserves[0],
            reserve_b: reserves[1],
            total_pool_shares: shares,
            pool_shares_trust_line_count: 1,
        },
    );
    Ok(())
}

fn put_pool(state: &mut State, pool: PoolId, body: LiquidityPoolEntryConstantProduct) {
    state.put(LedgerEntryData::LiquidityPool(LiquidityPoolEntry {
        liquidity_pool_id: pool,
        body: LiquidityPoolEntryBody::LiquidityPoolConstantProduct(body),
    }));
}

fn pool(state: &State) -> Result<(PoolId, LiquidityPoolEntryConstantProduct), SampleError> {
    let id = pool_id()?;
    let key = LedgerKey::LiquidityPool(LedgerKeyLiquidityPool {
        liquidity_pool_id: id.clone(),
    });
    match state.get(&key) {
        Some(LedgerEntryData::LiquidityPool(entry)) => {
            let LiquidityPoolEntryBody::LiquidityPoolConstantProduct(body) = &entry.body;
            Ok((id, body.clone()))
        }
        _ => Err(SampleError::Scenario("the liquidity pool does not exist")),
    }
}

/// The taker buys this much of what an offer sells.
pub(super) fn take(state: &mut State, id: i64, taker: &AccountId, sold: i64) -> Result<ClaimAtom, SampleError> {
    let key = LedgerKey::Offer(LedgerKeyOffer {
        seller_id: maker(),
        offer_id: id,
    });
    let Some(LedgerEntryData::Offer(entry)) = state.get(&key) else {
        return Err(SampleError::Scenario("an offer does not exist"));
    };
    let mut entry = entry.clone();
    let bought = sold * i64::from(entry.price.n);
    entry.amount -= sold;
    let atom = ClaimOfferAtom {
        seller_id: entry.seller_id.clone(),
        offer_id: entry.offer_id,
        asset_sold: entry.selling.clone(),
        amount_sold: sold,
        asset_bought: entry.buying.clone(),
        amount_bought: bought,
    };
    state.pay(&entry.selling, &entry.seller_id, taker, sold)?;
    state.pay(&entry.buying, taker, &entry.seller_id, bought)?;
    state.put(LedgerEntryData::Offer(entry));
    Ok(ClaimAtom::OrderBook(atom))
}

/// The taker gives this much to the pool and gets what its product rule allows (CAP-38). Also says
/// how much that is.
pub(super) fn swap(
    state: &mut State,
    give: Give,
    taker: &AccountId,
    bought: i64,
) -> Result<(ClaimAtom, i64), SampleError> {
    let (id, mut body) = pool(state)?;
    let (reserve_in, reserve_out) = match give {
        Give::Xlm => (body.reserve_a, body.reserve_b),
        Give::Usd => (body.reserve_b, body.reserve_a),
    };
    let kept = i128::from(10_000 - POOL_FEE);
    let paid = i128::from(bought) * kept;
    let sold = i128::from(reserve_out) * paid / (i128::from(reserve_in) * 10_000 + paid);
    let sold = i64::try_from(sold).map_err(|_| SampleError::Scenario("the pool is exhausted"))?;
    let (asset_bought, asset_sold) = match give {
        Give::Xlm => {
            body.reserve_a += bought;
            body.reserve_b -= sold;
            (Asset::Native, usd())
        }
        Give::Usd => {
            body.reserve_b += bought;
            body.reserve_a -= sold;
            (usd(), Asset::Native)
        }
    };
    state.credit(taker, &asset_bought, -bought)?;
    state.credit(taker, &asset_sold, sold)?;
    put_pool(state, id.clone(), body);
    let atom = ClaimAtom::LiquidityPool(ClaimLiquidityAtom {
        liquidity_pool_id: id,
        asset_sold,
        amount_sold: sold,
        asset_bought,
        amount_bought: bought,
    });
    Ok((atom, sold))
}

/// What a taker gives to the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Give {
    Xlm,
    Usd,
}

/// Pays into the pool in the proportion of its reserves, for this many shares.
pub(super) fn deposit(state: &mut State, who: &AccountId, shares: i64) -> Result<(), SampleError> {
    let (id, mut body) = pool(state)?;
    let total = i128::from(body.total_pool_shares);
    let part = |reserve: i64| i64::try_from((i128::from(reserve) * i128::from(shares) + total - 1) / total);
    let (Ok(a), Ok(b)) = (part(body.reserve_a), part(body.reserve_b)) else {
        return Err(SampleError::Scenario("a deposit is too large"));
    };
    state.credit(who, &body.params.asset_a, -a)?;
    state.credit(who, &body.params.asset_b, -b)?;
    body.reserve_a += a;
    body.reserve_b += b;
    body.total_pool_shares += shares;
    let mut line = state.line(who, TrustLineAsset::PoolShare(id.clone()))?;
    line.balance += shares;
    state.put(LedgerEntryData::Trustline(line));
    put_pool(state, id, body);
    Ok(())
}

/// Takes this many shares out of the pool; says how much of each asset they are worth. The shares'
/// owner does not get it yet.
pub(super) fn redeem(state: &mut State, who: &AccountId, shares: i64) -> Result<[i64; 2], SampleError> {
    let (id, mut body) = pool(state)?;
    let total = i128::from(body.total_pool_shares);
    let part = |reserve: i64| i64::try_from(i128::from(reserve) * i128::from(shares) / total);
    let (Ok(a), Ok(b)) = (part(body.reserve_a), part(body.reserve_b)) else {
        return Err(SampleError::Scenario("a withdrawal is too large"));
    };
    body.reserve_a -= a;
    body.reserve_b -= b;
    body.total_pool_shares -= shares;
    let mut line = state.line(who, TrustLineAsset::PoolShare(id.clone()))?;
    line.balance -= shares;
    state.put(LedgerEntryData::Trustline(line));
    put_pool(state, id, body);
    Ok([a, b])
}

/// Adds or takes away an empty trust line for pool shares.
pub(super) fn share_line(state: &mut State, who: &AccountId, present: bool) -> Result<(), SampleError> {
    let (id, mut body) = pool(state)?;
    let asset = TrustLineAsset::PoolShare(id.clone());
    if present {
        state.new_line(who, asset, 0);
        body.pool_shares_trust_line_count += 1;
    } else {
        state.remove(&line_key(who, asset));
        body.pool_shares_trust_line_count -= 1;
    }
    put_pool(state, id, body);
    Ok(())
}
