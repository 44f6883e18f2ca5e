//! The conformance list of adapter loading, one test for each id, on small synthetic bases and adapters.
//!
//! Ids: `f…` files and container, `c…` config fields, `t…` tensor keys, `m_…` maths, `p_…` patterns, `x_…` mutations,
//! each of which must be refused with its code.

#![allow(clippy::unwrap_used)] // a test that cannot go on should say where

mod config;
mod container;
mod export;
mod files;
mod limits;
mod maths;
mod mutations;
mod patterns;
mod registry;
mod synthetic;
mod tensors;
