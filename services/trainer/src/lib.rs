//! From a tenant's examples to a judged adapter: the steps of onboarding that need the model. It opens no database and no
//! network; whoever has jobs hands them in.
//!
//! [`Lessons`] are read from a dataset version → [`train`] makes an adapter of them, from checkpoint to checkpoint →
//! [`answer_all`] asks candidate, current version and base the same held-out [`Question`]s, in the serving engine's one
//! batch → `evaluation` judges.

mod answers;
mod lessons;
mod line_faults;
mod local_adapters;
mod question;
mod train;

pub use answers::{AnswerError, AnswerOptions, Contest, answer_all};
pub use lessons::{LessonError, Lessons};
pub use line_faults::LineFaults;
pub use local_adapters::{LocalAdapters, nobody};
pub use question::{Question, held_out_questions, read_questions};
pub use train::{
    CheckpointError, JobError, JobOptions, Plan, Preset, Progress, Size, Trained, remove_checkpoint, train,
};
