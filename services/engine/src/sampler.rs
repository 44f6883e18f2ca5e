//! From logits to the next token. A draw is a function of (seed, position) and of the logits alone, so neither the batch
//! nor a preemption changes it. Nothing here knows text or stop conditions.

mod mask;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use domain::Sampling;
use kernels::{all_finite, argmax, exp_weights, log_sum_exp, top_k};

use crate::philox;
pub use mask::TokenMask;

/// Chooses the tokens of one sequence.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    /// How many alternatives to report; `None`: no log-probabilities at all.
    logprobs: Option<u32>,
    /// Tokens of the prompt; kept only where the repetition penalty needs them.
    prompt: HashSet<u32>,
    /// How often each token is in the answer.
    answer: HashMap<u32, u32>,
}

/// Where in an answer a token is chosen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place<'a> {
    /// Counted from the start of the prompt.
    pub position: usize,
    /// Tokens before it that have not been accepted yet.
    pub ahead: &'a [u32],
    /// `None`: any token may come.
    pub allowed: Option<&'a TokenMask>,
}

/// One chosen token.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    pub id: u32,
    /// Natural logarithm of its probability before penalties, temperature and filters.
    pub logprob: Option<f32>,
    /// The most likely tokens with theirs, most likely first, the lower id first among equals.
    pub top: Vec<(u32, f32)>,
}

/// A logit is NaN or infinite: the model or the adapter is broken for this input.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the model gave a logit that is not a finite number")]
pub struct NonFinite;

impl Sampler {
    pub fn new(sampling: Sampling, logprobs: Option<u32>, prompt: &[u32]) -> Self {
        let prompt = if sampling.repetition_penalty == 1.0 { HashSet::new() } else { prompt.iter().copied().collect() };
        Self { sampling, logprobs, prompt, answer: HashMap::new() }
    }

    /// Chooses the token at `position` (counted from the start of the prompt) from `[vocab]` logits.
    pub fn choose(&self, logits: &[f32], position: usize) -> Result<Sampled, NonFinite> {
        self.choose_at(&Place { position, ..Place::default() }, logits)
    }

    /// As [`Sampler::choose`], with all that may matter at a place. Log-probabilities are those without the mask.
    pub fn choose_at(&self, place: &Place<'_>, logits: &[f32]) -> Result<Sampled, NonFinite> {
        let best = argmax(logits).ok_or(NonFinite)?;
        let mut changed = self.penalised(place.ahead, logits);
        if let Some(allowed) = place.allowed {
            allowed.apply(changed.get_or_insert_with(|| logits.to_vec()));
        }
        let id = match changed {
            Some(changed) => self.pick(&changed, likeliest(&changed), place.position),
            None => self.pick(logits, best, place.position),
        };
        let Some(wanted) = self.logprobs else { return Ok(Sampled { id, logprob: None, top: Vec::new() }) };
        let total = log_sum_exp(logits);
        let logprob = |id: u32| (f64::from(logits[id as usize]) - total) as f32;
        let top = top_k(logits, wanted as usize).into_iter().map(|id| (id, logprob(id))).collect();
        Ok(Sampled { id, logprob: Some(logprob(id)), top })
    }

    /// The token joins the answer.
    pub fn accept(&mut self, id: u32) {
        *self.answer.entry(id).or_default() += 1;
    }

    /// The logits with penalties, if any applies: repetition as `transformers` has it (Keskar et al. 2019, over prompt and
    /// answer), then presence and frequency as in the OpenAI API (over the answer).
    fn penalised(&self, ahead: &[u32], logits: &[f32]) -> Option<Vec<f32>> {
        let Sampling { repetition_penalty, presence_penalty, frequency_penalty, .. } = self.sampling;
        if repetition_penalty == 1.0 && presence_penalty == 0.0 && frequency_penalty == 0.0 {
            return None;
        }
        let mut changed = logits.to_vec();
        let mut answer = Cow::Borrowed(&self.answer);
        ahead.iter().for_each(|id| *answer.to_mut().entry(*id).or_default() += 1);
        let only_in_prompt = self.prompt.iter().filter(|id| !answer.contains_key(id));
        for id in answer.keys().chain(only_in_prompt) {
            let Some(logit) = changed.get_mut(*id as usize) else { continue };
            *logit = if *logit > 0.0 { *logit / repetition_penalty } else { *logit * repetition_penalty };
        }
        for (id, count) in &*answer {
            let Some(logit) = changed.get_mut(*id as usize) else { continue };
            *logit -= frequency_penalty * *count as f32 + presence_penalty;
        }
        Some(changed)
    }

    /// `best` is the place of the largest logit.
    fn pick(&self, logits: &[f32], best: usize, position: usize) -> u32 {
        if self.sampling.temperature == 0.0 {
            return best as u32;
        }
        draw(&self.candidates(logits, logits[best]), philox::uniform(self.sampling.seed, position as u64))
    }

    /// Ids with their weights: `exp` of the logit over the temperature, then `top_k`, `top_p`, `min_p` in the order of
    /// `transformers`. In descending order where `top_k` or `top_p` asks for it, else by id.
    fn candidates(&self, logits: &[f32], best: f32) -> Vec<(u32, f64)> {
        let Sampling { temperature, top_k: k, top_p, min_p, .. } = self.sampling;
        let mut weights = Vec::new();
        let mut candidates: Vec<_> = if k > 0 && (k as usize) < logits.len() {
            let ids = top_k(logits, k as usize);
            let kept: Vec<f32> = ids.iter().map(|id| logits[*id as usize]).collect();
            exp_weights(&kept, best, temperature, &mut weights);
            ids.into_iter().zip(weights).collect()
        } else {
            exp_weights(logits, best, temperature, &mut weights);
            (0..).zip(weights).collect()
        };
        if top_p < 1.0 {
            keep_top_p(&mut candidates, f64::from(top_p));
        }
        // The most likely weight is 1; what a mask forbids has none.
        candidates.retain(|(_, weight)| *weight > 0.0 && *weight >= f64::from(min_p));
        candidates
    }
}

/// Natural logarithm of the probability of `id` under `[vocab]` logits.
pub fn log_probability(logits: &[f32], id: u32) -> Result<f32, NonFinite> {
    if !all_finite(logits) {
        return Err(NonFinite);
    }
    logits.get(id as usize).map(|logit| (f64::from(*logit) - log_sum_exp(logits)) as f32).ok_or(NonFinite)
}

/// Place of the largest logit, the lowest among equals. Penalties may have made one infinite.
fn likeliest(logits: &[f32]) -> usize {
    argmax(logits).unwrap_or_else(|| top_k(logits, 1).first().map_or(0, |id| *id as usize))
}

/// Keeps the smallest set of tokens whose probability reaches `top_p`; at least one.
fn keep_top_p(candidates: &mut Vec<(u32, f64)>, top_p: f64) {
    let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
    // Tokens so unlikely that all of them together stay outside need not be sorted.
    let negligible = total * (1.0 - top_p) / candidates.len() as f64;
    candidates.retain(|(_, weight)| *weight >= negligible);
    candidates.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let mut sum = 0.0;
    let reached = candidates.iter().position(|(_, weight)| {
        sum += weight;
        sum >= total * top_p
    });
    candidates.truncate(reached.map_or(candidates.len(), |last| last + 1).max(1));
}

/// Inverse of the cumulative distribution at `uniform` in 0..1.
fn draw(candidates: &[(u32, f64)], uniform: f64) -> u32 {
    let target = uniform * candidates.iter().map(|(_, weight)| weight).sum::<f64>();
    let mut sum = 0.0;
    let hit = candidates.iter().find(|(_, weight)| {
        sum += weight;
        sum > target
    });
    hit.or(candidates.last()).map_or(0, |(id, _)| *id)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sampler(sampling: Sampling) -> Sampler {
        Sampler::new(sampling, None, &[])
    }

    /// Share of each id over many positions.
    fn shares(sampler: &Sampler, logits: &[f32]) -> Vec<f64> {
        let draws = 20_000;
        let mut counts = vec![0.0; logits.len()];
        for position in 0..draws {
            counts[sampler.choose(logits, position).unwrap().id as usize] += 1.0 / draws as f64;
        }
        counts
    }

    fn assert_near(shares: &[f64], expected: &[f64]) {
        // Five standard deviations of the most uncertain share.
        let near = shares.iter().zip(expected).all(|(a, b)| (a - b).abs() < 0.018 && (*b != 0.0 || *a == 0.0));
        assert!(near, "{shares:?} is not {expected:?}");
    }

    /// Logits of these probabilities.
    fn logits_of(probabilities: &[f32]) -> Vec<f32> {
        probabilities.iter().map(|p| p.ln() + 3.0).collect()
    }

    #[test]
    fn greedy_takes_the_lowest_id_among_equals() {
        let greedy = sampler(Sampling::greedy());
        assert_eq!(greedy.choose(&[1.0, 5.0, 5.0, -2.0], 0).unwrap().id, 1);
        assert_eq!(greedy.choose(&[-0.0, 0.0], 0).unwrap().id, 0);
    }

    #[test]
    fn draws_follow_the_distribution() {
        let probabilities = [0.5, 0.3, 0.15, 0.05];
        let logits = logits_of(&probabilities);
        let drawn = |change: Sampling| shares(&sampler(change), &logits);
        let base = Sampling { seed: 7, ..Sampling::default() };
        assert_near(&drawn(base), &[0.5, 0.3, 0.15, 0.05]);
        assert_near(&drawn(Sampling { top_k: 2, ..base }), &[0.625, 0.375, 0.0, 0.0]);
        assert_near(&drawn(Sampling { top_p: 0.81, ..base }), &[0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0.0]);
        assert_near(&drawn(Sampling { top_p: 1e-6, ..base }), &[1.0, 0.0, 0.0, 0.0]);
        assert_near(&drawn(Sampling { min_p: 0.5, ..base }), &[0.625, 0.375, 0.0, 0.0]);
        let squared: f64 = probabilities.iter().map(|p| f64::from(p * p)).sum();
        let halved: Vec<_> = probabilities.iter().map(|p| f64::from(p * p) / squared).collect();
        assert_near(&drawn(Sampling { temperature: 0.5, ..base }), &halved);
        // top_p counts what top_k has left.
        assert_near(&drawn(Sampling { top_k: 2, top_p: 0.6, ..base }), &[1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn the_seed_and_the_position_decide_and_nothing_else() {
        let logits = logits_of(&[0.25; 4]);
        let draws = |seed| -> Vec<u32> {
            let sampler = sampler(Sampling { seed, ..Sampling::default() });
            (0..64).map(|position| sampler.choose(&logits, position).unwrap().id).collect()
        };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
        let later = sampler(Sampling { seed: 1, ..Sampling::default() });
        assert_eq!(later.choose(&logits, 40).unwrap().id, draws(1)[40]);
    }

    #[test]
    fn repetition_counts_the_prompt_and_presence_and_frequency_only_the_answer() {
        let logits = [2.0, -2.0, 2.0, 2.0];
        let mut repetition =
            Sampler::new(Sampling { repetition_penalty: 2.0, ..Sampling::greedy() }, None, &[0, 1, 0, 900]);
        repetition.accept(2);
        assert_eq!(repetition.penalised(&[], &logits).unwrap(), [1.0, -4.0, 1.0, 2.0]);
        let counted = Sampling { presence_penalty: 0.5, frequency_penalty: 0.25, ..Sampling::greedy() };
        let mut answer = Sampler::new(counted, None, &[0, 1]);
        answer.accept(2);
        answer.accept(3);
        assert_eq!(answer.penalised(&[3], &logits).unwrap(), [2.0, -2.0, 1.25, 1.0]);
        answer.accept(3);
        assert_eq!(answer.penalised(&[], &logits).unwrap(), [2.0, -2.0, 1.25, 1.0]);
    }

    #[test]
    fn log_probabilities_are_those_before_temperature_and_filters() {
        let sampling = Sampling { temperature: 9.0, top_k: 1, presence_penalty: 1.0, ..Sampling::default() };
        let mut sampler = Sampler::new(sampling, Some(2), &[]);
        sampler.accept(0);
        let sampled = sampler.choose(&logits_of(&[0.5, 0.25, 0.25]), 0).unwrap();
        // 0.5 under a penalty of 1 falls behind 0.25; the report is of the distribution without it.
        assert_eq!(sampled.id, 1);
        assert!((sampled.logprob.unwrap() - 0.25f32.ln()).abs() < 1e-6);
        assert_eq!(sampled.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [0, 1]);
        for (id, logprob) in sampled.top {
            assert!((logprob - [0.5f32, 0.25][id as usize].ln()).abs() < 1e-6);
        }
        assert!((log_probability(&logits_of(&[0.5, 0.5]), 1).unwrap() - 0.5f32.ln()).abs() < 1e-6);
    }

    #[test]
    fn a_logit_that_is_no_number_is_an_error() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(sampler(Sampling::greedy()).choose(&[0.0, bad], 0), Err(NonFinite));
            assert_eq!(log_probability(&[0.0, bad], 0), Err(NonFinite));
        }
    }

    proptest! {
        #[test]
        fn a_drawn_token_passes_every_filter(
            logits in prop::collection::vec(-8f32..8.0, 1..40),
            temperature in 0.05f32..3.0, top_k in 0u32..10, top_p in 0.01f32..=1.0, min_p in 0f32..=1.0, seed: u64,
        ) {
            let sampling = Sampling { temperature, top_k, top_p, min_p, seed, ..Sampling::default() };
            let id = sampler(sampling).choose(&logits, 3).unwrap().id;
            let weights: Vec<f64> = logits.iter().map(|l| (f64::from(*l) / f64::from(temperature)).exp()).collect();
            let own = weights[id as usize];
            let above: Vec<f64> = weights.iter().copied().filter(|w| *w > own).collect();
            let best = weights.iter().copied().fold(0.0, f64::max);
            prop_assert!(top_k == 0 || above.len() < top_k as usize);
            prop_assert!(own >= best * f64::from(min_p) * (1.0 - 1e-9));
            prop_assert!(above.iter().sum::<f64>() <= weights.iter().sum::<f64>() * f64::from(top_p) * (1.0 + 1e-9));
        }
    }
}
