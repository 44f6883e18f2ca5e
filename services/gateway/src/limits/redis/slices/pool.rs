//! The slices of one tenant and key, and how much of them is wanted.

use std::{sync::Arc, time::Instant};

use domain::{Outage, RequestId};

use super::{Amounts, Due};
use crate::limits::Ask;

/// Weight of the last tick in what is expected of the next one, in a quarter.
const WEIGHT: u64 = 1;

pub struct Pool {
    /// Whose limits, and which.
    pub ask: Ask,
    pub slices: Vec<Slice>,
    /// Wanted since the last tick.
    counted: Amounts,
    /// Expected for a tick, in quarters.
    expected: Amounts,
    /// Draws since the last tick for which there was not enough.
    pub missed: u64,
    pub wanted_at: Instant,
}

pub struct Slice {
    pub id: RequestId,
    /// The generation that it is charged in.
    pub token: Arc<str>,
    pub lent: Amounts,
    /// What is drawn, or was used.
    pub taken: Amounts,
    /// Parts of running requests.
    pub parts: u64,
    /// When it was borrowed, by the clock of the limits, in milliseconds.
    pub at_ms: u64,
    pub valid_until: Instant,
    pub renewed: Instant,
    /// Redis has not heard of what was given back last.
    pub changed: bool,
    /// Nothing more is drawn from it, and Redis knows what it still holds.
    pub trimmed: bool,
    /// Redis is being told something of it.
    pub busy: bool,
    /// Redis was asked for it and has not answered: until then it may still come to charge it.
    pub in_doubt_until: Option<Instant>,
}

impl Pool {
    pub fn new(ask: Ask, now: Instant) -> Self {
        let (counted, expected) = (Amounts::default(), Amounts::default());
        Self { ask, slices: Vec::new(), counted, expected, missed: 0, wanted_at: now }
    }

    /// Its limits and its plan are those of the last request.
    pub fn asks_like(&mut self, ask: &Ask) {
        if (self.ask.of_tenant, self.ask.of_key, self.ask.outage) != (ask.of_tenant, ask.of_key, ask.outage) {
            self.ask = ask.clone();
        }
    }

    pub fn count(&mut self, wanted: Amounts) {
        self.counted += wanted;
    }

    pub fn slice(&mut self, id: RequestId) -> Option<&mut Slice> {
        self.slices.iter_mut().find(|slice| slice.id == id)
    }

    /// The oldest slice with room for as much.
    pub fn fitting(&mut self, ask: &Ask, need: Amounts, due: Due, generation: Option<&str>) -> Option<&mut Slice> {
        if (self.ask.of_tenant, self.ask.of_key) != (ask.of_tenant, ask.of_key) {
            return None;
        }
        let now = Instant::now();
        self.slices.iter_mut().find(|slice| {
            let in_time = now < slice.valid_until && !slice.trimmed;
            let same = generation.is_none_or(|generation| *generation == *slice.token);
            (in_time || due == Due::Late) && same && need.fits_into(slice.left())
        })
    }

    /// The end of a tick.
    pub fn tick(&mut self, now: Instant) {
        let counted = std::mem::take(&mut self.counted);
        if counted.requests > 0 {
            self.wanted_at = now;
        }
        self.missed = 0;
        self.expected = self.expected.zip(counted, |expected, counted| expected - expected / 4 * WEIGHT + counted);
    }

    /// What so many ticks will want, as far as one can tell.
    pub fn demand(&self, ticks: u64) -> Amounts {
        self.expected.zip(Amounts::default(), |expected, _| (expected * ticks).div_ceil(4))
    }

    /// Whether anything may still be drawn in time.
    pub fn room(&self, now: Instant) -> Amounts {
        let mut room = Amounts::default();
        for slice in self.slices.iter().filter(|slice| now < slice.valid_until && !slice.trimmed) {
            room += slice.left();
        }
        room
    }

    /// The plan lives on what is borrowed when Redis is silent.
    pub fn lives_on_slices(&self) -> bool {
        self.ask.outage == Outage::Leased
    }
}

impl Slice {
    pub fn left(&self) -> Amounts {
        self.lent.zip(self.taken, u64::saturating_sub)
    }
}
