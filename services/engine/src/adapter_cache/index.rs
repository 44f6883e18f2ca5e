//! Which images are on disk: a hash table in one file, open addressing by pages of 64 records. Every look-up is one
//! read of 4 KiB, nothing of it is kept in memory, and a file of a hundred thousand records opens as fast as an empty one.
//!
//! What a killed process leaves is usable: records carry checksums, a lost one is a miss, and sums that a crash may have
//! left wrong are marked as such ([`State::Doubtful`]).

mod header;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::CacheKey;
use super::record::{Place, RECORD_BYTES, Record};
use header::Header;

const PAGE_BYTES: usize = 4096;
const PAGE_RECORDS: usize = PAGE_BYTES / RECORD_BYTES;
/// Of a new index: 16,384 records in a sparse file of 1 MiB.
const PAGES: u64 = 256;
/// A search ends after so many pages; a record that would lie further makes the index grow.
const SEARCH_PAGES: u64 = 8;
/// Of an index that may be trusted: 2³² records.
const PAGES_MAX: u64 = 1 << 26;

/// An open index. Dropping it marks its sums as good.
pub struct Index {
    file: File,
    path: PathBuf,
    pages: u64,
    /// Records, bytes of their images, and records that were removed without freeing their place.
    records: u64,
    bytes: u64,
    gone: u64,
    clock: u64,
}

/// What a start found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Trusted,
    /// It is new, was not closed, or its header is damaged and it begins anew.
    Doubtful,
}

impl Index {
    /// Opens or makes the file.
    pub fn open(path: &Path) -> io::Result<(Index, State)> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let (index, state) = match Header::read(&file)? {
            Some(Header { pages, records, bytes, gone, clock, clean }) => {
                let state = if clean { State::Trusted } else { State::Doubtful };
                (Index { file, path: path.to_owned(), pages, records, bytes, gone, clock }, state)
            }
            None => (Index::create(path, PAGES, 0)?, State::Doubtful),
        };
        index.write_header(false)?;
        Ok((index, state))
    }

    /// Bytes of all images.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Rises with every find and every put.
    pub fn clock(&self) -> u64 {
        self.clock
    }

    pub fn find(&self, key: &CacheKey) -> io::Result<Option<Record>> {
        Ok(self.search(key)?.found.map(|(_, record)| record))
    }

    /// Finds it, as a use of it.
    pub fn touch(&mut self, key: &CacheKey) -> io::Result<Option<Record>> {
        let Some((at, record)) = self.search(key)?.found else { return Ok(None) };
        self.clock += 1;
        let record = Record { uses: record.uses.saturating_add(1), used_at: self.clock, ..record };
        self.write(at, &Place::Taken(record))?;
        Ok(Some(record))
    }

    /// An image was written.
    pub fn put(&mut self, key: &CacheKey, bytes: u64) -> io::Result<()> {
        self.clock += 1;
        let uses = self.find(key)?.map_or(1, |record| record.uses);
        self.insert(Record::new(*key, bytes, uses, self.clock))
    }

    /// A file was met; if it is not known, it is now, as one that nobody has used.
    pub fn adopt(&mut self, key: &CacheKey, bytes: u64) -> io::Result<()> {
        match self.find(key)? {
            Some(_) => Ok(()),
            None => self.insert(Record::new(*key, bytes, 0, self.clock)),
        }
    }

    pub fn remove(&mut self, key: &CacheKey) -> io::Result<()> {
        let Some((at, record)) = self.search(key)?.found else { return Ok(()) };
        // A page with a free place ends every search, so nothing lies behind it that this place leads to.
        let ends = self.read_page(at.page)?.contains(&Place::Free);
        self.write(at, if ends { &Place::Free } else { &Place::Gone })?;
        self.gone += u64::from(!ends);
        self.records = self.records.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(record.bytes);
        self.write_header(false)
    }

    /// Up to `count` records from a place that differs from call to call; all of them if there are not more.
    pub fn sample(&mut self, count: usize) -> io::Result<Vec<Record>> {
        self.clock += 1;
        let first = scramble(self.clock) % self.pages;
        let mut sample = Vec::new();
        for n in 0..self.pages {
            let page = self.read_page((first + n) % self.pages)?;
            sample.extend(page.iter().filter_map(taken));
            if sample.len() >= count {
                break;
            }
        }
        Ok(sample)
    }

    /// Reads all records and sets the sums right.
    pub fn recount(&mut self) -> io::Result<()> {
        (self.records, self.bytes, self.gone) = (0, 0, 0);
        for n in 0..self.pages {
            for place in self.read_page(n)? {
                match place {
                    Place::Free => {}
                    Place::Gone => self.gone += 1,
                    Place::Taken(record) => {
                        self.records += 1;
                        self.bytes += record.bytes;
                        self.clock = self.clock.max(record.used_at);
                    }
                }
            }
        }
        self.write_header(false)
    }

    #[cfg(test)]
    pub fn records(&self) -> u64 {
        self.records
    }

    fn insert(&mut self, record: Record) -> io::Result<()> {
        let places = self.pages * PAGE_RECORDS as u64;
        if (self.records + self.gone) * 4 >= places * 3 {
            self.rewrite(self.pages)?;
        }
        loop {
            let Search { found, room } = self.search(&record.key)?;
            let Some((at, old)) = found.map(|(at, old)| (at, old.bytes)).or(room.map(|at| (at, 0))) else {
                self.rewrite(self.pages * 2)?;
                continue;
            };
            self.write(at, &Place::Taken(record))?;
            self.records += u64::from(found.is_none());
            self.bytes = (self.bytes + record.bytes).saturating_sub(old);
            return self.write_header(false);
        }
    }

    /// Makes a new file with all records and takes it in place of the old one. It has at least `pages`, and twice as many
    /// as now if it is records rather than removed ones that fill it.
    fn rewrite(&mut self, pages: u64) -> io::Result<()> {
        let crowded = self.records * 8 >= self.pages * PAGE_RECORDS as u64 * 3;
        let mut pages = if crowded { pages.max(self.pages * 2) } else { pages };
        loop {
            if pages > PAGES_MAX {
                return Err(io::Error::other("the index of the adapter cache is full"));
            }
            let fresh = self.path.with_extension("new");
            let mut index = Index::create(&fresh, pages, self.clock)?;
            if self.copy_into(&mut index)? {
                index.write_header(false)?;
                std::fs::rename(&fresh, &self.path)?;
                // The old one is dropped without touching its file: it has no name any more.
                index.path.clone_from(&self.path);
                *self = index;
                return Ok(());
            }
            pages *= 2;
        }
    }

    /// False if a record finds no place.
    fn copy_into(&self, index: &mut Index) -> io::Result<bool> {
        for n in 0..self.pages {
            for record in self.read_page(n)?.iter().filter_map(taken) {
                let Some(at) = index.search(&record.key)?.room else { return Ok(false) };
                index.write(at, &Place::Taken(record))?;
                index.records += 1;
                index.bytes += record.bytes;
            }
        }
        Ok(true)
    }

    fn create(path: &Path, pages: u64, clock: u64) -> io::Result<Index> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        file.set_len(PAGE_BYTES as u64 * (pages + 1))?;
        Ok(Index { file, path: path.to_owned(), pages, records: 0, bytes: 0, gone: 0, clock })
    }

    fn search(&self, key: &CacheKey) -> io::Result<Search> {
        let home = hash(key) % self.pages;
        let mut room = None;
        for n in 0..SEARCH_PAGES.min(self.pages) {
            let page = (home + n) % self.pages;
            let places = self.read_page(page)?;
            for (slot, place) in places.iter().enumerate() {
                let at = At { page, slot };
                match place {
                    Place::Taken(record) if record.key == *key => {
                        return Ok(Search { found: Some((at, *record)), room });
                    }
                    Place::Taken(_) => {}
                    Place::Gone | Place::Free => room = room.or(Some(at)),
                }
            }
            if places.contains(&Place::Free) {
                break;
            }
        }
        Ok(Search { found: None, room })
    }

    /// Page 0 of the file is the header's.
    fn read_page(&self, page: u64) -> io::Result<[Place; PAGE_RECORDS]> {
        let mut bytes = [0; PAGE_BYTES];
        self.file.read_exact_at(&mut bytes, (page + 1) * PAGE_BYTES as u64)?;
        let records = bytes.as_chunks::<RECORD_BYTES>().0;
        Ok(std::array::from_fn(|slot| Place::decode(&records[slot])))
    }

    fn write(&self, at: At, place: &Place) -> io::Result<()> {
        let offset = (at.page + 1) * PAGE_BYTES as u64 + (at.slot * RECORD_BYTES) as u64;
        self.file.write_all_at(&place.encode(), offset)
    }

    fn write_header(&self, clean: bool) -> io::Result<()> {
        let Self { pages, records, bytes, gone, clock, .. } = *self;
        Header { pages, records, bytes, gone, clock, clean }.write(&self.file)
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        // If this fails, the next start counts anew.
        let _ = self.file.sync_data().and_then(|()| self.write_header(true));
    }
}

/// Where a record lies.
#[derive(Clone, Copy)]
struct At {
    page: u64,
    slot: usize,
}

/// The record, and the first place that a new one could take.
struct Search {
    found: Option<(At, Record)>,
    room: Option<At>,
}

fn taken(place: &Place) -> Option<Record> {
    if let Place::Taken(record) = place { Some(*record) } else { None }
}

/// Digests are as good as random; the tenant and the storage are mixed in.
fn hash(key: &CacheKey) -> u64 {
    let part = |bytes: &[u8]| u64::from_le_bytes(std::array::from_fn(|n| bytes[n]));
    let tenant = key.adapter.tenant.uuid().into_bytes();
    let digest = part(key.adapter.digest.as_bytes());
    scramble(digest ^ scramble(part(&tenant) ^ part(&tenant[8..]).rotate_left(32) ^ u64::from(key.storage)))
}

/// The output function of SplitMix64 (Steele, Lea, Flood 2014).
fn scramble(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}
