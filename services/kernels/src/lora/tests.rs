use super::*;
use crate::reference::{assert_close, assert_same_bits, cpus, product, to_bf16, to_int8, values};

const STORAGES: [Storage; 3] = [Storage::F32, Storage::Bf16, Storage::Int8];
const INPUTS: usize = 1100;
/// Of two sites.
const OUTPUTS: [usize; 2] = [100, 37];
const ROWS: usize = 41;
/// Rank, and the rows of the group.
const GROUPS: [(usize, &[usize]); 9] = [
    (16, &[3]),
    (1, &[0, 5]),
    (8, &[7, 2, 9]),
    (33, &[30, 1]),
    (64, &[40]),
    (5, &[]),
    (3, &[32]),
    (17, &[33, 34]),
    (100, &[35]),
];
const SCALE: f32 = 0.25;

struct Adapter {
    a: Vec<f32>,
    b: Vec<f32>,
    lora: Lora,
}

/// An adapter for each group and one of rank 24 for many rows.
fn adapters(cpu: &Cpu, storage: Storage, outputs: usize) -> Vec<Adapter> {
    let ranks = GROUPS.iter().map(|(rank, _)| *rank).chain([24]);
    let adapter = |rank: usize| {
        let (a, b) = (values(rank * INPUTS, rank as u64), values(outputs * rank, 99 + rank as u64));
        Adapter { lora: Lora::from_values(cpu, rank, storage, &a, &b, SCALE), a, b }
    };
    ranks.map(adapter).collect()
}

fn rows() -> Vec<Vec<usize>> {
    GROUPS.iter().map(|(_, rows)| rows.to_vec()).chain([(10..30).collect()]).collect()
}

fn rows_of(w: &Matrix) -> Vec<f32> {
    let mut values = vec![0.0; w.outputs() * w.inputs()];
    for (i, row) in values.chunks_mut(w.inputs()).enumerate() {
        w.read_row(i, row);
    }
    values
}

fn apply(cpu: &Cpu, x: &[f32], adapters: &[&[Adapter]], rows: &[Vec<usize>], ys: &mut [Vec<f32>]) {
    let input = Input::new(cpu, x, INPUTS, Forms::BF16 | Forms::INT8);
    let groups: Vec<Vec<LoraGroup<'_>>> = adapters
        .iter()
        .map(|of| of.iter().zip(rows).map(|(adapter, rows)| LoraGroup { rows, lora: &adapter.lora }).collect())
        .collect();
    let site = |((groups, outputs), y)| LoraSite { groups, outputs, y };
    let groups = groups.iter().map(Vec::as_slice).zip(OUTPUTS);
    let mut sites: Vec<LoraSite<'_>> = groups.zip(ys.iter_mut().map(Vec::as_mut_slice)).map(site).collect();
    grouped_loras(cpu, &input, &mut sites);
}

#[test]
fn each_group_gets_its_own_change_and_rows_without_one_keep_their_bits() {
    let x = values(ROWS * INPUTS, 1);
    let rows = rows();
    for cpu in cpus(2) {
        for storage in STORAGES {
            let adapters = OUTPUTS.map(|outputs| adapters(&cpu, storage, outputs));
            let before: Vec<Vec<f32>> = OUTPUTS.iter().map(|outputs| values(ROWS * outputs, 4)).collect();
            let mut ys = before.clone();
            apply(&cpu, &x, &[&adapters[0], &adapters[1]], &rows, &mut ys);
            for (site, outputs) in OUTPUTS.into_iter().enumerate() {
                let mut want: Vec<f64> = before[site].iter().map(|value| f64::from(*value)).collect();
                for (Adapter { a, b, lora }, rows) in adapters[site].iter().zip(&rows) {
                    for row in rows {
                        let x = &x[row * INPUTS..][..INPUTS];
                        let (x, a, b) = match storage {
                            Storage::F32 => (x.to_vec(), a.clone(), b.clone()),
                            Storage::Bf16 => (to_bf16(x), to_bf16(a), to_bf16(b)),
                            Storage::Int8 => (to_int8(x, INPUTS), rows_of(lora.a()), rows_of(lora.b())),
                        };
                        let h: Vec<f32> = product(&x, &a, INPUTS).into_iter().map(|value| value as f32).collect();
                        let h = if storage == Storage::Int8 { to_int8(&h, lora.rank()) } else { h };
                        let change = product(&h, &b, lora.rank());
                        for (want, change) in want[row * outputs..].iter_mut().zip(change) {
                            *want += f64::from(SCALE) * change;
                        }
                    }
                }
                // |h| is about 20; its rounding to bf16 is the largest error, 2⁻⁹ of each of up to 100 terms. In int8, an h
                // between two steps may take the other one.
                let tolerance = if storage == Storage::F32 { 1e-3 } else { 0.25 };
                assert_close(&ys[site], &want, tolerance);
                for row in [4, 6, 8, 31, 39] {
                    assert_same_bits(&ys[site][row * outputs..][..outputs], &before[site][row * outputs..][..outputs]);
                }
            }
        }
    }
}

/// Against f64 of what was given: x, A, h and B are each off by 0.4 to 0.5 % of their size, root of the mean square, for
/// evenly spread values.
#[test]
fn int8_is_off_by_less_than_a_hundredth_of_the_change() {
    let (outputs, rows) = (300, 4);
    let x = values(rows * INPUTS, 1);
    for cpu in cpus(1) {
        for rank in [1, 3, 8, 16, 17, 32, 64, 100] {
            let (a, b) = (values(rank * INPUTS, 2), values(outputs * rank, 3));
            let lora = Lora::from_values(&cpu, rank, Storage::Int8, &a, &b, SCALE);
            let h: Vec<f64> = product(&x, &a, INPUTS);
            let want = h.chunks(rank).flat_map(|h| {
                let of = |b: &[f32]| h.iter().zip(b).map(|(h, b)| h * f64::from(*b)).sum::<f64>();
                b.chunks(rank).map(of).map(|sum| f64::from(SCALE) * sum).collect::<Vec<_>>()
            });
            let mut got = vec![0.0; rows * outputs];
            let input = Input::new(&cpu, &x, INPUTS, lora.forms());
            let groups = [LoraGroup { rows: &[0, 1, 2, 3], lora: &lora }];
            grouped_loras(&cpu, &input, &mut [LoraSite { groups: &groups, outputs, y: &mut got }]);
            let (mut off, mut size) = (0.0, 0.0);
            for (got, want) in got.iter().zip(want) {
                off += (f64::from(*got) - want).powi(2);
                size += want * want;
            }
            let relative = (off / size).sqrt();
            assert!(relative < 0.01, "{}, rank {rank}: {relative}", cpu.isa());
        }
    }
}

#[test]
fn int8_gives_the_same_bits_on_every_instruction_set() {
    let x = values(6 * INPUTS, 1);
    for rank in [1, 3, 8, 16, 17, 64, 100] {
        let (a, b) = (values(rank * INPUTS, 2), values(70 * rank, 3));
        let all = cpus(2).into_iter().map(|cpu| {
            let lora = Lora::from_values(&cpu, rank, Storage::Int8, &a, &b, SCALE);
            let mut y = vec![0.5; 6 * 70];
            let groups = [LoraGroup { rows: &[0, 1, 2, 4, 5], lora: &lora }];
            let input = Input::new(&cpu, &x, INPUTS, lora.forms());
            grouped_loras(&cpu, &input, &mut [LoraSite { groups: &groups, outputs: 70, y: &mut y }]);
            y
        });
        let all: Vec<_> = all.collect();
        for other in &all[1..] {
            assert_same_bits(&all[0], other);
        }
    }
}

/// What a rank takes: in int8, B has a byte for each element and two for each output, and nothing is filled up at the
/// usual ranks.
#[test]
fn int8_takes_half_the_memory_of_bf16() {
    let (inputs, outputs) = (896, 4864);
    for (rank, of_bf16) in [(8, 0.58), (16, 0.56), (32, 0.54), (64, 0.53)] {
        let bytes = |storage| {
            let (a, b) = (vec![1.0; rank * inputs], vec![1.0; outputs * rank]);
            Lora::from_values(&Cpu::serial(), rank, storage, &a, &b, 1.0).bytes()
        };
        let (int8, bf16) = (bytes(Storage::Int8), bytes(Storage::Bf16));
        let ranks = rank.next_multiple_of(16);
        assert_eq!(int8, ranks * (inputs + inputs / 64 * 2) + outputs * (rank + 2), "rank {rank}");
        assert!((int8 as f64) < of_bf16 * bf16 as f64, "rank {rank}: {int8} of {bf16}");
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_any_grouping_and_with_any_threads() {
    let x = values(ROWS * INPUTS, 1);
    let rows = rows();
    for (one, three) in cpus(1).into_iter().zip(cpus(3)) {
        for storage in STORAGES {
            let adapters = OUTPUTS.map(|outputs| adapters(&one, storage, outputs));
            let before: Vec<Vec<f32>> = OUTPUTS.iter().map(|outputs| values(ROWS * outputs, 4)).collect();
            let mut together = before.clone();
            apply(&three, &x, &[&adapters[0], &adapters[1]], &rows, &mut together);
            for (site, outputs) in OUTPUTS.into_iter().enumerate() {
                for (Adapter { lora, .. }, rows) in adapters[site].iter().zip(&rows) {
                    for row in rows {
                        let input = Input::new(&one, &x[row * INPUTS..][..INPUTS], INPUTS, lora.forms());
                        let mut alone = before[site][row * outputs..][..outputs].to_vec();
                        let groups = [LoraGroup { rows: &[0], lora }];
                        grouped_loras(&one, &input, &mut [LoraSite { groups: &groups, outputs, y: &mut alone }]);
                        assert_same_bits(&alone, &together[site][row * outputs..][..outputs]);
                    }
                }
            }
        }
    }
}

#[test]
fn packed_parts_are_the_adapter() {
    STORAGES.into_iter().for_each(packed_parts_are_the_adapter_in);
}

fn packed_parts_are_the_adapter_in(storage: Storage) {
    let cpu = Cpu::serial();
    let (a, b) = (values(8 * 40, 1), values(20 * 8, 2));
    let lora = Lora::from_values(&cpu, 8, storage, &a, &b, 2.0);
    let again = |matrix: &Matrix| {
        let data = crate::Buffer::read(&mut matrix.packed(), matrix.bytes()).unwrap();
        Matrix::from_packed(matrix.outputs(), matrix.inputs(), matrix.storage(), data).unwrap()
    };
    let copy = Lora::from_parts(again(lora.a()), again(lora.b()), lora.scale());
    let x = values(40, 3);
    let input = Input::new(&cpu, &x, 40, lora.forms());
    let [mut first, mut second] = [[0.0; 20]; 2];
    for (lora, y) in [(&lora, &mut first), (&copy, &mut second)] {
        let groups = [LoraGroup { rows: &[0], lora }];
        grouped_loras(&cpu, &input, &mut [LoraSite { groups: &groups, outputs: 20, y }]);
    }
    assert_same_bits(&first, &second);
    assert!(first.iter().all(|value| *value != 0.0));
}

#[test]
#[should_panic(expected = "in two groups")]
fn a_row_in_two_groups_is_refused() {
    let cpu = Cpu::serial();
    let lora = Lora::from_values(&cpu, 1, Storage::F32, &[1.0], &[1.0], 1.0);
    let groups = [[0, 1], [2, 1]];
    let groups: Vec<_> = groups.iter().map(|rows| LoraGroup { rows, lora: &lora }).collect();
    let input = Input::new(&cpu, &[1.0; 3], 1, Forms::F32);
    grouped_loras(&cpu, &input, &mut [LoraSite { groups: &groups, outputs: 1, y: &mut [0.0; 3] }]);
}

#[test]
fn what_b_reads_is_given_and_changes_nothing_else() {
    let x = values(ROWS * INPUTS, 1);
    let rows = [vec![0, 1, 2], vec![7], (10..41).collect()];
    for cpu in cpus(2) {
        let adapters: Vec<Lora> = [8, 3, 17]
            .map(|rank| {
                let (a, b) = (values(rank * INPUTS, 5), values(OUTPUTS[0] * rank, 6));
                Lora::from_values(&cpu, rank, Storage::F32, &a, &b, SCALE)
            })
            .into();
        let groups: Vec<LoraGroup<'_>> =
            adapters.iter().zip(&rows).map(|(lora, rows)| LoraGroup { rows, lora }).collect();
        let input = Input::new(&cpu, &x, INPUTS, Forms::F32);
        let before = values(ROWS * OUTPUTS[0], 4);
        let (mut y, mut plain) = (before.clone(), before);
        let site = |y| LoraSite { groups: &groups, outputs: OUTPUTS[0], y };
        let hidden = grouped_loras_with_hidden(&cpu, &input, &mut [site(&mut y)]);
        grouped_loras(&cpu, &input, &mut [site(&mut plain)]);
        assert_same_bits(&y, &plain);
        for ((lora, rows), hidden) in adapters.iter().zip(&rows).zip(&hidden) {
            let own: Vec<f32> = rows.iter().flat_map(|r| &x[r * INPUTS..][..INPUTS]).copied().collect();
            assert_close(hidden, &product(&own, &rows_of(lora.a()), INPUTS), 1e-3);
        }
    }
}
