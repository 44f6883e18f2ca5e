//! Every counter of money that Redis has, and how they compare with the ledger.

use domain::{ApiKeyId, RequestId, TenantId};
use uuid::Uuid;

use super::Shared;
use crate::limits::{BudgetsCompared, LimitsUnavailable, Period, Spent};

/// Keys that Redis looks at for one page of them.
const PAGE: usize = 500;

/// The counters of a tenant, or of one of its keys.
pub struct Purse {
    pub tenant: TenantId,
    pub key: Option<ApiKeyId>,
    /// What they stand under in Redis.
    pub name: String,
}

impl Shared {
    /// As [`crate::limits::RateLimits::compare_budgets`].
    pub async fn compare_budgets(&self) -> Result<BudgetsCompared, LimitsUnavailable> {
        let (mut cursor, mut compared) = (0, BudgetsCompared::default());
        loop {
            let (next, purses) = self.purses(cursor).await?;
            for purse in purses {
                let generation = self.look().await?;
                let counters: Vec<(String, i64, i64)> =
                    self.call_for("stands", purse.whose(), &generation, &[purse.scope()][..]).await?;
                for (name, charged, reserved) in counters {
                    let counted = u64::try_from(charged - reserved).unwrap_or_default();
                    compared.add(counted, self.spent_of(&purse, &name).await?);
                }
            }
            if next == 0 {
                return Ok(compared);
            }
            cursor = next;
        }
    }

    /// By the ledger, in the day or the month that a counter is of.
    async fn spent_of(&self, purse: &Purse, counter: &str) -> Result<u64, LimitsUnavailable> {
        let number = |unit| counter.strip_prefix(unit)?.parse::<u64>().ok();
        let (day, month) = (number('d'), number('m'));
        let Some(period) = day.map(Period::of_day).or_else(|| month.map(Period::of_month)) else { return Ok(0) };
        let spent = Spent::sum(&self.ledger.spent_by(purse.tenant, purse.key, period).await?);
        Ok(if day.is_some() { spent.day } else { spent.month })
    }

    /// A page of them, and where the next one begins: 0 after the last.
    pub async fn purses(&self, cursor: u64) -> Result<(u64, Vec<Purse>), LimitsUnavailable> {
        let mut page = redis::cmd("SCAN");
        page.arg(cursor).arg("MATCH").arg(format!("{}:{{*:money", self.options.prefix)).arg("COUNT").arg(PAGE);
        let mut connection = self.connection.clone();
        let (next, names): (u64, Vec<String>) = self.within(page.query_async(&mut connection)).await?;
        Ok((next, names.into_iter().filter_map(|name| Purse::named(&self.options.prefix, name)).collect()))
    }
}

impl Purse {
    /// `<prefix>:{<tenant>}:money` or `<prefix>:{<tenant>}:<key>:money`.
    fn named(prefix: &str, name: String) -> Option<Self> {
        let (tenant, rest) = name.strip_prefix(prefix)?.strip_prefix(":{")?.split_once("}:")?;
        let tenant = TenantId::new(tenant.parse().ok()?);
        let key = match rest.strip_suffix(":money") {
            Some(key) => Some(ApiKeyId::new(key.parse().ok()?)),
            None if rest == "money" => None,
            None => return None,
        };
        Some(Self { tenant, key, name })
    }

    /// What the script is called for: no request, and of a tenant's purse no key.
    pub fn whose(&self) -> (RequestId, TenantId, ApiKeyId) {
        (RequestId::new(Uuid::nil()), self.tenant, self.key.unwrap_or(ApiKeyId::new(Uuid::nil())))
    }

    /// The script's number for it.
    pub fn scope(&self) -> i64 {
        1 + i64::from(self.key.is_some())
    }
}
