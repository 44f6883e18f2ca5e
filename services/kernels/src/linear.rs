//! `y = x Wᵀ`: dense layers over a batch of rows. Panels of 16 outputs are cut over threads.
//!
//! Each element is one sum over the inputs in order, so a row's bits depend on that row and on the weights alone. With bf16
//! weights the activations are rounded to bf16 on every instruction set and sums are f32. With int8 weights, activations are
//! int8 too: exact sums of 64 products, and an FMA in f32 for each group in order, which gives the same bits on every
//! instruction set.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod blocking;
mod job;
mod portable;
mod short;
mod tile;

use std::ops::Range;

use crate::cpu::Cpu;
use crate::input::Input;
use crate::isa::Isa;
use crate::matrix::{Matrix, Storage};
use crate::split::Split;
pub(crate) use job::{Job, Target};

/// Panels that kernels take at a time where they take several, or a multiple of it: tasks are cut there.
const STEP_PANELS: usize = 3;
/// As above for tiles.
const STEP_PANELS_AMX: usize = 4;
/// Rows of one task at least, where there are not enough panels for all threads.
const TASK_ROWS: usize = 64;
/// Tasks for each thread, so that the last ones end together.
const TASKS_OF_THREAD: usize = 16;
/// As above for so few rows that reading the weights takes the time: long runs of memory are read faster than short ones.
const FEW_ROWS: usize = 16;
const TASKS_OF_THREAD_FEW_ROWS: usize = 4;
/// Products of a task, so that handing it over costs little beside it.
const TASK_PRODUCTS: usize = 1 << 15;

/// `y[r][o] = Σ x[r][i] · w[o][i]`, with `y` `[rows, outputs]`.
///
/// # Panics
/// If sizes do not fit, or the input lacks the form for the weights' storage.
pub fn linear(cpu: &Cpu, x: &Input<'_>, w: &Matrix, y: &mut [f32]) {
    linears(cpu, x, &mut [(w, y)]);
}

/// As [`linear`] for several matrices of the same input, in one region.
pub fn linears(cpu: &Cpu, x: &Input<'_>, products: &mut [(&Matrix, &mut [f32])]) {
    run_all(cpu, x, products, None);
}

/// As [`linear`], added to what `y` holds: `y[r][o] += Σ x[r][i] · w[o][i]`, the sum first.
pub fn linear_add(cpu: &Cpu, x: &Input<'_>, w: &Matrix, y: &mut [f32]) {
    run_all(cpu, x, &mut [(w, y)], Some(1.0));
}

fn run_all(cpu: &Cpu, x: &Input<'_>, products: &mut [(&Matrix, &mut [f32])], add: Option<f32>) {
    if x.rows() == 0 || products.is_empty() {
        return;
    }
    let plans: Vec<Plan<'_>> = products.iter_mut().map(|(w, y)| Plan::new(cpu, x, w, y, add)).collect();
    cpu.each(plans.iter().map(Plan::tasks).sum(), |mut task| {
        for plan in &plans {
            if task < plan.tasks() {
                return plan.run(cpu.isa(), x, task);
            }
            task -= plan.tasks();
        }
    });
}

/// Does a job with the instructions of `isa`.
///
/// # Safety
/// The machine has them. The job's input was prepared for them.
pub(crate) unsafe fn run(isa: Isa, job: &Job<'_>) {
    match (isa, job.storage()) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the machine has the instructions.
        (Isa::Amx, _) => unsafe { amx::run(job) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        (Isa::Avx512Bf16, Storage::Bf16) => unsafe { avx512::run_bf16(job) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        (Isa::Avx512Bf16 | Isa::Avx512, _) => unsafe { avx512::run(job) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        (Isa::Avx2, _) => unsafe { avx2::run(job) },
        _ => portable::run(job),
    }
}

/// How one product is cut into tasks: panels, and rows where panels are few.
struct Plan<'a> {
    w: &'a Matrix,
    y: Split<'a, f32>,
    add: Option<f32>,
    rows: usize,
    task_panels: usize,
    task_rows: usize,
}

impl<'a> Plan<'a> {
    fn new(cpu: &Cpu, x: &Input<'_>, w: &'a Matrix, y: &'a mut [f32], add: Option<f32>) -> Plan<'a> {
        let rows = x.rows();
        assert_eq!(x.width(), w.inputs(), "inputs of the matrix");
        assert_eq!(y.len(), rows * w.outputs(), "y is [rows, outputs]");
        let (panels, depth) = (w.layout().panels, w.layout().depth);
        let tasks = cpu.threads() * if rows <= FEW_ROWS { TASKS_OF_THREAD_FEW_ROWS } else { TASKS_OF_THREAD };
        let worth = TASK_PRODUCTS.div_ceil(rows * depth * 16);
        let step = match (cpu.isa(), rows, w.storage()) {
            (Isa::Amx, ..) => STEP_PANELS_AMX,
            (_, 2..=8, Storage::F32 | Storage::Bf16) => STEP_PANELS,
            _ => 1,
        };
        let task_panels = panels.div_ceil(tasks).max(worth).next_multiple_of(step);
        let row_tasks = tasks.div_ceil(panels.div_ceil(task_panels));
        let task_rows = if cpu.threads() == 1 { rows } else { rows.div_ceil(row_tasks).next_multiple_of(TASK_ROWS) };
        Plan { w, y: Split::new(y), add, rows, task_panels, task_rows }
    }

    fn tasks(&self) -> usize {
        self.w.layout().panels.div_ceil(self.task_panels) * self.rows.div_ceil(self.task_rows)
    }

    fn run(&self, isa: Isa, x: &Input<'_>, task: usize) {
        let row_tasks = self.rows.div_ceil(self.task_rows);
        let rows = part(self.rows, self.task_rows, task % row_tasks);
        let panels = part(self.w.layout().panels, self.task_panels, task / row_tasks);
        let outputs = self.w.outputs();
        let target = Target { y: &self.y, first: 0, stride: outputs, width: outputs, rows: None, add: self.add };
        // SAFETY: the input has these rows and the matrix' depth; tasks do not overlap; the isa is that of a `Cpu`, for
        // which the input was prepared.
        unsafe { run(isa, &Job::new(x.form(isa, self.w.storage()), None, self.w, rows, panels, target)) }
    }
}

/// Part `index` of `0..count` in parts of `size`.
fn part(count: usize, size: usize, index: usize) -> Range<usize> {
    index * size..((index + 1) * size).min(count)
}

#[cfg(test)]
mod tests;
