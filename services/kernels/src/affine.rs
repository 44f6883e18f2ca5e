//! What follows a product, one row at a time: a bias, a gain for each output.

/// Adds `bias` `[outputs]` to one row.
pub fn add_bias(row: &mut [f32], bias: &[f32]) {
    assert_eq!(row.len(), bias.len(), "a bias and its row");
    for (value, bias) in row.iter_mut().zip(bias) {
        *value += bias;
    }
}

/// Multiplies one row by `gain` `[outputs]`: the magnitude of DoRA.
pub fn scale_row(row: &mut [f32], gain: &[f32]) {
    assert_eq!(row.len(), gain.len(), "a gain and its row");
    for (value, gain) in row.iter_mut().zip(gain) {
        *value *= gain;
    }
}
