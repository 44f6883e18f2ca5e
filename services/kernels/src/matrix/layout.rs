//! Where the elements of a packed matrix lie. Files of packed weights depend on it: a change needs another version there.
//!
//! | storage | values, `p` panels of 16 outputs, `d` padded inputs | scales |
//! |---|---|---|
//! | f32  | `[p][d][16]` f32; `d` = inputs | |
//! | bf16 | `[p][d/2][16][2]` bf16; `d` a multiple of 32, or 16 for up to 16 inputs (low ranks) | |
//! | int8 | `[p][d/4][16][4]` u8, the value + 128; `d` a multiple of 64, or of 4 for up to 64 inputs | `[p][g][16]` f16 |
//!
//! Scales of int8 lie behind all values: one for each of `g` groups of 64 inputs. Up to 64 inputs (low ranks) are one group,
//! which takes no more room than there are inputs.
//!
//! One line of 64 bytes is 16 outputs × 1, 2 or 4 inputs: the operand of an FMA, of `vdpbf16ps`, of `vpdpbusd`; 16 lines
//! are the right-hand tile of AMX. Values begin at a multiple of 64 bytes, and so do scales.

use super::Storage;

/// Outputs of a panel.
pub const PANEL: usize = 16;
/// Bytes of a line: 16 outputs by one, two or four inputs.
pub const LINE: usize = 64;
/// Inputs that share a scale in int8; up to so many inputs are one group of their own length.
pub const GROUP: usize = 64;

#[derive(Clone, Debug)]
pub struct Layout {
    pub outputs: usize,
    pub inputs: usize,
    pub storage: Storage,
    pub panels: usize,
    /// Inputs with padding.
    pub depth: usize,
}

impl Layout {
    pub fn new(outputs: usize, inputs: usize, storage: Storage) -> Layout {
        Layout { outputs, inputs, storage, panels: outputs.div_ceil(PANEL), depth: depth(storage, inputs) }
    }

    /// Lines of one panel.
    pub fn lines(&self) -> usize {
        self.depth / inputs_of_line(self.storage)
    }

    pub fn panel_bytes(&self) -> usize {
        self.lines().saturating_mul(LINE)
    }

    pub fn panel_scale_bytes(&self) -> usize {
        match self.storage {
            Storage::Int8 => self.groups() * PANEL * 2,
            Storage::F32 | Storage::Bf16 => 0,
        }
    }

    /// Groups of inputs that share a scale, of int8.
    pub fn groups(&self) -> usize {
        self.depth.div_ceil(GROUP)
    }

    /// Whether the only group of an int8 matrix is not whole: such a product has kernels of its own.
    pub fn is_short(&self) -> bool {
        self.storage == Storage::Int8 && self.depth < GROUP
    }

    pub fn values_bytes(&self) -> usize {
        self.panels.saturating_mul(self.panel_bytes())
    }

    /// Bytes of all. What no memory can hold saturates, so that no buffer has that size.
    pub fn bytes(&self) -> usize {
        self.values_bytes().saturating_add(self.panels.saturating_mul(self.panel_scale_bytes()))
    }
}

/// Inputs with padding.
pub fn depth(storage: Storage, inputs: usize) -> usize {
    let multiple = match storage {
        Storage::F32 => 1,
        Storage::Bf16 if inputs <= 16 => 16,
        Storage::Bf16 => 32,
        Storage::Int8 if inputs <= GROUP => 4,
        Storage::Int8 => GROUP,
    };
    inputs.div_ceil(multiple).saturating_mul(multiple)
}

/// Inputs of one line of a panel.
pub fn inputs_of_line(storage: Storage) -> usize {
    match storage {
        Storage::F32 => 1,
        Storage::Bf16 => 2,
        Storage::Int8 => 4,
    }
}
