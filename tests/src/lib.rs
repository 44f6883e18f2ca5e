//! The harness: real PostgreSQL and real Redis for tests, started on first use, gone with the test process.
//!
//! It fakes nothing, and knows nothing of what is tested. `services.sh` installs the servers where they are missing.

pub mod postgres;
pub mod redis;
mod server_process;
