//! What tokens cost, in integers.

/// Micro-units of currency for a million tokens of each kind. 0 is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Price {
    pub input: u64,
    /// Prompt tokens that came from the prefix cache.
    pub cached_input: u64,
    pub output: u64,
}

/// Prices are for so many tokens.
const TOKENS: u128 = 1_000_000;

impl Price {
    /// Micro-units of currency, rounded up once at the end. `cached` are those of the prompt's tokens that came from the
    /// prefix cache. What no `u64` holds is the largest one.
    pub fn cost(&self, prompt: u64, cached: u64, completion: u64) -> u64 {
        let cached = cached.min(prompt);
        let parts = [(prompt - cached, self.input), (cached, self.cached_input), (completion, self.output)];
        let sum = parts
            .into_iter()
            .fold(0_u128, |sum, (tokens, price)| sum.saturating_add(u128::from(tokens) * u128::from(price)));
        u64::try_from(sum.div_ceil(TOKENS)).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_rounded_up_once_and_counts_each_kind_at_its_own_price() {
        let price = Price { input: 150_000, cached_input: 15_000, output: 600_000 };
        assert_eq!(price.cost(1_000_000, 0, 0), 150_000);
        assert_eq!(price.cost(1_000_000, 1_000_000, 0), 15_000);
        // 0.15 + 0.6 of a micro-unit: one, not two.
        assert_eq!(price.cost(1, 0, 1), 1);
        assert_eq!(price.cost(0, 0, 0), 0);
        assert_eq!(price.cost(10, 20, 0), price.cost(10, 10, 0), "no more is cached than there is");
        assert_eq!(Price::default().cost(u64::MAX, 0, u64::MAX), 0);
        assert_eq!(Price { input: u64::MAX, ..price }.cost(u64::MAX, 0, u64::MAX), u64::MAX);
    }
}
