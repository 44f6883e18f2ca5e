use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::{Digest, TenantId};
use proptest::prelude::*;

use super::*;

fn key(n: u64) -> CacheKey {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    let tenant = TenantId::new(uuid::Uuid::from_u128(u128::from(n % 3)));
    CacheKey { adapter: AdapterKey { tenant, digest: Digest::new(bytes) }, storage: 1 + n as u16 % 2 }
}

fn image(n: u64, length: usize) -> Vec<u8> {
    vec![n as u8; length]
}

fn read(cache: &AdapterCache, key: &CacheKey) -> Option<Vec<u8>> {
    let (mut file, length) = cache.find(key)?;
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut file, &mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, length);
    Some(bytes)
}

/// Records, and bytes of their images.
fn sums(cache: &AdapterCache) -> (u64, u64) {
    let index = cache.index();
    (index.records(), index.bytes())
}

/// Bytes of all images that lie in the folder.
fn on_disk(dir: &Path) -> u64 {
    let mut sum = 0;
    Files::open(dir)
        .unwrap()
        .each(|_, bytes| {
            sum += bytes;
            Ok(())
        })
        .unwrap();
    sum
}

/// The folder as a process that was killed now would leave it.
fn killed(dir: &Path) -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                std::fs::create_dir(&to).unwrap();
                copy(&entry.path(), &to);
            } else {
                std::fs::copy(entry.path(), to).unwrap();
            }
        }
    }
    let left = tempfile::tempdir().unwrap();
    copy(dir, left.path());
    left
}

#[test]
fn what_was_put_is_found_until_it_is_discarded_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let cache = AdapterCache::open(dir.path(), 1 << 20).unwrap();
    for n in 0..50 {
        assert!(cache.find(&key(n)).is_none());
        cache.put(&key(n), &image(n, 640)).unwrap();
    }
    cache.put(&key(7), &image(99, 1280)).unwrap();
    cache.discard(&key(8));
    drop(cache);
    let cache = AdapterCache::open(dir.path(), 1 << 20).unwrap();
    assert!(!cache.doubtful);
    for n in (0..50).filter(|n| ![7, 8].contains(n)) {
        assert_eq!(read(&cache, &key(n)), Some(image(n, 640)));
    }
    assert_eq!((read(&cache, &key(7)), read(&cache, &key(8))), (Some(image(99, 1280)), None));
    // The same adapter in another storage or of another tenant is another one.
    let CacheKey { adapter, storage } = key(1);
    assert!(cache.find(&CacheKey { adapter, storage: 3 - storage }).is_none());
    let other = AdapterKey { tenant: TenantId::new(uuid::Uuid::from_u128(77)), ..adapter };
    assert!(cache.find(&CacheKey { adapter: other, storage }).is_none());
    assert_eq!(cache.index().bytes(), 48 * 640 + 1280);
}

#[test]
fn a_folder_has_one_user_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let first = AdapterCache::open(dir.path(), 1 << 20).unwrap();
    assert_eq!(AdapterCache::open(dir.path(), 1 << 20).err().unwrap().kind(), io::ErrorKind::ResourceBusy);
    drop(first);
    assert!(AdapterCache::open(dir.path(), 1 << 20).is_ok());
}

#[test]
fn the_disk_budget_holds_and_what_is_used_outlives_what_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let cache = AdapterCache::open(dir.path(), 100 * 1024).unwrap();
    let often: Vec<_> = (0..10).collect();
    for n in 0..400 {
        cache.put(&key(n), &image(n, 1024)).unwrap();
        for n in &often {
            cache.find(&key(*n));
        }
        assert!(cache.index().bytes() <= 100 * 1024);
    }
    assert!(on_disk(dir.path()) <= 100 * 1024 && on_disk(dir.path()) > 90 * 1024);
    let kept = often.iter().filter(|n| read(&cache, &key(**n)).is_some()).count();
    assert!(kept >= 9, "{kept} of the ten that are used all the time");
    let recent = (300..400).filter(|n| cache.find(&key(*n)).is_some()).count();
    let old = (10..110).filter(|n| cache.find(&key(*n)).is_some()).count();
    assert!(recent > 2 * old, "{recent} recent, {old} old");
    // One that is larger than all room is not kept, and costs nobody their place.
    let before = cache.index().records();
    cache.put(&key(1000), &image(1, 200 * 1024)).unwrap();
    assert_eq!((cache.find(&key(1000)).is_none(), cache.index().records()), (true, before));
}

#[test]
fn a_file_that_somebody_deleted_is_a_miss_and_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let cache = AdapterCache::open(dir.path(), 1 << 20).unwrap();
    cache.put(&key(1), &image(1, 64)).unwrap();
    cache.files.remove(&key(1));
    assert!(cache.find(&key(1)).is_none());
    assert_eq!(sums(&cache), (0, 0));
}

#[test]
fn a_process_that_is_killed_leaves_a_cache_that_the_next_one_puts_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let cache = AdapterCache::open(dir.path(), 1 << 20).unwrap();
    for n in 0..30 {
        cache.put(&key(n), &image(n, 128)).unwrap();
    }
    // Killed between file and record, between the two halves of an eviction, and in the middle of a file.
    cache.files.write(&key(40), &image(40, 128)).unwrap();
    cache.files.remove(&key(5));
    let left = killed(dir.path());
    let folder = left.path().join(&key(6).adapter.digest.hex()[..2]);
    std::fs::write(folder.join("half.tmp"), [0; 77]).unwrap();

    let cache = AdapterCache::open(left.path(), 1 << 20).unwrap();
    assert!(cache.doubtful);
    // At once usable, before anything was put in order.
    assert_eq!(read(&cache, &key(3)), Some(image(3, 128)));
    cache.reconcile().unwrap();
    assert_eq!(read(&cache, &key(40)), Some(image(40, 128)));
    assert!(cache.find(&key(5)).is_none() && !folder.join("half.tmp").exists());
    assert_eq!(sums(&cache), (30, 30 * 128));
    assert_eq!(on_disk(left.path()), 30 * 128);
}

#[test]
fn an_index_that_is_lost_or_damaged_is_made_again_from_the_files() {
    let damage: [fn(&Path); 5] = [
        |index| std::fs::remove_file(index).unwrap(),
        |index| std::fs::write(index, "no index").unwrap(),
        |index| std::fs::write(index, []).unwrap(),
        |index| File::options().write(true).open(index).unwrap().set_len(5000).unwrap(),
        |index| {
            let mut bytes = std::fs::read(index).unwrap();
            bytes[20] ^= 1;
            std::fs::write(index, bytes).unwrap();
        },
    ];
    for damage in damage {
        let dir = tempfile::tempdir().unwrap();
        let cache = AdapterCache::open(dir.path(), 1 << 20).unwrap();
        (0..40).for_each(|n| cache.put(&key(n), &image(n, 64)).unwrap());
        drop(cache);
        damage(&dir.path().join("index"));
        let cache = Arc::new(AdapterCache::open(dir.path(), 1 << 20).unwrap());
        drop(CacheWriter::<Vec<u8>>::start(Arc::clone(&cache), 1).unwrap());
        (0..40).for_each(|n| assert_eq!(read(&cache, &key(n)), Some(image(n, 64))));
    }
}

#[test]
fn damaged_records_are_misses_and_nothing_else_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let cache = AdapterCache::open(dir.path(), 1 << 20).unwrap();
    (0..200).for_each(|n| cache.put(&key(n), &image(n, 64)).unwrap());
    drop(cache);
    let path = dir.path().join("index");
    let mut bytes = std::fs::read(&path).unwrap();
    // One byte in every third record that is taken.
    let taken = bytes[4096..].chunks_exact_mut(64).filter(|record| record.iter().any(|byte| *byte != 0));
    let hit = taken.step_by(3).map(|record| record[30] ^= 255).count();
    std::fs::write(&path, bytes).unwrap();
    let cache = AdapterCache::open(dir.path(), 1 << 20).unwrap();
    let found = (0..200).filter(|n| read(&cache, &key(*n)) == Some(image(*n, 64))).count();
    assert_eq!(found, 200 - hit);
    (0..200).for_each(|n| cache.put(&key(n), &image(n, 64)).unwrap());
    assert!((0..200).all(|n| cache.find(&key(n)).is_some()));
}

#[test]
fn the_writer_writes_what_it_took_and_drops_what_is_too_much() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Arc::new(AdapterCache::open(dir.path(), 1 << 20).unwrap());
    let writer = CacheWriter::start(Arc::clone(&cache), 2).unwrap();
    // It cannot get on while the index is held.
    let held = cache.index();
    (0..50).for_each(|n| writer.write(key(n), image(n, 64)));
    drop(held);
    drop(writer);
    let kept = (0..50).filter(|n| cache.find(&key(*n)).is_some()).count();
    assert!((1..=3).contains(&kept), "{kept}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// Against a map: whatever was put last is what is found, at every growth and with every kind of gap.
    #[test]
    fn the_index_is_a_map(steps in prop::collection::vec((0u64..3000, 0u8..8), 1..3000)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        let (mut index, _) = Index::open(&path).unwrap();
        let mut map: HashMap<u64, u64> = HashMap::new();
        for (n, action) in steps {
            match action {
                0 => { index.remove(&key(n)).unwrap(); map.remove(&n); }
                1 => prop_assert_eq!(index.touch(&key(n)).unwrap().map(|record| record.bytes), map.get(&n).copied()),
                _ => { index.put(&key(n), (n + 1) * 64).unwrap(); map.insert(n, (n + 1) * 64); }
            }
        }
        let sums = |index: &Index| (index.records(), index.bytes());
        prop_assert_eq!(sums(&index), (map.len() as u64, map.values().sum()));
        drop(index);
        let (mut index, state) = Index::open(&path).unwrap();
        prop_assert_eq!((state, sums(&index)), (State::Trusted, (map.len() as u64, map.values().sum())));
        for n in 0..3000 {
            prop_assert_eq!(index.find(&key(n)).unwrap().map(|record| record.bytes), map.get(&n).copied());
        }
        index.recount().unwrap();
        prop_assert_eq!(sums(&index), (map.len() as u64, map.values().sum()));
        let sample = index.sample(usize::MAX).unwrap();
        prop_assert_eq!(sample.len(), map.len());
    }
}

fn filled(dir: &Path, records: u64) -> std::path::PathBuf {
    let path = dir.join("index");
    let (mut index, _) = Index::open(&path).unwrap();
    (0..records).for_each(|n| index.put(&key(n), 64 * 1024).unwrap());
    assert_eq!(index.records(), records);
    path
}

/// Median time to open the index and find one record.
fn opening(path: &Path, records: u64) -> Duration {
    let mut times: Vec<_> = (0..31)
        .map(|n| {
            let start = Instant::now();
            let (index, state) = Index::open(path).unwrap();
            assert!(index.find(&key(n * 31 % records)).unwrap().is_some() && state == State::Trusted);
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[15]
}

#[test]
fn a_hundred_thousand_records_open_as_fast_as_a_thousand() {
    let (small, large) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (small, large) = (filled(small.path(), 1000), filled(large.path(), 100_000));
    let (few, many) = (opening(&small, 1000), opening(&large, 100_000));
    // It reads two pages in both; a scan would take a hundred times as long.
    assert!(many < few * 10, "{few:?} for 1,000, {many:?} for 100,000");
    println!("open and find: {few:?} with 1,000 records, {many:?} with 100,000");
}

/// In a process of its own, so that no other test's memory is counted.
#[test]
fn a_record_takes_less_than_a_hundred_bytes_of_memory() {
    let own = std::env::current_exe().unwrap();
    let test = "adapter_cache::tests::memory_of_a_hundred_thousand_records";
    let child = std::process::Command::new(own)
        .args(["--ignored", "--exact", test, "--test-threads=1", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("bytes of memory for each"), "{said}");
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "run by a_record_takes_less_than_a_hundred_bytes_of_memory, alone in its process"]
fn memory_of_a_hundred_thousand_records() {
    const RECORDS: u64 = 100_000;
    let resident = || -> u64 {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
    };
    let dir = tempfile::tempdir().unwrap();
    drop(filled(dir.path(), 10));
    let before = resident();
    let path = filled(dir.path(), RECORDS);
    let (mut index, _) = Index::open(&path).unwrap();
    assert!((0..RECORDS).all(|n| index.touch(&key(n)).unwrap().is_some()));
    let each = resident().saturating_sub(before) / RECORDS;
    println!("{each} bytes of memory for each of {RECORDS} records, growth included");
    assert!(each < 100, "{each}");
}
