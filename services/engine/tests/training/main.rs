//! Training on the serving model: gradients and a run of steps against torch and peft, runs together against each alone,
//! resuming, exporting, and what is refused. Golden files: `tests/golden/train.py`.

#![allow(clippy::unwrap_used)] // helpers of a test may panic as the test itself may

mod export;
mod golden;
mod refusals;
mod resume;
mod support;
mod together;
