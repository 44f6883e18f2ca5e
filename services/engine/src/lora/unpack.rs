//! An adapter from its packed image: every matrix is a view of it, so that a load is one read and nothing is converted.
//!
//! What an image says is believed only as far as it fits this model: a section at a place that there is not, of
//! another shape, twice, or without the others that it needs is [`Damage`].

use domain::Digest;
use kernels::{Buffer, Lora, Matrix, Storage};

use super::pack::{Image, Place};
use super::{Adapter, EmbeddingChange, EmbeddingLora, HeadChange, LinearChange};
use crate::model::{Model, ModelConfig, Slot};
use crate::packed_adapter::{Damage, Entry, Identity, Kind, Section, Shape, read};

impl Adapter {
    /// The adapter that lies in `image`, whose memory it shares.
    ///
    /// # Errors
    /// Whatever does not hold; then nothing of it may be used.
    pub(crate) fn unpack(model: &Model, identity: &Identity, image: Buffer) -> Result<Adapter, Damage> {
        let storage = model.adapter_storage();
        let entries = read(&image, identity, |section| size(section, storage))?;
        Adapter::view(model, identity.key.digest, &image, &entries)
    }

    /// The adapter in an image that was made here, so that there is no checksum to compare.
    ///
    /// # Errors
    /// If it was made for another model.
    pub(crate) fn of_image(model: &Model, digest: Digest, image: &Image) -> Result<Adapter, Damage> {
        Adapter::view(model, digest, image.bytes(), image.entries())
    }

    fn view(model: &Model, digest: Digest, image: &Buffer, entries: &[Entry]) -> Result<Adapter, Damage> {
        let storage = model.adapter_storage();
        let mut reader = Reader { config: model.config(), image, storage, copied: 0 };
        let layers = (0..model.config().layers).map(|_| Default::default()).collect();
        let (embed, head) = (EmbeddingChange::default(), HeadChange::default());
        let mut adapter = Adapter { digest, base_digest: model.base().digest(), bytes: 0, embed, layers, head };
        // Sections of one place stand side by side.
        let mut rest = entries;
        while let Some(first) = rest.first() {
            let place = Place::of(&first.section);
            let count = rest.iter().take_while(|entry| Place::of(&entry.section) == place).count();
            let at = entries.len() - rest.len();
            let (own, others) = rest.split_at(count);
            reader.add(&mut adapter, place, own).ok_or(Damage::Section(at))?;
            rest = others;
        }
        adapter.bytes = image.len() + reader.copied;
        Ok(adapter)
    }
}

/// Bytes of a section; `None` for what has no elements.
pub(super) fn size(section: &Section, storage: Storage) -> Option<usize> {
    let Shape { rows, columns } = section.shape;
    if rows == 0 || columns == 0 {
        None
    } else if section.kind.is_matrix() {
        Some(Matrix::packed_len(rows as usize, columns as usize, storage))
    } else {
        section.shape.f32_bytes()
    }
}

/// Brings sections to their places. `None` wherever something does not fit the model.
struct Reader<'a> {
    config: &'a ModelConfig,
    image: &'a Buffer,
    storage: Storage,
    /// Bytes that are no views.
    copied: usize,
}

impl Reader<'_> {
    fn add(&mut self, adapter: &mut Adapter, place: Place, own: &[Entry]) -> Option<()> {
        let (vocab, hidden) = (self.config.vocab_size, self.config.hidden_size);
        match place {
            Place::Linear(layer, slot) => {
                let slot = *Slot::ALL.get(slot as usize)?;
                let ([outputs, inputs], _) = slot.shape(self.config);
                let change = &mut adapter.layers.get_mut(layer as usize)?[slot as usize];
                (change.is_empty() && own.len() <= 6).then_some(())?;
                *change = self.linear(place, own, [outputs, inputs])?;
            }
            Place::Head => {
                (adapter.head.change.is_empty() && adapter.head.private.is_none()).then_some(())?;
                adapter.head.change = self.linear(place, own, [vocab, hidden])?;
                adapter.head.private = self.matrix(own, Kind::HeadPrivate, [Some(vocab), Some(hidden)])?;
            }
            Place::Embed => {
                let embed = &mut adapter.embed;
                (embed.private.is_none() && embed.lora.is_none() && embed.gain.is_none()).then_some(())?;
                embed.private = self.matrix(own, Kind::EmbedPrivate, [Some(vocab), Some(hidden)])?;
                embed.gain = self.vector(own, Kind::EmbedGain, hidden)?;
                embed.lora = self.embedding_lora(own, vocab, hidden)?;
            }
        }
        Some(())
    }

    fn linear(&mut self, place: Place, own: &[Entry], [outputs, inputs]: [usize; 2]) -> Option<LinearChange> {
        let [a, b, scale, lora_bias, gain, bias] = place.linear_kinds();
        let a = self.matrix(own, a, [None, Some(inputs)])?;
        let b = self.matrix(own, b, [Some(outputs), None])?;
        let lora = match (a, b, self.vector(own, scale, 1)?) {
            (Some(a), Some(b), Some(scale)) if a.outputs() == b.inputs() => Some(Lora::from_parts(a, b, scale[0])),
            (None, None, None) => None,
            _ => return None,
        };
        Some(LinearChange {
            lora,
            gain: self.vector(own, gain, outputs)?,
            lora_bias: self.vector(own, lora_bias, outputs)?,
            bias: self.vector(own, bias, outputs)?,
        })
    }

    fn embedding_lora(&mut self, own: &[Entry], vocab: usize, hidden: usize) -> Option<Option<EmbeddingLora>> {
        let parts = [Kind::EmbedA, Kind::EmbedB, Kind::EmbedScale].map(|kind| one(own, kind));
        let [Some(a), Some(b), Some(scale)] = [parts[0]?, parts[1]?, parts[2]?] else {
            return parts.iter().all(|part| *part == Some(None)).then_some(None);
        };
        let (rank, found) = (a.section.shape.columns, [a, b, scale].map(|entry| entry.section.shape));
        let shape = |rows: usize, columns: usize| Some(Shape::new(rows.try_into().ok()?, columns.try_into().ok()?));
        let expected = [shape(vocab, rank as usize)?, shape(rank as usize, hidden)?, Shape::new(1, 1)];
        (found == expected).then_some(())?;
        let (a, b, scale) = (self.floats(a), self.floats(b), self.floats(scale));
        Some(Some(EmbeddingLora { a, b, rank: rank as usize, scale: *scale.first()? }))
    }

    /// `Some(None)` if there is none; sizes that are not given are free.
    fn matrix(&self, own: &[Entry], kind: Kind, shape: [Option<usize>; 2]) -> Option<Option<Matrix>> {
        let Some(entry) = one(own, kind)? else { return Some(None) };
        let found = [entry.section.shape.rows as usize, entry.section.shape.columns as usize];
        let fits = found.iter().zip(shape).all(|(found, expected)| expected.is_none_or(|size| size == *found));
        let part = fits.then(|| self.image.slice(entry.offset..entry.offset + entry.bytes))?;
        Matrix::from_packed(found[0], found[1], self.storage, part).ok().map(Some)
    }

    fn vector(&mut self, own: &[Entry], kind: Kind, length: usize) -> Option<Option<Vec<f32>>> {
        let Some(entry) = one(own, kind)? else { return Some(None) };
        let Shape { rows, columns } = entry.section.shape;
        (rows == 1 && columns as usize == length).then(|| Some(self.floats(entry)))
    }

    fn floats(&mut self, entry: &Entry) -> Vec<f32> {
        self.copied += entry.bytes;
        let bytes = &self.image[entry.offset..][..entry.bytes];
        bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }
}

/// The section of this kind, if there is one; `None` if there are two.
fn one(own: &[Entry], kind: Kind) -> Option<Option<&Entry>> {
    let mut found = own.iter().filter(|entry| entry.section.kind == kind);
    let first = found.next();
    found.next().is_none().then_some(first)
}
