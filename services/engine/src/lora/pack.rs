//! An adapter as one packed image: every weight goes from where it comes to its place in the image, once, and the adapter
//! that serves is a view of it. `load.rs` says what goes in, `unpack.rs` what it means.

use adapters::Dtype;
use kernels::{Buffer, Cpu, Matrix, Storage};

use super::Adapter;
use super::unpack::size;
use crate::model::Model;
use crate::packed_adapter::{Entry, Identity, Kind, Layout, Section, Shape};

impl Adapter {
    /// How this model's adapters hold their matrices, as images number it.
    pub(crate) fn storage_number(model: &Model) -> u16 {
        match model.adapter_storage() {
            Storage::F32 => 1,
            Storage::Bf16 => 2,
            Storage::Int8 => 3,
        }
    }
}

/// An image whose sections are filled. It needs no header to be served in this process, only to be kept.
pub(crate) struct Image {
    layout: Layout,
    bytes: Buffer,
}

impl Image {
    pub(super) fn entries(&self) -> &[Entry] {
        self.layout.entries()
    }

    pub(super) fn bytes(&self) -> &Buffer {
        &self.bytes
    }

    /// Writes header, directory and checksums: the image as it can be kept. `None` if an adapter lies in it already.
    pub fn seal(&mut self, identity: &Identity) -> Option<Buffer> {
        self.layout.seal(identity, self.bytes.get_mut()?);
        Some(self.bytes.clone())
    }
}

/// What a section changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
pub(super) enum Content<'a> {
    /// Row-major elements of a matrix, as the file has them.
    Elements(Dtype, &'a [u8]),
    Values(Vec<f32>),
}

/// All that there is to write, in any order.
pub(super) struct Parts<'a> {
    storage: Storage,
    parts: Vec<(Section, Content<'a>)>,
}

impl<'a> Parts<'a> {
    pub fn new(storage: Storage) -> Self {
        Self { storage, parts: Vec::new() }
    }

    /// A matrix of `[rows, columns]` served elements.
    pub fn matrix(
        &mut self,
        kind: Kind,
        place: Place,
        shape: [usize; 2],
        (dtype, elements): (Dtype, &'a [u8]),
    ) -> Result<(), String> {
        self.push(kind, place, shape, Content::Elements(dtype, elements))
    }

    pub fn vector(&mut self, kind: Kind, place: Place, values: Vec<f32>) -> Result<(), String> {
        self.push(kind, place, [1, values.len()], Content::Values(values))
    }

    pub fn push(&mut self, kind: Kind, place: Place, shape: [usize; 2], content: Content<'a>) -> Result<(), String> {
        let (layer, slot) = if let Place::Linear(layer, slot) = place { (layer, slot) } else { (0, 0) };
        let [Ok(rows), Ok(columns)] = shape.map(u32::try_from) else {
            return Err(format!("{shape:?} is larger than an image can say"));
        };
        self.parts.push((Section { kind, layer, slot, shape: Shape::new(rows, columns) }, content));
        Ok(())
    }

    /// The image of them. `None` if it would be beyond what the format can say.
    pub fn into_image(mut self) -> Option<Image> {
        // Sections of one place stand side by side.
        self.parts.sort_by_key(|(section, _)| (Place::of(section), section.kind));
        let sized = self.parts.iter().map(|(section, _)| Some((*section, size(section, self.storage)?)));
        let layout = Layout::new(sized.collect::<Option<Vec<_>>>()?)?;
        let mut bytes = Buffer::zeroed(layout.bytes());
        let image = bytes.get_mut()?;
        for (Entry { section, offset, bytes }, (_, content)) in layout.entries().iter().zip(self.parts) {
            content.write(section.shape, self.storage, &mut image[*offset..][..*bytes]);
        }
        Some(Image { layout, bytes })
    }
}

impl Content<'_> {
    fn write(self, shape: Shape, storage: Storage, out: &mut [u8]) {
        let (rows, columns) = (shape.rows as usize, shape.columns as usize);
        match self {
            Content::Elements(Dtype::BF16, elements) if storage == Storage::Bf16 => {
                Matrix::pack_bf16(rows, columns, elements, out);
            }
            // Not in parallel: the pool belongs to the steps of those who are being served.
            Content::Elements(dtype, elements) => {
                let width = columns * dtype.size();
                Matrix::pack_rows(&Cpu::serial(), rows, columns, storage, out, |row, values| {
                    dtype.decode_into(&elements[row * width..][..width], values);
                });
            }
            Content::Values(values) => {
                for (out, value) in out.as_chunks_mut::<4>().0.iter_mut().zip(values) {
                    *out = value.to_le_bytes();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
