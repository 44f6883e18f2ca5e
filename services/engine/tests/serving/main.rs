//! The engine on the shipped base model and industry adapters: same tokens whatever the company, nothing lost, nothing
//! leaked, every limit said aloud.

// Clippy knows functions with `#[test]` as tests, not what they share.
#![allow(clippy::unwrap_used)]

mod adapter_cache;
mod adapters_in_memory;
mod answers;
mod grants;
mod limits;
mod resume;
mod same_tokens;
mod speculation;
mod structured;
mod support;
