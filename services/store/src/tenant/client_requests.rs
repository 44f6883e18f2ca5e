//! Requests that their clients have named: which run answers, and what it answered.

mod room;

use std::time::Duration;

use domain::{ApiKeyId, ClientRequestId, Digest, RequestId, TenantId};
use sqlx::{PgConnection, Row, postgres::PgRow};

use super::TenantScope;
use crate::{Resource, StoreError, error::Violations as _, rows::ReadRow};
pub use room::{Full, FullOf, MostKept};

/// What a request is known by: a key's own name for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRequest {
    pub key: ApiKeyId,
    pub id: ClientRequestId,
}

/// A run that would answer the request.
#[derive(Clone, Copy, Debug)]
pub struct NewRun {
    pub run: RequestId,
    /// Of all that the request asks for.
    pub fingerprint: Digest,
    pub seed: u64,
    /// How long it counts as alive without [`TenantScope::renew_client_request`].
    pub claim: Duration,
    /// How long the request is remembered from its first run on.
    pub window: Duration,
    pub most: MostKept,
}

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// The new run does, with this seed: that of an earlier run which died, if there was one.
    Own { seed: u64 },
    /// Another run is at it.
    Running { run: RequestId, seed: u64 },
    /// It is answered.
    Answered { run: RequestId, seed: u64, answer: Vec<u8> },
    /// The name stands for another request.
    Mismatch,
    /// The name is free, and the tenant has no room for one more.
    Full(Full),
}

impl TenantScope {
    /// Lets one run answer a request: the new one if the name is free, its window is over, or the run that had it has not
    /// been renewed in time. One that finds no room is not remembered.
    ///
    /// Errors: [`StoreError::NotFound`] when the key is gone.
    pub async fn claim_client_request(&self, request: &ClientRequest, new: NewRun) -> Result<Claimed, StoreError> {
        self.store
            .bounded(async {
                loop {
                    let mut transaction = self.begin().await?;
                    let claimed = claim(&mut transaction, self.id, request, new).await?;
                    let room = match claimed {
                        Claimed::Own { .. } => room::check(&mut transaction, self.id, new.most).await?,
                        _ => Ok(()),
                    };
                    let Err(kind) = room else {
                        transaction.commit().await?;
                        return Ok(claimed);
                    };
                    transaction.rollback().await?;
                    let mut transaction = self.begin().await?;
                    // What is over has perhaps not been deleted yet.
                    let deleted = room::delete_expired(&mut transaction, self.id).await?;
                    let retry_after = room::first_expiry(&mut transaction, self.id).await?;
                    transaction.commit().await?;
                    if deleted == 0 {
                        return Ok(Claimed::Full(Full { kind, retry_after }));
                    }
                }
            })
            .await
    }

    /// The run is alive; `false` if the request is no longer its.
    pub async fn renew_client_request(
        &self,
        request: &ClientRequest,
        run: RequestId,
        claim: Duration,
    ) -> Result<bool, StoreError> {
        self.change(
            "update client_requests set claimed_until = now() + $5 * interval '1 millisecond'
              where tenant_id = $1 and api_key_id = $2 and client_request_id = $3 and run_id = $4 and answer is null",
            request,
            run,
            Change::Claim(claim),
        )
        .await
    }

    /// Keeps the whole answer for repeats; `false` if the request is no longer the run's.
    pub async fn answer_client_request(
        &self,
        request: &ClientRequest,
        run: RequestId,
        answer: &[u8],
    ) -> Result<bool, StoreError> {
        self.change(
            "update client_requests set answer = $5
              where tenant_id = $1 and api_key_id = $2 and client_request_id = $3 and run_id = $4 and answer is null",
            request,
            run,
            Change::Answer(answer),
        )
        .await
    }

    /// Forgets a request whose run gave no answer: a repeat runs anew.
    pub async fn release_client_request(&self, request: &ClientRequest, run: RequestId) -> Result<bool, StoreError> {
        self.change(
            "delete from client_requests
              where tenant_id = $1 and api_key_id = $2 and client_request_id = $3 and run_id = $4 and answer is null",
            request,
            run,
            Change::None,
        )
        .await
    }

    async fn change(
        &self,
        sql: &'static str,
        request: &ClientRequest,
        run: RequestId,
        change: Change<'_>,
    ) -> Result<bool, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let query = sqlx::query(sql)
                    .bind(self.id.uuid())
                    .bind(request.key.uuid())
                    .bind(request.id.as_str())
                    .bind(run.uuid());
                let query = match change {
                    Change::Claim(claim) => query.bind(milliseconds(claim)),
                    Change::Answer(answer) => query.bind(answer),
                    Change::None => query,
                };
                let changed = query.execute(&mut *transaction).await?.rows_affected();
                transaction.commit().await?;
                Ok(changed > 0)
            })
            .await
    }
}

enum Change<'a> {
    Claim(Duration),
    Answer(&'a [u8]),
    None,
}

async fn claim(
    connection: &mut PgConnection,
    tenant: TenantId,
    request: &ClientRequest,
    new: NewRun,
) -> Result<Claimed, StoreError> {
    loop {
        // One statement decides: of two that come at once, the second waits for the first and then finds its row.
        let own: Option<i64> = sqlx::query_scalar(
            "insert into client_requests as known
               (tenant_id, api_key_id, client_request_id, fingerprint, run_id, seed, claimed_until, expires_at)
             values ($1, $2, $3, $4, $5, $6, now() + $7 * interval '1 millisecond', now() + $8 * interval '1 millisecond')
             on conflict on constraint client_requests_pkey do update
               set fingerprint = excluded.fingerprint, run_id = excluded.run_id, claimed_until = excluded.claimed_until,
                   answer = null,
                   seed = case when known.expires_at > now() then known.seed else excluded.seed end,
                   expires_at = case when known.expires_at > now() then known.expires_at else excluded.expires_at end
             where known.expires_at <= now()
                or (known.answer is null and known.claimed_until <= now() and known.fingerprint = excluded.fingerprint)
             returning seed",
        )
        .bind(tenant.uuid())
        .bind(request.key.uuid())
        .bind(request.id.as_str())
        .bind(new.fingerprint.as_bytes().as_slice())
        .bind(new.run.uuid())
        .bind(new.seed.cast_signed())
        .bind(milliseconds(new.claim))
        .bind(milliseconds(new.window))
        .fetch_optional(&mut *connection)
        .await
        .violations(|constraint| {
            (constraint == "client_requests_api_key_fkey").then(|| StoreError::not_found(Resource::ApiKey, request.key))
        })?;
        if let Some(seed) = own {
            return Ok(Claimed::Own { seed: seed.cast_unsigned() });
        }
        let known = sqlx::query(
            "select fingerprint, run_id, seed, answer from client_requests
              where tenant_id = $1 and api_key_id = $2 and client_request_id = $3",
        )
        .bind(tenant.uuid())
        .bind(request.key.uuid())
        .bind(request.id.as_str())
        .fetch_optional(&mut *connection)
        .await?;
        // None: it was released in between, so the name is free now.
        if let Some(known) = known {
            return read(&known, new.fingerprint);
        }
    }
}

fn read(known: &PgRow, fingerprint: Digest) -> Result<Claimed, StoreError> {
    if known.digest("fingerprint")? != fingerprint {
        return Ok(Claimed::Mismatch);
    }
    let run = RequestId::new(known.try_get("run_id")?);
    let seed = known.try_get::<i64, _>("seed")?.cast_unsigned();
    Ok(match known.try_get("answer")? {
        Some(answer) => Claimed::Answered { run, seed, answer },
        None => Claimed::Running { run, seed },
    })
}

/// Deletes up to `limit` requests whose window is over, and says how many that were.
pub(crate) async fn delete_expired(connection: &mut PgConnection, limit: u32) -> Result<u64, StoreError> {
    let deleted = sqlx::query(
        "delete from client_requests where (tenant_id, api_key_id, client_request_id) in (
           select tenant_id, api_key_id, client_request_id from client_requests where expires_at <= now() limit $1
         )",
    )
    .bind(i64::from(limit))
    .execute(connection)
    .await?;
    Ok(deleted.rows_affected())
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::from(u32::MAX))
}
