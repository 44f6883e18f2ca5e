//! The script's numbers, and what they mean.

use std::time::Duration;

use crate::limits::{
    Ask, ByProcess, Denied, Exceeded, Explained, Granted, Left, Limit, LimitsUnavailable, Period, Rate, Rates, Refusal,
    Scope, Spent, Standing, ask::worst,
};

/// What `reserve` takes.
pub fn reserve(ask: &Ask) -> Vec<i64> {
    let mut arguments = vec![ask.input_tokens.into(), ask.output_tokens.into(), millis(ask.lease)];
    for rates in [ask.of_tenant, ask.of_key] {
        arguments.extend(RATES.map(|rate| most(rates, rate)));
    }
    arguments.extend(price(ask));
    arguments
}

/// What `extend` takes.
pub fn extend(ask: &Ask, total: u32) -> Vec<i64> {
    let mut arguments = vec![total.into()];
    for rates in [ask.of_tenant, ask.of_key] {
        arguments
            .extend([Rate::OutputTokensPerMinute, Rate::BudgetDay, Rate::BudgetMonth].map(|rate| most(rates, rate)));
    }
    arguments.extend(price(ask));
    arguments
}

/// What `borrow` takes: how long it is valid and leased in milliseconds, into how many parts what is left is divided; what
/// it should hold.
pub fn borrow(ask: &Ask, terms: [i64; 3], wanted: [u64; 5]) -> Vec<i64> {
    let mut arguments: Vec<_> = terms.into();
    arguments.extend(wanted.map(count));
    for rates in [ask.of_tenant, ask.of_key] {
        arguments.extend(RATES.map(|rate| most(rates, rate)));
    }
    arguments
}

/// What `adopt` takes.
pub fn adopt(ask: &Ask, begun: Granted, total: u32) -> Vec<i64> {
    let [tenant, key] = ask.budgeted();
    let Period { day, month } = Period::of(begun.at_ms);
    vec![
        ask.input_tokens.into(),
        total.into(),
        millis(ask.lease),
        1 + i64::from(ask.of_key.any()),
        i64::from(tenant) + 2 * i64::from(key),
        count(day),
        count(month),
        count(ask.cost_at_most(total.into())),
        count(ask.cost_at_most(begun.output.into())),
    ]
}

/// What `seed` takes: day, month, how many requests are adopted, which scopes are asked of; what the ledger has of each.
pub fn seed(of: [i64; 4], spent: &[Option<ByProcess>; 2]) -> Vec<String> {
    let mut arguments: Vec<_> = of.iter().map(i64::to_string).collect();
    for (scope, parts) in [1, 2].into_iter().zip(spent) {
        for (process, Spent { day, month }) in parts.iter().flatten() {
            let amounts = [*day, *month].map(|amount| count(amount).to_string());
            arguments.extend([scope.to_string(), process.to_string()]);
            arguments.extend(amounts);
        }
    }
    arguments
}

/// What `left` told.
pub fn left(ask: &Ask, told: &[i64]) -> Vec<Left> {
    let mut numbers = told.iter().map(|number| u64::try_from(*number).unwrap_or_default());
    let mut number = || numbers.next().unwrap_or_default();
    let windows = std::array::from_fn(|_| std::array::from_fn(|_| (number(), number())));
    Left::of(ask, &windows)
}

/// Pairs of a scope and a limit.
pub fn limits(pairs: &[i64]) -> Result<Vec<Limit>, LimitsUnavailable> {
    let limits = pairs.chunks(2).map(|pair| limit(*pair.first()?, *pair.get(1)?));
    limits.collect::<Option<_>>().ok_or_else(nonsense)
}

/// In the order of the script's numbers for them, which begin at 1.
const RATES: [Rate; 6] = Rate::ALL;
const NO_LIMIT: i64 = -1;
/// Of operations that take nothing.
pub const NOTHING: &[i64] = &[];
/// Begins an answer that says of which money nothing is known.
pub const UNKNOWN: i64 = -1;

fn most(rates: Rates, rate: Rate) -> i64 {
    rates.of(rate).map_or(NO_LIMIT, count)
}

/// Of the prompt, then of each token of the answer: whole micro-units and millionths of one.
fn price(ask: &Ask) -> [i64; 4] {
    const MILLION: u128 = 1_000_000;
    let price = worst(ask.price);
    let prompt = u128::from(ask.input_tokens) * u128::from(price.input);
    [prompt, price.output.into()]
        .map(|millionths| [millionths / MILLION, millionths % MILLION])
        .as_flattened()
        .first_chunk::<4>()
        .map_or([0; 4], |parts| parts.map(|part| count(u64::try_from(part).unwrap_or(u64::MAX))))
}

fn limit(scope: i64, rate: i64) -> Option<Limit> {
    let scope = match scope {
        1 => Scope::Tenant,
        2 => Scope::Key,
        _ => return None,
    };
    let rate = RATES.get(usize::try_from(rate).ok()?.checked_sub(1)?)?;
    Some(Limit { scope, rate: *rate })
}

pub fn read_refusal(answer: &[i64]) -> Denied {
    let exceeded = answer.chunks(4).map(|one| {
        let [scope, rate, over, retry_ms] = one else { return None };
        let retry_after = u64::try_from(*retry_ms).ok().map(Duration::from_millis);
        Some(Exceeded { limit: limit(*scope, *rate)?, over: u64::try_from(*over).ok()?, retry_after })
    });
    match exceeded.collect::<Option<Vec<_>>>() {
        Some(exceeded) if !exceeded.is_empty() => Denied::Refused(Refusal { exceeded }),
        _ => Denied::Unavailable(nonsense()),
    }
}

pub fn read_explained(ask: &Ask, answer: &[i64]) -> Result<Explained, LimitsUnavailable> {
    let standings = answer.chunks(8).map(|one| {
        let [scope, rate, used, reserved, needed, over, free_ms, room] = *one else { return None };
        let limit = limit(scope, rate)?;
        let amount = |number: i64| u64::try_from(number).ok();
        Some(Standing {
            limit,
            most: ask.rates(limit.scope).of(limit.rate)?,
            used: amount(used)?,
            reserved: amount(reserved)?,
            needed: amount(needed)?,
            refuses: over > 0,
            refills_after: amount(free_ms).map(Duration::from_millis),
            room: amount(room),
        })
    });
    let limits = standings.collect::<Option<_>>().ok_or_else(nonsense)?;
    Ok(Explained { limits, wanted: ask.output_tokens.into() })
}

pub fn nonsense() -> LimitsUnavailable {
    LimitsUnavailable::Silent("an answer that the script never gives".to_owned())
}

/// At most 2^53, as the script needs it: more than any limit.
pub fn count(amount: u64) -> i64 {
    i64::try_from(amount.min(1 << 53)).unwrap_or(i64::MAX)
}

pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::from(u32::MAX))
}
