use super::*;
use crate::reference::{assert_close, assert_same_bits, cpus, product, to_bf16, values};

const STORAGES: [Storage; 2] = [Storage::F32, Storage::Bf16];
const INPUTS: usize = 1100;
/// Of two sites.
const OUTPUTS: [usize; 2] = [100, 37];
const ROWS: usize = 41;
/// Rank, and the rows of the group.
const GROUPS: [(usize, &[usize]); 6] =
    [(16, &[3]), (1, &[0, 5]), (8, &[7, 2, 9]), (33, &[30, 1]), (64, &[40]), (5, &[])];
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

fn apply(cpu: &Cpu, x: &[f32], adapters: &[&[Adapter]], rows: &[Vec<usize>], ys: &mut [Vec<f32>]) {
    let input = Input::new(cpu, x, INPUTS, Forms::BF16);
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
                    let round =
                        |values: &[f32]| if storage == Storage::F32 { values.to_vec() } else { to_bf16(values) };
                    for row in rows {
                        let h = product(&round(&x[row * INPUTS..][..INPUTS]), &round(a), INPUTS);
                        let h: Vec<f32> = h.into_iter().map(|value| value as f32).collect();
                        let change = product(&h, &round(b), lora.rank());
                        for (want, change) in want[row * outputs..].iter_mut().zip(change) {
                            *want += f64::from(SCALE) * change;
                        }
                    }
                }
                // |h| is about 20; its rounding to bf16 is the largest error, 2⁻⁹ of each of up to 64 terms.
                let tolerance = if storage == Storage::F32 { 1e-3 } else { 0.25 };
                assert_close(&ys[site], &want, tolerance);
                for row in [4, 6, 8, 31, 39] {
                    assert_same_bits(&ys[site][row * outputs..][..outputs], &before[site][row * outputs..][..outputs]);
                }
            }
        }
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
                        let input = Input::new(&one, &x[row * INPUTS..][..INPUTS], INPUTS, Forms::BF16);
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
    let cpu = Cpu::serial();
    let (a, b) = (values(8 * 40, 1), values(20 * 8, 2));
    let lora = Lora::from_values(&cpu, 8, Storage::Bf16, &a, &b, 2.0);
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
