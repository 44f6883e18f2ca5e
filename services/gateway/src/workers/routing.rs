//! In which order the workers are asked. By rendezvous hashing, every request with the same key has the same first worker
//! on every gateway, and a worker that comes or goes moves only its own share. A key with much load has several such homes:
//! of two of them, drawn by the request, the one with less load takes it. Who is busy, or has no place, is passed by for
//! whoever has least.
//!
//! Pure: it knows no connection and no clock.

use std::cmp::Reverse;

use sha2::{Digest as _, Sha256};

/// What routing knows of a worker that is well.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// For the key of this request.
    pub weight: u64,
    /// Answers there, whichever gateway they are of.
    pub load: usize,
    /// Better somewhere else, if there is somewhere else.
    pub busy: bool,
    /// What the request needs is in memory there.
    pub resident: bool,
}

/// What the request wants.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Workers that share its key.
    pub homes: usize,
    /// Draws between them.
    pub chance: u64,
    /// Answers that a worker where the adapter is not resident counts as having besides, among homes.
    pub cold_load: usize,
}

/// Places in `views`, in the order in which they should be asked.
pub fn order(views: &[View], wish: Wish) -> Vec<usize> {
    let mut by_weight: Vec<_> = (0..views.len()).collect();
    by_weight.sort_by_key(|at| Reverse(views[*at].weight));
    let homes = &by_weight[..wish.homes.clamp(1, views.len().max(1)).min(views.len())];
    let free: Vec<_> = homes.iter().copied().filter(|at| !views[*at].busy).collect();
    let cold = |at: usize| if views[at].resident { 0 } else { wish.cold_load };
    let first = two_of(free.len(), wish.chance).map(|(a, b)| (free[a], free[b]));
    let cost = |at: usize| (views[at].load + cold(at), cold(at));
    let first = first.map(|(a, b)| if cost(b) < cost(a) { b } else { a });
    let mut others: Vec<_> = by_weight.into_iter().filter(|at| Some(*at) != first).collect();
    // Stable: of equals, the one with the greater weight.
    others.sort_by_key(|at| views[*at].load);
    first.into_iter().chain(others).collect()
}

/// Highest random weight (Thaler and Ravishankar 1998).
pub fn weight(key: &[u8], url: &str) -> u64 {
    let hash = Sha256::new().chain_update(key).chain_update(url.as_bytes()).finalize();
    hash.iter().take(8).fold(0, |weight, byte| weight << 8 | u64::from(*byte))
}

/// Two different ones of `count`, or the same one twice where there is only one (Mitzenmacher 2001: the lesser of two random
/// loads is nearly as good as the least of all, and no herd follows news that is a second old).
fn two_of(count: usize, chance: u64) -> Option<(usize, usize)> {
    let (low, high) = ((chance & 0xffff_ffff) as usize, (chance >> 32) as usize);
    match count {
        0 => None,
        1 => Some((0, 0)),
        _ => {
            let a = low % count;
            Some((a, (a + 1 + high % (count - 1)) % count))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("http://10.0.0.{n}:7080")).collect()
    }

    fn views(key: &[u8], urls: &[String], load: &[usize]) -> Vec<View> {
        let view = |(url, load): (&String, &usize)| View {
            weight: weight(key, url),
            load: *load,
            busy: *load >= 64,
            resident: true,
        };
        urls.iter().zip(load).map(view).collect()
    }

    /// A different one for each `n`, with all bits in use.
    fn chance(n: u64) -> u64 {
        weight(&n.to_be_bytes(), "chance")
    }

    fn first(key: &[u8], urls: &[String], load: &[usize], homes: usize, n: u64) -> usize {
        order(&views(key, urls, load), Wish { homes, chance: chance(n), cold_load: 4 })[0]
    }

    #[test]
    fn a_worker_that_comes_or_goes_moves_only_its_own_share() {
        const KEYS: u32 = 4_000;
        let (ten, eleven) = (urls(10), urls(11));
        let (mut moved, mut shares) = (0, [0; 11]);
        for key in 0..KEYS {
            let key = key.to_be_bytes();
            let (before, after) = (first(&key, &ten, &[0; 10], 1, 0), first(&key, &eleven, &[0; 11], 1, 0));
            shares[after] += 1;
            if before != after {
                assert_eq!(after, 10, "whoever moves, moves to the new one");
                moved += 1;
            }
        }
        println!("{moved} of {KEYS} keys moved when an eleventh worker came; shares {shares:?}");
        assert!((KEYS / 16..KEYS / 8).contains(&moved), "{moved}");
        assert!(shares.iter().all(|share| (KEYS as i32 / 16..KEYS as i32 / 8).contains(share)), "{shares:?}");
    }

    #[test]
    fn a_hot_key_is_shared_by_its_homes_and_by_no_others() {
        let urls = urls(10);
        let mut load = vec![0; 10];
        for n in 0..120 {
            let taken = first(b"hot", &urls, &load, 3, n);
            load[taken] += 1;
        }
        let used: Vec<_> = load.iter().copied().filter(|load| *load > 0).collect();
        println!("120 answers of one key with 3 homes: {used:?}");
        assert_eq!(used.len(), 3, "{load:?}");
        assert!(used.iter().all(|load| (34..=46).contains(load)), "{load:?}");
    }

    #[test]
    fn where_the_adapter_is_resident_goes_first_until_it_has_more_load() {
        let urls = urls(2);
        let with = |loads: [usize; 2]| {
            let mut views = views(b"key", &urls, &loads);
            views[1].resident = false;
            order(&views, Wish { homes: 2, chance: 0, cold_load: 4 })[0]
        };
        assert_eq!((with([0, 0]), with([4, 0]), with([5, 0])), (0, 0, 1));
    }

    #[test]
    fn what_has_no_room_at_home_spills_to_whoever_has_least() {
        let urls = urls(4);
        let home = first(b"key", &urls, &[0; 4], 1, 0);
        let mut load = vec![9, 8, 7, 6];
        load[home] = 64;
        let spilled = first(b"key", &urls, &load, 1, 0);
        let least = (0..4).filter(|at| *at != home).min_by_key(|at| load[*at]).expect("three");
        assert_eq!(spilled, least);
        // All of them can be asked, each once.
        let mut all = order(&views(b"key", &urls, &load), Wish { homes: 1, chance: 0, cold_load: 4 });
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3]);
        assert!(order(&[], Wish { homes: 1, chance: 0, cold_load: 4 }).is_empty());
    }
}
