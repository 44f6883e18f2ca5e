use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

fn cpu(threads: usize, spin_us: u32) -> Cpu {
    Cpu::new(&CpuConfig { threads, spin_us, ..CpuConfig::default() }).unwrap()
}

#[test]
fn every_task_runs_once_whatever_the_threads_and_whether_they_sleep() {
    for threads in [1, 2, 3, 8] {
        for spin_us in [0, 1000] {
            let cpu = cpu(threads, spin_us);
            for tasks in [0, 1, 2, 7, 100] {
                for _ in 0..50 {
                    let counts: Vec<_> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                    cpu.each(tasks, |i| {
                        counts[i].fetch_add(1, Ordering::Relaxed);
                    });
                    assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
                }
            }
        }
    }
}

#[test]
fn chunks_are_the_parts_of_the_slice() {
    let cpu = cpu(3, 10);
    let mut values = vec![0usize; 103];
    cpu.each_chunk(&mut values, 10, |i, part| {
        assert_eq!(part.len(), if i == 10 { 3 } else { 10 });
        part.iter_mut().for_each(|value| *value += i);
    });
    assert!(values.iter().enumerate().all(|(at, value)| *value == at / 10));
}

#[test]
fn a_region_inside_of_a_region_and_two_callers_at_once_get_all_their_tasks() {
    let cpu = cpu(3, 10);
    let total = AtomicUsize::new(0);
    let caller = || {
        for _ in 0..100 {
            cpu.each(5, |_| {
                cpu.each(4, |_| {
                    total.fetch_add(1, Ordering::Relaxed);
                });
            });
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(caller);
        scope.spawn(caller);
    });
    assert_eq!(total.into_inner(), 2 * 100 * 5 * 4);
}

#[test]
fn a_panic_of_any_task_reaches_the_caller_and_the_next_region_works() {
    let cpu = cpu(2, 10);
    for bad in 0..6 {
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            cpu.each(6, |i| assert!(i != bad, "task {i}"));
        }));
        assert!(failed.is_err());
        let done = AtomicUsize::new(0);
        cpu.each(6, |_| {
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.into_inner(), 6);
    }
}

#[test]
fn an_instruction_set_that_the_machine_lacks_is_an_error() {
    if Isa::best() < Isa::Amx {
        let config = CpuConfig { isa: Some(Isa::Amx), ..CpuConfig::default() };
        assert!(Cpu::new(&config).is_err_and(|error| error.to_string().contains("its best is")));
    }
    assert_eq!(cpu(2, 0).threads(), 2);
    assert_eq!(Cpu::serial().threads(), 1);
}
