//! The gateway over gRPC and HTTP, on real PostgreSQL. Workers are scripted: they are the one fake, and the wire is the seam.

mod admin;
mod auth;
mod budgets;
mod fake_worker;
mod generate;
mod grants;
mod http;
mod isolation;
mod ledger;
mod limits;
mod openai;
mod platform;
mod prices;
mod repeats;
mod scopes;
mod uploads;
mod web;
