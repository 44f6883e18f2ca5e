//! Additions to rows: residuals and biases.

use crate::cpu::Cpu;
use crate::vectorized::vectorized;

/// Elements of one task: memory-bound, so more than where there is work to do.
const TASK_ELEMENTS: usize = 1 << 14;

/// `hidden += change`.
pub fn add(cpu: &Cpu, hidden: &mut [f32], change: &[f32]) {
    assert_eq!(hidden.len(), change.len(), "a residual and its change");
    cpu.each_chunk(hidden, TASK_ELEMENTS, |i, hidden| {
        add_row(cpu.isa(), hidden, &change[i * TASK_ELEMENTS..][..hidden.len()]);
    });
}

/// Adds `bias` `[outputs]` to each row of `y` `[rows, outputs]`.
pub fn add_bias_rows(cpu: &Cpu, y: &mut [f32], bias: &[f32]) {
    assert!(y.len().is_multiple_of(bias.len()), "rows of a bias");
    let rows = (TASK_ELEMENTS / bias.len()).max(1);
    cpu.each_chunk(y, rows * bias.len(), |_, y| {
        y.chunks_exact_mut(bias.len()).for_each(|row| add_row(cpu.isa(), row, bias));
    });
}

vectorized! {
    fn add_row(row: &mut [f32], change: &[f32]) {
        for (value, change) in row.iter_mut().zip(change) {
            *value += change;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{assert_same_bits, each_cpu, values};

    #[test]
    fn each_element_is_one_sum() {
        each_cpu(|cpu| {
            for (rows, width) in [(1, 1), (3, 33), (50, 896)] {
                let (x, change) = (values(rows * width, 1), values(rows * width, 2));
                let mut got = x.clone();
                add(cpu, &mut got, &change);
                assert_same_bits(&got, &x.iter().zip(&change).map(|(x, c)| x + c).collect::<Vec<_>>());
                let mut got = x.clone();
                add_bias_rows(cpu, &mut got, &change[..width]);
                let want = x.iter().enumerate().map(|(i, x)| x + change[i % width]);
                assert_same_bits(&got, &want.collect::<Vec<_>>());
            }
        });
    }
}
