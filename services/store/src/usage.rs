//! Usage records: one row for each request that reached a worker, append-only: what ran and how,
//! beside the ledger, which says what it cost.

use std::{str::FromStr, time::Duration};

use domain::{ApiKeyId, Digest, Price, RequestId, TenantId};
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    Page, PageOf, StoreError,
    rows::{ReadRow, bigint},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRecord {
    pub request: RequestId,
    pub api_key: ApiKeyId,
    /// As the request named it.
    pub model: String,
    /// `None` for the base.
    pub adapter_digest: Option<Digest>,
    pub base_digest: Digest,
    pub worker: String,
    pub prompt_tokens: u64,
    /// Of the prompt tokens, those from the prefix cache.
    pub cached_prompt_tokens: u64,
    pub completion_tokens: u64,
    pub outcome: Outcome,
    /// From the request's arrival to its first token; kept in milliseconds.
    pub first_token: Option<Duration>,
    /// From the request's arrival to its end; kept in milliseconds.
    pub duration: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Finished(FinishReason),
    Cancelled,
    DeadlineExceeded,
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    Eos,
    Stop,
    Length,
    /// A limit left no more tokens.
    Budget,
}

const LIST: &str = "usage";

/// One statement for all of them; those that are there already stay as they are.
pub(crate) async fn insert(
    connection: &mut PgConnection,
    records: &[(TenantId, UsageRecord)],
) -> Result<(), StoreError> {
    fn column<T>(records: &[(TenantId, UsageRecord)], of: impl Fn(&UsageRecord) -> T) -> Vec<T> {
        records.iter().map(|(_, record)| of(record)).collect()
    }
    let tenants: Vec<_> = records.iter().map(|(tenant, _)| tenant.uuid()).collect();
    let query = sqlx::query(
        "insert into usage_records (tenant_id, id, api_key_id, model, adapter_digest, base_digest, worker, prompt_tokens,
                                    cached_prompt_tokens, completion_tokens, outcome, finish_reason, first_token_ms,
                                    duration_ms)
         select * from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::bytea[], $6::bytea[], $7::text[],
                              $8::bigint[], $9::bigint[], $10::bigint[], $11::text[], $12::text[], $13::bigint[],
                              $14::bigint[])
         on conflict on constraint usage_records_pkey do nothing",
    )
    .bind(tenants)
    .bind(column(records, |record| record.request.uuid()))
    .bind(column(records, |record| record.api_key.uuid()))
    .bind(column(records, |record| record.model.clone()))
    .bind(column(records, |record| record.adapter_digest.map(|digest| digest.as_bytes().to_vec())))
    .bind(column(records, |record| record.base_digest.as_bytes().to_vec()))
    .bind(column(records, |record| record.worker.clone()))
    .bind(column(records, |record| bigint(record.prompt_tokens)))
    .bind(column(records, |record| bigint(record.cached_prompt_tokens)))
    .bind(column(records, |record| bigint(record.completion_tokens)))
    .bind(column(records, |record| record.outcome.columns().0))
    .bind(column(records, |record| record.outcome.columns().1))
    .bind(column(records, |record| record.first_token.map(milliseconds)))
    .bind(column(records, |record| milliseconds(record.duration)));
    query.execute(connection).await?;
    Ok(())
}

/// By request id, newest first: ids are UUIDs of version 7, so that is by time.
pub(crate) async fn list(
    connection: &mut PgConnection,
    tenant: TenantId,
    page: &Page,
) -> Result<PageOf<UsageRecord>, StoreError> {
    let before = page.after(LIST)?.map(|key| Uuid::from_str(&key)).transpose();
    let rows = sqlx::query(
        "select * from usage_records
          where tenant_id = $1 and ($2::uuid is null or id < $2)
          order by id desc
          limit $3",
    )
    .bind(tenant.uuid())
    .bind(before.map_err(|_| StoreError::InvalidPageToken)?)
    .bind(page.fetch())
    .fetch_all(connection)
    .await?;
    let records = rows.iter().map(read).collect::<Result<_, _>>()?;
    Ok(page.cut(LIST, records, |record: &UsageRecord| record.request.to_string()))
}

pub(crate) async fn newest_finished(
    connection: &mut PgConnection,
    limit: u16,
) -> Result<Vec<(RequestId, u64)>, StoreError> {
    let rows = sqlx::query(
        "select id, prompt_tokens + completion_tokens as tokens
           from usage_records where outcome = 'finished' order by id desc limit $1",
    )
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((RequestId::new(row.try_get("id")?), row.count("tokens")?))).collect()
}

impl UsageRecord {
    /// Micro-units, at this price.
    pub fn cost(&self, price: Price) -> u64 {
        price.cost(self.prompt_tokens, self.cached_prompt_tokens, self.completion_tokens)
    }
}

impl Outcome {
    /// As stored: outcome and finish reason.
    fn columns(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Finished(FinishReason::Eos) => ("finished", Some("eos")),
            Self::Finished(FinishReason::Stop) => ("finished", Some("stop")),
            Self::Finished(FinishReason::Length) => ("finished", Some("length")),
            Self::Finished(FinishReason::Budget) => ("finished", Some("budget")),
            Self::Cancelled => ("cancelled", None),
            Self::DeadlineExceeded => ("deadline_exceeded", None),
            Self::Failed => ("failed", None),
        }
    }

    fn read(outcome: &str, finish_reason: Option<&str>) -> Result<Self, StoreError> {
        let all = [
            Self::Finished(FinishReason::Eos),
            Self::Finished(FinishReason::Stop),
            Self::Finished(FinishReason::Length),
            Self::Finished(FinishReason::Budget),
            Self::Cancelled,
            Self::DeadlineExceeded,
            Self::Failed,
        ];
        all.into_iter()
            .find(|known| known.columns() == (outcome, finish_reason))
            .ok_or_else(|| StoreError::unreadable(format!("outcome `{outcome}` with finish reason {finish_reason:?}")))
    }
}

fn read(row: &PgRow) -> Result<UsageRecord, StoreError> {
    let first_token: Option<i64> = row.try_get("first_token_ms")?;
    Ok(UsageRecord {
        request: RequestId::new(row.try_get("id")?),
        api_key: ApiKeyId::new(row.try_get("api_key_id")?),
        model: row.try_get("model")?,
        adapter_digest: row.optional_digest("adapter_digest")?,
        base_digest: row.digest("base_digest")?,
        worker: row.try_get("worker")?,
        prompt_tokens: row.count("prompt_tokens")?,
        cached_prompt_tokens: row.count("cached_prompt_tokens")?,
        completion_tokens: row.count("completion_tokens")?,
        outcome: Outcome::read(row.try_get("outcome")?, row.try_get("finish_reason")?)?,
        first_token: first_token
            .map(u64::try_from)
            .transpose()
            .map_err(StoreError::unreadable)?
            .map(Duration::from_millis),
        duration: Duration::from_millis(row.count("duration_ms")?),
    })
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
