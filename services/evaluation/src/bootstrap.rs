//! Intervals by drawing the items again (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13:
//! percentiles). Both systems of a comparison are measured on the same draw, so that what an item adds to both cancels.

use serde::{Deserialize, Serialize};

/// Between which values a figure lies with the confidence that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// On the items themselves.
    pub estimate: f64,
    pub low: f64,
    pub high: f64,
}

/// How intervals are made. The same items, settings and seed give the same interval on every machine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bootstrap {
    pub draws: u32,
    /// Two-sided, above 0 and below 1.
    pub confidence: f64,
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { draws: 10_000, confidence: 0.95, seed: 1 }
    }
}

impl Bootstrap {
    /// `figure`: of a draw of `items` items, by their numbers.
    pub(crate) fn interval(&self, items: usize, figure: impl Fn(&[usize]) -> f64) -> Interval {
        let mut draw: Vec<usize> = (0..items).collect();
        let estimate = figure(&draw);
        let mut random = SplitMix(self.seed);
        let mut figures: Vec<f64> = (0..self.draws)
            .map(|_| {
                draw.iter_mut().for_each(|item| *item = random.below(items));
                figure(&draw)
            })
            .collect();
        figures.sort_by(f64::total_cmp);
        let tail = (1.0 - self.confidence) / 2.0;
        Interval { estimate, low: quantile(&figures, tail), high: quantile(&figures, 1.0 - tail) }
    }
}

/// Linear between its neighbours ("type 7" of Hyndman and Fan 1996, as NumPy's default).
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = share * last as f64;
    let (below, above) = (at.floor() as usize, at.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * (at - at.floor())
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Lemire's multiplication; its bias is below 2⁻³² for any suite that fits into memory.
    fn below(&mut self, most: usize) -> usize {
        ((u128::from(self.next()) * most as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(values: &[f64]) -> impl Fn(&[usize]) -> f64 {
        |draw| draw.iter().map(|item| values[*item]).sum::<f64>() / draw.len() as f64
    }

    #[test]
    fn splitmix_is_the_published_one() {
        let mut random = SplitMix(1_234_567);
        assert_eq!([random.next(), random.next()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }

    #[test]
    fn quantiles_are_numpys() {
        let sorted = [1.0, 2.0, 4.0, 8.0];
        assert_eq!([0.0, 0.5, 0.75, 1.0].map(|share| quantile(&sorted, share)), [1.0, 3.0, 5.0, 8.0]);
    }

    /// A mean of n coins has a known spread: the interval is as wide as the normal one, within a tenth.
    #[test]
    fn the_interval_of_a_mean_is_as_wide_as_theory_says() {
        let coins: Vec<f64> = (0..400).map(|number| f64::from(u8::from(number % 4 == 0))).collect();
        let interval = Bootstrap::default().interval(400, mean(&coins));
        let wide = 2.0 * 1.96 * (0.25_f64 * 0.75 / 400.0).sqrt();
        assert_eq!(interval.estimate, 0.25);
        assert!(((interval.high - interval.low) / wide - 1.0).abs() < 0.1, "{interval:?} against {wide}");
        assert!(interval.low < 0.25 && 0.25 < interval.high);
        assert_eq!(interval, Bootstrap::default().interval(400, mean(&coins)), "the same seed, the same interval");
    }

    /// What an interval of 95 % claims: it holds the truth in about 95 of 100 cases.
    #[test]
    fn the_interval_holds_the_truth_as_often_as_it_says() {
        let mut random = SplitMix(7);
        let settings = Bootstrap { draws: 400, ..Bootstrap::default() };
        let holds = (0..300).filter(|case| {
            let coins: Vec<f64> = (0..120).map(|_| f64::from(u8::from(random.below(10) < 4))).collect();
            let interval = Bootstrap { seed: *case, ..settings }.interval(coins.len(), mean(&coins));
            interval.low <= 0.4 && 0.4 <= interval.high
        });
        let share = holds.count() as f64 / 300.0;
        assert!((0.90..=0.99).contains(&share), "{share}");
    }
}
