//! What is found on the way: refusals and notes, without repeats and within bounds.

use crate::plan::{Note, NoteCode};
use crate::refusal::{Code, Refusal, clip};

/// More refusals than this help nobody.
const REFUSALS_MAX: usize = 100;
const NOTES_MAX: usize = 200;

#[derive(Default)]
pub(crate) struct Findings {
    refusals: Vec<Refusal>,
    omitted: usize,
    notes: Vec<Note>,
}

impl Findings {
    pub fn refuse(&mut self, code: Code, subject: impl AsRef<str>, message: impl Into<String>) {
        self.push(Refusal::new(code, subject, message));
    }

    pub fn push(&mut self, refusal: Refusal) {
        if self.refusals.len() >= REFUSALS_MAX {
            self.omitted += 1;
        } else if !self.refusals.contains(&refusal) {
            self.refusals.push(refusal);
        }
    }

    pub fn note(&mut self, code: NoteCode, subject: impl AsRef<str>, message: impl Into<String>) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(Note { code, subject: clip(subject.as_ref(), 256), message: message.into() });
        }
    }

    pub fn take(&mut self, refusals: Vec<Refusal>, notes: Vec<Note>) {
        refusals.into_iter().for_each(|refusal| self.push(refusal));
        let room = NOTES_MAX.saturating_sub(self.notes.len());
        self.notes.extend(notes.into_iter().take(room));
    }

    pub fn refused(&self) -> bool {
        !self.refusals.is_empty()
    }

    pub fn into_refusals(mut self) -> Vec<Refusal> {
        if let (Some(last), omitted @ 1..) = (self.refusals.last_mut(), self.omitted) {
            last.message.push_str(&format!(" (And {omitted} more refusals.)"));
        }
        self.refusals
    }

    pub fn into_notes(self) -> Vec<Note> {
        self.notes
    }
}
