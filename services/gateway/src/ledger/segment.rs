//! One file of the log: a header, then records, each with its length and checksum. What a crash has torn off at the end
//! is told apart from what is damaged in the middle: behind a tear nothing follows.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use super::record::RECORD_BYTES_MAX;

const MAGIC: [u8; 8] = *b"BNLEDGR1";
/// Magic and the segment's number.
pub const HEADER_BYTES: u64 = 16;
/// Two bytes that begin every record, its length, its checksum.
const FRAME: [u8; 2] = [0xb1, 0x7e];
const FRAME_BYTES: usize = 8;
/// No record takes more in the file.
pub const FRAMED_BYTES_MAX: u64 = (FRAME_BYTES + RECORD_BYTES_MAX) as u64;
const SUFFIX: &str = "log";

#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    /// Nothing is skipped: whoever runs the gateway decides.
    #[error(
        "{} is damaged at byte {at}, and {follow} whole records follow: restore the file; or move it out of the folder, and \
         requests that it alone knows of expire unbilled",
        path.display()
    )]
    Damaged { path: PathBuf, at: u64, follow: usize },
}

/// What is in a segment.
#[derive(Debug, PartialEq, Eq)]
pub struct Contents {
    pub records: Vec<Vec<u8>>,
    /// Where the last whole record ends.
    pub end: u64,
    /// Bytes behind it: a record that was not written to its end.
    pub torn: u64,
}

pub fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.{SUFFIX}"))
}

/// The numbers of the segments in a folder, in order.
pub fn list(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == SUFFIX)
            && let Some(number) = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok())
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// A new segment, its header and its name in the folder durable.
pub fn create(dir: &Path, number: u64) -> io::Result<File> {
    let path = path(dir, number);
    let mut file = OpenOptions::new().read(true).append(true).create_new(true).open(&path)?;
    let mut header = MAGIC.to_vec();
    header.extend(number.to_le_bytes());
    let made = file.write_all(&header).and_then(|()| file.sync_all()).and_then(|()| File::open(dir)?.sync_all());
    if let Err(error) = made {
        // A segment without a whole header would look damaged: it may not stay.
        fs::remove_file(&path)?;
        return Err(error);
    }
    Ok(file)
}

/// A record as it stands in the file.
pub fn frame(record: &[u8], out: &mut Vec<u8>) {
    debug_assert!(record.len() <= RECORD_BYTES_MAX);
    let length = u16::try_from(record.len()).unwrap_or(u16::MAX).to_le_bytes();
    out.extend(FRAME);
    out.extend(length);
    out.extend(checksum(length, record).to_le_bytes());
    out.extend(record);
}

/// How much a record takes in the file.
pub const fn framed_bytes(record: &[u8]) -> u64 {
    (FRAME_BYTES + record.len()) as u64
}

/// Reads what stands in a segment between `from` (0: its beginning) and `to` (`None`: its end).
pub fn read(dir: &Path, number: u64, from: u64, to: Option<u64>) -> Result<Contents, SegmentError> {
    let path = path(dir, number);
    let io = |error| SegmentError::Io { path: path.clone(), error };
    let mut file = File::open(&path).map_err(io)?;
    let mut header = [0; HEADER_BYTES as usize];
    let begun = file.read_exact(&mut header).is_ok();
    let mut expected = MAGIC.to_vec();
    expected.extend(number.to_le_bytes());
    if !begun || header[..] != expected[..] {
        return Err(SegmentError::Damaged { path, at: 0, follow: 0 });
    }
    let from = from.max(HEADER_BYTES);
    file.seek(SeekFrom::Start(from)).map_err(io)?;
    let mut bytes = Vec::new();
    let most = to.map_or(u64::MAX, |to| to.saturating_sub(from));
    file.take(most).read_to_end(&mut bytes).map_err(io)?;
    let (records, end) = parse(&bytes);
    let rest = &bytes[end..];
    let follow = (1..rest.len()).filter(|at| record_at(&rest[*at..]).is_some()).count();
    if follow > 0 {
        return Err(SegmentError::Damaged { path, at: from + end as u64, follow });
    }
    let records = records.into_iter().map(<[u8]>::to_vec).collect();
    Ok(Contents { records, end: from + end as u64, torn: rest.len() as u64 })
}

/// Whole records from the beginning of `bytes`, and where the last one ends.
fn parse(bytes: &[u8]) -> (Vec<&[u8]>, usize) {
    let (mut records, mut end) = (Vec::new(), 0);
    while let Some(record) = record_at(&bytes[end..]) {
        records.push(record);
        end += FRAME_BYTES + record.len();
    }
    (records, end)
}

fn record_at(bytes: &[u8]) -> Option<&[u8]> {
    let (head, rest) = bytes.split_first_chunk::<FRAME_BYTES>()?;
    let length = [head[2], head[3]];
    let record = rest.get(..usize::from(u16::from_le_bytes(length)))?;
    let sum = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    (head[..2] == FRAME && !record.is_empty() && sum == checksum(length, record)).then_some(record)
}

fn checksum(length: [u8; 2], record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(record);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn segment(records: &[Vec<u8>]) -> (tempfile::TempDir, Vec<u64>) {
        let dir = tempfile::tempdir().expect("a folder");
        let mut file = create(dir.path(), 7).expect("creates");
        let (mut bytes, mut ends) = (Vec::new(), vec![HEADER_BYTES]);
        for record in records {
            frame(record, &mut bytes);
            ends.push(HEADER_BYTES + bytes.len() as u64);
        }
        file.write_all(&bytes).expect("writes");
        (dir, ends)
    }

    fn records() -> impl Strategy<Value = Vec<Vec<u8>>> {
        proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..200), 1..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn a_tear_anywhere_costs_the_torn_record_and_none_before_it(records in records(), cut in any::<prop::sample::Index>()) {
            let (dir, ends) = segment(&records);
            let path = path(dir.path(), 7);
            let whole = fs::metadata(&path).expect("is there").len();
            let cut = HEADER_BYTES + cut.index(usize::try_from(whole - HEADER_BYTES).expect("short") + 1) as u64;
            OpenOptions::new().write(true).open(&path).expect("opens").set_len(cut).expect("cuts");
            let kept = ends.iter().filter(|end| **end <= cut).count() - 1;
            let contents = read(dir.path(), 7, 0, None).expect("a tear is no damage");
            prop_assert_eq!(&contents.records, &records[..kept]);
            prop_assert_eq!((contents.end, contents.end + contents.torn), (ends[kept], cut));
        }

        #[test]
        fn a_changed_bit_before_the_last_record_is_reported_and_nothing_is_skipped(
            records in records(), at in any::<prop::sample::Index>(), bit in 0..8_u8
        ) {
            prop_assume!(records.len() > 1);
            let (dir, ends) = segment(&records);
            let path = path(dir.path(), 7);
            let mut bytes = fs::read(&path).expect("reads");
            let last = usize::try_from(ends[ends.len() - 2]).expect("short");
            let header = usize::try_from(HEADER_BYTES).expect("short");
            let at = header + at.index(last - header);
            bytes[at] ^= 1 << bit;
            fs::write(&path, &bytes).expect("writes");
            let damaged = ends.iter().filter(|end| **end <= at as u64).max().copied();
            match read(dir.path(), 7, 0, None) {
                Err(SegmentError::Damaged { at, follow, .. }) => {
                    prop_assert_eq!(Some(at), damaged);
                    prop_assert!(follow >= 1);
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }

    #[test]
    fn a_segment_of_another_number_or_without_a_header_is_damaged() {
        let (dir, _) = segment(&[vec![1]]);
        fs::rename(path(dir.path(), 7), path(dir.path(), 8)).expect("renames");
        assert!(matches!(read(dir.path(), 8, 0, None), Err(SegmentError::Damaged { at: 0, .. })));
        assert_eq!(list(dir.path()).expect("lists"), [8]);
    }
}
