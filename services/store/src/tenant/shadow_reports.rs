//! What shadows answered against what was answered for real, as sums for each pair of versions of an alias.

use domain::{Digest, Slug};
use sqlx::{Row, postgres::PgRow};
use time::OffsetDateTime;

use super::{TenantScope, adapters};
use crate::{
    StoreError,
    rows::{ReadRow, bigint},
};

/// Which two versions, of which alias.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ShadowPair {
    pub adapter: Slug,
    pub alias: Slug,
    /// What answered.
    pub digest: Digest,
    pub shadow_digest: Digest,
}

/// Sums; each comparison adds to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShadowTally {
    pub compared: u64,
    /// Of those, with the same tokens throughout.
    pub equal: u64,
    pub failed: u64,
    /// Not even begun, because too many were under way.
    pub skipped: u64,
    /// Over those that differ: tokens in front of the first difference.
    pub equal_tokens: u64,
    /// In hundredths of a percent, over all that were compared.
    pub similarity: u64,
    pub answer_ms: u64,
    pub shadow_ms: u64,
    /// What the shadow used, at the platform's cost.
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowReport {
    pub digest: Digest,
    pub shadow_digest: Digest,
    pub tally: ShadowTally,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

/// Pairs that are kept for each alias: those that were compared last.
const PAIRS_MAX: i64 = 16;

impl TenantScope {
    /// Adds to the sums of a pair. Of an adapter that is gone, nothing is kept.
    pub async fn add_to_shadow_report(&self, pair: &ShadowPair, tally: ShadowTally) -> Result<(), StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let adapter = match adapters::hold(&mut transaction, self.id, &pair.adapter).await {
                    Ok(adapter) => adapter,
                    Err(StoreError::NotFound { .. }) => return Ok(()),
                    Err(error) => return Err(error),
                };
                sqlx::query(
                    "insert into shadow_reports as r
                            (tenant_id, adapter_id, alias, digest, shadow_digest, compared, equal, failed, skipped,
                             equal_tokens, similarity, answer_ms, shadow_ms, prompt_tokens, completion_tokens)
                     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
                     on conflict on constraint shadow_reports_pkey do update
                        set compared = r.compared + excluded.compared, equal = r.equal + excluded.equal,
                            failed = r.failed + excluded.failed, skipped = r.skipped + excluded.skipped,
                            equal_tokens = r.equal_tokens + excluded.equal_tokens,
                            similarity = r.similarity + excluded.similarity,
                            answer_ms = r.answer_ms + excluded.answer_ms, shadow_ms = r.shadow_ms + excluded.shadow_ms,
                            prompt_tokens = r.prompt_tokens + excluded.prompt_tokens,
                            completion_tokens = r.completion_tokens + excluded.completion_tokens,
                            updated_at = clock_timestamp()",
                )
                .bind(self.id.uuid())
                .bind(adapter)
                .bind(pair.alias.as_str())
                .bind(pair.digest.as_bytes().as_slice())
                .bind(pair.shadow_digest.as_bytes().as_slice())
                .bind(bigint(tally.compared))
                .bind(bigint(tally.equal))
                .bind(bigint(tally.failed))
                .bind(bigint(tally.skipped))
                .bind(bigint(tally.equal_tokens))
                .bind(bigint(tally.similarity))
                .bind(bigint(tally.answer_ms))
                .bind(bigint(tally.shadow_ms))
                .bind(bigint(tally.prompt_tokens))
                .bind(bigint(tally.completion_tokens))
                .execute(&mut *transaction)
                .await?;
                sqlx::query(
                    "delete from shadow_reports
                      where (tenant_id, adapter_id, alias, digest, shadow_digest) in (
                        select tenant_id, adapter_id, alias, digest, shadow_digest from shadow_reports
                         where tenant_id = $1 and adapter_id = $2 and alias = $3
                         order by updated_at desc offset $4)",
                )
                .bind(self.id.uuid())
                .bind(adapter)
                .bind(pair.alias.as_str())
                .bind(PAIRS_MAX)
                .execute(&mut *transaction)
                .await?;
                transaction.commit().await?;
                Ok(())
            })
            .await
    }

    /// Of an alias; the pair that was compared last comes first.
    pub async fn shadow_reports(&self, adapter: &Slug, alias: &Slug) -> Result<Vec<ShadowReport>, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.begin().await?;
                let adapter = adapters::hold(&mut transaction, self.id, adapter).await?;
                let rows = sqlx::query(
                    "select * from shadow_reports where tenant_id = $1 and adapter_id = $2 and alias = $3
                      order by updated_at desc, digest, shadow_digest",
                )
                .bind(self.id.uuid())
                .bind(adapter)
                .bind(alias.as_str())
                .fetch_all(&mut *transaction)
                .await?;
                transaction.commit().await?;
                rows.iter().map(read).collect()
            })
            .await
    }
}

fn read(row: &PgRow) -> Result<ShadowReport, StoreError> {
    Ok(ShadowReport {
        digest: row.digest("digest")?,
        shadow_digest: row.digest("shadow_digest")?,
        tally: ShadowTally {
            compared: row.count("compared")?,
            equal: row.count("equal")?,
            failed: row.count("failed")?,
            skipped: row.count("skipped")?,
            equal_tokens: row.count("equal_tokens")?,
            similarity: row.count("similarity")?,
            answer_ms: row.count("answer_ms")?,
            shadow_ms: row.count("shadow_ms")?,
            prompt_tokens: row.count("prompt_tokens")?,
            completion_tokens: row.count("completion_tokens")?,
        },
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}
