//! Medians and percentiles of measured times.

/// Values in ascending order, kept to be asked several times.
#[derive(Clone, Debug, Default)]
pub struct Sorted(Vec<f64>);

impl Sorted {
    pub fn new(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    /// By the nearest rank: the smallest value that at least this share (0 to 1) of the values does not exceed. None
    /// of no values.
    pub fn at(&self, share: f64) -> Option<f64> {
        let rank = (share * self.0.len() as f64).ceil().max(1.0) as usize;
        self.0.get(rank.min(self.0.len()).checked_sub(1)?).copied()
    }

    /// The middle value; of an even number, the mean of the two in the middle.
    pub fn median(&self) -> Option<f64> {
        let (low, high) = (self.0.len().checked_sub(1)? / 2, self.0.len() / 2);
        Some(f64::midpoint(self.0[low], self.0[high]))
    }

    pub fn best(&self) -> Option<f64> {
        self.0.last().copied()
    }

    pub const fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let hundred = Sorted::new((1..=100).rev().map(f64::from));
        assert_eq!(hundred.at(0.5), Some(50.0));
        assert_eq!(hundred.at(0.95), Some(95.0));
        assert_eq!(hundred.at(0.99), Some(99.0));
        assert_eq!(hundred.at(0.991), Some(100.0));
        assert_eq!((hundred.at(0.0), hundred.at(1.0), hundred.best()), (Some(1.0), Some(100.0), Some(100.0)));
        let three = Sorted::new([3.0, 1.0, 2.0]);
        assert_eq!((three.at(0.5), three.at(0.95), three.len()), (Some(2.0), Some(3.0), 3));
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_two() {
        assert_eq!(Sorted::new([4.0, 1.0, 3.0, 2.0]).median(), Some(2.5));
        assert_eq!(Sorted::new([9.0, 1.0, 3.0]).median(), Some(3.0));
    }

    #[test]
    fn of_nothing_there_is_none() {
        let nothing = Sorted::default();
        assert_eq!((nothing.at(0.5), nothing.median(), nothing.best()), (None, None, None));
    }
}
