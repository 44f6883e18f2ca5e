//! An amount of each thing that limits count.

use std::ops::AddAssign;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    pub requests: u64,
    pub input: u64,
    pub output: u64,
    /// Places for requests at the same time.
    pub seats: u64,
    /// Micro-units.
    pub money: u64,
}

impl Amounts {
    /// In the order of the script's numbers.
    pub fn array(self) -> [u64; 5] {
        [self.requests, self.input, self.output, self.seats, self.money]
    }

    pub fn from_array([requests, input, output, seats, money]: [u64; 5]) -> Self {
        Self { requests, input, output, seats, money }
    }

    pub fn zip(self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        let (mut one, other) = (self.array(), other.array());
        one.iter_mut().zip(other).for_each(|(one, other)| *one = with(*one, other));
        Self::from_array(one)
    }

    pub fn fits_into(self, room: Self) -> bool {
        self.array().into_iter().zip(room.array()).all(|(need, room)| need <= room)
    }
}

impl AddAssign for Amounts {
    fn add_assign(&mut self, other: Self) {
        *self = self.zip(other, u64::saturating_add);
    }
}
