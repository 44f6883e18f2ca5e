//! The packed form of an adapter: one contiguous image in which every weight lies as the kernels want it, so that a
//! cold load is one sequential read and nothing is converted. This module knows the format alone: bytes in, a checked
//! directory out. What the sections mean to a model is [`crate::lora`]'s business, where images are kept
//! [`crate::adapter_cache`]'s.
//!
//! ```text
//! header 128 bytes · directory, 32 bytes a section · sections, each at a multiple of 64
//! ```
//! Numbers are little-endian. A reader trusts nothing: whatever does not hold is [`Damage`], and the image is thrown away.
//! The checksums find damage, not malice: the folder of the cache is as private as the process's memory.

mod directory;
mod header;

use crc32fast::hash as checksum;
use domain::Digest;

pub use directory::{Kind, Section, Shape};
pub use header::Identity;

use directory::ENTRY_BYTES;
use header::{HEADER_BYTES, Header};

/// Sections begin at multiples of this, as the kernels' loads want it.
pub const ALIGNMENT: usize = 64;
/// Of one image: private copies of embeddings and a low-rank pair in every layer of a very deep model stay far below.
const SECTIONS_MAX: usize = 1 << 16;

/// Why bytes are no image that can be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("{0} bytes are fewer than the image says")]
    Short(usize),
    #[error("it is no image of this program's version")]
    Format,
    #[error("its {0} checksum is wrong")]
    Checksum(&'static str),
    #[error("it is another adapter's, another base's or was judged by other rules")]
    Identity,
    #[error("section {0} does not lie where a section can")]
    Section(usize),
}

/// A section and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub section: Section,
    pub offset: usize,
    pub bytes: usize,
}

/// Where the sections of an image will lie.
#[derive(Debug)]
pub struct Layout {
    entries: Vec<Entry>,
    bytes: usize,
}

impl Layout {
    /// Places sections of these sizes in bytes one after the other. `None` if they are too many or too large for the format.
    pub fn new(sections: impl IntoIterator<Item = (Section, usize)>) -> Option<Layout> {
        let sections: Vec<_> = sections.into_iter().collect();
        if sections.len() > SECTIONS_MAX {
            return None;
        }
        let mut end = HEADER_BYTES + sections.len() * ENTRY_BYTES;
        let mut entries = Vec::with_capacity(sections.len());
        for (section, bytes) in sections {
            let offset = end.checked_next_multiple_of(ALIGNMENT)?;
            end = offset.checked_add(bytes)?;
            entries.push(Entry { section, offset, bytes });
        }
        Some(Layout { entries, bytes: end.checked_next_multiple_of(ALIGNMENT)? })
    }

    /// Size of the image: a multiple of [`ALIGNMENT`].
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Writes header and directory into an `image` of [`Layout::bytes`] bytes, whose sections are filled already.
    ///
    /// # Panics
    /// If the image is of another size.
    pub fn seal(&self, identity: &Identity, image: &mut [u8]) {
        assert_eq!(image.len(), self.bytes, "an image of its layout's size");
        let payload = self.payload();
        for (entry, bytes) in self.entries.iter().zip(image[HEADER_BYTES..].as_chunks_mut::<ENTRY_BYTES>().0) {
            *bytes = directory::encode(entry);
        }
        let header = Header {
            identity: *identity,
            bytes: self.bytes as u64,
            sections: self.entries.len() as u32,
            directory_checksum: checksum(&image[HEADER_BYTES..payload]),
            payload_checksum: checksum(&image[payload..]),
        };
        image[..HEADER_BYTES].copy_from_slice(&header.encode());
    }

    /// Where the directory ends and the sections, or the gap before them, begin.
    fn payload(&self) -> usize {
        HEADER_BYTES + self.entries.len() * ENTRY_BYTES
    }
}

/// Checks an image and finds its sections. `size` says how many bytes a section takes; `None` where there is no such.
///
/// # Errors
/// The first thing that does not hold.
pub fn read(image: &[u8], expected: &Identity, size: impl Fn(&Section) -> Option<usize>) -> Result<Vec<Entry>, Damage> {
    let head = image.first_chunk::<HEADER_BYTES>().ok_or(Damage::Short(image.len()))?;
    let header = Header::decode(head)?;
    if header.bytes != image.len() as u64 {
        return Err(Damage::Short(image.len()));
    }
    if header.identity != *expected {
        return Err(Damage::Identity);
    }
    let count = header.sections as usize;
    if count > SECTIONS_MAX {
        return Err(Damage::Format);
    }
    let payload = HEADER_BYTES + count * ENTRY_BYTES;
    let directory = image.get(HEADER_BYTES..payload).ok_or(Damage::Short(image.len()))?;
    if checksum(directory) != header.directory_checksum {
        return Err(Damage::Checksum("directory's"));
    }
    if checksum(&image[payload..]) != header.payload_checksum {
        return Err(Damage::Checksum("content's"));
    }
    let mut end = payload;
    let mut entries = Vec::with_capacity(count);
    for (n, bytes) in directory.as_chunks::<ENTRY_BYTES>().0.iter().enumerate() {
        let entry = directory::decode(bytes).ok_or(Damage::Section(n))?;
        let stop = entry.offset.checked_add(entry.bytes);
        let placed = entry.offset.is_multiple_of(ALIGNMENT)
            && entry.offset >= end
            && stop.is_some_and(|stop| stop <= image.len())
            && size(&entry.section) == Some(entry.bytes);
        if !placed {
            return Err(Damage::Section(n));
        }
        end = entry.offset + entry.bytes;
        entries.push(entry);
    }
    Ok(entries)
}

/// Names the rules by which an adapter was judged before it was packed: an image made under others is not used. The
/// program's version is part of it, so what a new version refuses is not served from an old version's cache.
pub fn rules(limits: &adapters::Limits) -> u32 {
    checksum(format!("{} {limits:?}", env!("CARGO_PKG_VERSION")).as_bytes())
}

#[cfg(test)]
mod tests;
