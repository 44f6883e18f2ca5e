//! PostgreSQL: the only crate with SQL.
//!
//! Every query runs in a transaction that begins by taking a scope: [`TenantScope`] takes the role `banyan_app` and names
//! its tenant, and row-level security then shows it that tenant's rows and no others, whatever the query forgot;
//! [`Platform`] takes `banyan_platform`, for what an operator does across tenants. A scope ends with its transaction, so a
//! pooled connection carries nothing from one caller to the next. [`Store::find_api_keys`] is the one look-up without a
//! tenant.
//!
//! Works the same on a PostgreSQL server and on the embedded one, which takes a single connection: no method holds one
//! connection while it waits for another, and nothing listens.
//!
//! It does not judge adapters, hash secrets or keep counters of rate limits.

mod api_keys;
mod audit;
mod blobs;
mod changes;
mod config;
mod connection;
mod error;
mod gateways;
mod ledger;
mod limits;
mod migrations;
mod page;
mod past_requests;
mod plans;
mod platform;
mod prices;
mod rows;
mod tenant;
mod tenants;
mod usage;

pub use api_keys::{ApiKey, ApiKeyFields, KeyUse, KnownKey, NewApiKey};
pub use audit::{Actor, RefusedChange, Who};
pub use blobs::{BlobDeletion, BlobLease};
pub use changes::{Change, ChangeKind, Changed, Changes};
pub use config::StoreConfig;
pub use connection::Store;
pub use error::{Precondition, Resource, Stock, StoreError};
pub use gateways::GatewayRow;
pub use ledger::{Balances, End, EntryKind, GroupBy, Hold, LedgerEntry, ListedEntry, OpenHold, Posted, UsageGroup};
pub use migrations::migrate;
pub use page::{Page, PageOf};
pub use past_requests::PastRequest;
pub use plans::{DEFAULT_PLAN, NewPlan, Plan, PlanFields};
pub use platform::{DeleteTenant, Platform};
pub use prices::{ListedPrice, NewPrice, PriceList, PricedModel};
pub use tenant::{
    Adapter, AdapterVersion, Alias, Claimed, ClientRequest, Full, FullOf, InsertedVersion, Model, MostKept, NewPin,
    NewRun, NewSchedule, NewVersion, Pin, Pinned, Route, RoutePart, RoutePin, RouteVersion, Schedule, ScheduleState,
    ShadowPair, ShadowReport, ShadowTally, TenantScope, UsedStock, VersionStep,
};
pub use tenants::{NewTenant, Tenant, TenantFields};
pub use usage::{FinishReason, Outcome, UsageRecord};
