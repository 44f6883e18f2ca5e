use super::*;
use crate::cpu::CpuConfig;
use crate::reference::values;

/// Reads back one element of a key and of a value.
fn element(cache: &KvBlocks, block: BlockId, head: usize, slot: usize, dim: usize) -> (f32, f32) {
    match &cache.data {
        Data::F32(blocks) => {
            let width = padded(cache.head_dim);
            (blocks.keys(block, head)[dim * BLOCK_TOKENS + slot], blocks.values(block, head)[slot * width + dim])
        }
        Data::Bf16(blocks) => {
            let half = |word: u32, odd: usize| f32::from_bits(word >> (odd * 16) << 16);
            let key = blocks.keys(block, head)[dim / 2 * BLOCK_TOKENS + slot];
            let value = blocks.values(block, head)[slot / 2 * padded(cache.head_dim) + dim];
            (half(key, dim % 2), half(value, slot % 2))
        }
    }
}

fn round(storage: KvStorage, value: f32) -> f32 {
    if storage == KvStorage::Bf16 { bf16::from_f32(value).to_f32() } else { value }
}

#[test]
fn rows_come_back_from_their_places_and_the_others_stay() {
    let cpu = Cpu::new(&CpuConfig { threads: 3, ..CpuConfig::default() }).unwrap();
    for storage in [KvStorage::F32, KvStorage::Bf16] {
        for (kv_heads, head_dim) in [(2, 64), (1, 40), (3, 7)] {
            let mut cache = KvBlocks::new(40, kv_heads, head_dim, storage);
            let width = kv_heads * head_dim;
            // All slots but the last of blocks in odd order; then one place twice, and blocks that come again.
            let mut places: Vec<_> = (0..37u32).flat_map(|b| (0..15).map(move |s| (BlockId(b * 7 % 37), s))).collect();
            places.extend([(BlockId(38), 3), (BlockId(39), 4), (BlockId(38), 3)]);
            let (k, v) = (values(places.len() * width, 1), values(places.len() * width, 2));
            let tail = (places.len() - 3) * width;
            cache.write_rows(&cpu, &k[..tail], &v[..tail], &places[..places.len() - 3]);
            cache.write_rows(&cpu, &k[tail..], &v[tail..], &places[places.len() - 3..]);
            for (row, (block, slot)) in places.iter().enumerate() {
                if row == places.len() - 3 {
                    continue;
                }
                for at in 0..width {
                    let got = element(&cache, *block, at / head_dim, *slot, at % head_dim);
                    let want = (round(storage, k[row * width + at]), round(storage, v[row * width + at]));
                    assert_eq!(got, want, "row {row}, element {at}");
                }
            }
            assert!((0..37).all(|block| element(&cache, BlockId(block), 0, 15, 0) == (0.0, 0.0)));
        }
    }
}

#[test]
fn memory_is_aligned_and_a_block_takes_what_is_stated() {
    for blocks in [1, 3, 3000] {
        let cache = KvBlocks::new(blocks, 2, 64, KvStorage::Bf16);
        let Data::Bf16(data) = &cache.data else { panic!("{:?}", cache.storage()) };
        assert_eq!(data.keys(BlockId(0), 0).as_ptr() as usize % 64, 0);
        assert_eq!(data.values(BlockId(0), 1).as_ptr() as usize % 64, 0);
        let bytes = size_of_val(&*data.data);
        assert_eq!(bytes, blocks * KvBlocks::bytes_per_block(2, 64, KvStorage::Bf16));
    }
    assert_eq!(KvBlocks::bytes_per_block(2, 64, KvStorage::Bf16), 16 * 2 * 64 * 2 * 2);
    assert_eq!(KvBlocks::bytes_per_block(2, 64, KvStorage::F32), 16 * 2 * 64 * 2 * 4);
}

#[test]
#[should_panic(expected = "one key and value for each place")]
fn rows_without_a_place_are_refused() {
    KvBlocks::new(1, 1, 8, KvStorage::F32).write_rows(&Cpu::serial(), &[0.0; 16], &[0.0; 16], &[(BlockId(0), 0)]);
}
