//! Batched generation: one base model, many adapters, any mix of both in a step.
//!
//! One thread owns all state ([`Engine`]); everybody else holds a cheap [`EngineHandle`], submits a [`GenerateRequest`]
//! and reads an [`EventStream`]. A step is: take what arrived · drop what was cancelled · admit · pick rows ·
//! [`model::Model::forward`] · sample · send. The engine has no clock, no network and no async runtime, and its tokens do not
//! depend on who else is in the batch.
//!
//! [`train`] makes adapters with the same model and the same kernels; it is driven by its caller and shares no thread
//! with the engine.

mod adapter_cache;
mod answer;
mod beginning;
mod blocks;
mod checkpoint;
mod config;
mod engine;
mod events;
mod grammar;
mod grant;
mod handle;
mod inbox;
mod kv;
mod loader;
mod lora;
pub mod model;
mod packed_adapter;
mod packed_base;
mod philox;
mod prefix_cache;
mod probe;
mod progress;
mod request;
mod residents;
mod runner;
pub mod sampler;
mod scheduler;
mod sequence;
mod share;
mod speculation;
mod status;
pub mod text;
pub mod train;

pub use beginning::Beginning;
pub use config::{EngineConfig, FairnessConfig, GrammarConfig};
pub use engine::{Engine, EngineError};
pub use events::{Event, EventStream, FinishReason, Token, TopLogprob, Usage};
pub use handle::{EngineHandle, Grants, TENANT_QUEUE};
pub use loader::{AdapterFault, AdapterSource};
pub use progress::Progress;
pub use request::GenerateRequest;
pub use residents::{AdapterKey, ResidentStatus};
pub use scheduler::LineLength;
pub use share::Share;
pub use status::{SchedulerTotals, Status, TenantStatus, Totals};
