use domain::TenantId;
use proptest::prelude::*;

use super::*;
use crate::residents::AdapterKey;

fn identity() -> Identity {
    let tenant = TenantId::new(uuid::Uuid::from_u128(7));
    let key = AdapterKey { tenant, digest: Digest::new([1; 32]) };
    Identity { key, base: Digest::new([2; 32]), rules: 3, storage: 1 }
}

fn section(n: u16) -> Section {
    let kind = [Kind::LoraA, Kind::Gain, Kind::EmbedPrivate][n as usize % 3];
    Section { kind, layer: n, slot: n % 7, shape: Shape::new(u32::from(n) + 1, 5) }
}

fn size(section: &Section) -> Option<usize> {
    section.shape.f32_bytes()
}

/// An image of `count` sections whose bytes are their section's number.
fn image(count: u16) -> (Layout, Vec<u8>) {
    let sections = (0..count).map(section).map(|section| (section, size(&section).unwrap()));
    let layout = Layout::new(sections).unwrap();
    let mut image = vec![0; layout.bytes()];
    for (n, entry) in layout.entries().iter().enumerate() {
        image[entry.offset..][..entry.bytes].fill(n as u8);
    }
    layout.seal(&identity(), &mut image);
    (layout, image)
}

#[test]
fn what_was_packed_is_found_again_aligned_and_in_order() {
    for count in [0, 1, 2, 9, 200] {
        let (layout, image) = image(count);
        let entries = read(&image, &identity(), size).unwrap();
        assert_eq!(entries, layout.entries());
        for (n, entry) in entries.iter().enumerate() {
            assert_eq!((entry.section, entry.offset % ALIGNMENT), (section(n as u16), 0));
            assert!(image[entry.offset..][..entry.bytes].iter().all(|byte| *byte == n as u8));
        }
    }
}

#[test]
fn another_adapter_tenant_base_storage_or_rule_is_refused() {
    let (_, image) = image(3);
    let own = identity();
    let others = [
        Identity { key: AdapterKey { digest: Digest::new([9; 32]), ..own.key }, ..own },
        Identity { key: AdapterKey { tenant: TenantId::new(uuid::Uuid::from_u128(8)), ..own.key }, ..own },
        Identity { base: Digest::new([9; 32]), ..own },
        Identity { storage: 2, ..own },
        Identity { rules: 4, ..own },
    ];
    for other in others {
        assert_eq!(read(&image, &other, size), Err(Damage::Identity));
    }
}

#[test]
fn an_image_cut_at_any_length_is_refused() {
    let (_, image) = image(3);
    for length in 0..image.len() {
        assert!(read(&image[..length], &identity(), size).is_err(), "{length}");
    }
    let mut longer = image;
    longer.push(0);
    assert!(read(&longer, &identity(), size).is_err());
}

/// Whoever writes checksums that fit can still not name memory outside of the image.
#[test]
fn a_directory_that_lies_is_refused() {
    let (layout, good) = image(4);
    let lies: [fn(&mut Entry); 6] = [
        |entry| entry.offset += 1,
        |entry| entry.offset += 1 << 40,
        |entry| entry.offset = usize::MAX - 63,
        |entry| entry.bytes += 64,
        |entry| entry.section.shape = Shape::new(u32::MAX, u32::MAX),
        |entry| entry.offset = 0,
    ];
    for lie in lies {
        let mut entries = layout.entries().to_vec();
        lie(&mut entries[2]);
        let mut image = good.clone();
        Layout { entries, bytes: layout.bytes }.seal(&identity(), &mut image);
        assert_eq!(read(&image, &identity(), size), Err(Damage::Section(2)));
    }
    let mut entries = layout.entries().to_vec();
    entries[3] = entries[1];
    let mut image = good;
    Layout { entries, bytes: layout.bytes }.seal(&identity(), &mut image);
    assert_eq!(read(&image, &identity(), size), Err(Damage::Section(3)), "two sections on the same bytes");
}

#[test]
fn other_limits_are_other_rules() {
    let limits = adapters::Limits::default();
    assert_eq!(rules(&limits), rules(&limits.clone()));
    assert_ne!(rules(&limits), rules(&adapters::Limits { rank_max: 3, ..limits }));
}

proptest! {
    #[test]
    fn one_flipped_bit_anywhere_is_found(at: prop::sample::Index, bit in 0u8..8) {
        let (_, mut image) = image(5);
        let at = at.index(image.len());
        image[at] ^= 1 << bit;
        prop_assert!(read(&image, &identity(), size).is_err());
    }

    #[test]
    fn any_bytes_are_read_without_a_crash(mut bytes in prop::collection::vec(any::<u8>(), 0..600), own: bool) {
        if own && bytes.len() >= HEADER_BYTES {
            let header = Header {
                identity: identity(),
                bytes: bytes.len() as u64,
                sections: 1 + u32::from(bytes[0] % 11),
                directory_checksum: 0,
                payload_checksum: 0,
            };
            bytes[..HEADER_BYTES].copy_from_slice(&header.encode());
        }
        prop_assert!(read(&bytes, &identity(), size).is_err());
    }
}
