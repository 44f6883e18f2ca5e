//! The base model that all workers have, as the first one that answered told it.

use domain::{Digest, Fault};

pub struct BaseModel {
    pub digest: Digest,
    /// Tokens.
    pub context_length: u32,
    pub inventory: adapters::Base,
}

impl BaseModel {
    /// Refuses token ids that the base does not have, in the words of a worker that would.
    pub fn check(&self, ids: &[u32]) -> Result<(), Fault> {
        let size = self.inventory.vocab_size();
        match ids.iter().find(|id| **id as usize >= size) {
            None => Ok(()),
            Some(id) => {
                let why = format!("token {id} is not in the vocabulary of {size} tokens");
                Err(Fault::invalid("tokens.ids", why))
            }
        }
    }
}
