//! Price lists: the rows, and how they are read. Rows never change; a new price is a new row with the time from which it
//! holds. Which of them holds is judged here, what it comes to is `domain`'s.

use std::fmt;

use domain::{ModelName, Price, TenantId};
use sqlx::{PgConnection, Row, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Page, PageOf, StoreError,
    rows::{ReadRow, bigint},
};

/// One row of a price list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedPrice {
    pub id: Uuid,
    /// `None` is the platform's list, behind every tenant's own.
    pub tenant: Option<TenantId>,
    pub model: PricedModel,
    pub price: Price,
    pub effective_at: OffsetDateTime,
    pub created_at: OffsetDateTime,
    /// Whether it is the one of its list and model that holds now.
    pub in_effect: bool,
}

/// What a price is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PricedModel {
    /// Every model that has no price of its own in the same list.
    Every,
    /// `base` or `<tenant>/<adapter>`.
    One(String),
}

#[derive(Clone, Debug)]
pub struct NewPrice {
    pub tenant: Option<TenantId>,
    pub model: PricedModel,
    pub price: Price,
    /// `None` is now.
    pub effective_at: Option<OffsetDateTime>,
}

/// The prices that hold for one tenant now, and those that will.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PriceList {
    /// Of each list and model: the one that holds, and later ones.
    rows: Vec<ListedPrice>,
}

const LIST: &str = "prices";

impl PricedModel {
    fn as_str(&self) -> &str {
        match self {
            Self::Every => "*",
            Self::One(model) => model,
        }
    }
}

/// As stored.
impl fmt::Display for PricedModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<String> for PricedModel {
    fn from(text: String) -> Self {
        if text == "*" { Self::Every } else { Self::One(text) }
    }
}

impl PriceList {
    /// What the model costs at this moment: the tenant's own price for it, else the tenant's for every model, else the
    /// platform's for it, else the platform's for every model; free if there is none.
    pub fn of(&self, model: &ModelName, at: OffsetDateTime) -> Price {
        let name = model.without_version();
        // Of the rows that hold: the tenant's before the platform's, the model's before every model's, the latest.
        let holding = self.rows.iter().filter(|row| row.effective_at <= at);
        let fitting = holding.filter_map(|row| {
            let own = match &row.model {
                PricedModel::One(model) => *model == name,
                PricedModel::Every => false,
            };
            let fits = own || row.model == PricedModel::Every;
            fits.then_some(((row.tenant.is_some(), own, row.effective_at, row.id), row.price))
        });
        fitting.max_by_key(|(rank, _)| *rank).map(|(_, price)| price).unwrap_or_default()
    }
}

/// Errors: [`StoreError::InvalidValue`] for a time in the past.
pub(crate) async fn insert(connection: &mut PgConnection, new: &NewPrice) -> Result<ListedPrice, StoreError> {
    let row = sqlx::query(
        "insert into prices (id, tenant_id, model, input_micros, cached_input_micros, output_micros, effective_at)
         values ($1, $2, $3, $4, $5, $6, coalesce($7, now()))
         returning *, effective_at <= now() as in_effect",
    )
    .bind(Uuid::now_v7())
    .bind(new.tenant.map(TenantId::uuid))
    .bind(new.model.as_str())
    .bind(bigint(new.price.input))
    .bind(bigint(new.price.cached_input))
    .bind(bigint(new.price.output))
    .bind(new.effective_at)
    .fetch_one(connection)
    .await?;
    read(&row)
}

/// The list of a tenant, or the platform's: the history too, newest first.
pub(crate) async fn list(
    connection: &mut PgConnection,
    tenant: Option<TenantId>,
    page: &Page,
) -> Result<PageOf<ListedPrice>, StoreError> {
    let before = page.after(LIST)?.map(|key| key.parse::<Uuid>()).transpose();
    let rows = sqlx::query(
        "select p.*, effective_at <= now() and not exists (
                  select from prices later
                   where later.tenant_id is not distinct from p.tenant_id and later.model = p.model
                     and later.effective_at <= now() and (later.effective_at, later.id) > (p.effective_at, p.id)
                ) as in_effect
           from prices p
          where tenant_id is not distinct from $1 and ($2::uuid is null or id < $2)
          order by id desc
          limit $3",
    )
    .bind(tenant.map(TenantId::uuid))
    .bind(before.map_err(|_| StoreError::InvalidPageToken)?)
    .bind(page.fetch())
    .fetch_all(connection)
    .await?;
    let prices = rows.iter().map(read).collect::<Result<_, _>>()?;
    Ok(page.cut(LIST, prices, |price: &ListedPrice| price.id.to_string()))
}

/// What holds now and later: the lists of these tenants, each behind it the platform's.
pub(crate) async fn of_tenants(
    connection: &mut PgConnection,
    tenants: &[TenantId],
) -> Result<Vec<PriceList>, StoreError> {
    let rows = sqlx::query(
        "select p.*, effective_at <= now() as in_effect
           from prices p
          where (tenant_id is null or tenant_id = any($1))
            and not exists (
                  select from prices later
                   where later.tenant_id is not distinct from p.tenant_id and later.model = p.model
                     and later.effective_at <= now() and (later.effective_at, later.id) > (p.effective_at, p.id)
                )",
    )
    .bind(tenants.iter().map(|tenant| tenant.uuid()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    let all = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let list = |tenant: &TenantId| {
        let own = all.iter().filter(|row| row.tenant.is_none_or(|owner| owner == *tenant));
        PriceList { rows: own.cloned().collect() }
    };
    Ok(tenants.iter().map(list).collect())
}

fn read(row: &PgRow) -> Result<ListedPrice, StoreError> {
    Ok(ListedPrice {
        id: row.try_get("id")?,
        tenant: row.try_get::<Option<Uuid>, _>("tenant_id")?.map(TenantId::new),
        model: row.try_get::<String, _>("model")?.into(),
        price: Price {
            input: row.count("input_micros")?,
            cached_input: row.count("cached_input_micros")?,
            output: row.count("output_micros")?,
        },
        effective_at: row.try_get("effective_at")?,
        created_at: row.try_get("created_at")?,
        in_effect: row.try_get("in_effect")?,
    })
}
