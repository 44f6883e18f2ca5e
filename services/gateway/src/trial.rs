//! What other limits would have done to the requests of the last while: reads what is on record of them, and runs it
//! through the limits once more. Changes nothing.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use domain::{ApiKeyId, Fault, KeyLimits, Limits, Price, RequestId, TenantId};
use futures::{FutureExt as _, future::BoxFuture};
use store::{Page, PastRequest, Store, TenantScope};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    config::{LimitsConfig, ms},
    limits::{BudgetSource, ByProcess, LimitsUnavailable, Past, Period, Rates, Replayed, Spent, replay},
    prices::Prices,
    store_fault::StoreFault as _,
};

/// Cheap to clone.
#[derive(Clone)]
pub struct Trial {
    store: Store,
    prices: Prices,
    past: Duration,
    requests_max: u32,
}

/// The limits of one tenant as they would be.
pub struct Changed {
    pub tenant: TenantId,
    pub limits: Limits,
    /// A key whose own limits would be others, too.
    pub key: Option<(ApiKeyId, KeyLimits)>,
}

/// What came of it.
pub struct Tried {
    pub from: OffsetDateTime,
    pub to: OffsetDateTime,
    /// There were more requests: these are the newest.
    pub truncated: bool,
    pub replayed: Replayed,
}

impl Trial {
    pub const fn new(store: Store, prices: Prices, config: &LimitsConfig) -> Self {
        Self { store, prices, past: ms(config.try_ms), requests_max: config.try_requests_max }
    }

    /// Prices are those that hold now.
    pub async fn run(&self, changed: &[Changed]) -> Result<Tried, Fault> {
        let to = OffsetDateTime::now_utc();
        let mut from = to - self.past;
        let (mut past, mut truncated) = (Vec::new(), false);
        for one in changed {
            past.extend(self.past_of(one, from).await?);
            truncated |= self.keep_newest(&mut past);
        }
        if let Some(first) = past.first().filter(|_| truncated) {
            from = at(first.began_ms);
        }
        let spent = self.spent_before(&past, from).await?;
        let replaying = tokio::task::spawn_blocking(move || replay(&past, Arc::new(spent)));
        let replayed = replaying.await.map_err(|_| Fault::internal())?;
        Ok(Tried { from, to, truncated, replayed })
    }

    async fn past_of(&self, changed: &Changed, from: OffsetDateTime) -> Result<Vec<Past>, Fault> {
        let rows = self.store.tenant(changed.tenant);
        let found = rows.past_requests(from, self.requests_max.saturating_add(1)).await;
        let found = found.map_err(|error| error.fault("requests"))?;
        let mut keys = key_limits(&rows).await?;
        keys.extend(changed.key);
        let mut prices = BTreeMap::<String, Price>::new();
        let mut past = Vec::new();
        for request in found {
            let price = match prices.get(&request.model) {
                Some(price) => *price,
                None => {
                    let price = self.price(changed.tenant, &request.model).await?;
                    *prices.entry(request.model.clone()).or_insert(price)
                }
            };
            let of_key = keys.get(&request.api_key).copied().unwrap_or_default();
            past.push(as_past(changed.tenant, &request, price, changed.limits.into(), of_key.into()));
        }
        Ok(past)
    }

    async fn price(&self, tenant: TenantId, model: &str) -> Result<Price, Fault> {
        match model.parse() {
            Ok(model) => self.prices.of(tenant, &model).await,
            // A name that was good when it was recorded.
            Err(_) => Ok(Price::default()),
        }
    }

    /// In the order of their coming; says whether some had to go.
    fn keep_newest(&self, past: &mut Vec<Past>) -> bool {
        past.sort_by_key(|one| (one.began_ms, one.id));
        let most = usize::try_from(self.requests_max).unwrap_or(usize::MAX);
        let surplus = past.len().saturating_sub(most);
        past.drain(..surplus);
        surplus > 0
    }

    /// What the budgets among these limits had seen before the first request.
    async fn spent_before(&self, past: &[Past], from: OffsetDateTime) -> Result<SpentBefore, Fault> {
        let period = Period::of(millis(from));
        let mut spent = HashMap::new();
        for one in past {
            let scopes = [(None, one.of_tenant), (Some(one.key), one.of_key)];
            for (key, _) in scopes.into_iter().filter(|(_, rates)| rates.budgeted()) {
                if let Entry::Vacant(unknown) = spent.entry((one.tenant, key)) {
                    let [day, month] = period.starts();
                    let rows = self.store.tenant(one.tenant);
                    let sum =
                        async |start| rows.spent(key, start, from, &[]).await.map_err(|error| error.fault("ledger"));
                    unknown.insert(Spent { day: sum(day).await?, month: sum(month).await? });
                }
            }
        }
        Ok(SpentBefore { period, spent })
    }
}

/// Of a day and a month that had begun; later ones begin with nothing.
struct SpentBefore {
    period: Period,
    spent: HashMap<(TenantId, Option<ApiKeyId>), Spent>,
}

impl BudgetSource for SpentBefore {
    fn spent<'a>(
        &'a self,
        tenant: TenantId,
        key: Option<ApiKeyId>,
        period: Period,
        _: &'a [RequestId],
    ) -> BoxFuture<'a, Result<ByProcess, LimitsUnavailable>> {
        let before = self.spent.get(&(tenant, key)).copied().unwrap_or_default();
        let day = if period.day == self.period.day { before.day } else { 0 };
        let month = if period.month == self.period.month { before.month } else { 0 };
        futures::future::ready(Ok(vec![(Uuid::nil(), Spent { day, month })])).boxed()
    }
}

/// The limits of those of a tenant's keys that have some.
async fn key_limits(rows: &TenantScope) -> Result<HashMap<ApiKeyId, KeyLimits>, Fault> {
    let (mut limits, mut token) = (HashMap::new(), String::new());
    loop {
        let page = rows.list_api_keys(&Page { token, ..Page::first(1_000) }).await;
        let page = page.map_err(|error| error.fault("API keys"))?;
        limits.extend(page.items.into_iter().map(|key| (key.id, key.fields.limits)));
        token = page.next_page_token;
        if token.is_empty() {
            return Ok(limits);
        }
    }
}

fn as_past(tenant: TenantId, request: &PastRequest, price: Price, of_tenant: Rates, of_key: Rates) -> Past {
    let began_ms = millis(request.arrived_at);
    Past {
        id: request.request,
        tenant,
        key: request.api_key,
        began_ms,
        ended_ms: began_ms + u64::try_from(request.duration.as_millis()).unwrap_or_default(),
        input: request.prompt_tokens,
        cached: request.cached_prompt_tokens,
        output: request.completion_tokens,
        price,
        of_tenant,
        of_key,
    }
}

fn millis(time: OffsetDateTime) -> u64 {
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or_default()
}

/// Of milliseconds since 1970.
pub fn at(ms: u64) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + Duration::from_millis(ms)
}
