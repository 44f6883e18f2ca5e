//! The first bytes of an image: what it is, whose it is, and the checksums of the rest.

use domain::TenantId;

use super::{Damage, Digest, checksum};
use crate::residents::AdapterKey;

pub const HEADER_BYTES: usize = 128;
const MAGIC: [u8; 8] = *b"bnynadpt";
const VERSION: u32 = 1;

/// Everything that an image must agree on to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub key: AdapterKey,
    pub base: Digest,
    /// [`super::rules`].
    pub rules: u32,
    /// How matrices are held, as the format's own number.
    pub storage: u16,
}

/// The header's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub identity: Identity,
    pub bytes: u64,
    pub sections: u32,
    pub directory_checksum: u32,
    pub payload_checksum: u32,
}

impl Header {
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..14].copy_from_slice(&self.identity.storage.to_le_bytes());
        // 14..16 is zero.
        out[16..24].copy_from_slice(&self.bytes.to_le_bytes());
        out[24..28].copy_from_slice(&self.sections.to_le_bytes());
        out[28..32].copy_from_slice(&self.directory_checksum.to_le_bytes());
        out[32..36].copy_from_slice(&self.payload_checksum.to_le_bytes());
        out[36..40].copy_from_slice(&self.identity.rules.to_le_bytes());
        out[40..56].copy_from_slice(self.identity.key.tenant.uuid().as_bytes());
        out[56..88].copy_from_slice(self.identity.key.digest.as_bytes());
        out[88..120].copy_from_slice(self.identity.base.as_bytes());
        // 120..124 is zero.
        let own = checksum(&out[..124]);
        out[124..].copy_from_slice(&own.to_le_bytes());
        out
    }

    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Header, Damage> {
        if bytes[..8] != MAGIC || number(bytes, 8) != VERSION {
            return Err(Damage::Format);
        }
        if number(bytes, 124) != checksum(&bytes[..124]) {
            return Err(Damage::Checksum("header's"));
        }
        let key = AdapterKey {
            tenant: TenantId::new(uuid::Uuid::from_bytes(part(bytes, 40))),
            digest: Digest::new(part(bytes, 56)),
        };
        let identity = Identity {
            key,
            base: Digest::new(part(bytes, 88)),
            rules: number(bytes, 36),
            storage: u16::from_le_bytes(part(bytes, 12)),
        };
        Ok(Header {
            identity,
            bytes: u64::from_le_bytes(part(bytes, 16)),
            sections: number(bytes, 24),
            directory_checksum: number(bytes, 28),
            payload_checksum: number(bytes, 32),
        })
    }
}

fn number(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(part(bytes, at))
}

/// `N` bytes from `at`; the offsets are constants within the header.
fn part<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    std::array::from_fn(|n| bytes[at + n])
}
