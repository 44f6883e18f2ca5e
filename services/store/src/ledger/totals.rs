//! Sums over the ledger. Sums of `bigint` are `numeric`: they are exact, and come back as `bigint` again.

use domain::{ApiKeyId, Price, RequestId, TenantId};
use sqlx::{PgConnection, Row, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::post::read_price;
use crate::{StoreError, rows::ReadRow};

/// Groups of one summary.
const GROUPS_MAX: usize = 10_000;

/// What a summary is divided by. [`GroupBy::Day`] and [`GroupBy::Month`] are of UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupBy {
    Day,
    Month,
    Model,
    ApiKey,
    /// The price that was charged.
    Price,
}

/// Posted entries together. What the summary is not divided by is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageGroup {
    /// When the day or month begins.
    pub period: Option<OffsetDateTime>,
    pub model: Option<String>,
    pub api_key: Option<ApiKeyId>,
    pub price: Option<Price>,
    pub requests: u64,
    pub prompt_tokens: u64,
    /// Of the prompt tokens.
    pub cached_prompt_tokens: u64,
    pub completion_tokens: u64,
    /// Micro-units.
    pub charged: u64,
}

/// The whole ledger at one moment, for finding differences.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balances {
    pub debits: u64,
    pub credits: u64,
    /// Of account `held`: credits less debits.
    pub held: i64,
    /// Of account `revenue`: credits less debits.
    pub revenue: i64,
    pub reserved: u64,
    pub posted: u64,
    pub voided: u64,
    pub expired: u64,
    /// Ends whose request has no reserved entry.
    pub without_beginning: u64,
    /// In the list of requests without an end, and what is held for them.
    pub open: u64,
    pub open_held: u64,
    /// Of posted entries: prompt and completion tokens together.
    pub posted_tokens: u64,
    /// Usage records, and their tokens.
    pub records: u64,
    pub record_tokens: u64,
}

/// By the process that let the requests through.
pub(crate) async fn spent(
    connection: &mut PgConnection,
    tenant: TenantId,
    key: Option<ApiKeyId>,
    from: OffsetDateTime,
    to: OffsetDateTime,
    except: &[RequestId],
) -> Result<Vec<(Uuid, u64)>, StoreError> {
    let rows = sqlx::query(
        "select process_id, sum(micros)::bigint as spent
           from (
             select process_id, api_key_id, request_id, charged_micros as micros
               from ledger_entries
              where tenant_id = $1 and kind = 'posted' and at >= $3 and at < $4
             union all
             select process_id, api_key_id, request_id, held_micros
               from ledger_open
              where tenant_id = $1 and at >= $3 and at < $4
           ) requests
          where ($2::uuid is null or api_key_id = $2) and request_id <> all($5)
          group by process_id",
    )
    .bind(tenant.uuid())
    .bind(key.map(ApiKeyId::uuid))
    .bind(from)
    .bind(to)
    .bind(except.iter().map(|id| id.uuid()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((row.try_get("process_id")?, row.count("spent")?))).collect()
}

/// Posted entries of requests let through in `[from, to)`. Errors: [`StoreError::InvalidValue`] when there are too many
/// groups.
pub(crate) async fn summary(
    connection: &mut PgConnection,
    tenant: TenantId,
    from: OffsetDateTime,
    to: OffsetDateTime,
    by: &[GroupBy],
) -> Result<Vec<UsageGroup>, StoreError> {
    let period = match (by.contains(&GroupBy::Day), by.contains(&GroupBy::Month)) {
        (true, _) => Some("day"),
        (false, true) => Some("month"),
        (false, false) => None,
    };
    let rows = sqlx::query(
        "select case when $4::text is not null then date_trunc($4, at, 'UTC') end as period,
                case when $5 then model end as model,
                case when $6 then api_key_id end as api_key_id,
                case when $7 then price_input_micros end as price_input_micros,
                case when $7 then price_cached_input_micros end as price_cached_input_micros,
                case when $7 then price_output_micros end as price_output_micros,
                count(*) as requests,
                sum(prompt_tokens)::bigint as prompt_tokens,
                sum(cached_prompt_tokens)::bigint as cached_prompt_tokens,
                sum(completion_tokens)::bigint as completion_tokens,
                sum(charged_micros)::bigint as charged_micros
           from ledger_entries
          where tenant_id = $1 and kind = 'posted' and at >= $2 and at < $3
          group by 1, 2, 3, 4, 5, 6
          order by 1, 2, 3, 4, 5, 6
          limit $8",
    )
    .bind(tenant.uuid())
    .bind(from)
    .bind(to)
    .bind(period)
    .bind(by.contains(&GroupBy::Model))
    .bind(by.contains(&GroupBy::ApiKey))
    .bind(by.contains(&GroupBy::Price))
    .bind(GROUPS_MAX as i64 + 1)
    .fetch_all(connection)
    .await?;
    if rows.len() > GROUPS_MAX {
        return Err(StoreError::InvalidValue {
            field: "group_by",
            rule: "make at most 10000 groups: ask for less time",
        });
    }
    rows.iter().map(read_group).collect()
}

fn read_group(row: &PgRow) -> Result<UsageGroup, StoreError> {
    let priced = row.try_get::<Option<i64>, _>("price_input_micros")?.is_some();
    Ok(UsageGroup {
        period: row.try_get("period")?,
        model: row.try_get("model")?,
        api_key: row.try_get::<Option<Uuid>, _>("api_key_id")?.map(ApiKeyId::new),
        price: if priced { Some(read_price(row)?) } else { None },
        requests: row.count("requests")?,
        prompt_tokens: row.count("prompt_tokens")?,
        cached_prompt_tokens: row.count("cached_prompt_tokens")?,
        completion_tokens: row.count("completion_tokens")?,
        charged: row.count("charged_micros")?,
    })
}

/// One statement, so that all of it is of one moment.
pub(crate) async fn balances(connection: &mut PgConnection) -> Result<Balances, StoreError> {
    let row = sqlx::query(
        "with accounts as (
           select debit, credit, sum(amount_micros) as amount from ledger_transfers group by debit, credit
         ), entries as (
           select count(*) filter (where kind = 'reserved') as reserved,
                  count(*) filter (where kind = 'posted') as posted,
                  count(*) filter (where kind = 'voided') as voided,
                  count(*) filter (where kind = 'expired') as expired,
                  coalesce(sum(prompt_tokens + completion_tokens) filter (where kind = 'posted'), 0) as posted_tokens
             from ledger_entries
         ), orphans as (
           select count(*) as without_beginning
             from ledger_entries e
            where kind <> 'reserved' and not exists (
              select from ledger_entries r
               where r.tenant_id = e.tenant_id and r.request_id = e.request_id and r.kind = 'reserved'
            )
         ), open as (
           select count(*) as open, coalesce(sum(held_micros), 0) as open_held from ledger_open
         ), records as (
           select count(*) as records, coalesce(sum(prompt_tokens + completion_tokens), 0) as record_tokens
             from usage_records u
            where exists (
              select from ledger_entries e where e.tenant_id = u.tenant_id and e.request_id = u.id
            )
         )
         select coalesce((select sum(amount) from accounts where debit in ('customer', 'held')), 0)::bigint as debits,
                coalesce((select sum(amount) from accounts
                           where credit in ('customer', 'held', 'revenue')), 0)::bigint as credits,
                (coalesce((select sum(amount) from accounts where credit = 'held'), 0)
                 - coalesce((select sum(amount) from accounts where debit = 'held'), 0))::bigint as held,
                (coalesce((select sum(amount) from accounts where credit = 'revenue'), 0)
                 - coalesce((select sum(amount) from accounts where debit = 'revenue'), 0))::bigint as revenue,
                reserved, posted, voided, expired, posted_tokens::bigint as posted_tokens, without_beginning,
                open, open_held::bigint as open_held, records, record_tokens::bigint as record_tokens
           from entries, orphans, open, records",
    )
    .fetch_one(connection)
    .await?;
    Ok(Balances {
        debits: row.count("debits")?,
        credits: row.count("credits")?,
        held: row.try_get("held")?,
        revenue: row.try_get("revenue")?,
        reserved: row.count("reserved")?,
        posted: row.count("posted")?,
        voided: row.count("voided")?,
        expired: row.count("expired")?,
        without_beginning: row.count("without_beginning")?,
        open: row.count("open")?,
        open_held: row.count("open_held")?,
        posted_tokens: row.count("posted_tokens")?,
        records: row.count("records")?,
        record_tokens: row.count("record_tokens")?,
    })
}
