//! The gateway over gRPC and HTTP, on real PostgreSQL. Workers are scripted: they are the one fake, and the wire is the seam.

mod admin;
mod audit;
mod auth;
mod budgets;
mod explain;
mod fake_worker;
mod generate;
mod grants;
mod http;
mod isolation;
mod ledger;
mod limits;
mod matrix;
mod openai;
mod platform;
mod prices;
mod raw;
mod repeats;
mod resume;
mod revocation;
mod rollouts;
mod routing;
mod scopes;
mod shadow;
mod uploads;
mod web;
