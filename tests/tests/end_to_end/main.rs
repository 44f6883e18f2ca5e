//! The platform through its public doors: gateway and workers in this process, on real PostgreSQL and real Redis,
//! with the shipped base and industry models. Nothing is scripted and nothing is faked.

mod isolation;
mod platform;
mod refusals;
mod rollouts;
mod streams;
mod versions;
