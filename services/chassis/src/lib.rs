//! How a process starts, reads its configuration, listens, reports and stops. No business rules live here.

pub mod bearer;
pub mod config;
pub mod server;
pub mod shutdown;
pub mod status;
pub mod telemetry;
pub mod trace_context;
