//! Entries as they are listed.

use domain::{ApiKeyId, Price, RequestId, TenantId};
use sqlx::{PgConnection, Row, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::post::read_price;
use crate::{Page, PageOf, StoreError, rows::ReadRow};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedEntry {
    pub request: RequestId,
    pub kind: EntryKind,
    pub at: OffsetDateTime,
    pub api_key: ApiKeyId,
    /// `base` or `<tenant>/<adapter>`.
    pub model: String,
    pub price: Price,
    pub prompt_tokens: u64,
    pub cached_prompt_tokens: u64,
    /// Of a reserved entry: the most that the answer may have.
    pub completion_tokens: u64,
    pub held: u64,
    pub charged: u64,
    pub created_at: OffsetDateTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    Reserved,
    Posted,
    Voided,
    Expired,
}

const LIST: &str = "entries";

/// The newest request first.
pub(crate) async fn list(
    connection: &mut PgConnection,
    tenant: TenantId,
    page: &Page,
) -> Result<PageOf<ListedEntry>, StoreError> {
    let after = page.after(LIST)?;
    let key = after.as_deref().map(|key| {
        let (request, kind) = key.split_once(' ')?;
        Some((request.parse::<Uuid>().ok()?, kind.to_owned()))
    });
    let (request, kind) = match key {
        None => (None, None),
        Some(Some((request, kind))) => (Some(request), Some(kind)),
        Some(None) => return Err(StoreError::InvalidPageToken),
    };
    let rows = sqlx::query(
        "select * from ledger_entries
          where tenant_id = $1 and ($2::uuid is null or (request_id, kind) < ($2, $3::text))
          order by request_id desc, kind desc
          limit $4",
    )
    .bind(tenant.uuid())
    .bind(request)
    .bind(kind)
    .bind(page.fetch())
    .fetch_all(connection)
    .await?;
    let entries = rows.iter().map(read).collect::<Result<_, _>>()?;
    Ok(page.cut(LIST, entries, |entry: &ListedEntry| format!("{} {}", entry.request, entry.kind.as_str())))
}

fn read(row: &PgRow) -> Result<ListedEntry, StoreError> {
    let kind: String = row.try_get("kind")?;
    Ok(ListedEntry {
        request: RequestId::new(row.try_get("request_id")?),
        kind: EntryKind::parse(&kind).ok_or_else(|| StoreError::unreadable(format!("an entry of kind `{kind}`")))?,
        at: row.try_get("at")?,
        api_key: ApiKeyId::new(row.try_get("api_key_id")?),
        model: row.try_get("model")?,
        price: read_price(row)?,
        prompt_tokens: row.count("prompt_tokens")?,
        cached_prompt_tokens: row.count("cached_prompt_tokens")?,
        completion_tokens: row.count("completion_tokens")?,
        held: row.count("held_micros")?,
        charged: row.count("charged_micros")?,
        created_at: row.try_get("created_at")?,
    })
}

impl EntryKind {
    const ALL: [Self; 4] = [Self::Reserved, Self::Posted, Self::Voided, Self::Expired];

    /// As stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Posted => "posted",
            Self::Voided => "voided",
            Self::Expired => "expired",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}
