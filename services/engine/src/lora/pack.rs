//! An adapter as one packed image: which sections it has, and where they belong. `unpack.rs` is the way back.

use kernels::{Buffer, Matrix, Storage};

use super::{Adapter, EmbeddingChange, EmbeddingLora, LinearChange};
use crate::model::Model;
use crate::packed_adapter::{Identity, Kind, Layout, Section, Shape};

impl Adapter {
    /// How this model's adapters hold their matrices, as images number it.
    pub(crate) fn storage_number(model: &Model) -> u16 {
        match model.adapter_storage() {
            Storage::F32 => 1,
            Storage::Bf16 => 2,
            Storage::Int8 => 3,
        }
    }

    /// The adapter in one piece. `None` if it is beyond what the format can say.
    pub(crate) fn pack(&self, identity: &Identity) -> Option<Buffer> {
        let parts = self.parts()?;
        let layout = Layout::new(parts.iter().map(|(section, content)| (*section, content.bytes())))?;
        let mut image = Buffer::zeroed(layout.bytes());
        let bytes = image.get_mut()?;
        for (entry, (_, content)) in layout.entries().iter().zip(&parts) {
            content.write(&mut bytes[entry.offset..][..entry.bytes]);
        }
        layout.seal(identity, bytes);
        Some(image)
    }

    /// All that there is to write, place after place.
    fn parts(&self) -> Option<Vec<(Section, Content<'_>)>> {
        let mut parts = Parts(Vec::new());
        for (layer, slots) in self.layers.iter().enumerate() {
            for (slot, change) in slots.iter().enumerate() {
                parts.linear(Place::Linear(layer.try_into().ok()?, slot.try_into().ok()?), change)?;
            }
        }
        parts.linear(Place::Head, &self.head.change)?;
        parts.matrix(Kind::HeadPrivate, Place::Head, self.head.private.as_ref())?;
        let EmbeddingChange { private, lora, gain } = &self.embed;
        if let Some(EmbeddingLora { a, b, rank, scale }) = lora {
            parts.values(Kind::EmbedA, Place::Embed, *rank, a)?;
            parts.values(Kind::EmbedB, Place::Embed, b.len().checked_div(*rank)?, b)?;
            parts.push(Kind::EmbedScale, Place::Embed, [1, 1], Content::Number(*scale))?;
        }
        parts.vector(Kind::EmbedGain, Place::Embed, gain.as_deref())?;
        parts.matrix(Kind::EmbedPrivate, Place::Embed, private.as_ref())?;
        Some(parts.0)
    }
}

/// What a section changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Layer and slot.
    Linear(u16, u16),
    Head,
    Embed,
}

impl Place {
    pub(super) fn of(section: &Section) -> Place {
        use Kind::*;
        match section.kind {
            LoraA | LoraB | LoraScale | LoraBias | Gain | Bias => Place::Linear(section.layer, section.slot),
            HeadLoraA | HeadLoraB | HeadLoraScale | HeadLoraBias | HeadGain | HeadBias | HeadPrivate => Place::Head,
            EmbedA | EmbedB | EmbedScale | EmbedGain | EmbedPrivate => Place::Embed,
        }
    }

    /// Kinds of a linear change: A, B, scale, bias of B, gain, bias.
    pub(super) const fn linear_kinds(self) -> [Kind; 6] {
        use Kind::*;
        match self {
            Place::Head => [HeadLoraA, HeadLoraB, HeadLoraScale, HeadLoraBias, HeadGain, HeadBias],
            Place::Linear(..) | Place::Embed => [LoraA, LoraB, LoraScale, LoraBias, Gain, Bias],
        }
    }
}

/// What is written into a section.
enum Content<'a> {
    Packed(&'a [u8]),
    Values(&'a [f32]),
    Number(f32),
}

impl Content<'_> {
    fn bytes(&self) -> usize {
        match self {
            Content::Packed(bytes) => bytes.len(),
            Content::Values(values) => size_of_val(*values),
            Content::Number(_) => size_of::<f32>(),
        }
    }

    fn write(&self, out: &mut [u8]) {
        let values = match self {
            Content::Packed(bytes) => return out.copy_from_slice(bytes),
            Content::Values(values) => values,
            Content::Number(number) => std::slice::from_ref(number),
        };
        for (out, value) in out.as_chunks_mut::<4>().0.iter_mut().zip(values) {
            *out = value.to_le_bytes();
        }
    }
}

/// Sections being collected; `None` where a number is beyond the format.
struct Parts<'a>(Vec<(Section, Content<'a>)>);

impl<'a> Parts<'a> {
    fn linear(&mut self, place: Place, change: &'a LinearChange) -> Option<()> {
        let [a, b, scale, lora_bias, gain, bias] = place.linear_kinds();
        if let Some(lora) = &change.lora {
            self.matrix(a, place, Some(lora.a()))?;
            self.matrix(b, place, Some(lora.b()))?;
            self.push(scale, place, [1, 1], Content::Number(lora.scale()))?;
        }
        self.vector(lora_bias, place, change.lora_bias.as_deref())?;
        self.vector(gain, place, change.gain.as_deref())?;
        self.vector(bias, place, change.bias.as_deref())
    }

    fn matrix(&mut self, kind: Kind, place: Place, matrix: Option<&'a Matrix>) -> Option<()> {
        let Some(matrix) = matrix else { return Some(()) };
        self.push(kind, place, [matrix.outputs(), matrix.inputs()], Content::Packed(matrix.packed()))
    }

    fn vector(&mut self, kind: Kind, place: Place, values: Option<&'a [f32]>) -> Option<()> {
        let Some(values) = values else { return Some(()) };
        self.values(kind, place, values.len(), values)
    }

    fn values(&mut self, kind: Kind, place: Place, columns: usize, values: &'a [f32]) -> Option<()> {
        self.push(kind, place, [values.len().checked_div(columns)?, columns], Content::Values(values))
    }

    fn push(&mut self, kind: Kind, place: Place, shape: [usize; 2], content: Content<'a>) -> Option<()> {
        let (layer, slot) = if let Place::Linear(layer, slot) = place { (layer, slot) } else { (0, 0) };
        let shape = Shape::new(shape[0].try_into().ok()?, shape[1].try_into().ok()?);
        self.0.push((Section { kind, layer, slot, shape }, content));
        Some(())
    }
}

#[cfg(test)]
mod tests;
