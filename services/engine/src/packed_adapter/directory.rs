//! What an image contains: one entry for each section.

use super::Entry;

pub const ENTRY_BYTES: usize = 32;

/// A weight or a vector of an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Section {
    pub kind: Kind,
    /// Layer of the base; 0 for what belongs to none.
    pub layer: u16,
    /// Linear layer within it; 0 for what belongs to none.
    pub slot: u16,
    pub shape: Shape,
}

/// Rows and columns; a vector has one row, a scale is one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    pub rows: u32,
    pub columns: u32,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $number:literal),+ $(,)?) => {
        /// What a section is. Matrices are in the kernels' packed form; everything else is f32.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind { $($(#[$doc])* $kind = $number),+ }

        impl Kind {
            fn of(number: u16) -> Option<Kind> {
                match number {
                    $($number => Some(Kind::$kind),)+
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// Matrix `[rank, inputs]` of a linear layer.
    LoraA = 1,
    /// Matrix `[outputs, rank]` of a linear layer.
    LoraB = 2,
    /// One number.
    LoraScale = 3,
    /// `[outputs]`.
    LoraBias = 4,
    /// `[outputs]`.
    Gain = 5,
    /// `[outputs]`.
    Bias = 6,
    /// As the first six, of the output layer.
    HeadLoraA = 11,
    HeadLoraB = 12,
    HeadLoraScale = 13,
    HeadLoraBias = 14,
    HeadGain = 15,
    HeadBias = 16,
    /// Matrix `[vocab, hidden]` in place of the base's output layer.
    HeadPrivate = 17,
    /// `[vocab, rank]` of f32.
    EmbedA = 21,
    /// `[rank, hidden]` of f32.
    EmbedB = 22,
    EmbedScale = 23,
    /// `[hidden]`.
    EmbedGain = 24,
    /// Matrix `[vocab, hidden]` in place of the base's embedding.
    EmbedPrivate = 25,
}

impl Kind {
    /// In the kernels' packed form.
    pub fn is_matrix(self) -> bool {
        use Kind::{EmbedPrivate, HeadLoraA, HeadLoraB, HeadPrivate, LoraA, LoraB};
        matches!(self, LoraA | LoraB | HeadLoraA | HeadLoraB | HeadPrivate | EmbedPrivate)
    }
}

impl Shape {
    pub const fn new(rows: u32, columns: u32) -> Self {
        Self { rows, columns }
    }

    /// Bytes of this many f32; `None` if no memory holds them.
    pub fn f32_bytes(self) -> Option<usize> {
        (self.rows as usize).checked_mul(self.columns as usize)?.checked_mul(size_of::<f32>())
    }
}

pub fn encode(entry: &Entry) -> [u8; ENTRY_BYTES] {
    let Section { kind, layer, slot, shape } = entry.section;
    let mut out = [0; ENTRY_BYTES];
    out[..2].copy_from_slice(&(kind as u16).to_le_bytes());
    out[2..4].copy_from_slice(&layer.to_le_bytes());
    out[4..6].copy_from_slice(&slot.to_le_bytes());
    // 6..8 is zero.
    out[8..12].copy_from_slice(&shape.rows.to_le_bytes());
    out[12..16].copy_from_slice(&shape.columns.to_le_bytes());
    out[16..24].copy_from_slice(&(entry.offset as u64).to_le_bytes());
    out[24..].copy_from_slice(&(entry.bytes as u64).to_le_bytes());
    out
}

/// `None` for a kind that there is not and for sizes that no memory has.
pub fn decode(bytes: &[u8; ENTRY_BYTES]) -> Option<Entry> {
    let short = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|n| bytes[at + n]));
    let long = |at: usize| usize::try_from(u64::from_le_bytes(std::array::from_fn(|n| bytes[at + n]))).ok();
    let shape = Shape { rows: word(8), columns: word(12) };
    let section = Section { kind: Kind::of(short(0))?, layer: short(2), slot: short(4), shape };
    Some(Entry { section, offset: long(16)?, bytes: long(24)? })
}
