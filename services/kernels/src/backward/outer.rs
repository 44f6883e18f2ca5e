//! Gradients of the factors of low-rank changes: sums of outer products over the rows of one adapter.

use super::rows::{ROWS, add_rows};
use crate::cpu::Cpu;
use crate::split::Split;

/// Rows of `out` of one task: they share what is read of `right`.
const TASK_ROWS: usize = 4;

/// One sum: `out += scale · leftᵀ right`, of `left` `[rows, m]`, `right` `[rows, n]` and `out` `[m, n]`.
///
/// For `y += s · B h`, `h = A x`: `dA` has `left = dh`, `right = x`, and the transposed `dB` has `left = h`, `right = dy`.
pub struct OuterSum<'a> {
    pub left: &'a [f32],
    pub right: &'a [f32],
    pub rows: usize,
    pub scale: f32,
    pub out: &'a mut [f32],
}

/// Adds every sum up, in one region. A sum runs over its rows in order, so no bit depends on threads or on other sums.
///
/// # Panics
/// If sizes do not fit.
pub fn outer_sums(cpu: &Cpu, sums: &mut [OuterSum<'_>]) {
    let mut jobs = Vec::with_capacity(sums.len());
    let mut tasks = 0;
    for OuterSum { left, right, rows, scale, out } in sums {
        let of_row = |len: usize, what: &str| {
            assert!(*rows > 0 && len.is_multiple_of(*rows), "{what} is of {rows} rows");
            len / *rows
        };
        let (m, n) = (of_row(left.len(), "left"), of_row(right.len(), "right"));
        assert_eq!(out.len(), m * n, "out is [m, n]");
        tasks += m.div_ceil(TASK_ROWS);
        jobs.push(Job { left, right, m, n, rows: *rows, scale: *scale, out: Split::new(out), end: tasks });
    }
    cpu.each(tasks, |task| {
        let job = &jobs[jobs.partition_point(|job| job.end <= task)];
        job.run(cpu, task + job.m.div_ceil(TASK_ROWS) - job.end);
    });
}

struct Job<'a> {
    left: &'a [f32],
    right: &'a [f32],
    m: usize,
    n: usize,
    rows: usize,
    scale: f32,
    out: Split<'a, f32>,
    /// One past its last task, of those of all jobs.
    end: usize,
}

impl Job<'_> {
    fn run(&self, cpu: &Cpu, task: usize) {
        let (m, n) = (self.m, self.n);
        let columns = task * TASK_ROWS..((task + 1) * TASK_ROWS).min(m);
        // SAFETY: tasks have different rows of `out`.
        let out = unsafe { self.out.part(columns.start * n..columns.end * n) };
        for (first, right) in (0..self.rows).step_by(ROWS).zip(self.right.chunks(ROWS * n)) {
            for (out, column) in out.chunks_exact_mut(n).zip(columns.clone()) {
                let mut factors = [0.0; ROWS];
                for (factor, left) in factors.iter_mut().zip(self.left[first * m..].chunks_exact(m)) {
                    *factor = self.scale * left[column];
                }
                add_rows(cpu.isa(), &factors, right, n, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{assert_close, assert_same_bits, each_cpu, values};

    /// Rows, n, m.
    const SHAPES: [(usize, usize, usize); 6] =
        [(1, 1, 1), (3, 65, 17), (33, 64, 16), (5, 200, 130), (70, 31, 33), (40, 128, 7)];

    #[test]
    fn the_gradient_of_a_factor_is_the_sum_of_outer_products_alone_and_among_others() {
        let inputs = SHAPES.map(|(rows, n, m)| (values(rows * m, 1), values(rows * n, 2), values(m * n, 3)));
        each_cpu(|cpu| {
            let mut outs: Vec<Vec<f32>> = inputs.iter().map(|(.., before)| before.clone()).collect();
            let all = inputs.iter().zip(SHAPES).zip(&mut outs);
            let mut sums: Vec<OuterSum<'_>> = all
                .map(|(((left, right, _), (rows, ..)), out)| OuterSum { left, right, rows, scale: 0.5, out })
                .collect();
            outer_sums(cpu, &mut sums);
            for (((left, right, before), (rows, n, m)), out) in inputs.iter().zip(SHAPES).zip(&outs) {
                let at = |i: usize, j: usize| {
                    let sum: f64 = (0..rows).map(|r| f64::from(left[r * m + i]) * f64::from(right[r * n + j])).sum();
                    f64::from(before[i * n + j]) + 0.5 * sum
                };
                let want: Vec<f64> = (0..m).flat_map(|i| (0..n).map(move |j| (i, j))).map(|(i, j)| at(i, j)).collect();
                assert_close(out, &want, 1e-6 * rows as f64 + 1e-6);
                let mut alone = before.clone();
                outer_sums(&Cpu::serial(), &mut [OuterSum { left, right, rows, scale: 0.5, out: &mut alone }]);
                assert_close(&alone, &want, 1e-6 * rows as f64 + 1e-6);
                let mut same = before.clone();
                outer_sums(cpu, &mut [OuterSum { left, right, rows, scale: 0.5, out: &mut same }]);
                assert_same_bits(&same, out);
            }
        });
    }

    #[test]
    #[should_panic(expected = "out is [m, n]")]
    fn sizes_are_checked() {
        let (left, right, out) = (&[0.0; 4], &[0.0; 6], &mut [0.0; 5]);
        outer_sums(&Cpu::serial(), &mut [OuterSum { left, right, rows: 2, scale: 1.0, out }]);
    }
}
