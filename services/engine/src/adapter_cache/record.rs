//! One line of the index: 64 bytes, of which the last four are a checksum of the rest.

use domain::{Digest, TenantId};

use super::CacheKey;
use crate::residents::AdapterKey;

pub const RECORD_BYTES: usize = 64;
/// Sizes are kept as a number of these.
const UNIT_BYTES: u64 = 64;
const GONE: u16 = u16::MAX;

/// An image that is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub key: CacheKey,
    /// Rounded up to 64.
    pub bytes: u64,
    /// How often it was found; stays at its maximum.
    pub uses: u8,
    /// The index's clock when it was found or put last.
    pub used_at: u64,
}

/// A place in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Never used since this file was made: a search ends here. All bytes are zero, as in a file that was only made longer.
    Free,
    /// Removed or damaged: a search goes on.
    Gone,
    Taken(Record),
}

impl Record {
    /// Its size is rounded up as it will be on disk, so that sums over records do not drift.
    pub fn new(key: CacheKey, bytes: u64, uses: u8, used_at: u64) -> Self {
        Self { key, bytes: bytes.next_multiple_of(UNIT_BYTES), uses, used_at }
    }
}

impl Place {
    pub fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut out = [0; RECORD_BYTES];
        let state = match self {
            Place::Free => return out,
            Place::Gone => GONE,
            Place::Taken(Record { key, bytes, uses, used_at }) => {
                out[..16].copy_from_slice(key.adapter.tenant.uuid().as_bytes());
                out[16..48].copy_from_slice(key.adapter.digest.as_bytes());
                let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
                out[48..52].copy_from_slice(&units.to_le_bytes());
                // 40 bits outlast a million finds a second for twelve days, then the oldest look a little younger.
                out[52..57].copy_from_slice(&used_at.to_le_bytes()[..5]);
                out[57] = *uses;
                key.storage
            }
        };
        out[58..60].copy_from_slice(&state.to_le_bytes());
        let checksum = crc32fast::hash(&out[..60]);
        out[60..].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Whatever is damaged is gone.
    pub fn decode(bytes: &[u8; RECORD_BYTES]) -> Place {
        if bytes.iter().all(|byte| *byte == 0) {
            return Place::Free;
        }
        let (content, checksum) = bytes.split_at(60);
        let state = u16::from_le_bytes([bytes[58], bytes[59]]);
        if crc32fast::hash(content).to_le_bytes() != checksum || state == GONE {
            return Place::Gone;
        }
        let digest = Digest::new(std::array::from_fn(|n| bytes[16 + n]));
        let tenant = TenantId::new(uuid::Uuid::from_bytes(std::array::from_fn(|n| bytes[n])));
        let units = u32::from_le_bytes(std::array::from_fn(|n| bytes[48 + n]));
        let used_at = u64::from_le_bytes(std::array::from_fn(|n| if n < 5 { bytes[52 + n] } else { 0 }));
        Place::Taken(Record {
            key: CacheKey { adapter: AdapterKey { tenant, digest }, storage: state },
            bytes: u64::from(units) * UNIT_BYTES,
            uses: bytes[57],
            used_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_and_a_damaged_one_is_gone() {
        let adapter = AdapterKey { tenant: TenantId::new(uuid::Uuid::from_u128(5)), digest: Digest::new([7; 32]) };
        let record =
            Record { key: CacheKey { adapter, storage: 2 }, bytes: 64 * 1_000_000, uses: 255, used_at: (1 << 40) - 1 };
        let bytes = Place::Taken(record).encode();
        assert_eq!(Place::decode(&bytes), Place::Taken(record));
        assert_eq!(Place::decode(&Place::Gone.encode()), Place::Gone);
        assert_eq!(Place::decode(&Place::Free.encode()), Place::Free);
        for at in 0..RECORD_BYTES {
            let mut damaged = bytes;
            damaged[at] ^= 0x10;
            assert_eq!(Place::decode(&damaged), Place::Gone, "{at}");
        }
    }
}
