//! What is on record: one row for each answer, read from PostgreSQL itself.

use std::collections::HashMap;

use sqlx::{Connection as _, PgConnection};

/// Rows by request id.
pub struct Books {
    rows: HashMap<String, Vec<Row>>,
}

/// What a request was charged with.
#[derive(Clone, Debug, sqlx::FromRow)]
struct Row {
    request: String,
    prompt_tokens: i64,
    completion_tokens: i64,
    outcome: String,
}

const ROWS: &str = "select id::text as request, prompt_tokens, completion_tokens, outcome from usage_records";

impl Books {
    /// # Errors
    /// The database does not answer.
    pub async fn read(url: &str) -> Result<Self, sqlx::Error> {
        let mut connection = PgConnection::connect(url).await?;
        let mut rows = HashMap::<_, Vec<Row>>::new();
        for row in sqlx::query_as::<_, Row>(ROWS).fetch_all(&mut connection).await? {
            rows.entry(row.request.clone()).or_default().push(row);
        }
        Ok(Self { rows })
    }

    /// Whether a finished answer is on record, once, with the tokens that its client was told.
    pub fn has(&self, request: &str, prompt_tokens: u64, completion_tokens: u64) -> bool {
        let rows = self.rows.get(request).map(Vec::as_slice).unwrap_or_default();
        let told = [prompt_tokens, completion_tokens].map(i64::try_from);
        rows.iter().any(|row| row.outcome == "finished" && [Ok(row.prompt_tokens), Ok(row.completion_tokens)] == told)
    }

    /// Rows beyond the first of each request.
    pub fn duplicated(&self) -> usize {
        self.rows.values().map(|rows| rows.len() - 1).sum()
    }
}
