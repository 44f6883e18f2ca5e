//! The end of the forward and the beginning of the way back: final norm, output layer and loss, for the rows whose next
//! token is learnt and no others, some rows at a time.

use std::borrow::Cow;
use std::ops::Range;

use kernels::{Forms, Input};

use super::batch::PartRows;
use super::memory::Memory;
use super::pass::{Gradients, Pass};
use super::project::{Change, Factors, Hidden};

/// What the tokens of one part cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct PartLoss {
    /// `Σ weight · −ln p`, in nats.
    pub sum: f64,
    /// Σ weight
    pub weight: f64,
    /// Tokens with a weight.
    pub tokens: usize,
}

/// Where the gradients of the loss go: that of the last layer's output `[rows, hidden]`, which is zeros before, and those
/// of the factors, to which it is added.
pub(super) struct Back<'a, 'b> {
    pub hidden: &'a mut [f32],
    pub factors: &'a mut Gradients<'b>,
}

/// Some of the rows that are trained.
struct Tile<'a> {
    /// Which of them.
    trained: Range<usize>,
    /// Changes of the output layer, on rows of the tile.
    changes: Vec<Change<'a>>,
    /// Rows of the last layer's output, and their norm.
    x: Vec<f32>,
    normed: Vec<f32>,
    /// Logits, then their gradient.
    logits: Vec<f32>,
    h: Hidden,
}

impl Pass<'_> {
    /// The loss of each part, from the last layer's output `[rows, hidden]`; with `back`, its gradient.
    pub fn loss(&self, memory: &mut Memory, hidden: &[f32], mut back: Option<Back<'_, '_>>) -> Vec<PartLoss> {
        let (vocab, trained) = (self.model.config().vocab_size, self.batch.trained_rows.len());
        let rows = (self.logits_bytes_max / (vocab * size_of::<f32>())).clamp(1, trained);
        let mut nats = vec![0.0; trained];
        for first in (0..trained).step_by(rows) {
            let rows = first..(first + rows).min(trained);
            let (targets, weights) = (&self.batch.targets[rows.clone()], &self.batch.weights[rows.clone()]);
            let mut tile = self.logits(memory, hidden, rows.clone());
            kernels::cross_entropy_backward(self.cpu, &mut tile.logits, vocab, targets, weights, &mut nats[rows]);
            if let Some(back) = &mut back {
                self.logits_backward(memory, &tile, back);
            }
            [tile.x, tile.normed, tile.logits].into_iter().for_each(|buffer| memory.give(buffer));
        }
        let loss = |part: &PartRows| {
            let rows = part.trained.clone();
            let weighed = self.batch.weights[rows.clone()].iter().zip(&nats[rows.clone()]);
            let sum = weighed.map(|(weight, nats)| f64::from(*weight) * nats).sum();
            PartLoss { sum, weight: part.weight, tokens: rows.len() }
        };
        self.batch.parts.iter().map(loss).collect()
    }

    fn logits(&self, memory: &mut Memory, hidden: &[f32], trained: Range<usize>) -> Tile<'_> {
        let (config, weights) = (self.model.config(), self.model.weights());
        let (width, vocab) = (config.hidden_size, config.vocab_size);
        let rows = &self.batch.trained_rows[trained.clone()];
        let [mut x, mut normed] = [(); 2].map(|()| memory.take(rows.len() * width));
        for (row, x) in rows.iter().zip(x.chunks_exact_mut(width)) {
            x.copy_from_slice(&hidden[row * width..][..width]);
        }
        kernels::rms_norm(self.cpu, &x, &weights.norm, config.rms_norm_eps, &mut normed);
        let mut logits = memory.take(rows.len() * vocab);
        let input = Input::new(self.cpu, &normed, width, self.forms);
        kernels::linear(self.cpu, &input, weights.head(), &mut logits);
        let mut changes = self.changes(|tenant| tenant.sites.head());
        changes.iter_mut().for_each(|change| change.rows = Cow::Owned(self.rows_in(&trained, change.part).collect()));
        changes.retain(|change| !change.rows.is_empty());
        let h = self.add_changes(&changes, &input, vocab, &mut logits);
        Tile { trained, changes, x, normed, logits, h }
    }

    fn logits_backward(&self, memory: &mut Memory, tile: &Tile<'_>, back: &mut Back<'_, '_>) {
        let (config, weights) = (self.model.config(), self.model.weights());
        let Tile { trained, changes, x, normed, logits, h } = tile;
        let [mut d_normed, mut dx] = [(); 2].map(|()| memory.take(x.len()));
        let dy = Input::new(self.cpu, logits, config.vocab_size, Forms::F32);
        kernels::linear(self.cpu, &dy, &self.transposed.head, &mut d_normed);
        let dh = self.changes_backward(changes, &dy, config.hidden_size, &mut d_normed);
        for ((change, (_, h)), (_, dh)) in changes.iter().zip(h).zip(&dh) {
            let site = &self.tenants[change.part].sites.all[change.site];
            let rows = self.rows_in(trained, change.part);
            self.factors_backward(rows, normed, &[Factors { site, h, dh, dy: logits }], back.factors[change.part]);
        }
        dx.fill(0.0);
        kernels::rms_norm_backward(self.cpu, x, &weights.norm, config.rms_norm_eps, &d_normed, &mut dx);
        let width = config.hidden_size;
        for (row, dx) in self.batch.trained_rows[trained.clone()].iter().zip(dx.chunks_exact(width)) {
            back.hidden[row * width..][..width].copy_from_slice(dx);
        }
        [d_normed, dx].into_iter().for_each(|buffer| memory.give(buffer));
    }

    /// Rows of a part in the tile of `trained`, counted from the tile's first.
    fn rows_in(&self, trained: &Range<usize>, part: usize) -> Range<usize> {
        let own = &self.tenants[part].trained;
        let clamp = |row: usize| row.clamp(trained.start, trained.end) - trained.start;
        clamp(own.start)..clamp(own.end)
    }
}
