//! The first bytes of the index: how large it is, and the sums over its records.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::{PAGE_BYTES, PAGES_MAX};

const MAGIC: &[u8; 8] = b"bnynindx";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 64;

pub struct Header {
    pub pages: u64,
    pub records: u64,
    pub bytes: u64,
    pub gone: u64,
    pub clock: u64,
    /// The sums were written last.
    pub clean: bool,
}

impl Header {
    /// None if there is none that can be used.
    pub fn read(file: &File) -> io::Result<Option<Header>> {
        let length = file.metadata()?.len();
        if length < HEADER_BYTES as u64 {
            return Ok(None);
        }
        let mut bytes = [0; HEADER_BYTES];
        file.read_exact_at(&mut bytes, 0)?;
        let (content, checksum) = bytes.split_at(60);
        let long = |n: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[16 + n * 8 + i]));
        let version = u32::from_le_bytes(std::array::from_fn(|i| bytes[8 + i]));
        let [pages, records, sum, gone, clock] = std::array::from_fn(long);
        let sound = content[..8] == *MAGIC
            && version == VERSION
            && crc32fast::hash(content).to_le_bytes() == checksum
            && (1..=PAGES_MAX).contains(&pages)
            && length == PAGE_BYTES as u64 * (pages + 1);
        Ok(sound.then_some(Header { pages, records, bytes: sum, gone, clock, clean: bytes[12] == 1 }))
    }

    pub fn write(&self, file: &File) -> io::Result<()> {
        let Self { pages, records, bytes, gone, clock, clean } = *self;
        let mut out = [0; HEADER_BYTES];
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12] = u8::from(clean);
        for (n, value) in [pages, records, bytes, gone, clock].into_iter().enumerate() {
            out[16 + n * 8..][..8].copy_from_slice(&value.to_le_bytes());
        }
        let checksum = crc32fast::hash(&out[..60]);
        out[60..].copy_from_slice(&checksum.to_le_bytes());
        file.write_all_at(&out, 0)
    }
}
