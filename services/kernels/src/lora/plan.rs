//! The tasks of the two regions, and the rows of `h` between them.

use std::ops::Range;

use super::{Lora, LoraSite};
use crate::cpu::Cpu;
use crate::input::{FormRows, Group, Input, Line, as_bytes, bf16_bytes, prepare_bf16_row, prepare_int8_row, reserve};
use crate::isa::Isa;
use crate::linear::{self, Job, Target};
use crate::matrix::{PANEL, Storage, depth, inputs_of_line};
use crate::split::Split;

/// Inputs of one block of the sum `A x`. Part of the result's definition; a multiple of the inputs of every line.
const SHRINK_INPUTS: usize = 1024;
/// Rows of one task of the first region.
const SHRINK_ROWS: usize = 64;
/// From so many rows on, a task of the first region takes all panels of A.
const SHRINK_ALL_PANELS: usize = 16;
/// Bytes of B in one task of the second region …
const EXPAND_BYTES: usize = 64 << 10;
/// … or fewer, if that makes so many products.
const EXPAND_PRODUCTS: usize = 1 << 19;
/// Panels that the best kernels take at a time.
const STEP_PANELS: usize = 3;

/// All groups of all sites.
pub struct Plan<'a> {
    /// Where the results of each site go.
    sites: Vec<Split<'a, f32>>,
    items: Vec<Item<'a>>,
}

/// One group of one site.
struct Item<'a> {
    rows: &'a [usize],
    lora: &'a Lora,
    site: usize,
    /// Its tasks in each region.
    shrink: Range<usize>,
    expand: Range<usize>,
    /// Panels of one task in each region.
    shrink_panels: usize,
    expand_panels: usize,
    /// Its partial sums `[blocks, rows, padded rank]`, of those of all items.
    partial: Range<usize>,
    /// Bytes of its rows of `h` `[rows, depth of B]`, of those of all items.
    hidden: Range<usize>,
    /// The groups of these rows if B is int8 `[rows, groups of B]`, of those of all items.
    groups: Range<usize>,
}

/// Rows of `h` of all items, in the forms that products with their B read.
pub struct Hidden {
    lines: Vec<Line>,
    groups: Vec<Group>,
}

impl<'a> Plan<'a> {
    /// Nothing if no row has a change.
    pub fn new(isa: Isa, x: &Input<'_>, sites: &'a mut [LoraSite<'_>]) -> Option<Plan<'a>> {
        let mut plan = Plan { sites: Vec::with_capacity(sites.len()), items: Vec::new() };
        let mut taken = vec![false; x.rows()];
        for (site, LoraSite { groups, outputs, y }) in sites.iter_mut().enumerate() {
            assert_eq!(y.len(), x.rows() * *outputs, "y is [rows, outputs]");
            plan.sites.push(Split::new(y));
            taken.fill(false);
            for group in groups.iter().filter(|group| !group.rows.is_empty()) {
                assert_eq!(group.lora.a.inputs(), x.width(), "inputs of a change");
                assert_eq!(group.lora.b.outputs(), *outputs, "outputs of a change");
                for row in group.rows {
                    assert!(!std::mem::replace(&mut taken[*row], true), "row {row} is in two groups of a site");
                }
                let item = Item::after(plan.items.last(), isa, site, group.rows, group.lora);
                plan.items.push(item);
            }
        }
        (!plan.items.is_empty()).then_some(plan)
    }

    /// Every `A x`: partial sums over blocks of inputs, of all items.
    pub fn shrink(&self, cpu: &Cpu, x: &Input<'_>) -> Vec<f32> {
        let mut partial = vec![0.0; self.last().partial.end];
        let split = Split::new(&mut partial);
        cpu.each(self.last().shrink.end, |task| {
            let item = &self.items[self.items.partition_point(|item| item.shrink.end <= task)];
            item.shrink(cpu.isa(), x, &split, task - item.shrink.start);
        });
        partial
    }

    /// From the partial sums to rows of `h`.
    pub fn hidden(&self, isa: Isa, partial: &[f32]) -> Hidden {
        let mut hidden = Hidden { lines: Vec::new(), groups: vec![Group::default(); self.last().groups.end] };
        let bytes = reserve(&mut hidden.lines, 1, self.last().hidden.end);
        for item in &self.items {
            let (bytes, groups) = (&mut bytes[item.hidden.clone()], &mut hidden.groups[item.groups.clone()]);
            item.hidden(isa, &partial[item.partial.clone()], bytes, groups);
        }
        hidden
    }

    /// Every `y += scale · B h`.
    pub fn expand(&self, cpu: &Cpu, hidden: &Hidden) {
        let bytes = as_bytes(&hidden.lines);
        cpu.each(self.last().expand.end, |task| {
            let item = &self.items[self.items.partition_point(|item| item.expand.end <= task)];
            let stride = hidden_stride(cpu.isa(), item.lora);
            let data = bytes[item.hidden.clone()].as_ptr();
            let h = FormRows { data, stride, groups: &hidden.groups[item.groups.clone()] };
            item.expand(cpu.isa(), h, &self.sites[item.site], task - item.expand.start);
        });
    }

    /// Rows of `h` of each item, where every B is in f32.
    pub fn hidden_f32(&self, hidden: &Hidden) -> Vec<Vec<f32>> {
        let bytes = as_bytes(&hidden.lines);
        let values = |item: &Item<'_>| {
            let words = bytes[item.hidden.clone()].as_chunks::<4>().0;
            words.iter().map(|word| f32::from_ne_bytes(*word)).collect()
        };
        self.items.iter().map(values).collect()
    }

    fn last(&self) -> &Item<'a> {
        self.items.last().expect("a plan has items")
    }
}

impl<'a> Item<'a> {
    fn after(last: Option<&Item<'_>>, isa: Isa, site: usize, rows: &'a [usize], lora: &'a Lora) -> Item<'a> {
        let end = |of: fn(&Item<'_>) -> usize| last.map_or(0, of);
        let from = |start: usize, len: usize| start..start + len;
        let (a, b) = (lora.a.layout(), lora.b.layout());
        let shrink_panels = if rows.len() < SHRINK_ALL_PANELS { 1 } else { a.panels };
        let by_bytes = EXPAND_BYTES / b.panel_bytes();
        let by_products = EXPAND_PRODUCTS / (rows.len() * PANEL * b.depth);
        let expand_panels = by_bytes.min(by_products).next_multiple_of(STEP_PANELS).max(STEP_PANELS);
        let shrink_tasks = blocks(lora) * rows.len().div_ceil(SHRINK_ROWS) * a.panels.div_ceil(shrink_panels);
        Item {
            rows,
            lora,
            site,
            shrink: from(end(|item| item.shrink.end), shrink_tasks),
            expand: from(end(|item| item.expand.end), b.panels.div_ceil(expand_panels)),
            shrink_panels,
            expand_panels,
            partial: from(end(|item| item.partial.end), blocks(lora) * rows.len() * a.panels * PANEL),
            hidden: from(end(|item| item.hidden.end), rows.len() * hidden_stride(isa, lora)),
            groups: from(end(|item| item.groups.end), rows.len() * hidden_groups(lora)),
        }
    }

    fn shrink(&self, isa: Isa, x: &Input<'_>, partial: &Split<'_, f32>, task: usize) {
        let a = &self.lora.a;
        let row_parts = self.rows.len().div_ceil(SHRINK_ROWS);
        let panel_parts = a.layout().panels.div_ceil(self.shrink_panels);
        let rows = part(self.rows.len(), SHRINK_ROWS, task % row_parts);
        let panels = part(a.layout().panels, self.shrink_panels, task / row_parts % panel_parts);
        let block = task / row_parts / panel_parts;
        let stride = a.layout().panels * PANEL;
        let block_len = self.rows.len() * stride;
        let first = self.partial.start + block * block_len;
        let target = Target { y: partial, first, stride, width: stride, rows: None, add: None };
        // SAFETY: the rows were checked by `Plan::new`; each task has its own block, rows and panels; the input was prepared
        // for `isa`, which is that of a `Cpu`.
        unsafe {
            let mut job = Job::new(x.form(isa, a.storage()), Some(self.rows), a, rows, panels, target);
            job.lines = part(a.layout().lines(), SHRINK_INPUTS / inputs_of_line(a.storage()), block);
            linear::run(isa, &job);
        }
    }

    /// Adds the blocks up, in order, and rounds or quantises.
    fn hidden(&self, isa: Isa, partial: &[f32], out: &mut [u8], groups: &mut [Group]) {
        let (rank, stride) = (self.lora.rank(), self.lora.a.layout().panels * PANEL);
        let (first, others) = partial.split_at(self.rows.len() * stride);
        let mut h = vec![0.0; rank];
        for (row, out) in out.chunks_exact_mut(hidden_stride(isa, self.lora)).enumerate() {
            h.copy_from_slice(&first[row * stride..][..rank]);
            for block in others.chunks_exact(self.rows.len() * stride) {
                for (h, value) in h.iter_mut().zip(&block[row * stride..]) {
                    *h += value;
                }
            }
            match self.lora.b.storage() {
                Storage::F32 => {
                    for (out, h) in out.as_chunks_mut::<4>().0.iter_mut().zip(&h) {
                        *out = h.to_ne_bytes();
                    }
                }
                Storage::Bf16 => prepare_bf16_row(isa, &h, out),
                Storage::Int8 => {
                    let count = hidden_groups(self.lora);
                    prepare_int8_row(isa, &h, out, &mut groups[row * count..][..count]);
                }
            }
        }
    }

    fn expand(&self, isa: Isa, h: FormRows<'_>, y: &Split<'_, f32>, task: usize) {
        let b = &self.lora.b;
        let panels = part(b.layout().panels, self.expand_panels, task);
        let (outputs, add) = (b.outputs(), Some(self.lora.scale));
        let target = Target { y, first: 0, stride: outputs, width: outputs, rows: Some(self.rows), add };
        // SAFETY: `h` has a row of B's depth for each row of the group; groups of a site have no row in common
        // (`Plan::new`), and each task has its own panels.
        unsafe { linear::run(isa, &Job::new(h, None, b, 0..self.rows.len(), panels, target)) }
    }
}

/// Blocks of the sum `A x`.
fn blocks(lora: &Lora) -> usize {
    lora.a.layout().depth.div_ceil(SHRINK_INPUTS)
}

/// Bytes of a row of `h`.
fn hidden_stride(isa: Isa, lora: &Lora) -> usize {
    let storage = lora.b.storage();
    let bytes = match storage {
        Storage::F32 => 4,
        Storage::Bf16 => bf16_bytes(isa),
        Storage::Int8 => 1,
    };
    bytes * depth(storage, lora.rank())
}

/// Groups of a row of `h`, of int8.
fn hidden_groups(lora: &Lora) -> usize {
    if lora.b.storage() == Storage::Int8 { lora.b.layout().groups() } else { 0 }
}

/// Part `index` of `0..count` in parts of `size`.
fn part(count: usize, size: usize, index: usize) -> Range<usize> {
    index * size..((index + 1) * size).min(count)
}
