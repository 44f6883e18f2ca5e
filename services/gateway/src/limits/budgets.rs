//! Budgets: the days and months that money belongs to, and who knows what has been spent when the counters do not.

use std::{sync::Arc, time::Duration};

use domain::{ApiKeyId, RequestId, TenantId};
use futures::{FutureExt as _, future::BoxFuture};
use time::{Date, Month, OffsetDateTime, Time};
use uuid::Uuid;

use super::{Ask, LimitsUnavailable, Rate};

const DAY_MS: u64 = 86_400_000;
const EPOCH: Date = OffsetDateTime::UNIX_EPOCH.date();

/// Where it is written what has been spent. Counters are a copy of it.
pub trait BudgetSource: Send + Sync + 'static {
    /// Micro-units of everything that a tenant, or one of its keys, reserved from `period.day` or `period.month` on: what
    /// was posted, and what is still open; without the requests in `except`. By the process that let them through.
    fn spent<'a>(
        &'a self,
        tenant: TenantId,
        key: Option<ApiKeyId>,
        period: Period,
        except: &'a [RequestId],
    ) -> BoxFuture<'a, Result<ByProcess, LimitsUnavailable>>;
}

/// The way into what a [`BudgetSource`] reads.
pub trait Posts: Send + Sync + 'static {
    /// Ends when everything that was told until now is there.
    fn posted(&self) -> BoxFuture<'_, ()>;
}

/// A day of UTC and its month.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Period {
    /// Days since 1970.
    pub day: u64,
    /// Months since the year 0.
    pub month: u64,
}

/// Micro-units of currency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    pub day: u64,
    pub month: u64,
}

/// What each process's requests have spent, as [`super::RateLimits::process`] names it.
pub type ByProcess = Vec<(Uuid, Spent)>;

/// Nothing was ever spent: for counters that outlive nobody, and for tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct NothingSpent;

impl BudgetSource for NothingSpent {
    fn spent<'a>(
        &'a self,
        _: TenantId,
        _: Option<ApiKeyId>,
        _: Period,
        _: &'a [RequestId],
    ) -> BoxFuture<'a, Result<ByProcess, LimitsUnavailable>> {
        futures::future::ready(Ok(Vec::new())).boxed()
    }
}

impl Spent {
    /// That of all processes.
    pub(super) fn sum(parts: &ByProcess) -> Self {
        let add = |sum: Self, (_, part): &(Uuid, Self)| Self { day: sum.day + part.day, month: sum.month + part.month };
        parts.iter().fold(Self::default(), add)
    }

    pub(super) const fn by_rate(self) -> [(Rate, u64); 2] {
        [(Rate::BudgetDay, self.day), (Rate::BudgetMonth, self.month)]
    }
}

impl Period {
    /// That of a moment, in milliseconds since 1970.
    pub fn of(now_ms: u64) -> Self {
        let day = now_ms / DAY_MS;
        let date = date(day);
        let year = u64::try_from(date.year()).unwrap_or_default();
        Self { day, month: year * 12 + u64::from(u8::from(date.month())) - 1 }
    }

    /// The one that a day since 1970 belongs to.
    pub fn of_day(day: u64) -> Self {
        Self::of(day * DAY_MS)
    }

    /// The first day of a month since the year 0.
    pub fn of_month(month: u64) -> Self {
        let days = first_of(month).to_julian_day() - EPOCH.to_julian_day();
        Self { day: u64::try_from(days).unwrap_or_default(), month }
    }

    /// The beginnings of the day and of the month.
    pub fn starts(self) -> [OffsetDateTime; 2] {
        [date(self.day), first_of(self.month)].map(|date| date.with_time(Time::MIDNIGHT).assume_utc())
    }

    /// The ends of the day and of the month.
    pub fn ends(self) -> [OffsetDateTime; 2] {
        Self { day: self.day + 1, month: self.month + 1 }.starts()
    }

    /// The ends of the day and of the month, in milliseconds since 1970.
    pub fn ends_ms(self) -> [u64; 2] {
        self.ends().map(|end| u64::try_from(end.unix_timestamp()).unwrap_or_default() * 1_000)
    }
}

fn date(day: u64) -> Date {
    let seconds = i64::try_from(day).unwrap_or(i64::MAX).saturating_mul(86_400);
    OffsetDateTime::from_unix_timestamp(seconds).map_or(Date::MAX, OffsetDateTime::date)
}

fn first_of(month: u64) -> Date {
    let year = i32::try_from(month / 12).unwrap_or(i32::MAX);
    let name = u8::try_from(month % 12 + 1).ok().and_then(|number| Month::try_from(number).ok());
    Date::from_calendar_date(year, name.unwrap_or(Month::January), 1).unwrap_or(Date::MAX)
}

/// Asks the source for the scopes of a request whose money is not known, within a bound.
#[derive(Clone)]
pub(super) struct Ledger {
    source: Arc<dyn BudgetSource>,
    wait: Duration,
}

impl Ledger {
    pub fn new(source: Arc<dyn BudgetSource>, wait: Duration) -> Self {
        Self { source, wait }
    }

    /// Of the tenant and of its key, each if it is unknown.
    pub async fn spent(
        &self,
        ask: &Ask,
        period: Period,
        unknown: [bool; 2],
        except: &[RequestId],
    ) -> Result<[Option<ByProcess>; 2], LimitsUnavailable> {
        let read = async {
            let mut spent = [None, None];
            for ((key, unknown), spent) in [None, Some(ask.key)].into_iter().zip(unknown).zip(&mut spent) {
                if unknown {
                    *spent = Some(self.source.spent(ask.tenant, key, period, except).await?);
                }
            }
            Ok(spent)
        };
        self.within(read).await
    }

    /// Of a tenant, or of one of its keys.
    pub async fn spent_by(
        &self,
        tenant: TenantId,
        key: Option<ApiKeyId>,
        period: Period,
    ) -> Result<ByProcess, LimitsUnavailable> {
        self.within(self.source.spent(tenant, key, period, &[])).await
    }

    async fn within<T>(
        &self,
        read: impl Future<Output = Result<T, LimitsUnavailable>>,
    ) -> Result<T, LimitsUnavailable> {
        let late = || LimitsUnavailable::Ledger(format!("no answer in {} ms", self.wait.as_millis()));
        tokio::time::timeout(self.wait, read).await.unwrap_or_else(|_| Err(late()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_belongs_to_a_day_and_a_month_of_utc() {
        let at = |text: &str| {
            let format = &time::format_description::well_known::Rfc3339;
            OffsetDateTime::parse(text, format).expect("a time")
        };
        let ms = |text: &str| u64::try_from(at(text).unix_timestamp_nanos() / 1_000_000).expect("after 1970");
        let last = Period::of(ms("2028-02-29T23:59:59.999Z"));
        assert_eq!(last.starts(), [at("2028-02-29T00:00:00Z"), at("2028-02-01T00:00:00Z")]);
        assert_eq!(last.ends_ms(), [ms("2028-03-01T00:00:00Z"); 2]);
        assert_eq!(Period::of(ms("2028-03-01T00:00:00Z")), Period { day: last.day + 1, month: last.month + 1 });
        assert_eq!(Period::of(ms("2029-01-01T00:00:00Z")).month, last.month + 11);
        assert_eq!(Period::of_day(last.day), last);
        assert_eq!(Period::of_month(last.month), Period::of(ms("2028-02-01T00:00:00Z")));
    }
}
