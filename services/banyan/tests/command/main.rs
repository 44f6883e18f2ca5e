//! The `banyan` command as its user sees it: the real binary, the bundled base and adapters, an own data directory for
//! each test, exit codes and printed text.

mod bench;
mod clients;
mod command;
mod dataset;
mod eval;
mod inspect;
mod load;
mod platform;
mod processes;
mod score;
mod train;
mod up;
mod usage;
mod verbs;
mod worker_loss;
