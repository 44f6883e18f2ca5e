//! Large zeroed memory that the operating system hands out page by page when it is first written.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::buffer::ALIGNMENT;

/// From this size on, the memory begins at a huge page.
const HUGE: usize = 2 << 20;

/// Zeroed elements that begin at a multiple of [`ALIGNMENT`]. The allocation is larger by what alignment skips: an
/// allocator asked for aligned memory would write the zeros.
pub struct Memory<T> {
    data: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Copy + Default> Memory<T> {
    pub fn zeroed(len: usize) -> Self {
        let bytes = len * size_of::<T>();
        let alignment = if bytes >= HUGE { HUGE } else { ALIGNMENT };
        let data = vec![T::default(); len + alignment / size_of::<T>()];
        let start = data.as_ptr().align_offset(alignment).min(data.len() - len);
        let mut memory = Memory { data, start, len };
        crate::system::prefer_huge_pages(NonNull::from(&mut *memory).cast(), bytes);
        memory
    }
}

impl<T> Deref for Memory<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.data[self.start..self.start + self.len]
    }
}

impl<T> DerefMut for Memory<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.data[self.start..self.start + self.len]
    }
}
