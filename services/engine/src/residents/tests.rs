use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const TOOK: Duration = Duration::from_millis(2);

fn key(n: u8) -> AdapterKey {
    AdapterKey { tenant: TenantId::new(uuid::Uuid::from_u128(1)), digest: Digest::new([n; 32]) }
}

fn loaded(adapter: u8, bytes: u64) -> Result<Load<u8>, AdapterFault> {
    Ok(Load { adapter, rank: 4, bytes, took: TOOK })
}

/// Asks for, loads and places an adapter of this size.
fn load(residents: &mut Residents<u8>, n: u8, bytes: u64) -> Option<Lease<u8>> {
    assert!(residents.lease(&key(n)).is_none());
    assert_eq!(residents.next_load(Lane::Registry, |_| Some(0)), Some(key(n)));
    residents.finish_load(key(n), loaded(n, bytes)).ok()?;
    settle(residents);
    residents.lease(&key(n))
}

fn settle(residents: &mut Residents<u8>) {
    let given_up = residents.settle(|_| true);
    assert!(given_up.is_empty(), "{given_up:?}");
}

fn ready(residents: &Residents<u8>) -> Vec<u8> {
    let ready = residents.list().into_iter().filter(|resident| !resident.loading);
    ready.map(|resident| resident.key.digest.as_bytes()[0]).collect()
}

#[test]
fn of_equals_the_one_idle_for_longest_goes_first_and_the_one_used_more_stays() {
    let mut residents = Residents::new(100, 1, 4);
    for n in 1..=3 {
        load(&mut residents, n, 30);
    }
    settle(&mut residents);
    assert!(residents.lease(&key(1)).is_some());
    load(&mut residents, 4, 30);
    assert_eq!(ready(&residents), [1, 3, 4]);
    assert_eq!((residents.counts().bytes, residents.counts().evictions), (90, 1));
}

#[test]
fn a_small_adapter_that_is_as_dear_to_reload_outlives_a_large_one() {
    let mut residents = Residents::new(100, 1, 4);
    // Loads take the same time whatever their size, so a byte of the large one is worth less.
    load(&mut residents, 1, 60);
    load(&mut residents, 2, 10);
    settle(&mut residents);
    assert!(residents.lease(&key(1)).is_some() && residents.lease(&key(1)).is_some());
    load(&mut residents, 3, 60);
    assert_eq!(ready(&residents), [2, 3]);
}

#[test]
fn what_was_popular_once_ages_against_what_is_used_now() {
    let mut residents = Residents::new(30, 1, 4);
    load(&mut residents, 1, 10);
    for _ in 0..5 {
        assert!(residents.lease(&key(1)).is_some());
        settle(&mut residents);
    }
    // One use each; the clock rises with every eviction until the old favourite is worth least.
    let mut steps = 0;
    while ready(&residents).contains(&1) {
        load(&mut residents, 2 + steps % 8, 10);
        steps += 1;
        assert!(steps < 40, "it never ages");
    }
    assert!(steps > 4, "its uses count for nothing: {steps}");
}

#[test]
fn a_leased_adapter_is_never_evicted_and_room_appears_when_the_lease_ends() {
    let mut residents = Residents::new(50, 1, 2);
    let lease = load(&mut residents, 1, 40).unwrap();
    assert!(load(&mut residents, 2, 40).is_none());
    assert_eq!((ready(&residents), residents.held_up()), (vec![1], None));
    // Nothing else is loaded meanwhile.
    assert!(residents.lease(&key(3)).is_none());
    assert_eq!(residents.next_load(Lane::Registry, |_| Some(0)), None);
    settle(&mut residents);
    settle(&mut residents);
    assert_eq!(residents.held_up(), Some(&key(2)));
    assert_eq!(*lease, 1);
    drop(lease);
    settle(&mut residents);
    assert_eq!((ready(&residents), residents.held_up()), (vec![2], None));
    assert_eq!(residents.next_load(Lane::Registry, |_| Some(0)), Some(key(3)));
}

#[test]
fn two_leases_of_one_adapter_are_one_use_until_both_have_ended() {
    let mut residents = Residents::new(50, 1, 2);
    let first = load(&mut residents, 1, 40).unwrap();
    let second = residents.lease(&key(1)).unwrap();
    assert_eq!((residents.counts().leased, residents.list()[0].leases), (1, 2));
    drop(first);
    residents.take_back();
    assert_eq!(residents.counts().leased, 1);
    drop(second);
    residents.take_back();
    assert_eq!((residents.counts().leased, ready(&residents)), (0, vec![1]));
}

#[test]
fn two_that_come_at_once_do_not_evict_one_another_before_they_were_used() {
    let mut residents = Residents::new(50, 2, 2);
    for n in [1, 2] {
        assert!(residents.lease(&key(n)).is_none());
        assert_eq!(residents.next_load(Lane::Registry, |_| Some(0)), Some(key(n)));
    }
    for n in [1, 2] {
        residents.finish_load(key(n), loaded(n, 40)).unwrap();
    }
    settle(&mut residents);
    assert_eq!(ready(&residents), [1]);
    assert!(residents.lease(&key(1)).is_some());
    settle(&mut residents);
    assert_eq!(ready(&residents), [2]);
}

#[test]
fn an_adapter_beyond_the_budget_is_refused_and_evicts_nothing() {
    let mut residents = Residents::new(50, 1, 2);
    load(&mut residents, 1, 50);
    assert!(residents.lease(&key(2)).is_none());
    assert_eq!(residents.next_load(Lane::Registry, |_| Some(0)), Some(key(2)));
    let refused = residents.finish_load(key(2), loaded(2, 51));
    assert!(matches!(refused, Err(AdapterFault::TooLarge { bytes: 51, bytes_max: 50 })));
    assert_eq!(ready(&residents), [1]);
}

#[test]
fn a_failed_load_is_forgotten_and_the_next_request_tries_again() {
    let mut residents = Residents::<u8>::new(50, 1, 2);
    for _ in 0..2 {
        assert!(residents.lease(&key(1)).is_none());
        assert!(residents.lease(&key(1)).is_none());
        assert_eq!((residents.next_load(Lane::Registry, |_| Some(0)), residents.coming()), (Some(key(1)), 1));
        assert_eq!(residents.next_load(Lane::Registry, |_| Some(0)), None);
        assert!(matches!(residents.finish_load(key(1), Err(AdapterFault::NotFound)), Err(AdapterFault::NotFound)));
        assert!(residents.list().is_empty());
    }
}

#[test]
fn what_nobody_wants_any_more_is_not_loaded_and_not_kept_beyond_the_budget() {
    let mut residents = Residents::new(50, 2, 2);
    let _lease = load(&mut residents, 1, 40);
    assert!(residents.lease(&key(2)).is_none());
    assert_eq!(residents.next_load(Lane::Registry, |_| None::<u8>), None);
    assert!(residents.lease(&key(3)).is_none());
    assert_eq!(residents.next_load(Lane::Registry, |_| Some(0)), Some(key(3)));
    assert!(residents.finish_load(key(3), loaded(3, 40)).is_ok());
    assert!(residents.settle(|_| false).is_empty());
    assert_eq!(residents.list().len(), 1);
    assert_eq!(ready(&residents), [1]);
}

#[test]
fn a_pin_is_loaded_unasked_and_stays_while_others_come_and_go() {
    let mut residents = Residents::new(50, 1, 2);
    residents.pin(&[key(1)]);
    assert_eq!(residents.next_load(Lane::Registry, |_| None::<u8>), Some(key(1)));
    residents.finish_load(key(1), loaded(1, 20)).unwrap();
    assert!(residents.settle(|_| false).is_empty());
    for n in 2..6 {
        assert!(load(&mut residents, n, 30).is_some());
        assert_eq!(ready(&residents), [1, n]);
    }
    assert!(residents.list()[0].pinned && !residents.list()[1].pinned);
    // Beside the pin there never is room for it, so nobody waits for that.
    assert!(residents.lease(&key(9)).is_none());
    assert_eq!(residents.next_load(Lane::Registry, |_| Some(0)), Some(key(9)));
    let refused = residents.finish_load(key(9), loaded(9, 31));
    assert!(matches!(refused, Err(AdapterFault::TooLarge { bytes: 31, bytes_max: 30 })));
}

#[test]
fn pins_beyond_the_budget_are_refused_and_take_nothing_from_the_first() {
    let mut residents = Residents::new(50, 2, 2);
    residents.pin(&[key(1), key(2)]);
    for n in [1, 2] {
        assert_eq!(residents.next_load(Lane::Registry, |_| None::<u8>), Some(key(n)));
    }
    residents.finish_load(key(1), loaded(1, 30)).unwrap();
    assert!(residents.settle(|_| false).is_empty());
    assert!(matches!(residents.finish_load(key(2), loaded(2, 30)), Err(AdapterFault::TooLarge { .. })));
    assert_eq!(ready(&residents), [1]);
}

#[test]
fn loads_of_one_lane_do_not_wait_for_those_of_the_other() {
    let lane_of = |key: &AdapterKey| if key.digest.as_bytes()[0] < 10 { Lane::Disk } else { Lane::Registry };
    let mut residents = Residents::new(100, 1, 2).with_lanes(lane_of);
    for n in [10, 11, 1, 2] {
        assert!(residents.lease(&key(n)).is_none());
    }
    let next = |residents: &mut Residents<u8>| Lane::ALL.map(|lane| residents.next_load(lane, |_| Some(0)));
    assert_eq!(next(&mut residents), [Some(key(1)), Some(key(10))]);
    assert_eq!(next(&mut residents), [None, None], "one at a time in each");
    residents.finish_load(key(1), loaded(1, 10)).unwrap();
    assert_eq!(next(&mut residents), [None, None], "none while one waits for its place");
    settle(&mut residents);
    assert_eq!(next(&mut residents), [Some(key(2)), None]);
    assert!(residents.finish_load(key(10), Err(AdapterFault::NotFound)).is_err());
    assert_eq!(next(&mut residents), [None, Some(key(11))]);
    residents.finish_load(key(2), loaded(2, 10)).unwrap();
    residents.finish_load(key(11), loaded(11, 10)).unwrap();
    settle(&mut residents);
    assert_eq!((ready(&residents), residents.coming()), (vec![1, 2, 11], 0));
}

#[test]
fn an_adapter_whose_room_a_pin_took_while_it_waited_is_given_up() {
    let mut residents = Residents::new(50, 2, 2);
    let lease = load(&mut residents, 1, 40).unwrap();
    residents.pin(&[key(3)]);
    assert_eq!(residents.next_load(Lane::Registry, |_| Some(0)), Some(key(3)));
    assert!(residents.lease(&key(2)).is_none());
    assert_eq!(residents.next_load(Lane::Registry, |_| Some(0)), Some(key(2)));
    residents.finish_load(key(3), loaded(3, 20)).unwrap();
    residents.finish_load(key(2), loaded(2, 40)).unwrap();
    settle(&mut residents);
    drop(lease);
    let given_up = residents.settle(|_| true);
    assert!(matches!(given_up[..], [(gone, AdapterFault::TooLarge { bytes: 40, bytes_max: 30 })] if gone == key(2)));
    assert_eq!(ready(&residents), [3]);
}

/// Priority, and the moment of the last return.
type Idle = (f64, u64);

/// What the policy must come to, computed the slow way: priorities by a scan over all idle ones.
#[derive(Default)]
struct Model {
    /// Bytes, uses, and the place of those that are idle.
    ready: BTreeMap<u8, (u64, u64, Option<Idle>)>,
    clock: f64,
    moment: u64,
}

impl Model {
    fn returned(&mut self, n: u8, seconds: f64) {
        self.moment += 1;
        let (bytes, uses, idle) = self.ready.get_mut(&n).unwrap();
        *idle = Some((self.clock + (*uses).max(1) as f64 * seconds / (*bytes).max(1) as f64, self.moment));
    }

    fn evict(&mut self) -> u8 {
        let idle = self.ready.iter().filter_map(|(n, (.., idle))| Some((*n, (*idle)?)));
        let (n, (priority, _)) = idle.min_by(|a, b| a.1.partial_cmp(&b.1).unwrap()).unwrap();
        self.clock = priority;
        self.ready.remove(&n);
        n
    }
}

proptest! {
    #[test]
    fn the_budget_the_leases_the_pins_and_the_sums_hold_whatever_happens(
        pins in prop::collection::vec(0u8..8, 0..3),
        steps in prop::collection::vec((0u8..8, 1u64..60, 0u8..5), 1..160)
    ) {
        let mut residents = Residents::new(100, 2, 2);
        let pins: Vec<_> = pins.into_iter().map(key).collect();
        residents.pin(&pins);
        let mut leases: Vec<(u8, Lease<u8>)> = Vec::new();
        let mut loading: VecDeque<AdapterKey> = VecDeque::new();
        let mut pinned = Vec::new();
        for (n, bytes, action) in steps {
            match action {
                0 | 1 => leases.extend(residents.lease(&key(n)).map(|lease| (n, lease))),
                2 => { leases.pop(); }
                3 => loading.extend(residents.next_load(Lane::Registry, |_| Some(0))),
                _ => if let Some(key) = loading.pop_front() {
                    let own = key.digest.as_bytes()[0];
                    let left = 100 - residents.pinned_bytes;
                    let took = Duration::from_micros(100 + bytes * u64::from(own));
                    let result = residents.finish_load(key, Ok(Load { adapter: own, rank: 4, bytes, took }));
                    prop_assert_eq!(result.is_ok(), bytes <= left);
                }
            }
            let given_up = residents.settle(|_| true);
            let list = residents.list();
            let counts = residents.counts();
            prop_assert!(counts.bytes <= 100);
            let ready = || list.iter().filter(|resident| !resident.loading);
            prop_assert_eq!(counts.bytes, ready().map(|resident| resident.bytes).sum::<u64>());
            prop_assert_eq!(counts.ready, ready().count());
            prop_assert!(list.iter().all(|resident| residents.ready().contains(&resident.key) != resident.loading));
            prop_assert_eq!(counts.leased, ready().filter(|resident| resident.leases > 0).count());
            prop_assert_eq!(residents.coming(), list.len() - counts.ready);
            let evictable = |resident: &&ResidentStatus| {
                matches!(residents.slots[&resident.key], Slot::Ready { hold: Hold::Idle(_), .. })
            };
            prop_assert!(ready().filter(evictable).all(|resident| resident.leases == 0 && !resident.pinned));
            prop_assert_eq!(residents.ranking.bytes(), ready().filter(evictable).map(|resident| resident.bytes).sum::<u64>());
            for (n, lease) in &leases {
                prop_assert_eq!(**lease, *n);
                let own = list.iter().find(|resident| resident.key == key(*n)).expect("leased, so resident");
                prop_assert_eq!(own.leases, leases.iter().filter(|(m, _)| m == n).count());
            }
            // Once pinned and ready, for ever.
            pinned.extend(ready().filter(|resident| resident.pinned).map(|resident| resident.key));
            prop_assert!(pinned.iter().all(|key| ready().any(|resident| resident.key == *key)));
            prop_assert!(given_up.iter().all(|(key, _)| list.iter().all(|resident| resident.key != *key)));
        }
    }

    #[test]
    fn who_goes_is_who_greedy_dual_size_frequency_says(
        requests in prop::collection::vec((0u8..12, 1u8..4), 1..120)
    ) {
        let (mut residents, mut model) = (Residents::new(100, 1, 2), Model::default());
        let size = |n: u8| 8 + u64::from(n) * 3;
        for (n, uses) in requests {
            if residents.lease(&key(n)).is_none() {
                prop_assert_eq!(residents.next_load(Lane::Registry, |_| Some(0)), Some(key(n)));
                residents.finish_load(key(n), loaded(n, size(n))).unwrap();
                while model.ready.values().map(|(bytes, ..)| bytes).sum::<u64>() + size(n) > 100 {
                    model.evict();
                }
                model.ready.insert(n, (size(n), 0, None));
                settle(&mut residents);
            } else {
                model.ready.get_mut(&n).unwrap().1 += 1;
            }
            for _ in 0..uses {
                prop_assert!(residents.lease(&key(n)).is_some());
                model.ready.get_mut(&n).unwrap().1 += 1;
            }
            residents.take_back();
            let seconds = residents.cost.seconds(size(n));
            model.returned(n, seconds);
            prop_assert_eq!(ready(&residents), model.ready.keys().copied().collect::<Vec<_>>());
        }
    }
}

/// Costs of a step's bookkeeping with few and with many residents, as a ratio, since the machine is shared.
/// `cargo test -p engine --lib residents::tests::a_step -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn a_step_costs_the_same_with_five_residents_and_with_ten_thousand() {
    let many_key = |n: u64| {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        AdapterKey { tenant: key(0).tenant, digest: Digest::new(bytes) }
    };
    let step = |count: u64| {
        let mut residents = Residents::new(count * 10, 1, 64);
        for n in 0..count {
            assert!(residents.lease(&many_key(n)).is_none());
            residents.next_load(Lane::Registry, |_| Some(0));
            residents.finish_load(many_key(n), loaded(0, 10)).unwrap();
            settle(&mut residents);
        }
        let rounds = 20_000;
        let start = std::time::Instant::now();
        for round in 0..rounds {
            // As in a step: settle, 16 leases, sums for the report.
            settle(&mut residents);
            let _leases: Vec<_> = (0..16).map(|n| residents.lease(&many_key((round * 16 + n) % count))).collect();
            residents.take_back();
            std::hint::black_box(residents.counts());
        }
        let each = start.elapsed() / rounds as u32;
        let start = std::time::Instant::now();
        for n in 0..1000 {
            assert!(residents.lease(&many_key(count + n)).is_none());
            residents.next_load(Lane::Registry, |_| Some(0));
            residents.finish_load(many_key(count + n), loaded(0, 10)).unwrap();
            settle(&mut residents);
        }
        (each, start.elapsed() / 1000)
    };
    let (few, many) = (step(5), step(10_000));
    println!("a step with 16 leases: {:?} with 5 residents, {:?} with 10,000", few.0, many.0);
    println!("a load that evicts one: {:?} with 5 residents, {:?} with 10,000", few.1, many.1);
}

/// Memory of the process over the bytes accounted for, while adapters of mixed ranks come and go.
/// `cargo test -p engine --lib residents::tests::memory -- --ignored --nocapture`
#[cfg(target_os = "linux")]
#[test]
#[ignore = "a measurement, alone in its process"]
fn memory_stays_near_what_is_accounted_while_adapters_of_mixed_ranks_come_and_go() {
    const BUDGET: u64 = 1 << 30;
    // Of an adapter for Qwen2.5-0.5B in bf16, for each rank.
    const RANK_BYTES: usize = 1_100_000;
    let resident = || -> u64 {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
    };
    let before = resident();
    // Memory comes from loader threads and is given back by the engine's.
    let (send, loads) = std::sync::mpsc::sync_channel(0);
    for thread in 0..2u64 {
        let send = send.clone();
        std::thread::spawn(move || {
            let mut random = thread + 1;
            loop {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let rank = [1, 4, 8, 16, 16, 32, 64][(random >> 33) as usize % 7];
                let mut image = kernels::Buffer::zeroed(rank * RANK_BYTES + (random >> 40) as usize % 100_000);
                image.get_mut().unwrap().fill(1);
                if send.send((random, image)).is_err() {
                    return;
                }
            }
        });
    }
    let mut residents = Residents::new(BUDGET, 1, 4);
    let mut worst = 0.0f64;
    let mut moved = 0;
    for (n, (random, image)) in loads.into_iter().enumerate().take(2000) {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&random.to_le_bytes());
        let key = AdapterKey { digest: Digest::new(digest), ..key(0) };
        assert!(residents.lease(&key).is_none());
        assert_eq!(residents.next_load(Lane::Registry, |_| Some(0)), Some(key));
        let bytes = image.len() as u64;
        moved += bytes;
        residents.finish_load(key, Ok(Load { adapter: image, rank: 4, bytes, took: TOOK })).unwrap();
        assert!(residents.settle(|_| true).is_empty());
        for _ in 0..random >> 62 {
            assert!(residents.lease(&key).is_some());
        }
        if n >= 200 && n % 20 == 0 {
            worst = worst.max((resident() - before) as f64 / residents.counts().bytes as f64);
        }
    }
    let end = (resident() - before) as f64 / residents.counts().bytes as f64;
    println!("{} GB came and went through {BUDGET} bytes: memory is {end:.3} of what is accounted", moved >> 30);
    println!("at worst {worst:.3}, with two adapters on their way");
    assert!(worst < 1.2, "memory is {worst} of what is accounted: large buffers come from a heap with holes");
}
