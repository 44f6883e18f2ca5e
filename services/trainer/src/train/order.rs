//! Which rows a step learns from: each epoch goes through all of the training side, and some of the replay, in an order of
//! its own, and a step takes the next ones until it has its tokens. A function of the seed and the rows alone.

use std::ops::Range;

use engine::train::Sequence;

use crate::lessons::Lessons;

pub struct Order {
    seed: u64,
    /// Of the training side, then of the replay.
    lengths: Vec<usize>,
    own: usize,
    /// Rows of the replay in each epoch.
    replayed: usize,
    step_tokens: usize,
}

impl Order {
    /// `replay_share`: of an epoch's rows, from 0 to below 1.
    pub fn new(seed: u64, lessons: &Lessons, replay_share: f64, step_tokens: usize) -> Self {
        let rows = lessons.train.iter().chain(&lessons.replay);
        let own = lessons.train.len();
        let wanted = (own as f64 * replay_share / (1.0 - replay_share)).round() as usize;
        let replayed = wanted.min(lessons.replay.len());
        Self { seed, lengths: rows.map(|row| row.tokens.len()).collect(), own, replayed, step_tokens }
    }

    /// The rows of each step, from the first one on, without end.
    pub fn steps(&self) -> impl Iterator<Item = Vec<usize>> + '_ {
        let mut walk = (0..).flat_map(|epoch| self.epoch(epoch));
        std::iter::repeat_with(move || {
            let (mut taken, mut tokens) = (Vec::new(), 0);
            while tokens < self.step_tokens.max(1) {
                let Some(row) = walk.next() else { return taken };
                tokens += self.lengths[row];
                taken.push(row);
            }
            taken
        })
    }

    /// A step's rows in passes of at most `tokens_max` tokens.
    pub fn passes(&self, rows: &[usize], tokens_max: usize) -> Vec<Vec<usize>> {
        let lengths: Vec<usize> = rows.iter().map(|row| self.lengths[*row]).collect();
        cut(&lengths, tokens_max).into_iter().map(|pass| rows[pass].to_vec()).collect()
    }

    /// All rows, sorted by a hash of seed, epoch and number: an order that does not depend on how it was made.
    fn epoch(&self, epoch: u64) -> Vec<usize> {
        // The next ones of the replay in each epoch, round and round.
        let all = (self.lengths.len() - self.own).max(1) as u64;
        let first = epoch * self.replayed as u64;
        let replay = (0..self.replayed as u64).map(|next| self.own + ((first + next) % all) as usize);
        let mut rows: Vec<usize> = (0..self.own).chain(replay).collect();
        rows.sort_by_key(|row| (mix(self.seed ^ mix(epoch ^ mix(*row as u64))), *row));
        rows
    }
}

/// Passes over rows in their order.
pub fn in_passes(rows: &[Sequence], tokens_max: usize) -> Vec<Range<usize>> {
    cut(&rows.iter().map(|row| row.tokens.len()).collect::<Vec<_>>(), tokens_max)
}

/// Neighbours together, as long as they fit; each alone fits.
fn cut(lengths: &[usize], most: usize) -> Vec<Range<usize>> {
    let (mut passes, mut start, mut tokens) = (Vec::new(), 0, 0);
    for (at, length) in lengths.iter().enumerate() {
        if tokens + length > most && at > start {
            passes.push(start..at);
            (start, tokens) = (at, 0);
        }
        tokens += length;
    }
    if start < lengths.len() {
        passes.push(start..lengths.len());
    }
    passes
}

/// The finaliser of SplitMix64.
fn mix(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(seed: u64) -> Order {
        let rows = |most: usize| (1..=most).map(|length| Sequence::text(vec![0; length])).collect();
        let lessons = Lessons { train: rows(20), replay: rows(7), validation: Vec::new() };
        Order::new(seed, &lessons, 0.2, 30)
    }

    #[test]
    fn every_epoch_has_every_row_once_and_its_share_of_the_replay_in_another_order() {
        let order = order(7);
        let [first, second] = [0, 1].map(|epoch| order.epoch(epoch));
        for (epoch, replay) in [(&first, [20, 21, 22, 23, 24]), (&second, [20, 21, 22, 25, 26])] {
            let mut sorted = epoch.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..20).chain(replay).collect::<Vec<_>>());
        }
        assert_ne!(first, second);
        let walked: Vec<_> = order.steps().take(5).flatten().collect();
        assert_eq!(walked, first.iter().chain(&second).copied().take(walked.len()).collect::<Vec<_>>());
    }

    #[test]
    fn a_step_has_its_tokens_and_no_pass_has_more_than_fit() {
        let order = order(1);
        for rows in order.steps().take(39) {
            let passes = order.passes(&rows, 25);
            let tokens = |rows: &[usize]| rows.iter().map(|row| order.lengths[*row]).sum::<usize>();
            assert!(passes.iter().all(|pass| !pass.is_empty() && tokens(pass) <= 25), "{passes:?}");
            assert!(passes.iter().map(|pass| tokens(pass)).sum::<usize>() >= 30);
            assert_eq!(passes.concat(), rows);
        }
        assert_ne!(order.steps().next(), super::tests::order(2).steps().next());
    }
}
