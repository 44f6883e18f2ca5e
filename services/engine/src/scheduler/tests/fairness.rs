//! Fairness in steps, without a clock: who gets how much, who waits for how long.

use super::*;

fn tenant(n: u128) -> TenantId {
    TenantId::new(uuid::Uuid::from_u128(n))
}

fn share(n: u128) -> Share {
    Share::of(tenant(n))
}

fn world(running_max: usize, prefill_tokens_max: usize) -> World {
    let fairness = FairnessConfig::default();
    World::of(4096, false, Limits { running_max, prefill_tokens_max, speculation: Speculation::off(), fairness })
}

/// Cost of what each tenant was computed, as the configuration says.
#[derive(Default)]
struct Served(HashMap<TenantId, u64>);

impl Served {
    /// One step; remembers what it computed for whom.
    fn step(&mut self, world: &mut World) -> Vec<Sequence<u8>> {
        let before = self.state(world);
        let ended = world.step();
        let ended_now = ended.iter().map(|it| (it.arrival, (it.share.tenant, it.reached, it.tokens.len())));
        for (arrival, (tenant, reached, tokens)) in self.state(world).into_iter().chain(ended_now) {
            let (_, reached_before, tokens_before) = before.get(&arrival).copied().unwrap_or((tenant, 0, 0));
            // A request that was not there before had its prompt's tokens already.
            let prompt = world.prompts[&arrival];
            let tokens_before = tokens_before.max(prompt);
            let computed = reached.min(prompt) - reached_before.min(prompt);
            let cost =
                world.fairness.prompt_cost(computed, 0, 0) + world.fairness.generated_cost(tokens - tokens_before, 0);
            *self.0.entry(tenant).or_default() += cost;
        }
        ended
    }

    fn state(&self, world: &World) -> HashMap<u64, (TenantId, usize, usize)> {
        let all = world.scheduler.running.iter().chain(world.scheduler.waiting.iter());
        all.map(|it| (it.arrival, (it.share.tenant, it.reached, it.tokens.len()))).collect()
    }

    fn of(&self, n: u128) -> f64 {
        self.0.get(&tenant(n)).copied().unwrap_or_default() as f64
    }
}

/// Nine tenants, each with one request at a time; the steps that each request waited for its first token.
fn steps_to_first(running_max: usize, flood: usize) -> Vec<usize> {
    let mut world = world(running_max, 128);
    for n in 0..flood {
        world.submit_for(share(100), vec![n as u32 % 5; 400], 64, None);
    }
    // The flood is under way when the others come.
    (0..10).for_each(|_| drop(world.step()));
    let mut asked: HashMap<u64, (u128, usize)> = HashMap::new();
    let mut waits = Vec::new();
    let mut answered: HashMap<u128, usize> = HashMap::new();
    for step in 0..400 {
        for n in 1..=9 {
            let left = answered.get(&n).copied().unwrap_or_default() < 10;
            if left && step >= n as usize * 3 && !asked.values().any(|(who, _)| *who == n) {
                asked.insert(world.submit_for(share(n), vec![n as u32; 60], 12, None), (n, step));
            }
        }
        let ended = world.step();
        for (arrival, (_, from)) in &asked {
            let found = world.scheduler.find(*arrival).map(|at| &world.scheduler.running[at]);
            if found.is_some_and(|it| it.tokens.len() == it.prompt_tokens + 1 && it.computed == it.prompt_tokens) {
                waits.push(step + 1 - from);
            }
        }
        for sequence in ended {
            if let Some((n, _)) = asked.remove(&sequence.arrival) {
                *answered.entry(n).or_default() += 1;
            }
        }
    }
    assert_eq!(answered.values().sum::<usize>(), 90, "all of the nine are answered");
    waits.sort_unstable();
    waits
}

#[test]
fn a_flood_of_long_prompts_makes_nobody_else_wait() {
    let alone = steps_to_first(64, 0);
    let p95 = |waits: &[usize]| waits[waits.len() * 95 / 100];
    assert!(p95(&alone) <= 5, "{alone:?}");
    // Room for all of the flood, and for a quarter of it.
    for running_max in [64, 16] {
        let beside = steps_to_first(running_max, 50);
        assert!(p95(&beside) <= p95(&alone) + 1, "{running_max}: {beside:?} and alone {alone:?}");
        assert!(beside.last() <= alone.last().map(|most| most + 2).as_ref(), "{running_max}: {beside:?}");
    }
}

#[test]
fn service_is_in_proportion_to_the_weights() {
    let mut world = world(4, 64);
    let mut served = Served::default();
    for step in 0..3000 {
        for (n, weight) in [(1, 1), (2, 3)] {
            if world.scheduler.waiting.length(tenant(n)).requests < 4 {
                world.submit_for(Share { weight, ..share(n) }, vec![step % 5; 40], 20, None);
            }
        }
        served.step(&mut world);
    }
    let ratio = served.of(2) / served.of(1);
    assert!((2.85..3.15).contains(&ratio), "{ratio}");
}

#[test]
fn a_tenant_that_was_idle_has_saved_nothing_up() {
    let mut world = world(4, 64);
    let mut served = Served::default();
    let mut keep = |world: &mut World, tenants: &[u128], steps: usize| {
        let before: Vec<_> = tenants.iter().map(|n| served.of(*n)).collect();
        for step in 0..steps {
            for n in tenants {
                if world.scheduler.waiting.length(tenant(*n)).requests < 4 {
                    world.submit_for(share(*n), vec![step as u32 % 5; 40], 20, None);
                }
            }
            served.step(world);
        }
        tenants.iter().zip(before).map(|(n, before)| served.of(*n) - before).collect::<Vec<_>>()
    };
    keep(&mut world, &[1], 1000);
    // Had it saved up a thousand steps, the first would get nothing for as long.
    let both = keep(&mut world, &[1, 2], 300);
    assert!((0.8..1.25).contains(&(both[0] / both[1])), "{both:?}");
}

#[test]
fn a_lower_class_has_its_turn_within_the_bound_and_keeps_it() {
    let mut world = world(4, 64);
    let bound = world.fairness.turn_after_steps as usize;
    let high = |n| Share { priority: 200, ..share(n) };
    for n in 0..40 {
        world.submit_for(high(n % 5 + 1), vec![1; 40], 200, None);
    }
    world.step();
    let low = world.submit_for(Share { priority: 50, ..share(9) }, vec![2; 100], 30, None);
    let mut steps = 0;
    let ended = loop {
        while world.scheduler.waiting() < 20 {
            world.submit_for(high(steps as u128 % 5 + 1), vec![1; 40], 200, None);
        }
        let ended = world.step();
        steps += 1;
        assert!(steps <= bound + 1 || world.running().contains(&low) || ended.iter().any(|it| it.arrival == low));
        if let Some(ended) = ended.into_iter().find(|it| it.arrival == low) {
            break ended;
        }
    };
    assert!(steps > bound, "higher classes go first: {steps}");
    assert!(steps <= bound + 1 + 2 + 30, "once in, it is not put back: {steps}");
    assert_eq!(ended.tokens, finished(vec![2; 100], 30));
}

#[test]
fn prompts_take_fewer_rows_of_a_step_while_several_tenants_are_here() {
    let mut world = world(8, 512);
    let contended = world.fairness.contended_prefill_tokens_max;
    let long = world.submit_for(share(1), vec![1; 3000], 2, None);
    let rows = |slices: Vec<Slice>| slices.iter().map(|slice| slice.tokens).sum::<usize>();
    assert_eq!(rows(world.schedule()), 512);
    let other = world.submit_for(share(2), vec![2; 30], 20, None);
    let slices = world.schedule();
    assert_eq!((world.running(), slices[1].tokens), (vec![long, other], 30), "the whole prompt of who has had nothing");
    assert_eq!(rows(slices), contended);
    world.scheduler.cancel(&[other]);
    assert_eq!(rows(world.schedule()), 512);
}

#[test]
fn a_higher_class_goes_first() {
    let mut world = world(2, 64);
    let running = [world.submit(vec![1; 4], 9, None), world.submit(vec![1; 4], 9, None)];
    world.step();
    let low = world.submit_for(share(2), vec![1; 4], 9, None);
    let high = world.submit_for(Share { priority: 101, ..share(3) }, vec![1; 4], 9, None);
    world.step();
    // The oldest keeps its place; the other gives it to the higher class.
    assert_eq!((world.running(), world.waiting()), (vec![running[0], high], vec![running[1], low]));
}

#[test]
fn nobody_takes_more_blocks_than_its_part_and_others_go_on() {
    let mut world = world(8, 256);
    let capped = Share { kv_blocks_max: 6, ..share(1) };
    for _ in 0..6 {
        world.submit_for(capped, vec![1; 20], 40, None);
    }
    for _ in 0..3 {
        world.submit_for(share(2), vec![1; 20], 40, None);
    }
    let (mut ended, mut most) = (0, 0);
    for step in 0..400 {
        ended += world.step().len();
        let tenants = world.scheduler.tenants(9);
        most = most.max(tenants.iter().find(|it| it.tenant == tenant(1)).map_or(0, |it| it.kv_blocks));
        assert!(step != 1 || world.running().len() == 6, "three of each");
    }
    assert_eq!((ended, most), (9, 6));
}

#[test]
fn adapters_are_charged_by_their_rank_and_for_the_bytes_that_they_bring() {
    let mut world = world(8, 256);
    for (n, adapter) in [(1, Some(1)), (2, None)] {
        world.submit_for(Share { weight: 1, ..share(n) }, vec![1; 20], 1, adapter);
    }
    world.scheduler.lease_adapters(&mut world.residents);
    world.load(1, 10);
    let service = |world: &World, n| accounts::cost_at_weight_one(world.scheduler.accounts.service(tenant(n)));
    world.scheduler.causes.insert(key(1), tenant(1));
    world.scheduler.load_ended(&key(1), 3 << 20);
    assert_eq!(service(&world, 1), 3 * u64::from(world.fairness.adapter_mib_cost));
    let before = service(&world, 1);
    world.schedule();
    assert_eq!((service(&world, 2), service(&world, 1) - before), (20 * 100, 20 * (100 + 4)));
}

#[test]
fn the_load_of_who_has_had_least_goes_first_but_no_load_waits_for_ever() {
    let mut world = world(8, 256);
    let most = world.fairness.turn_after_loads as usize;
    world.residents = Residents::new(1000, 1, 2).with_passes(most as u32);
    world.submit_for(share(1), vec![1; 200], 9, None);
    world.step();
    for n in 1..=2 {
        world.submit_for(share(1), vec![1; 4], 1, Some(n));
    }
    let mut loads = Vec::new();
    for n in 3..40 {
        world.submit_for(share(u128::from(n)), vec![1; 4], 1, Some(n));
        world.step();
        let World { residents, scheduler, .. } = &mut world;
        let next = residents.next_load(Lane::Registry, |key| scheduler.load_turn(key)).expect("one waits");
        loads.push(next.digest.as_bytes()[0]);
        let took = std::time::Duration::from_millis(1);
        residents.finish_load(next, Ok(Load { adapter: 0, rank: 4, bytes: 1, took })).expect("it fits");
    }
    assert_eq!(loads[0], 3, "the tenant that has had nothing");
    let first = loads.iter().position(|n| *n == 1).expect("its turn came");
    assert!(first <= most, "{loads:?}");
}

#[test]
fn a_tenant_at_its_limit_of_adapters_evicts_its_own_and_waits_for_them() {
    let mut world = world(8, 256);
    world.residents = Residents::new(1000, 4, 2);
    let capped = Share { adapters_max: 1, ..share(1) };
    let first = world.submit_for(capped, vec![1; 4], 6, Some(1));
    let second = world.submit_for(capped, vec![1; 4], 6, Some(2));
    let other = world.submit_for(share(2), vec![1; 4], 6, Some(3));
    world.step();
    world.load(1, 5);
    world.step();
    world.load(3, 5);
    world.step();
    assert_eq!((world.running(), world.waiting()), (vec![first, other], vec![second]));
    world.scheduler.cancel(&[other]);
    while world.running().contains(&first) {
        let World { residents, scheduler, .. } = &mut world;
        assert!(residents.next_load(Lane::Registry, |key| scheduler.load_turn(key)).is_none());
        world.step();
    }
    // The first one's adapter is in nobody's use, and makes room for the second's.
    world.step();
    world.load(2, 5);
    world.step();
    assert_eq!(world.running(), [second]);
    let residents: Vec<_> = world.residents.list().iter().map(|it| it.key.digest.as_bytes()[0]).collect();
    assert_eq!(residents, [2, 3]);
}

/// `cargo test -p engine --lib steps_with_few -- --ignored --nocapture`
#[test]
#[ignore = "takes time, and its figure is for BENCHMARKS.md"]
fn steps_with_few_and_with_many_waiting_take_as_long() {
    let step_micros = |waiting: usize| {
        let mut world = world(16, 64);
        for n in 0..waiting + 16 {
            world.submit_for(share(n as u128 % 100), vec![1; 20], 400, Some((n % 7) as u8).filter(|n| *n > 3));
        }
        (0..20).for_each(|_| drop(world.step()));
        let begin = std::time::Instant::now();
        let steps = 300;
        for _ in 0..steps {
            world.scheduler.lease_adapters(&mut world.residents);
            assert!(!world.scheduler.schedule().is_empty());
            world.scheduler.remove_refused();
            world.scheduler.take_changed_lines();
        }
        begin.elapsed().as_secs_f64() * 1e6 / f64::from(steps)
    };
    let (few, many) = (step_micros(100), step_micros(20_000));
    println!("the scheduler's part of a step: {few:.1} µs with 100 waiting, {many:.1} µs with 20,000");
    assert!(many < 5.0 * few + 20.0, "{few} µs and {many} µs");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// The bound of the paper: two tenants that always have something waiting differ by no more than twice what can
    /// be under way for one of them (theorem 4.4: 2 max(w_p L_input, w_q M)).
    #[test]
    fn whatever_arrives_service_follows_the_weights(
        weights in (1u32..4, 1u32..4),
        lengths in prop::collection::vec((1usize..120, 1u32..40), 8),
        running_max in 2usize..8, prefill in 16usize..200,
    ) {
        let mut world = world(running_max, prefill);
        let mut served = Served::default();
        let mut turn = 0;
        let steps = 1500;
        for _ in 0..steps {
            for (n, weight) in [(1, weights.0), (2, weights.1)] {
                while world.scheduler.waiting.length(tenant(n)).requests < 3 {
                    // Each tenant takes the lengths in an order of its own.
                    let (prompt, answer) = lengths[(turn * n as usize) % lengths.len()];
                    turn += 1;
                    world.submit_for(Share { weight, ..share(n) }, vec![turn as u32 % 5; prompt], answer, None);
                }
            }
            served.step(&mut world);
        }
        let each = world.fairness.prompt_cost(120, 0, 0) + world.fairness.generated_cost(40, 0);
        let under_way = running_max as f64 * each as f64;
        let least = f64::from(weights.0.min(weights.1));
        let difference = (served.of(1) / f64::from(weights.0) - served.of(2) / f64::from(weights.1)).abs();
        prop_assert!(difference <= 2.0 * under_way / least, "{difference} of {under_way}, {weights:?}");
        prop_assert!(served.of(1) > 0.0 && served.of(2) > 0.0);
    }
}
