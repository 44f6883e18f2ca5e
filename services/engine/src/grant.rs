//! How much of an answer may be generated before somebody says more. At that bound a sequence is parked: it computes
//! nothing until it is extended, and ends with [`crate::FinishReason::Budget`] when nothing more will come.

/// Tokens of one answer that are granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    tokens: usize,
    last: bool,
    /// Steps that it has been parked for.
    pub parked_steps: u32,
}

/// What somebody says about a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extension {
    /// So many tokens in all.
    More(u32),
    /// So many in all, and never more.
    Last(u32),
    /// If it is parked now, that is its end.
    EndIfParked,
}

impl Grant {
    pub fn new(tokens: usize) -> Self {
        Self { tokens, last: false, parked_steps: 0 }
    }

    /// In all, from the answer's first token on.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// No more will come.
    pub fn is_last(&self) -> bool {
        self.last
    }

    /// A grant never becomes smaller.
    pub fn extend(&mut self, tokens: u32) {
        self.tokens = self.tokens.max(tokens as usize);
        self.parked_steps = 0;
    }

    pub fn close(&mut self) {
        self.last = true;
    }
}

impl Extension {
    /// Both `self` and then `later`.
    pub fn and(self, later: Self) -> Self {
        match (self, later) {
            // What is extended is not parked.
            (Self::EndIfParked, more) | (more, Self::EndIfParked) => more,
            (Self::More(a), Self::More(b)) => Self::More(a.max(b)),
            (Self::More(a) | Self::Last(a), Self::More(b) | Self::Last(b)) => Self::Last(a.max(b)),
        }
    }
}
