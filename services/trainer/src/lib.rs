//! From a tenant's examples to a judged adapter: the steps of onboarding that need the model. It opens no database and no
//! network; whoever has jobs hands them in.
//!
//! [`question`] reads held-out conversations → [`answer_all`] asks candidate, current version and base the same, in the
//! serving engine's one batch → `evaluation` judges.

mod answers;
mod local_adapters;
mod question;

pub use answers::{AnswerError, AnswerOptions, Contest, answer_all};
pub use local_adapters::{LocalAdapters, nobody};
pub use question::{Question, QuestionFaults, read_questions};
