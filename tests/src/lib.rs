//! The harness: real PostgreSQL and real Redis for tests, started on first use, gone with the test process; and the fault
//! lanes, which kill, stop, cut and fill up what a whole deployment runs on and look at what is left.
//!
//! It fakes nothing. Of what is tested it knows the contract (`proto`) and the `banyan` program, no crate of it.
//! `services.sh` installs the servers where they are missing.

pub mod faults;
pub mod link;
pub mod postgres;
pub mod redis;
mod server_process;
