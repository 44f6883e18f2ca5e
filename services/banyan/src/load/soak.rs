//! Minutes of steady load, for what grows.

use std::time::Duration;

use serde::Serialize;
use tokio::runtime::Handle;

use super::{drive::drive, subject::Subject};
use crate::{
    cli::{LoadArgs, LoadCase},
    failure::Failure,
};

/// Pieces that a soak is cut into, to see memory over time.
const PIECES: u32 = 10;

#[derive(Serialize)]
pub struct Soak {
    pub case: LoadCase,
    pub rate: u32,
    pub minutes: u32,
    pub answers: usize,
    /// The gateway's memory after each tenth of the time. The first one includes what it allocates once.
    pub resident_bytes: Vec<u64>,
}

impl Soak {
    /// Growth from the end of the second tenth on, when everything that is allocated once has been: bytes in an hour.
    pub fn bytes_per_hour(&self) -> Option<f64> {
        let (from, to) = (*self.resident_bytes.get(1)?, *self.resident_bytes.last()?);
        let hours = f64::from(self.minutes) / 60.0 * (self.resident_bytes.len() - 2) as f64 / f64::from(PIECES);
        (hours > 0.0).then(|| (to as f64 - from as f64) / hours)
    }
}

/// At the last of the rates.
///
/// # Errors
/// A request that is refused.
pub async fn soak(args: &LoadArgs, case: LoadCase, gateway: &Subject, clients: &Handle) -> Result<Soak, Failure> {
    let rate = args.rates.last().copied().unwrap_or(1);
    let piece = Duration::from_secs(u64::from(args.soak_minutes) * 60) / PIECES;
    let (mut resident_bytes, mut answers) = (Vec::new(), 0);
    for _ in 0..PIECES {
        answers += drive(gateway.target(args).await?, rate, piece, clients).await?.end.len();
        resident_bytes.push(gateway.process().resident_bytes()?);
    }
    Ok(Soak { case, rate, minutes: args.soak_minutes, answers, resident_bytes })
}
