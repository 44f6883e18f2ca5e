//! (being written)
pub struct LoraConfig;
