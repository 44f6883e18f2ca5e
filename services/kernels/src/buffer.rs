//! Memory of packed weights: 64-byte-aligned bytes that are ours or a file's, shared by the matrices that lie in them. And
//! memory of activations, of the same alignment.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fs::File;
use std::io::{self, Read};
use std::ops::{Deref, Range};
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::{Mmap, MmapMut};

/// Alignment of every buffer and of every packed matrix in it: one AVX-512 register, one line of the cache.
pub const ALIGNMENT: usize = 64;
/// From this size on, memory has pages of its own, huge ones if the system has them.
const HUGE: usize = 2 << 20;

/// Bytes at an address that is a multiple of [`ALIGNMENT`]: own memory, or part of a file that is mapped. A clone shares them.
#[derive(Clone)]
pub struct Buffer {
    owner: Arc<Owner>,
    range: Range<usize>,
}

enum Owner {
    Heap(Heap),
    /// Pages of its own, which go back to the system as a whole: what comes and goes leaves no holes.
    Pages(MmapMut),
    File(Mmap),
}

impl Buffer {
    /// `len` zeroed bytes of own memory.
    ///
    /// # Panics
    /// If the system has no such memory.
    pub fn zeroed(len: usize) -> Buffer {
        Buffer { owner: Arc::new(Owner::zeroed(len)), range: 0..len }
    }

    /// The next `len` bytes of `source`, read in one go.
    pub fn read(source: &mut impl Read, len: usize) -> io::Result<Buffer> {
        let mut owner = Owner::zeroed(len);
        source.read_exact(owner.bytes_mut().unwrap_or_default())?;
        Ok(Buffer { owner: Arc::new(owner), range: 0..len })
    }

    /// A whole file, mapped: its pages are read when they are first used, and several processes share them.
    ///
    /// The file must be one that nobody changes in place (written under another name and renamed): what is mapped would
    /// change with it, and a file that is cut short ends the process that reads beyond its end.
    pub fn map(file: &File) -> io::Result<Buffer> {
        // SAFETY: the caller's promise above; the bytes are only ever read as plain numbers.
        let map = unsafe { Mmap::map(file)? };
        let range = 0..map.len();
        Ok(Buffer { owner: Arc::new(Owner::File(map)), range })
    }

    /// The same memory, `range` of it.
    ///
    /// # Panics
    /// If the range is outside, or does not begin at a multiple of [`ALIGNMENT`].
    pub fn slice(&self, range: Range<usize>) -> Buffer {
        assert!(range.start <= range.end && range.end <= self.len(), "a part of the buffer");
        assert!(range.start.is_multiple_of(ALIGNMENT), "a part begins at a multiple of {ALIGNMENT}");
        let range = self.range.start + range.start..self.range.start + range.end;
        Buffer { owner: Arc::clone(&self.owner), range }
    }

    /// The bytes to write, while nobody shares them.
    pub fn get_mut(&mut self) -> Option<&mut [u8]> {
        Arc::get_mut(&mut self.owner)?.bytes_mut().map(|bytes| &mut bytes[self.range.clone()])
    }

    /// As [`Buffer::get_mut`], as many numbers as fit. Bytes that were zeroed are zeros.
    pub fn get_f32_mut(&mut self) -> Option<&mut [f32]> {
        let bytes = self.get_mut()?;
        // SAFETY: the bits of an f32 are any four bytes; the buffer is aligned, so nothing is left out in front.
        Some(unsafe { bytes.align_to_mut::<f32>() }.1)
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &*self.owner {
            Owner::Heap(heap) => &heap.bytes()[self.range.clone()],
            Owner::Pages(pages) => &pages[self.range.clone()],
            Owner::File(map) => &map[self.range.clone()],
        }
    }
}

impl Owner {
    fn zeroed(len: usize) -> Owner {
        if len < HUGE {
            return Owner::Heap(Heap::zeroed(len));
        }
        let pages = match MmapMut::map_anon(len) {
            Ok(pages) => pages,
            Err(error) => panic!("no memory of {len} bytes: {error}"),
        };
        // Fewer misses of the address cache where weights are read from end to end; a hint, so it may fail.
        #[cfg(target_os = "linux")]
        let _ = pages.advise(memmap2::Advice::HugePage);
        Owner::Pages(pages)
    }

    fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        match self {
            Owner::Heap(heap) => Some(heap.bytes_mut()),
            Owner::Pages(pages) => Some(pages),
            Owner::File(_) => None,
        }
    }
}

/// Aligned memory of a fixed size.
struct Heap {
    data: NonNull<u8>,
    len: usize,
}

// SAFETY: plain bytes, owned.
unsafe impl Send for Heap {}
// SAFETY: plain bytes, changed only through `&mut`.
unsafe impl Sync for Heap {}

impl Heap {
    fn zeroed(len: usize) -> Heap {
        let layout = Heap::layout(len);
        // SAFETY: the layout has a size.
        let Some(data) = NonNull::new(unsafe { alloc_zeroed(layout) }) else { handle_alloc_error(layout) };
        Heap { data, len }
    }

    fn layout(len: usize) -> Layout {
        match Layout::from_size_align(len.max(1), ALIGNMENT) {
            Ok(layout) => layout,
            Err(_) => panic!("{len} bytes are more than there can be"),
        }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes are allocated and initialised.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and nobody else has them.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.len) }
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.data.as_ptr(), Heap::layout(self.len)) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_buffer_is_aligned_zeroed_and_written_only_by_its_one_owner() {
        for len in [0, 1, 100, HUGE, 3 * HUGE + 5] {
            let mut buffer = Buffer::zeroed(len);
            assert_eq!((buffer.len(), buffer.as_ptr() as usize % ALIGNMENT), (len, 0));
            assert!(buffer.iter().all(|byte| *byte == 0));
            assert_eq!(buffer.get_f32_mut().unwrap().len(), len / 4);
            assert!(buffer.get_f32_mut().unwrap().iter().all(|number| *number == 0.0));
            buffer.get_mut().unwrap().fill(7);
            let shared = buffer.slice(0..len);
            assert!(buffer.get_mut().is_none());
            assert!(shared.iter().all(|byte| *byte == 7));
        }
    }

    #[test]
    fn a_part_of_a_mapped_file_is_the_part_of_the_file() {
        let bytes: Vec<u8> = (0..10_000u32).map(|i| (i % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let mut map = Buffer::map(&file).unwrap();
        assert!(map.get_mut().is_none());
        assert_eq!(map.slice(128..5000)[..], bytes[128..5000]);
        assert_eq!(map.slice(128..5000).slice(64..70)[..], bytes[192..198]);
        let read = Buffer::read(&mut &bytes[..], 9000).unwrap();
        assert_eq!(read[..], bytes[..9000]);
        assert!(Buffer::read(&mut &bytes[..], 10_001).is_err());
    }

    #[test]
    #[should_panic(expected = "multiple of 64")]
    fn a_part_begins_aligned() {
        Buffer::zeroed(1000).slice(8..100);
    }
}
