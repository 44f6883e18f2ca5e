//! What an adapter *is*: the PEFT configuration, the strict container, the plan that says which tensor
//! changes which module of the base, the digest that names a version, and the registry that keeps it.
//!
//! The path is one function, [`judge()`]: bytes of the two files and the inventory of a base go in, a
//! [`Plan`] comes out, or every [`Refusal`] at once; [`resolve()`] measures what was judged.
//! This crate does no tensor arithmetic beyond the norms of the [`Receipt`], serves nothing and knows no database.

pub mod base;
pub mod config;
pub mod container;
mod digest;
pub mod dtype;
pub mod export;
pub mod files;
mod json;
mod keys;
pub mod limits;
mod norm;
pub mod patterns;
pub mod plan;
pub mod receipt;
pub mod refusal;
pub mod registry;
pub mod resolve;

pub use base::{Base, BaseError, Module, ModuleKind};
pub use config::LoraConfig;
pub use container::{Container, ContainerError, Header, TensorEntry, TensorView};
pub use dtype::Dtype;
pub use files::Files;
pub use limits::Limits;
pub use plan::{BiasReplacement, ModulePlan, Note, NoteCode, Plan, PrivateModule, TensorRef};
pub use receipt::Receipt;
pub use refusal::{Code, Refusal};
pub use registry::{Registry, RegistryError, VersionFiles};
pub use resolve::{ModuleOutline, Resolved, judge, outline, resolve};
