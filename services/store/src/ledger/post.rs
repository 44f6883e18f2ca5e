//! Writing entries, and the list of requests that have no end yet.

use std::collections::HashSet;

use domain::{ApiKeyId, Price, RequestId, TenantId};
use sqlx::{PgConnection, Postgres, Row, postgres::PgArguments, query::Query};
use uuid::Uuid;

use super::{End, Hold, LedgerEntry};
use crate::{
    StoreError, UsageRecord,
    rows::{ReadRow, bigint},
    usage,
};

type PgQuery<'q> = Query<'q, Postgres, PgArguments>;

/// What came of writing entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Posted {
    /// Entries that were not there before.
    pub written: u64,
    /// Requests that had ended otherwise before: what was to be written about their end was left out.
    pub ended_before: Vec<RequestId>,
}

/// A request without an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenHold {
    pub hold: Hold,
    /// Whose log it came from.
    pub gateway: Uuid,
}

/// Reserved entries first: an end finds its beginning.
pub(crate) async fn post(
    connection: &mut PgConnection,
    gateway: Uuid,
    entries: &[LedgerEntry],
) -> Result<Posted, StoreError> {
    let (mut reserved, mut ended, mut records) = (Vec::new(), Vec::new(), Vec::new());
    for entry in entries {
        match entry {
            LedgerEntry::Reserved(hold) => reserved.push(hold),
            LedgerEntry::Ended(hold, end) => {
                ended.push((hold, end));
                if let End::Posted(record) = end {
                    records.push((hold.tenant, (**record).clone()));
                }
            }
        }
    }
    let mut posted = Posted::default();
    if !reserved.is_empty() {
        posted.written += insert_reserved(connection, gateway, &reserved).await?;
    }
    if !ended.is_empty() {
        let new = insert_ended(connection, gateway, &ended).await?;
        posted.written += new.len() as u64;
        posted.ended_before = ended_otherwise(connection, &ended, &new).await?;
        records.retain(|(tenant, record)| new.contains(&(tenant.uuid(), record.request.uuid())));
        usage::insert(connection, &records).await?;
        close(connection, &ended).await?;
    }
    Ok(posted)
}

async fn insert_reserved(connection: &mut PgConnection, gateway: Uuid, holds: &[&Hold]) -> Result<u64, StoreError> {
    let query = sqlx::query(
        "with input as (
           select * from unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::uuid[], $5::text[], $6::bigint[],
                                $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[],
                                $13::timestamptz[], $14::text[], $15::bytea[], $16::bytea[], $17::uuid[])
             as t (tenant_id, request_id, at, api_key_id, model, price_input, price_cached, price_output, prompt,
                   answer, held, deadline, named, adapter_digest, base_digest, process_id)
         ), new as (
           insert into ledger_entries (tenant_id, request_id, kind, at, api_key_id, model, price_input_micros,
                                       price_cached_input_micros, price_output_micros, prompt_tokens,
                                       cached_prompt_tokens, completion_tokens, held_micros, charged_micros, gateway_id,
                                       process_id)
           select tenant_id, request_id, 'reserved', at, api_key_id, model, price_input, price_cached, price_output,
                  prompt, 0, answer, held, 0, $12, process_id
             from input
           on conflict do nothing
           returning tenant_id, request_id
         ), opened as (
           insert into ledger_open (tenant_id, request_id, api_key_id, at, held_micros, gateway_id, deadline, model,
                                    adapter_digest, base_digest, process_id)
           select tenant_id, request_id, api_key_id, at, held, $12, deadline, named, adapter_digest, base_digest,
                  process_id
             from input join new using (tenant_id, request_id)
           on conflict do nothing
         )
         select count(*) as written from new",
    );
    let query = bind_hold(query, holds)
        .bind(gateway)
        .bind(column(holds, |hold| hold.deadline))
        .bind(column(holds, |hold| hold.model.clone()))
        .bind(column(holds, |hold| hold.adapter_digest.map(|digest| digest.as_bytes().to_vec())))
        .bind(column(holds, |hold| hold.base_digest.as_bytes().to_vec()))
        .bind(column(holds, |hold| hold.process));
    query.fetch_one(connection).await?.count("written")
}

/// Tenant and request of those that were not there.
async fn insert_ended(
    connection: &mut PgConnection,
    gateway: Uuid,
    ended: &[(&Hold, &End)],
) -> Result<HashSet<(Uuid, Uuid)>, StoreError> {
    let holds: Vec<_> = ended.iter().map(|(hold, _)| *hold).collect();
    let used = |of: fn(&UsageRecord) -> u64| {
        column(ended, |(_, end)| match end {
            End::Posted(record) => bigint(of(record)),
            End::Voided | End::Expired => 0,
        })
    };
    let query = sqlx::query(
        "insert into ledger_entries (tenant_id, request_id, kind, at, api_key_id, model, price_input_micros,
                                     price_cached_input_micros, price_output_micros, prompt_tokens,
                                     cached_prompt_tokens, completion_tokens, held_micros, charged_micros, gateway_id,
                                     process_id)
         select tenant_id, request_id, kind, at, api_key_id, model, price_input, price_cached, price_output,
                prompt, cached, completion, held, charged, $12, process_id
           from unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::uuid[], $5::text[], $6::bigint[], $7::bigint[],
                       $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $13::text[], $14::bigint[],
                       $15::bigint[], $16::bigint[], $17::bigint[], $18::uuid[])
             as t (tenant_id, request_id, at, api_key_id, model, price_input, price_cached, price_output, asked,
                   answer, held, kind, prompt, cached, completion, charged, process_id)
         on conflict do nothing
         returning tenant_id, request_id",
    );
    let query = bind_hold(query, &holds)
        .bind(gateway)
        .bind(column(ended, |(_, end)| end.kind()))
        .bind(used(|record| record.prompt_tokens))
        .bind(used(|record| record.cached_prompt_tokens))
        .bind(used(|record| record.completion_tokens))
        .bind(column(ended, |(hold, end)| match end {
            End::Posted(record) => bigint(record.cost(hold.price)),
            End::Voided | End::Expired => 0,
        }))
        .bind(column(&holds, |hold| hold.process));
    let rows = query.fetch_all(connection).await?;
    rows.iter().map(|row| Ok((row.try_get("tenant_id")?, row.try_get("request_id")?))).collect()
}

/// Of those that were there already, the ones with another kind of end.
async fn ended_otherwise(
    connection: &mut PgConnection,
    ended: &[(&Hold, &End)],
    new: &HashSet<(Uuid, Uuid)>,
) -> Result<Vec<RequestId>, StoreError> {
    let known = ended.iter().filter(|(hold, _)| !new.contains(&(hold.tenant.uuid(), hold.request.uuid())));
    let known: Vec<_> = known.collect();
    if known.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(
        "select e.request_id
           from unnest($1::uuid[], $2::uuid[], $3::text[]) as t (tenant_id, request_id, kind)
           join ledger_entries e using (tenant_id, request_id)
          where e.kind <> 'reserved' and e.kind <> t.kind",
    )
    .bind(column(&known, |(hold, _)| hold.tenant.uuid()))
    .bind(column(&known, |(hold, _)| hold.request.uuid()))
    .bind(column(&known, |(_, end)| end.kind()))
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok(RequestId::new(row.try_get("request_id")?))).collect()
}

async fn close(connection: &mut PgConnection, ended: &[(&Hold, &End)]) -> Result<(), StoreError> {
    sqlx::query(
        "delete from ledger_open
          where (tenant_id, request_id) in (select * from unnest($1::uuid[], $2::uuid[]))",
    )
    .bind(column(ended, |(hold, _)| hold.tenant.uuid()))
    .bind(column(ended, |(hold, _)| hold.request.uuid()))
    .execute(connection)
    .await?;
    Ok(())
}

/// Requests without an end: of `gateway` those before the request id `before` or past their deadline by `own_grace`
/// seconds, of any gateway those past it by `grace` seconds; the oldest first.
pub(crate) async fn open_holds(
    connection: &mut PgConnection,
    gateway: Uuid,
    before: RequestId,
    own_grace: f64,
    grace: f64,
    limit: u16,
) -> Result<Vec<OpenHold>, StoreError> {
    let rows = sqlx::query(
        "select o.*, e.price_input_micros, e.price_cached_input_micros, e.price_output_micros, e.prompt_tokens,
                e.completion_tokens
           from ledger_open o
           join ledger_entries e using (tenant_id, request_id)
          where e.kind = 'reserved'
            and (o.gateway_id = $1
                 and (o.request_id < $2 or o.deadline < now() - make_interval(secs => $3))
                 or o.deadline < now() - make_interval(secs => $4))
          order by o.deadline
          limit $5",
    )
    .bind(gateway)
    .bind(before.uuid())
    .bind(own_grace)
    .bind(grace)
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    let read = |row: &sqlx::postgres::PgRow| {
        let hold = Hold {
            tenant: TenantId::new(row.try_get("tenant_id")?),
            request: RequestId::new(row.try_get("request_id")?),
            api_key: ApiKeyId::new(row.try_get("api_key_id")?),
            model: row.try_get("model")?,
            adapter_digest: row.optional_digest("adapter_digest")?,
            base_digest: row.digest("base_digest")?,
            at: row.try_get("at")?,
            deadline: row.try_get("deadline")?,
            price: read_price(row)?,
            prompt_tokens: row.count("prompt_tokens")?,
            answer_tokens_max: row.count("completion_tokens")?,
            held: row.count("held_micros")?,
            process: row.try_get("process_id")?,
        };
        Ok(OpenHold { hold, gateway: row.try_get("gateway_id")? })
    };
    rows.iter().map(read).collect()
}

pub(super) fn read_price(row: &sqlx::postgres::PgRow) -> Result<Price, StoreError> {
    Ok(Price {
        input: row.count("price_input_micros")?,
        cached_input: row.count("price_cached_input_micros")?,
        output: row.count("price_output_micros")?,
    })
}

impl End {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Posted(_) => "posted",
            Self::Voided => "voided",
            Self::Expired => "expired",
        }
    }
}

/// The first eleven columns, which every entry has.
fn bind_hold<'q>(query: PgQuery<'q>, holds: &[&Hold]) -> PgQuery<'q> {
    query
        .bind(column(holds, |hold| hold.tenant.uuid()))
        .bind(column(holds, |hold| hold.request.uuid()))
        .bind(column(holds, |hold| hold.at))
        .bind(column(holds, |hold| hold.api_key.uuid()))
        .bind(column(holds, |hold| hold.priced_model().to_owned()))
        .bind(column(holds, |hold| bigint(hold.price.input)))
        .bind(column(holds, |hold| bigint(hold.price.cached_input)))
        .bind(column(holds, |hold| bigint(hold.price.output)))
        .bind(column(holds, |hold| bigint(hold.prompt_tokens)))
        .bind(column(holds, |hold| bigint(hold.answer_tokens_max)))
        .bind(column(holds, |hold| bigint(hold.held)))
}

fn column<S, T>(of: &[S], value: impl Fn(&S) -> T) -> Vec<T> {
    of.iter().map(value).collect()
}
