//! Processes that are gone: what they had charged to budgets gives way to what the ledger has of them.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{Shared, purses::Purse, wire::count};
use crate::limits::{LimitsUnavailable, Period, Spent};

impl Shared {
    /// As [`crate::limits::RateLimits::close_process`]. Looks at every counter that there is: once or twice for each start
    /// of a gateway.
    pub async fn close_process(&self, gone: Uuid) -> Result<bool, LimitsUnavailable> {
        let (mut cursor, mut nothing) = (0, true);
        loop {
            let (next, purses) = self.purses(cursor).await?;
            for purse in purses {
                nothing &= !self.close_counters(gone, &purse).await?;
            }
            if next == 0 {
                return Ok(nothing);
            }
            cursor = next;
        }
    }

    /// Whether there was anything of the process.
    async fn close_counters(&self, gone: Uuid, purse: &Purse) -> Result<bool, LimitsUnavailable> {
        // Before the ledger is asked: a loss of data meanwhile changes the generation, and then nothing is put right here.
        let generation = self.look().await?;
        let mut connection = self.connection.clone();
        let fields: Vec<String> =
            self.within(redis::cmd("HKEYS").arg(&purse.name).query_async(&mut connection)).await?;
        let periods = periods(&fields, gone);
        for period in &periods {
            let parts = self.ledger.spent_by(purse.tenant, purse.key, *period).await?;
            let part = parts.iter().find(|(process, _)| *process == gone);
            let Spent { day, month } = part.map(|(_, spent)| *spent).unwrap_or_default();
            let arguments = [purse.scope(), count(period.day), count(period.month), count(day), count(month)];
            let _: Vec<i64> =
                self.call_for("close", purse.whose(), &generation, (&arguments[..], gone.to_string())).await?;
        }
        Ok(!periods.is_empty())
    }
}

/// The days, each with its month, and the months of no such day, of which a process has charged something.
fn periods(fields: &[String], process: Uuid) -> Vec<Period> {
    let of = process.to_string();
    let counters = || fields.iter().filter_map(|field| field.split_once('@')).filter(|(_, by)| *by == of);
    let number = |counter: &str, unit: char| counter.strip_prefix(unit)?.parse::<u64>().ok();
    let days = counters().filter_map(|(counter, _)| number(counter, 'd')).map(Period::of_day);
    let mut periods: Vec<_> = days.collect();
    let months: BTreeMap<_, _> = periods.iter().map(|period| (period.month, ())).collect();
    let alone = counters().filter_map(|(counter, _)| number(counter, 'm')).filter(|month| !months.contains_key(month));
    periods.extend(alone.map(Period::of_month));
    periods
}
