//! Grants: never a token beyond them, a place that is kept for a while, the same tokens in the end.

use super::*;

fn share(tenant: u128) -> Share {
    Share::of(TenantId::new(uuid::Uuid::from_u128(tenant)))
}

/// Steps until nothing more happens; returns those that have ended.
fn run(world: &mut World, steps: usize) -> Vec<Sequence<u8>> {
    (0..steps).flat_map(|_| world.step()).collect()
}

#[test]
fn a_parked_sequence_computes_nothing_and_goes_on_when_it_is_extended() {
    let mut world = World::new(64, true, 4, 100);
    let arrival = world.submit_granted(share(1), vec![1; 10], 30, 7, None);
    assert!(run(&mut world, 20).is_empty());
    assert_eq!(world.scheduler.running[0].tokens.len(), 17);
    assert!(world.schedule().is_empty());
    // Less than it has changes nothing.
    assert!(world.scheduler.extend(arrival, Extension::More(3)).is_none());
    assert!(world.schedule().is_empty());
    assert!(world.scheduler.extend(arrival, Extension::More(30)).is_none());
    let ended = run(&mut world, 23);
    assert_eq!(ended[0].tokens, finished(vec![1; 10], 30));
}

#[test]
fn guesses_do_not_go_beyond_a_grant() {
    let speculation = Speculation { tokens_max: 8, ngram_min: 1, ngram_max: 3, rows_max: 16, pause_max: 0 };
    for granted in 1..40 {
        let mut world = World::speculating(64, true, 4, 100, speculation);
        let arrival = world.submit_granted(share(1), vec![1; 20], 40, granted, None);
        assert!(run(&mut world, 45).is_empty());
        assert_eq!(world.scheduler.running[0].tokens.len(), 20 + granted as usize);
        let ended = world.scheduler.extend(arrival, Extension::Last(granted)).expect("that is its end");
        assert_eq!(ended.tokens, finished(vec![1; 20], granted));
        assert_eq!(world.scheduler.pool.available(), 64);
    }
}

#[test]
fn the_last_grant_ends_where_it_says_and_an_early_one_where_it_stands() {
    let mut world = World::new(64, false, 4, 100);
    let arrival = world.submit_granted(share(1), vec![1; 10], 30, 5, None);
    run(&mut world, 3);
    assert!(world.scheduler.extend(arrival, Extension::EndIfParked).is_none(), "it is not parked");
    run(&mut world, 10);
    assert!(world.scheduler.extend(arrival, Extension::Last(9)).is_none(), "four more may come");
    run(&mut world, 10);
    // The engine ends it with its ninth token; a scheduler alone keeps it.
    assert!(world.scheduler.running[0].has_spent_its_grant());
    assert_eq!(world.scheduler.running[0].tokens.len(), 19);
    assert_eq!(Extension::More(4).and(Extension::Last(2)), Extension::Last(4));
    assert_eq!(Extension::EndIfParked.and(Extension::More(4)), Extension::More(4));
}

#[test]
fn a_parked_sequence_gives_its_place_up_only_after_a_while_and_only_to_somebody() {
    let mut world = World::new(64, true, 2, 100);
    let parked = world.submit_granted(share(1), vec![1; 30], 30, 2, None);
    let busy = world.submit_for(share(2), vec![2; 4], 60, None);
    run(&mut world, 10);
    assert_eq!(world.running(), [parked, busy], "nobody wants its place");
    let mut world = World::new(64, true, 2, 100);
    let parked = world.submit_granted(share(1), vec![1; 30], 30, 2, None);
    let busy = world.submit_for(share(2), vec![2; 4], 60, None);
    run(&mut world, 2);
    let other = world.submit_for(share(2), vec![3; 4], 60, None);
    let mut steps = 0;
    while world.running() == [parked, busy] {
        world.step();
        steps += 1;
        assert!(steps < 20, "it is never let in");
    }
    assert!(steps > world.fairness.grant_wait_steps, "{steps}");
    assert_eq!((world.running(), world.waiting()), (vec![busy, other], vec![parked]));
    // It is not let in before it can go on, and then has the tokens that it has alone.
    world.scheduler.cancel(&[busy]);
    run(&mut world, 3);
    assert_eq!(world.waiting(), [parked]);
    world.scheduler.extend(parked, Extension::More(30));
    let ended = run(&mut world, 70);
    assert_eq!(ended.iter().find(|it| it.arrival == parked).map(|it| &it.tokens), Some(&finished(vec![1; 30], 30)));
}

#[test]
fn parked_sequences_that_hold_everything_stop_nobody() {
    let mut world = World::new(8, false, 2, 100);
    for tenant in 1..=2 {
        world.submit_granted(share(tenant), vec![1; 40], 20, 2, None);
    }
    run(&mut world, 4);
    assert!(world.scheduler.running.iter().all(Sequence::is_parked));
    let other = world.submit_for(share(3), vec![2; 50], 3, None);
    assert!(world.scheduler.can_go_on(&world.residents));
    let ended = run(&mut world, 4);
    assert_eq!(ended.iter().map(|it| it.arrival).collect::<Vec<_>>(), [other]);
}
