//! The gateway: the public door (inference) and the admin door, in front of PostgreSQL, Redis, the adapter registry and
//! the workers. It holds no model and computes nothing.
//!
//! The way of a request: [`guard`] (who, may they, until when) → an edge ([`inference`], [`openai`], [`admin`]) with `parse` →
//! [`generate`] *the story*: resolve · tokenize · reserve · pick · relay · settle.

pub mod access;
mod admin;
mod audit;
mod auth;
mod changes;
mod config;
mod deadline;
mod edge;
mod explain;
mod generate;
mod guard;
mod inbox;
mod inference;
mod ledger;
pub mod limits;
mod meter;
mod metrics;
mod models;
mod openai;
mod parse;
mod prices;
mod public;
mod reconcile;
mod relay;
mod repeats;
mod schedules;
mod shadow;
mod start;
mod store_fault;
mod sweeper;
mod trial;
mod uploads;
mod workers;

pub use auth::KeyHasher;
pub use config::{
    AuditConfig, AuthConfig, CallsConfig, ChangesConfig, DEFAULTS, ENV_PREFIX, GatewayConfig, GenerateConfig,
    HttpConfig, IdempotencyConfig, LedgerConfig, LimitsConfig, ModelsConfig, PricesConfig, RolloutsConfig,
    ShadowConfig, UploadsConfig, WorkersConfig,
};
pub use start::{Backends, Gateway, GatewayError, RunningGateway, run};
