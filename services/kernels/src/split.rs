//! A slice that tasks of one region share, each its own part.

use std::marker::PhantomData;
use std::ops::Range;

/// A `&mut [T]` whose disjoint parts are handed to tasks on several threads.
pub struct Split<'a, T> {
    data: *mut T,
    length: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: it is a `&mut [T]`, of which no two threads hold the same part (the contract of `part`).
unsafe impl<T: Send> Send for Split<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Split<'_, T> {}

impl<'a, T> Split<'a, T> {
    pub fn new(values: &'a mut [T]) -> Self {
        Split { data: values.as_mut_ptr(), length: values.len(), lifetime: PhantomData }
    }

    /// # Safety
    /// Parts that are in use at one time do not overlap.
    ///
    /// # Panics
    /// If the range is outside of the slice.
    pub unsafe fn part(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.length, "a part of the slice");
        // SAFETY: inside of the slice; disjoint by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(range.start), range.end - range.start) }
    }

    /// Where `range` begins, for parts that are no slices, such as columns. Using it is bound by the contract of `part`.
    ///
    /// # Panics
    /// If the range is outside of the slice.
    pub fn address(&self, range: Range<usize>) -> *mut T {
        assert!(range.start <= range.end && range.end <= self.length, "a part of the slice");
        self.data.wrapping_add(range.start)
    }
}
