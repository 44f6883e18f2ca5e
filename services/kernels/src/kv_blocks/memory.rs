//! Zeroed memory of numbers, which the operating system hands out page by page when it is first written.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use pulp::bytemuck::{Pod, cast_slice, cast_slice_mut};

use crate::buffer::Buffer;

/// Zeroed elements that begin at a multiple of [`crate::ALIGNMENT`].
pub struct Memory<T> {
    buffer: Buffer,
    elements: PhantomData<T>,
}

impl<T: Pod> Memory<T> {
    pub fn zeroed(len: usize) -> Self {
        Memory { buffer: Buffer::zeroed(len * size_of::<T>()), elements: PhantomData }
    }
}

impl<T: Pod> Deref for Memory<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        cast_slice(&self.buffer)
    }
}

impl<T: Pod> DerefMut for Memory<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        cast_slice_mut(self.buffer.get_mut().expect("nobody else has this buffer"))
    }
}
