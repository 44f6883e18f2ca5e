//! Training of adapters on the model that serves: the same weights, the same kernels, in the same order, so that what is
//! trained is what answers.
//!
//! A [`Run`] is one adapter in training: its factors, gradient and optimiser, in f32. A [`Trainer`] has the frozen model and
//! takes sequences of one or **many** runs in one pass: frozen products once over all rows, the low-rank parts and the loss
//! by run. Every run gets the bits that it would get alone, whoever shares its passes.
//!
//! ```text
//! Trainer::accumulate(parts)   forward, loss, backward: adds to the gradient of each run; as often as a step has parts
//! Trainer::step(run)           mean over the trained tokens, clipping, AdamW, the next learning rate
//! Run::save · Run::resume      everything, bit for bit · Run::export: the two files of PEFT
//! ```
//!
//! It has no data formats, no clock and no threads but those of its [`kernels::Cpu`]. Low-rank changes of linear layers, of
//! the output layer and of the embedding are trained; DoRA, biases and whole modules are refused.

mod batch;
mod embedding;
mod error;
mod factors;
mod head;
mod init;
mod layer;
mod layer_backward;
mod memory;
mod optimiser;
mod pass;
mod project;
mod run;
mod state;
mod trainer;
mod transposed;

pub use batch::Sequence;
pub use error::TrainError;
pub use optimiser::{OptimiserConfig, Schedule};
pub use run::{Loss, Recipe, Run, StepReport};
pub use trainer::{Part, Trainer, TrainerConfig};
