//! Batched generation: one base model, many adapters, any mix of both in a step.
//!
//! One thread owns all state ([`Engine`]); everybody else holds a cheap [`EngineHandle`], submits a [`GenerateRequest`]
//! and reads an [`EventStream`]. A step is: take what arrived · drop what was cancelled · admit · pick rows ·
//! [`model::Model::forward`] · sample · send. The engine has no clock, no network and no async runtime, and its tokens do not
//! depend on who else is in the batch.

mod checkpoint;
mod kv;
mod lora;
pub mod model;
pub mod text;
