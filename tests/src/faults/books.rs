//! What is on record: the ledger, read from PostgreSQL itself.

use std::collections::HashMap;

use sqlx::{Connection as _, PgConnection};

/// Entries by request id.
pub struct Books {
    entries: HashMap<String, Vec<Entry>>,
}

/// One entry of a request: what it began with, or how it ended.
#[derive(Clone, Debug, sqlx::FromRow)]
struct Entry {
    request: String,
    kind: String,
    prompt_tokens: i64,
    completion_tokens: i64,
}

const ENTRIES: &str = "select request_id::text as request, kind, prompt_tokens, completion_tokens from ledger_entries";

/// Micro-units that a tenant was charged, and what is held for its requests without an end.
///
/// # Errors
/// The database does not answer.
pub async fn posted(url: &str, tenant: &str) -> Result<u64, sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    let sum = "select (coalesce((select sum(charged_micros) from ledger_entries where tenant_id = t.id), 0)
                       + coalesce((select sum(held_micros) from ledger_open where tenant_id = t.id), 0))::bigint
                 from tenants t where t.slug = $1";
    let micros: i64 = sqlx::query_scalar(sum).bind(tenant).fetch_one(&mut connection).await?;
    Ok(u64::try_from(micros).unwrap_or_default())
}

impl Books {
    /// # Errors
    /// The database does not answer.
    pub async fn read(url: &str) -> Result<Self, sqlx::Error> {
        let mut connection = PgConnection::connect(url).await?;
        let mut entries = HashMap::<_, Vec<Entry>>::new();
        for entry in sqlx::query_as::<_, Entry>(ENTRIES).fetch_all(&mut connection).await? {
            entries.entry(entry.request.clone()).or_default().push(entry);
        }
        Ok(Self { entries })
    }

    /// Whether a finished answer is on record with the tokens that its client was told.
    pub fn has(&self, request: &str, prompt_tokens: u64, completion_tokens: u64) -> bool {
        let entries = self.entries.get(request).map(Vec::as_slice).unwrap_or_default();
        let told = [prompt_tokens, completion_tokens].map(i64::try_from);
        let is_it =
            |entry: &Entry| entry.kind == "posted" && [Ok(entry.prompt_tokens), Ok(entry.completion_tokens)] == told;
        entries.iter().any(is_it)
    }

    /// Entries of a kind beyond the first, and ends beyond the first, of each request.
    pub fn duplicated(&self) -> usize {
        let beyond_first = |entries: &Vec<Entry>| {
            let (begins, ends): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry.kind == "reserved");
            begins.len().saturating_sub(1) + ends.len().saturating_sub(1)
        };
        self.entries.values().map(beyond_first).sum()
    }

    /// Requests that were let through and have no end, or have an end and were never let through.
    pub fn halves(&self) -> usize {
        let is_half = |entries: &&Vec<Entry>| {
            let begins = entries.iter().filter(|entry| entry.kind == "reserved").count();
            begins == 0 || begins == entries.len()
        };
        self.entries.values().filter(is_half).count()
    }
}
