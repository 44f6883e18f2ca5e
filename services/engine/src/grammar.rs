//! Structured output: which tokens may come next in an answer that has to be JSON of a schema, match a regular expression
//! or follow a grammar. The parsing is llguidance's. All of it is computed on threads of its own ([`Grammars`]) while the
//! engine's steps go on: a mask is wanted when a token is chosen, at the end of the step, and a sequence whose mask is not
//! there by then gets no token from that step. This knows no model, no logits and no scheduler.

mod compiler;
mod threads;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::{Fault, ResponseFormat};
use llguidance::Matcher;

use crate::sampler::TokenMask;
use compiler::refused;
pub(crate) use threads::{Desk, Grammars};
use threads::{Job, Task};

/// The request's field, as faults name it.
pub(crate) const FIELD: &str = "response_format";

/// Leads one answer through its grammar. Dropping it calls off what is still to be computed for it.
pub(crate) struct Guide {
    desk: Arc<Desk>,
    place: Arc<Place>,
    late: bool,
}

/// Where a grammar thread puts its result.
struct Place {
    state: Mutex<State>,
}

enum State {
    /// On a grammar thread, or on its way there.
    Busy,
    /// The tokens that may come next.
    Ready {
        matcher: Box<Matcher>,
        mask: Arc<TokenMask>,
    },
    Refused(Fault),
}

impl Guide {
    /// With the work that makes it ready; give that to [`Desk::begin`].
    ///
    /// `beginning`: tokens of the answer that stand already.
    pub fn new(desk: &Arc<Desk>, format: ResponseFormat, beginning: Vec<u32>) -> (Self, Job) {
        let place = Arc::new(Place { state: Mutex::new(State::Busy) });
        let job = Job { place: Arc::downgrade(&place), task: Task::Compile(format, beginning) };
        (Self { desk: Arc::clone(desk), place, late: false }, job)
    }

    /// The tokens that may come next; `None` if that is not known yet, or never will be.
    pub fn mask(&self) -> Option<Arc<TokenMask>> {
        match &*self.place.lock() {
            State::Ready { mask, .. } => Some(Arc::clone(mask)),
            State::Busy | State::Refused(_) => None,
        }
    }

    pub fn is_ready(&self) -> bool {
        matches!(*self.place.lock(), State::Ready { .. })
    }

    /// Why the answer cannot go on.
    pub fn fault(&self) -> Option<Fault> {
        match &*self.place.lock() {
            State::Refused(fault) => Some(fault.clone()),
            State::Busy | State::Ready { .. } => None,
        }
    }

    /// A step came to its end before the mask.
    pub fn was_late(&mut self) {
        self.late = true;
    }

    /// True if another step now would be for nothing.
    pub fn is_late(&self) -> bool {
        self.late && !self.is_ready()
    }

    /// `token`, which the mask allowed, joins the answer: has the next mask computed.
    pub fn advance(&mut self, token: u32) {
        self.late = false;
        let mut state = self.place.lock();
        match std::mem::replace(&mut *state, State::Busy) {
            State::Ready { matcher, .. } => {
                let task = Task::Advance(matcher, token);
                self.desk.begin(Job { place: Arc::downgrade(&self.place), task });
            }
            State::Busy => *state = State::Refused(refused("a token came before its mask")),
            same @ State::Refused(_) => *state = same,
        }
    }
}

impl Place {
    fn put(&self, state: State) {
        *self.lock() = state;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
