//! Datasets from file to version, with a small text model of the tests' own: template and tokenizer are simple enough to
//! see what must come out. `services/banyan/tests/command` does the same with the bundled base.

mod account;
mod codes;
mod limits;
mod report;
mod shapes;
mod sources;
mod support;
mod tokens;
mod versions;
