//! The gateway over gRPC, on real PostgreSQL. Workers are scripted: they are the one fake, and the wire is the seam.

mod admin;
mod auth;
mod fake_worker;
mod generate;
mod grants;
mod isolation;
mod limits;
mod platform;
mod prices;
mod scopes;
mod uploads;
